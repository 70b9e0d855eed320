"""The command lines of an advice, with the names that were given."""

from __future__ import annotations

from shlex import join

from scumble.verbs.advise_need import LEARN, Need

__all__ = ["commands", "is_painted"]


def commands(method: str, need: Need) -> list[str]:
    """Exact command lines, with the names that were given."""
    named = f"{need.word} {need.noun}"
    model = [] if need.toybox else ["--model", "MODEL"]
    if method in LEARN:
        return _learning(method, need, named, model)
    if need.is_film:
        return _filming(need, model)
    mask = ["--mask", "mask.png"] if need.mask else []
    if method == "instruct":
        editor = [] if need.toybox else ["--model", "EDITING_MODEL"]
        told = need.instruction or ("make it a watercolour" if need.want == "style" else "make it night")
        return [_line("edit", "instruct", need.file, told, *mask, *editor, "-o", "out.png")]
    if method == "text2live":
        return [_line("edit", "text2live", need.file, *_told(need), *mask, "-o", "out.png")]
    told = ["--prompt", need.prompt] if need.prompt else []
    if need.want == "local":
        painted = ["painted.png", "--original", need.file]
        return [_line("edit", "sdedit", *painted, *mask, *told, "--t0", "0.45", *model, "-o", "out.png")]
    return [_line("edit", "sdedit", need.file, *mask, *told, *_t0(need), *model, "-o", "out.png")]


def _filming(need: Need, model: list[str]) -> list[str]:
    """An atlas, and the edit of the clip by it: from words, or from paint on one of its sheets."""
    lines = [_line("atlas", need.file, "--mask", "first-frame.png", "-o", "atlas.safetensors")]
    edit = ("edit", "text2live", need.file, "--atlas", "atlas.safetensors")
    layer = ["--layer", "background"] if need.want == "whole" else []
    if need.want == "strokes":
        told = ["--prompt", need.prompt] if need.prompt else []
        lines.append(_line("edit", "sdedit", "painted.png", *told, *_t0(need), *model, "-o", "natural.png"))
        how = ["--painted", "natural.png"]
    else:
        how = ["--painted", "painted.png"] if is_painted(need) else _told(need)
    return [*lines, _line(*edit, *how, *layer, "-o", "out.mp4")]


def is_painted(need: Need) -> bool:
    """Whether a change is shown by paint."""
    return need.want == "strokes" or (need.want in ("local", "whole") and need.told == "paint")


def _t0(need: Need) -> list[str]:
    """Where SDEdit starts; looking for it takes several samplings."""
    return ["--t0", "0.5" if need.is_hurried else "auto"]


def _learning(method: str, need: Need, named: str, model: list[str]) -> list[str]:
    if need.want == "style":
        word = "<style>" if need.word == "<rex>" else need.word
        preset = ["--preset", "style"] if method == "textual-inversion" and not need.toybox else []
        tell = ["--word", word, "--noun", "painting", *preset]
        prompt = need.prompt or f"a painting of a {need.noun} in the style of {word}"
    elif need.subjects > 1:
        words = [f"<subject{i}>" for i in range(1, need.subjects + 1)]
        words = [need.word, *words[1:]] if "word" in need.model_fields_set else words
        each = [f"{need.photos}/{i}:{word}:{need.noun}" for i, word in enumerate(words, 1)]
        tell = [part for subject in each for part in ("--subject", subject)]
        both = " next to a ".join(f"{word} {need.noun}" for word in words)
        prompt = need.prompt or f"a photo of a {both}"
    else:
        tell = ["--word", need.word, "--noun", need.noun]
        prompt = need.prompt or f"a photo of a {named} on the beach"
    photos = [] if need.subjects > 1 and need.want == "subject" else [need.photos]
    weights = "learnt.safetensors"
    return [
        _line("learn", method, *photos, *tell, *model, "-o", weights),
        _line("generate", prompt, "--with", weights, *model, "-o", "out.png"),
    ]


def _told(need: Need) -> list[str]:
    """What Text2LIVE is told, and the CLIP that judges it."""
    clip = [] if need.toybox else ["--clip", "openai/clip-vit-base-patch32"]
    return ["--prompt", need.prompt or "a golden dog", *clip]


def _line(*words: str) -> str:
    return join(["scumble", *words])
