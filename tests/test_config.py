"""Settings: overrides by path, the way to JSON and back, and errors that name the nearest correct word."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from healmap.config import from_plain, override, to_plain
from healmap.errors import ConfigError
from healmap.experiment import DataConfig, Experiment, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Toy:
    lambda_id: float = 1.0
    steps: int = 10
    name: str = "a"
    flag: bool = False
    pair: tuple[float, float] = (0.0, 1.0)
    words: tuple[str, ...] = ()


EXPERIMENT = Experiment(method_name="toy", method=Toy())


def test_override_changes_one_field_by_its_path() -> None:
    changed = override(
        EXPERIMENT, ["method.lambda_id=0.5", "data.normalisation=window", "training.minutes=3", "data.window=-100,400"]
    )
    assert changed.method.lambda_id == 0.5
    assert changed.data.normalisation == "window"
    assert changed.training.minutes == 3
    assert changed.data.window == (-100.0, 400.0)
    assert EXPERIMENT.method.lambda_id == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method.lamda_id=0.5", "unknown setting 'lamda_id' (--set method.lamda_id=0.5): did you mean 'lambda_id'?"),
        ("methods.lambda_id=0.5", "did you mean 'method'?"),
        ("method.steps=many", "'many' is not a int"),
        ("method.steps=1.5", "1.5 is not a int"),
        ("method.flag=7", "7 is not a bool"),
        ("method=3", "'method' is a group of settings"),
        ("method.steps.deep=3", "'steps' has no further settings"),
        ("method.steps", "is no assignment"),
        ("data.normalisation=widow", "'widow' is not a"),
        ("data.window=5,1", "not an increasing pair"),
        ("data.batch_size=0", "batch_size must be at least 1"),
    ],
)
def test_a_wrong_override_says_what_where_and_what_to_do(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override(EXPERIMENT, [text])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("config", [Toy(words=("a", "b"), pair=(1, 2)), DataConfig(window=(0, 5)), TrainingConfig(minutes=2.5)])
def test_settings_survive_the_way_through_json(config: object) -> None:
    import json

    assert from_plain(type(config), json.loads(json.dumps(to_plain(config)))) == config


def test_words_and_numbers_keep_their_types() -> None:
    changed = override(EXPERIMENT, ["method.name=12", "method.flag=true", "method.words=x,y", "training.precision=32"])
    assert changed.method.name == "12"
    assert changed.method.flag is True
    assert changed.method.words == ("x", "y")
    assert changed.training.precision == "32"


def test_nested_dataclasses_are_checked_too() -> None:
    @dataclass(frozen=True)
    class Outer:
        inner: Toy = field(default_factory=Toy)

    globals()["Outer"] = Outer
    with pytest.raises(ConfigError, match="unknown setting 'stepz'"):
        from_plain(Outer, {"inner": {"stepz": 1}})
