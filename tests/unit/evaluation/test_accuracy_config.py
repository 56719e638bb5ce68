"""What a command line and a file say, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from multiverse.commands.evaluate import load
from multiverse.config import ConfigError
from multiverse.evaluation.accuracy.config import EndpointTarget, EngineTarget, EvaluateConfig


def test_a_model_alone_is_asked_500_generated_tasks_greedily() -> None:
    config = load(None, "builtin:small")
    assert config.model == EngineTarget(model="builtin:small")
    assert [(suite.name, suite.source, suite.count) for suite in config.suites] == [("generated", None, None)]
    assert (config.samples, config.sampling_temperature, config.budgets) == (1, 0.0, ())
    assert config.out == str(Path("runs/evaluate/small").absolute())


def test_an_address_is_a_server_whose_model_may_be_named() -> None:
    config = load(None, "http://127.0.0.1:8000/v1/#some/name", against="m", key_env="KEY", samples=4)
    assert config.model == EndpointTarget(base_url="http://127.0.0.1:8000/v1", model="some/name", key_env="KEY")
    assert config.against == EngineTarget(model="m")
    assert (config.samples, config.sampling_temperature) == (4, 0.6)
    assert Path(config.out).name == "some-name-against-m"
    assert Path(load(None, "http://127.0.0.1:8000/v1").out).name == "127.0.0.1-8000"


def test_suites_have_files_counts_and_limits() -> None:
    config = load(None, "m", ["math500=a/b=c.jsonl", "generated"], count=7, max_tokens=9, budgets="1024, 50%")
    assert [(suite.name, suite.source, suite.count, suite.max_tokens) for suite in config.suites] == [
        ("math500", "a/b=c.jsonl", 7, 9),
        ("generated", None, 7, 9),
    ]
    assert config.budgets == (1024, "50%")


def test_the_command_line_replaces_fields_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: {base_url: 'http://h/v1'}\nagainst: other\nout: somewhere\nbudgets: [64]\n")
    config = load(path, out=tmp_path / "out", samples=2)
    assert isinstance(config.model, EndpointTarget)
    assert config.against == EngineTarget(model="other")
    assert (config.out, config.samples, config.budgets) == (str(tmp_path / "out"), 2, (64,))
    with pytest.raises(ConfigError, match="leave --count, --max-tokens and --key-env out"):
        load(path, count=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"suites": [{"name": "math5"}]}, 'suites[0].name is "math5": must be generated or one of aime24'),
        ({"suites": [{"name": "aime24"}, {"name": "aime24"}]}, "has aime24 twice"),
        ({"suites": []}, "suites"),
        ({"budgets": ["half"]}, "has 'half': must be positions like 1024, or quantiles like '50%'"),
        ({"budgets": ["101%"]}, "has '101%'"),
        ({"budgets": [0]}, "has 0: must be at least 1 position"),
        ({"out": "s3://bucket/x"}, "must be a directory"),
        ({"samples": 0}, "samples is 0: must be greater than or equal to 1"),
        ({"model": {"base_url": "http://user:key@h/v1"}}, "must be an http:// or https:// address without user"),
        ({"model": {"model": "m", "mode": "on"}}, "model.mode is \"on\": must be 'auto', 'force' or 'off'"),
        ({"model": {"model": "m", "nope": 1}}, "model.nope is not a known field"),
        ({"speed_pairs": 3}, "speed_pairs is 3: needs two engines and the suite generated"),
    ],
)
def test_what_cannot_be_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EvaluateConfig.of({"model": "m", "out": "x"} | values)
    assert message in str(caught.value)


def test_nothing_named_is_said_plainly() -> None:
    with pytest.raises(ConfigError, match="name a model or a server, or a configuration with --config"):
        load(None)


def test_shipped_configurations_are_right(root: Path) -> None:
    files = [*(root / "jobs/configs/evaluate").glob("*.yaml"), root / "jobs/configs/pipeline/evaluate.yaml"]
    assert len(files) >= 2
    for path in files:
        assert EvaluateConfig.load(path).suites
