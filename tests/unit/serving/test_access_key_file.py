"""Keys as they are written down."""

from pathlib import Path

import pytest

from multiverse.serving.access.key_file import KeysError, entry, parse_keys, read_keys
from multiverse.serving.access.keys import Key, KeyLimits, find, new_key, sha256_of

A = "a" * 64
B = "b" * 64


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    return path


def test_hash_is_the_sha256_of_the_key() -> None:
    assert sha256_of("mv-example") == "2a1e7bb95ed969eabfdce95c824c099494457ddd6fd732504971fe9ae3c7ec4f"


def test_new_keys_differ_and_are_known_by_their_prefix() -> None:
    first, second = new_key(), new_key()
    assert first != second
    assert first.startswith("mv-") and len(first) == 46


def test_key_is_found_by_its_hash() -> None:
    keys = (Key("a", A, "a"), Key("b", B, "b"))
    assert find(keys, B) is keys[1]
    assert find(keys, "c" * 64) is None


def test_hash_is_not_shown() -> None:
    assert A not in repr(Key("a", A, "a"))


def test_entry_with_all_fields(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        f"- name: alice\n  sha256: {A.upper()}\n  tenant: research\n"
        "  limits: {concurrency: 8, tokens_per_minute: 60000, max_width: 4}\n",
    )
    assert read_keys(path) == (Key("alice", A, "research", KeyLimits(8, 60000, 4)),)


def test_tenant_is_the_name_unless_given(tmp_path: Path) -> None:
    assert read_keys(write(tmp_path, f"- {{name: bob, sha256: {A}}}")) == (Key("bob", A, "bob", KeyLimits()),)


def test_no_keys_are_written_as_an_empty_list(tmp_path: Path) -> None:
    assert read_keys(write(tmp_path, "[]\n")) == ()


def test_printed_entries_make_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, entry("alice", "mv-1") + entry("bob", "mv-2"))
    assert [(key.name, key.sha256) for key in read_keys(path)] == [
        ("alice", sha256_of("mv-1")),
        ("bob", sha256_of("mv-2")),
    ]


NAME = "must be 1 to 64 letters, digits, '.', '_' and '-', a letter or digit first"
SECRET = "mv-do-not-show"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a list of entries with name and sha256"),
        (f"{SECRET}: 1", "must be a list of entries with name and sha256"),
        (f"- {SECRET}", "entry 1: it must be fields and values"),
        (f"- name: a\n  sha256: {A}\n- name: b", "entry 2: sha256 is missing"),
        (f"- name: a\n  sha256: {SECRET}", "entry 1: sha256 must be the 64 hexadecimal digits of a key's SHA-256"),
        (
            f"- name: a\n  sha256: {A}\n  {SECRET}: x",
            "entry 1 has an unknown field: must be one of name, sha256, tenant, limits",
        ),
        (
            f"- name: a\n  sha256: {A}\n  limits: {{{SECRET}: 1}}",
            "entry 1 has an unknown field: must be one of concurrency, tokens_per_minute, max_width",
        ),
        (
            f"- name: a\n  sha256: {A}\n  limits: {{concurrency: 0}}",
            "entry 1: limits.concurrency must be greater than or equal to 1",
        ),
        (
            f"- name: a\n  sha256: {A}\n  limits: {{concurrency: {SECRET}}}",
            "entry 1: limits.concurrency must be a valid integer",
        ),
        (f"- name: a\n  sha256: {A}\n  limits: {SECRET}", "entry 1: limits must be fields and values"),
        (f"- name: a/b\n  sha256: {A}", f"entry 1: name {NAME}"),
        (f"- name: a\n  sha256: {A}\n  tenant: ''", f"entry 1: tenant {NAME}"),
        (f"- name: {SECRET}\n  sha256: {A}", "entry 1: name must not begin with mv-, as keys do"),
        (f"- name: a\n  sha256: {A}\n- name: a\n  sha256: {B}", "entries 1 and 2 have the same name"),
        (f"- name: a\n  sha256: {A}\n- name: b\n  sha256: {A}", "entries 1 and 2 have the same sha256"),
    ],
)
def test_file_that_cannot_be_used_is_explained_without_its_contents(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(KeysError) as caught:
        read_keys(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert SECRET not in str(caught.value) and A not in str(caught.value)


def test_file_that_is_no_yaml_is_explained_without_its_contents(tmp_path: Path) -> None:
    path = write(tmp_path, f"- name: a\n  sha256: *{SECRET}\n")
    with pytest.raises(KeysError) as caught:
        read_keys(path)
    assert str(caught.value) == f"{path} is not YAML, line 2"
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match=r"none\.yaml cannot be read: No such file or directory"):
        read_keys(tmp_path / "none.yaml")


@pytest.mark.parametrize(("name", "message"), [("a b", NAME), ("mv-x", "must not begin with mv-")])
def test_entry_for_a_name_that_cannot_be_used(name: str, message: str) -> None:
    with pytest.raises(KeysError, match=f"^name {message}"):
        entry(name, "mv-1")


def test_environment_takes_keys_and_hashes() -> None:
    assert parse_keys(f" one, sha256:{B} ,", "KEYS") == (
        Key("env-1", sha256_of("one"), "env-1"),
        Key("env-2", B, "env-2"),
    )


@pytest.mark.parametrize("text", ["", " ", ","])
def test_environment_without_keys(text: str) -> None:
    assert parse_keys(text, "KEYS") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,sha256:12", "KEYS: key 2 must have 64 hexadecimal digits behind sha256:"),
        ("two words", "KEYS: key 1 must be printable ASCII without white space"),
        ("schlüssel", "KEYS: key 1 must be printable ASCII without white space"),
        ("same,same", "KEYS: entries 1 and 2 have the same sha256"),
    ],
)
def test_environment_that_cannot_be_used(text: str, message: str) -> None:
    with pytest.raises(KeysError) as caught:
        parse_keys(text, "KEYS")
    assert str(caught.value) == message
