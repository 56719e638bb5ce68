"""The server's configuration."""

from pathlib import Path

import pytest

from multiverse.config import AppConfig, ConfigError
from multiverse.serving.access.admission import AdmissionLimits
from multiverse.serving.access.keys import KeyLimits, sha256_of
from multiverse.serving.access.refusals import Refused


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
        ("engine: {dtype: int8}", "engine.dtype is \"int8\": must be 'auto', 'bfloat16', 'float16' or 'float32'"),
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


SHA = "a" * 64


@pytest.fixture
def keyless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MULTIVERSE_API_KEYS", raising=False)


@pytest.mark.usefixtures("keyless")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_key(host: str) -> None:
    AppConfig().check_host(host)


@pytest.mark.usefixtures("keyless")
@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.2", "::", None])
def test_host_that_others_reach_is_refused_without_keys(host: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        AppConfig().check_host(host)
    assert str(caught.value) == (
        f"host is {host!r}, which other machines may reach, and there are no API keys: name a file of keys in "
        "access.keys_file, set MULTIVERSE_API_KEYS, or bind to 127.0.0.1"
    )


def test_keys_of_the_environment_open_all_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEYS", "mv-one")
    config = AppConfig.of({"access": {"keys_env": "OTHER_KEYS"}})
    config.check_host("0.0.0.0")
    assert config.access_control().caller("Bearer mv-one", None).name == "env-1"


@pytest.mark.usefixtures("keyless")
def test_keys_of_a_file_open_all_hosts(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"- {{name: alice, sha256: {SHA}}}")
    AppConfig.of({"access": {"keys_file": str(path)}}).check_host("0.0.0.0")


def test_file_of_keys_is_found_from_where_the_configuration_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert AppConfig.of({"access": {"keys_file": "keys.yaml"}}).access.keys_file == Path("/keys.yaml")


@pytest.mark.usefixtures("keyless")
def test_keys_that_cannot_be_used_are_a_configuration_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.yaml"
    with pytest.raises(ConfigError, match=r"keys\.yaml cannot be read: No such file or directory"):
        AppConfig.of({"access": {"keys_file": str(path)}}).access_control()
    monkeypatch.setenv("MULTIVERSE_API_KEYS", "sha256:mv-one")
    with pytest.raises(ConfigError, match="MULTIVERSE_API_KEYS: key 1 must have 64 hexadecimal digits") as caught:
        AppConfig().check_host("127.0.0.1")
    assert "mv-one" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "value"),
    [({"max_ongoing_requests": 192}, 192), ({"admission": {"max_running": 128}}, 256)],
)
def test_queue_has_its_place_among_the_ongoing_requests(fields: dict[str, object], value: int) -> None:
    with pytest.raises(ConfigError) as caught:
        AppConfig.of(fields)
    assert str(caught.value) == (
        f"configuration: max_ongoing_requests is {value}: must be more than "
        f"admission.max_running + admission.max_waiting, which is {192 if value == 192 else 256}"
    )


def test_admission_has_the_limits_of_the_configuration() -> None:
    config = AppConfig.of(
        {"admission": {"max_running": 2, "max_waiting": 3, "kv_high_water": 0.5}, "engine": {"max_num_seqs": 7}}
    )
    assert config.admission_limits() == AdmissionLimits(2, 3, 0.5, 7)


def test_each_router_admits_its_share_rounded_up() -> None:
    config = AppConfig.of({"routers": 3, "admission": {"max_running": 64, "max_waiting": 6, "kv_high_water": 0.5}})
    limits = config.admission_limits()
    assert (limits.max_running, limits.max_waiting, limits.kv_high_water) == (22, 2, 0.5)


def test_each_router_holds_a_key_to_its_share(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    limits = "{concurrency: 3, tokens_per_minute: 100, max_width: 8}"
    path.write_text(f"- {{name: alice, sha256: {sha256_of('mv-a')}, limits: {limits}}}")
    access = AppConfig.of({"routers": 2, "access": {"keys_file": str(path)}}).access_control()
    account = access.caller("Bearer mv-a", None).account
    assert account.limits == KeyLimits(2, 50, 8)
    with account.request(), account.request(), pytest.raises(Refused, match="its limit is 2 at each of 2 routers"):
        account.request().__enter__()
