"""Who is let in."""

import subprocess
import sys
from pathlib import Path

import pytest

from multiverse.serving.access.access import Access, is_loopback
from multiverse.serving.access.key_file import entry, parse_keys
from multiverse.serving.access.key_store import KeyStore
from multiverse.serving.access.refusals import Refused

KEYS = parse_keys("mv-one,mv-two", "KEYS")


def refusal(access: Access, authorization: str | None, address: str | None = "127.0.0.1") -> Refused:
    with pytest.raises(Refused) as caught:
        access.caller(authorization, address)
    return caught.value


@pytest.mark.parametrize("header", ["Bearer mv-two", "bearer  mv-two "])
def test_known_key(header: str) -> None:
    caller = Access(KeyStore(None, KEYS)).caller(header, "10.0.0.1")
    assert (caller.name, caller.tenant) == ("env-2", "env-2")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "mv-one", "Basic mv-one"])
def test_missing_key(header: str | None) -> None:
    refused = refusal(Access(KeyStore(None, KEYS)), header)
    assert (refused.reason, refused.message) == (
        "unauthorized",
        "an API key is needed: send the header 'Authorization: Bearer KEY'",
    )


@pytest.mark.parametrize("key", ["mv-three", "mv-on", "mv-one mv-two", "\xfc"])
def test_unknown_key_is_not_repeated(key: str) -> None:
    refused = refusal(Access(KeyStore(None, KEYS)), f"Bearer {key}")
    assert (refused.reason, refused.message) == ("unauthorized", "the API key is not known here")


def test_key_is_needed_on_loopback_too_where_there_are_keys() -> None:
    assert refusal(Access(KeyStore(None, ())), None, "127.0.0.1").reason == "unauthorized"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_server_without_keys_serves_its_machine(address: str) -> None:
    caller = Access(None).caller(None, address)
    assert (caller.name, caller.tenant) == (None, "")


@pytest.mark.parametrize("address", ["10.0.0.1", "::ffff:10.0.0.1", "fe80::1", "example.org", None])
def test_server_without_keys_serves_nobody_else(address: str | None) -> None:
    assert refusal(Access(None), "Bearer x", address).reason == "not_local"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.2", False),
        ("loopback.example.org", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_requests_of_one_key_share_its_account() -> None:
    access = Access(KeyStore(None, KEYS))
    one, again, two = (access.caller(f"Bearer mv-{key}", None).account for key in ("one", "one", "two"))
    assert one is again
    assert one is not two


def test_account_outlives_a_reload_and_gets_the_new_limits(tmp_path: Path) -> None:
    now = 0.0
    path = tmp_path / "keys.yaml"
    path.write_text(entry("alice", "mv-1"))
    access = Access(KeyStore(path, clock=lambda: now))
    before = access.caller("Bearer mv-1", None).account
    path.write_text(entry("alice", "mv-1") + "  limits: {concurrency: 3}\n")
    now = 1.0
    after = access.caller("Bearer mv-1", None).account
    assert after is before
    assert after.limits.concurrency == 3


@pytest.mark.parametrize(("shared", "tenant"), [(False, "env-1"), (True, "")])
def test_tenants_have_prefix_caches_of_their_own_unless_shared(shared: bool, tenant: str) -> None:
    access = Access(KeyStore(None, KEYS), shared_prefix_cache=shared)
    assert access.cache_tenant(access.caller("Bearer mv-one", None)) == tenant


def test_keys_limits_and_queue_import_nothing_heavy(root: Path) -> None:
    modules = ["access", "admission", "key_file", "key_store", "keys", "limits", "refusals", "shares"]
    files = (root / "platform/multiverse/serving/access").glob("[a-z]*.py")
    assert sorted(file.stem for file in files) == modules
    code = "import sys; " + "; ".join(f"import multiverse.serving.access.{module}" for module in modules)
    code += "; print(*{name.partition('.')[0] for name in sys.modules})"
    environment = {"PYTHONPATH": str(root / "platform")}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert {"ray", "vllm", "torch", "transformers", "fastapi"} & set(run.stdout.split()) == set()
