from __future__ import annotations

import string
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, Field, ValidationError, field_validator

from scumble.core.config import Config
from scumble.core.errors import ConfigError


class Inner(Config):
    rank: Annotated[int, Field(ge=1)] = 4
    """Rank of the change."""
    targets: tuple[str, ...] = ("to_k", "to_v")
    """Layers by name."""


class Example(Config):
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    """Denoising steps."""
    rate: float = 1e-4
    """Learning rate,
    before any schedule."""
    mode: Literal["fast", "exact"] = "fast"
    seed: int | None = None
    """Seed; none draws one."""
    inner: Inner = Inner()
    """The low-rank part."""
    note: str = ""
    folder: Path = Path("out")

    @field_validator("note")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if "\n" in value:
            raise ValueError("It must be one line.")
        return value


class Typed(Config):
    steps: int | None = None
    rate: float = 1.0
    mirror: bool = False
    share: tuple[float, float] = (0.0, 1.0)
    inner: Inner = Inner()
    folder: Path = Path("out")


class Measured(Config):
    model_config = ConfigDict(allow_inf_nan=True)

    figure: float


class Needed(Config):
    word: str
    """The word to learn."""


@pytest.mark.parametrize(
    ("settings", "message", "remedy"),
    [
        ({"step": 3}, "There is no setting 'step'.", "Did you mean 'steps'?"),
        (
            {"zzz": 3},
            "There is no setting 'zzz'.",
            "There are: steps, rate, mode, seed, inner, note, folder.",
        ),
        (
            {"steps": 0},
            "steps cannot be 0: it should be greater than or equal to 1.",
            "It means: Denoising steps.",
        ),
        (
            {"rate": "fast"},
            "rate cannot be 'fast': it should be a valid number.",
            "It means: Learning rate, before any schedule.",
        ),
        ({"mode": "slow"}, "mode cannot be 'slow': it should be 'fast' or 'exact'.", ""),
        ({"note": "a\nb"}, "note cannot be 'a\\nb': it must be one line.", ""),
        ({"inner": {"rnk": 3}}, "There is no setting 'rnk'.", "Did you mean 'rank'?"),
        (
            {"inner": {"rank": 0}},
            "rank cannot be 0: it should be greater than or equal to 1.",
            "It means: Rank of the change.",
        ),
        (
            {"inner": 3},
            "inner cannot be 3: it should be a valid dictionary or instance of Inner.",
            "It means: The low-rank part.",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(settings: dict[str, Any], message: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Example(**settings)
    assert (caught.value.message, caught.value.remedy) == (message, remedy)
    with pytest.raises(ConfigError):
        Example().replace(**settings)
    with pytest.raises(ConfigError):
        Example.of(settings)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"steps": "5"}, "a valid integer"),
        ({"steps": True}, "a valid integer"),
        ({"steps": 5.0}, "a valid integer"),
        ({"rate": "0.01"}, "a valid number"),
        ({"rate": False}, "a valid number"),
        ({"rate": float("inf")}, "a finite number"),
        ({"rate": float("nan")}, "a finite number"),
        ({"mirror": "no"}, "a valid boolean"),
        ({"mirror": 1}, "a valid boolean"),
        ({"share": (0.5, "1")}, "a valid number"),
        ({"share": [0, float("inf")]}, "a finite number"),
        ({"inner": {"rank": "3"}}, "a valid integer"),
    ],
)
def test_a_value_of_another_type_is_refused(settings: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot be .*: it should be {wanted}"):
        Typed.of(settings)


def test_what_toml_and_json_have_no_type_for_is_taken() -> None:
    written: dict[str, Any] = {"rate": 5, "share": [0, 1], "inner": {"targets": ["a"]}, "folder": "here"}
    found = Typed.of(written)
    assert found == Typed(rate=5.0, share=(0.0, 1.0), inner=Inner(targets=("a",)), folder=Path("here"))
    assert isinstance(found.rate, float)
    assert isinstance(found.share[1], float)


def test_a_class_may_hold_what_is_no_number() -> None:
    assert Measured(figure=float("inf")).figure == float("inf")


def test_a_missing_setting_is_named_with_its_meaning() -> None:
    with pytest.raises(ConfigError, match=r"The setting word is missing\. It means: The word to learn\."):
        Needed()  # pyright: ignore[reportCallIssue]


def test_a_long_value_is_cut_short() -> None:
    with pytest.raises(ConfigError) as caught:
        Example(steps="9" * 3000)  # pyright: ignore[reportArgumentType]
    assert len(str(caught.value)) < 300


def test_settings_are_frozen_and_replaced() -> None:
    example = Example(steps=3)
    with pytest.raises(ValidationError, match="frozen"):
        example.steps = 4  # pyright: ignore[reportAttributeAccessIssue]
    assert example.replace(seed=5) == Example(steps=3, seed=5)
    assert example == Example(steps=3)


def test_toml_carries_the_descriptions() -> None:
    text = Example(inner=Inner(rank=2)).to_toml()
    assert "# Denoising steps.\nsteps = 25\n" in text
    assert "# Learning rate,\n# before any schedule.\nrate = 0.0001\n" in text
    assert "# The low-rank part.\n[inner]\nrank = 2\n" in text
    assert "seed" not in text


@given(
    steps=st.integers(1, 1000),
    rate=st.floats(allow_nan=False, allow_infinity=False),
    seed=st.none() | st.integers(0, 2**63 - 1),
    note=st.text().filter(lambda text: "\n" not in text),
    targets=st.lists(st.text(string.printable, max_size=5), max_size=3),
)
def test_toml_round_trip(steps: int, rate: float, seed: int | None, note: str, targets: list[str]) -> None:
    example = Example(steps=steps, rate=rate, seed=seed, note=note, inner=Inner(targets=tuple(targets)))
    assert Example.of(tomllib.loads(example.to_toml())) == example


def test_a_file_is_read_and_overridden(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("steps = 3\n[inner]\nrank = 8\n")
    assert Example.from_toml(path, steps=5) == Example(steps=5, inner=Inner(rank=8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"steps = ", "is not a TOML file: Invalid value"),
        (b"\xff\xfe", "is not a TOML file: 'utf-8' codec"),
        (b"a = " + b"[" * 50_000, "is not a TOML file"),
        (b"#" * 1_000_001, "longer than 1,000,000 bytes"),
        (b"step = 3", "There is no setting 'step'"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        Example.from_toml(path)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        Example.from_toml(tmp_path / "nothing.toml")


def test_a_default_that_toml_could_not_say_is_refused_when_the_class_is_made() -> None:
    fields = {"__annotations__": {"scale": float | None}, "__module__": __name__, "scale": 1.0}
    with pytest.raises(TypeError, match=r"Wrong\.scale may be None"):
        type(Config)("Wrong", (Config,), fields)
