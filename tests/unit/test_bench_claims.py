"""The claims as data, every experiment on a tiny random model, and the page that nobody edits by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from cli import scumble
from scumble.bench.claims import custom, editing, lab, learners, run
from scumble.bench.claims.charts import charts
from scumble.bench.claims.lab import QUICK, Lab, Settings
from scumble.bench.claims.page import page, verdict
from scumble.bench.claims.run import EXPERIMENTS, chosen, measure, publish
from scumble.bench.claims.table import Claim, Holds, claims
from scumble.bench.plot import COLOURS, bars
from scumble.core.errors import ConfigError, InputError
from scumble.core.events import finish
from scumble.world.subjects import SUBJECTS
from tiny import shared
from upscalers import shared_latent_upscaler

DOCS = Path(__file__).parents[2] / "docs"


def smallest(**more: Any) -> Settings:
    models = {"model": str(shared("sd1")), "editor": str(shared("ip2p"))}
    models["upscaler"] = str(shared_latent_upscaler())
    few = {"subjects": 1, "prompts": 2, "class_pictures": 2, "scenes": 2, "layer_scenes": 1, "fresh": 2}
    steps = {"learning_steps": 1, "prior_count": 1, "layer_steps": 1, "steps": 1}
    return Settings.of({**models, **few, **steps, **more})


# Data


def test_every_claim_is_whole_and_has_an_experiment_or_a_reason() -> None:
    known = claims()
    assert len(known) == 45
    assert len({claim.name for claim in known}) == 45
    assert {claim.name for claim in known if not claim.not_here} == set(EXPERIMENTS)
    assert {claim.name for claim in known if claim.not_here} == {
        "instruct-pix2pix/generated-data",
        "sdedit/beats-gans",
    }
    papers = {"Gal", "Voronov", "Ruiz", "Kumari", "Brooks", "Meng", "Bar-Tal"}
    assert {claim.where.partition(" ")[0] for claim in known} == papers
    for claim in known:
        assert claim.claim[-1] != "."
        assert claim.published
        assert claim.how


def test_when_a_figure_means_that_a_claim_holds() -> None:
    assert Holds(at_least=0.1)(0.1)
    assert not Holds(at_least=0.1)(0.0999)
    assert Holds(at_most=0.0)(0.0)
    assert not Holds(at_most=0.0)(1.0)
    assert [Holds(between=(0.3, 0.6))(x) for x in (0.2, 0.3, 0.6, 0.7)] == [False, True, True, False]
    with pytest.raises(ConfigError, match="one of at_least, at_most, between"):
        Holds(at_least=1.0, at_most=2.0)
    with pytest.raises(ConfigError, match="one of at_least, at_most, between"):
        Holds()


def test_claims_are_chosen_by_name_or_method() -> None:
    assert [c.name for c in chosen(["dreambooth/drift"])] == ["dreambooth/drift"]
    assert {c.method for c in chosen(["sdedit", "text2live/local"])} == {"sdedit", "text2live"}
    with pytest.raises(InputError, match="no claim or method 'dreamboth'"):
        chosen(["dreamboth"])


# Experiments


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """All of them, on a model that knows nothing, at the smallest size."""
    out = tmp_path_factory.mktemp("claims") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab, "RAYS", 1)
        patch.setattr(custom, "REAL", 2)
        patch.setattr(editing, "T0S", (0.3, 0.6))
        patch.setattr(editing, "IMAGE_SCALES", (1.0, 2.2))
        patch.setattr(editing, "PAINT_STEPS", 1)
        return out, finish(measure(out, smallest()))


def test_every_experiment_gives_a_figure(found: tuple[Path, dict[str, Any]]) -> None:
    out, rows = found
    assert json.loads((out / "claims.json").read_text()) == rows
    measured = {name: row for name, row in rows["claims"].items() if row}
    assert set(measured) == set(EXPERIMENTS)
    for name, row in measured.items():
        [claim] = chosen([name])
        if "untold" in row:  # so small a model draws two things in no picture
            assert name in (
                "custom-diffusion/two-subjects",
                "custom-diffusion/merge",
                "instruct-pix2pix/follows",
            )
            assert row["untold"]
            assert "figure" not in row
        else:
            assert isinstance(row["figure"], float), name
            assert row["holds"] == claim.holds(row["figure"])
        assert row["settings"]["learning_steps"] == 1
        assert row["quick"] is False


def test_what_is_known_beforehand_comes_out(found: tuple[Path, dict[str, Any]]) -> None:
    rows = found[1]["claims"]
    assert rows["sdedit/outside"]["figure"] == 0.0  # what a mask keeps is the original's own
    assert rows["sdedit/outside"]["details"]["pixels"] > 1000
    details = rows["custom-diffusion/parameters"]["details"]
    assert rows["custom-diffusion/parameters"]["figure"] == round(
        details["learning"] / details["denoiser"], 4
    )
    assert 0 < rows["custom-diffusion/parameters"]["figure"] < 0.2
    assert rows["custom-diffusion/bytes"]["figure"] > 0
    assert rows["custom-diffusion/rates"]["details"].keys() == {"cross-attention", "self-attention", "rest"}
    assert set(rows["dreambooth/uses"]["details"]) == {p.kind for p in SUBJECTS[0].prompts[::10]}
    assert rows["instruct-pix2pix/seconds"]["figure"] > 0
    assert -1 <= rows["textual-inversion/debias"]["figure"] <= 1
    counts = rows["textual-inversion/debias"]["details"]
    for side in ("with", "without"):  # every picture has one colour
        assert sum(v for name, v in counts.items() if name.startswith(f"{side}: ")) == 2.0
    stop = rows["textual-inversion/early-stop"]
    saved = stop["details"]["steps, as a share"]
    assert saved in [
        taken / 10 for taken in range(7, 11)
    ]  # of ten steps, at the seventh look at the earliest
    lost = stop["details"]["fidelity, whole"] - stop["details"]["fidelity, stopped"]
    assert stop["figure"] == (saved if lost <= 0.05 else 1.0)
    part = rows["dreambooth/part"]
    assert 0 < part["details"]["bytes, as a share"] < 1
    fidelity = [part["details"][f"fidelity, {train}"] for train in ("cross-attention", "all")]
    small = part["details"]["bytes, as a share"] <= 0.5
    assert part["figure"] == pytest.approx(fidelity[0] - fidelity[1] if small else -1.0, abs=2e-4)
    details = rows["dreambooth/upscaling"]["details"]
    assert details.keys() == {
        f"{what} {when}" for what in ("PSNR", "identity") for when in ("bicubic", "before", "after")
    }
    assert details["PSNR after"] != details["PSNR before"]  # what was tuned is used
    details = rows["text2live/video"]["details"]
    assert rows["text2live/video"]["figure"] == pytest.approx(details["after"] / details["before"], abs=0.02)


def test_a_second_run_measures_nothing_again(
    found: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rows = found
    asked: list[str] = []

    def refuse(_: Lab) -> Any:
        asked.append("again")
        yield from ()
        return {"figure": 0.5, "what": 1.0}

    for name in EXPERIMENTS:
        monkeypatch.setitem(run.EXPERIMENTS, name, refuse)
    assert finish(measure(out, smallest())) == rows
    assert asked == []
    (out / "claims" / "dreambooth-drift.json").unlink()
    again = finish(measure(out, smallest(), ["dreambooth/drift"]))
    assert asked == ["again"]
    assert again["claims"]["dreambooth/drift"]["figure"] == 0.5
    assert again["claims"]["sdedit/outside"] == rows["claims"]["sdedit/outside"]
    with pytest.raises(InputError, match="holds a run with other settings"):
        finish(measure(out, smallest(seed=1)))


def test_a_word_of_textual_inversion_is_drawn_without_its_noun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def drawn(_: Lab, name: str, prompts: list[str], weights: Path | None = None) -> Any:
        asked.extend(prompts if weights else [])
        yield from ()
        return torch.zeros(len(prompts), 3, 64, 64)

    def learnt(_: Lab, name: str, method: str, *__: Any, **___: Any) -> Any:
        yield from ()
        return tmp_path / f"{method}.safetensors"

    monkeypatch.setattr(lab, "RAYS", 1)
    monkeypatch.setattr(Lab, "drawn", drawn)
    monkeypatch.setattr(Lab, "learnt", learnt)
    bench = Lab(smallest(), tmp_path)
    [subject] = bench.subjects
    for experiment, word in (("word", "<subject>"), ("one-vector", "<subject>"), ("debias", "<fair>")):
        asked.clear()
        finish(EXPERIMENTS[f"textual-inversion/{experiment}"](bench))
        assert asked
        assert all(word in text and f"{word} {subject.noun}" not in text for text in asked)
        assert not any("snowman" in text for text in asked)
    asked.clear()
    finish(EXPERIMENTS["dreambooth/few-photos"](bench))
    assert all(f"<subject> {subject.noun}" in text for text in asked)


def test_what_is_saved_at_the_price_of_quality_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half the steps at the same fidelity is a half; at a lower one nothing."""
    fidelity = {"textual-inversion-stopped": 0.7, "textual-inversion-long": 0.74}

    def figures(_: Lab, name: str, *__: Any) -> Any:
        yield from ()
        return learners.Figures(fidelity[name], 1.0, {})

    def subject(*_: Any, **__: Any) -> Any:
        yield from ()
        return Path("x")

    class Half:
        training: ClassVar[dict[str, int]] = {"steps": 500}  # of ten times a hundred

    monkeypatch.setattr(learners, "learnt_figures", figures)
    monkeypatch.setattr(Lab, "subject", subject)
    monkeypatch.setattr(Lab, "learnt", subject)
    monkeypatch.setattr(Lab, "photos", lambda *_: Path("x"))
    monkeypatch.setattr(learners.Weights, "load", lambda _: Half)
    bench = Lab(Settings(learning_steps=100, subjects=2), tmp_path)
    assert finish(learners._stopped(bench))["figure"] == 0.5
    fidelity["textual-inversion-stopped"] = 0.6
    found = finish(learners._stopped(bench))
    assert (found["figure"], found["steps, as a share"]) == (1.0, 0.5)


def test_without_an_editing_model_the_rest_is_measured(tmp_path: Path) -> None:
    settings = smallest(editor=str(shared("sd1")))  # which cannot be told what to edit
    rows = finish(measure(tmp_path, settings, ["instruct-pix2pix/follows", "custom-diffusion/parameters"]))
    why = rows["claims"]["instruct-pix2pix/follows"]["why"]
    assert "cannot be told what to edit" in why
    assert rows["claims"]["custom-diffusion/parameters"]["figure"] > 0


def test_scales_of_fidelity_have_their_ends(tmp_path: Path) -> None:
    """Its own renders are as good as can be, a look-alike's are nothing."""
    bench = Lab(Settings(subjects=2, prompts=3), tmp_path)  # at the size that the judge was trained at
    subject = SUBJECTS[8]
    prompts = [p for p in subject.prompts if p.kind == "recontextualisation"][:3]
    own = bench.rendered([p.scene for p in prompts])
    assert bench.fidelity(subject, own) > 0.5
    floor, ceiling = bench._ends(subject)
    assert floor < ceiling
    assert bench.ends[0] < bench.ends[1]
    obeyed = bench.obeyed(prompts, own)
    assert obeyed > 0.75
    assert bench.obeyed(prompts, bench.rendered([SUBJECTS[0].scenes[0]] * 3)) < obeyed


def test_a_curve_is_above_another() -> None:
    low, high = [(0.1, 0.9), (0.3, 0.5)], [(0.3, 0.7), (0.2, 0.9), (0.5, 0.3)]
    assert editing._gap(high, low) == pytest.approx(0.2)
    assert editing._gap(low, high) == pytest.approx(-0.2)
    assert editing._gap(low, [(0.6, 1.0), (0.8, 1.0)]) == -1.0  # they share no direction


# The page


def test_the_page_is_made_and_not_written() -> None:
    data = json.loads((DOCS / "data" / "claims.json").read_text())
    assert list(data["claims"]) == [claim.name for claim in claims()]
    assert (DOCS / "claims.md").read_text() == page(data), "scumble bench claims --docs docs makes it"


def test_published_figures_say_what_gave_them() -> None:
    data = json.loads((DOCS / "data" / "claims.json").read_text())
    for name, row in data["claims"].items():
        [claim] = chosen([name])
        if set(row) <= {"why"}:  # not measured
            continue
        assert not claim.not_here
        if "untold" in row:
            assert row["details"]
            assert "figure" not in row
        else:
            assert row["holds"] == claim.holds(row["figure"]), name
        measured = Settings.of(row["settings"]).replace(upscaler=QUICK.upscaler)  # none ships, so any
        assert row["quick"] == (measured == QUICK)
        assert row["settings"]["model"] == "toybox"
        assert len(row["weights"]) == 64


def test_publishing_keeps_what_was_not_measured_now(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "claims.json").write_text('{"claims": {}}')
    row = {
        "figure": 0.2,
        "holds": True,
        "details": {"with": 0.4, "without": 0.6},
        "quick": True,
        "settings": {},
        "weights": "ab" * 32,
        "seconds": 7,
        "machine": {"threads": 2, "torch": "2.10"},
    }
    publish({"claims": {"dreambooth/drift": row}}, tmp_path)
    publish({"claims": {"dreambooth/diversity": {**row, "figure": -0.5}}}, tmp_path)
    publish(
        {"claims": {name: {"why": "It is gone."} for name in ("dreambooth/drift", "sdedit/realism")}},
        tmp_path,
    )
    untold = {name: value for name, value in row.items() if name not in ("figure", "holds")}
    publish({"claims": {"custom-diffusion/merge": {**untold, "untold": "None is seen."}}}, tmp_path)
    text = (tmp_path / "claims.md").read_text()
    assert text.count("cannot be told: None is seen.") == 1
    assert "| `custom-diffusion/merge` | with 0.4, without 0.6 |" in text
    assert text.count("not yet measured: it is gone") == 1  # and what was measured before stays
    assert "Of 45 claims 2 are measured, and 1 of these hold. Of 1 more the toybox cannot tell." in text
    assert "| at least 0.02 | 0.2 | **holds** |" in text
    assert "| at least 0 | -0.5 | does not hold |" in text
    assert text.count("| `dreambooth/d") == 2
    assert "](images/claims/dreambooth.png)" in text
    assert "](images/claims/sdedit.png)" not in text
    charted = {p.name for p in (tmp_path / "images" / "claims").iterdir()}
    assert charted == {"custom-diffusion.png", "dreambooth.png"}
    with pytest.raises(InputError, match="Give the folder docs"):
        publish({"claims": {}}, tmp_path / "nowhere")


def test_bars_are_as_long_as_their_values() -> None:
    sheet = bars({"heights": {"one": 1.0, "two": 2.0, "less": -1.0}})
    lengths: dict[int, int] = {}
    for y in range(sheet.height):
        lengths[y] = sum(sheet.getpixel((x, y)) == COLOURS[0] for x in range(sheet.width))
    runs = [length for _, length in sorted(lengths.items()) if length > 20]
    each = sorted({length - 1 for length in runs})  # a rectangle has both its ends
    assert len(each) <= 3  # equal ones may differ by a pixel
    assert each[-1] == pytest.approx(2 * each[0], abs=4)  # the line at zero lies over one end


def test_counts_of_bytes_stand_in_no_chart() -> None:
    details = {"bytes, all": 3.0e7, "bytes, part": 2.0e6, "fidelity, all": 0.4}
    assert charts({"claims": {"dreambooth/part": {"details": details}}}) == {}
    [name] = charts({"claims": {"dreambooth/part": {"details": {**details, "fidelity, part": 0.3}}}})
    assert name == "dreambooth"


def test_what_is_not_measured_says_so() -> None:
    [gans] = chosen(["sdedit/beats-gans"])
    assert verdict(gans, {}) == "not yet measured: there is no GAN of the toy world to compare with"
    [drift] = chosen(["dreambooth/drift"])
    assert verdict(drift, {}) == "not yet measured"
    assert isinstance(drift, Claim)
    [two] = chosen(["custom-diffusion/two-subjects"])
    said = verdict(two, {"untold": two.untold})
    assert said == "cannot be told: the untouched model shows two plain things in none of its pictures"


def test_from_the_command_line(tmp_path: Path) -> None:
    needs = scumble("bench", "claims", "-o", str(tmp_path), "--only", "sdedit", "--dry-run", "--json")
    assert needs.status == 0, needs.err
    assert len(needs.json["measured"]) == 6
    assert set(needs.json["not here"]) == {"sdedit/beats-gans"}
    wrong = scumble("bench", "claims", "-o", str(tmp_path), "--only", "magic")
    assert (wrong.status, "no claim or method 'magic'" in wrong.sentence) == (2, True)
