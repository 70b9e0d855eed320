"""What making data for editing by instruction can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from scumble.core.errors import ConfigError
from scumble.datagen.completions import Sampling
from scumble.datagen.drawn_pairs import PRESETS, PairConfig
from scumble.datagen.pair_files import Form
from scumble.verbs.load import ModelConfig
from scumble.world.sampling import PROFILES

__all__ = ["DEFAULT_COUNT", "InstructionsConfig", "Source", "config_for"]

Source = Literal["grammar", "exact", "file", "language-model", "address"]

DEFAULT_COUNT = 100


class InstructionsConfig(ModelConfig, PairConfig, Sampling):
    """What `scumble data instructions` can be told."""

    source: Source | None = None
    """grammar, exact, file, language-model, address; none goes by what else is given, else the grammar."""
    triples: Path | None = None
    """JSONL with input_caption, instruction and edited_caption, for the source file."""
    captions: Path | None = None
    """Captions, a line each, for a language model to edit; none takes those of the grammar."""
    count: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Edits: how many are made, or at most taken from files; none makes 100, or takes all."""
    profile: str = "full"
    """Which toy scenes: full, core, photo."""
    language_model: str | None = None
    """A transformers folder or hub id."""
    address: str | None = None
    """Where a model answers that speaks OpenAI's protocol, such as http://localhost:8000/v1."""
    address_model: str = ""
    """The name of the model there."""
    address_form: Literal["chat", "completions"] = "chat"
    """completions is for models that were tuned on the form of the answers."""
    key_variable: str = ""
    """The variable of the environment that holds the key for the address."""
    timeout: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """Seconds until an answer has to be whole."""
    at_once: Annotated[int, Field(ge=1, le=1024)] = 8
    """Captions asked about together."""
    clip: str | None = None
    """The CLIP model that judges; none takes the toybox's for the toybox, else ViT-L/14."""
    text_only: bool = False
    """Stop at the edits in words: the output is one JSONL file."""
    form: Form = "folder"
    """folder, webdataset or parquet."""
    shard: Annotated[int, Field(ge=1, le=100_000)] = 4
    """Edits in a shard, which is what a kill loses at most."""

    @property
    def by(self) -> Source:
        """The source, settled."""
        return self.source or (self._given[0] if self._given else "grammar")

    @property
    def _given(self) -> list[Source]:
        """The sources that something was given for."""
        given: dict[Source, object] = {
            "file": self.triples,
            "language-model": self.language_model,
            "address": self.address,
        }
        return [name for name, value in given.items() if value]

    def checked(self) -> InstructionsConfig:
        """The same; raises ConfigError for what cannot be."""
        self.check()
        needs = {"file": "triples", "language-model": "language_model", "address": "address"}
        if (name := needs.get(self.by)) and not getattr(self, name):
            raise ConfigError(f"The source {self.by} needs {name}.", f"Give --{name.replace('_', '-')}.")
        if others := [name for name in self._given if name != self.by]:
            raise ConfigError(f"Edits come from {self.by}, and something was given for {others[0]}, too.")
        if self.profile not in PROFILES:
            raise ConfigError(f"There is no profile {self.profile!r}.", f"There are {', '.join(PROFILES)}.")
        if self.by == "exact" and self.text_only:
            raise ConfigError("Exact pairs are pictures.", "For words alone take the source grammar.")
        return self


def config_for(preset: str | None, file: Path | None, **given: Any) -> InstructionsConfig:
    """Settings: a preset's (toybox's own for the toybox, the paper's elsewhere), under those of the TOML
    `file`, under those given that are not None.
    """
    chosen = {key: value for key, value in given.items() if value is not None}
    written = InstructionsConfig.from_toml(file).model_dump(exclude_unset=True) if file else {}
    model = (written | chosen).get("model", "toybox")
    name = preset or ("toybox" if model == "toybox" else "paper")
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}.", f"Choose one of {', '.join(PRESETS)}.")
    return InstructionsConfig.of(PRESETS[name] | written | chosen).checked()
