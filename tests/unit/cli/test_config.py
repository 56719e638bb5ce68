"""The server's configuration."""

from pathlib import Path

import pytest

from multiverse.config import AppConfig, ConfigError


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("builtin:smollm2-135m", "smollm2-135m"),
        ("/models/tiny/", "tiny"),
        ("owner/model", "model"),
        ("s3://b/p/m", "m"),
    ],
)
def test_served_name_comes_from_the_model(model: str, name: str) -> None:
    assert AppConfig(model=model).name == name


def test_served_name_can_be_given() -> None:
    assert AppConfig(served_name="other").name == "other"


def test_serve_file_of_the_project_is_valid(root: Path) -> None:
    config = AppConfig.load(root / "deployments" / "serve.yaml")
    assert (config.model, config.engine.max_num_seqs) == ("builtin:smollm2-135m", 64)


def test_file_with_the_fields_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: /m\nengine: {max_model_len: 512}\n")
    assert AppConfig.load(path).engine.max_model_len == 512


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("engine: {dtype: int8}", "engine.dtype is \"int8\": must be 'bfloat16', 'float16' or 'float32'"),
        ("engine: {blocksize: 16}", "engine.blocksize is not a known field (its value is 16); leave it out"),
        ("max_ongoing_requests: 0", "max_ongoing_requests is 0: must be greater than or equal to 1"),
        ("[1]", "the request is [1]: must be an object"),
    ],
)
def test_wrong_field_is_named_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        AppConfig.load(path)
    assert str(caught.value) == f"{path}: {message}"


def test_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        AppConfig.load(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        AppConfig.load(tmp_path / "none.yaml")
