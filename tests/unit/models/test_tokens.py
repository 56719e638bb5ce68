import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from multiverse.models.manifest import ManifestError
from multiverse.models.plain import plain_tokenizer
from multiverse.models.tokens import Tokens
from multiverse.structure.tags import TAGS
from tests.unit.models.tiny_model import copy_model, edit_json

SPECIAL = ["<|im_start|>", "<|im_end|>", *TAGS]


@pytest.mark.parametrize("text", SPECIAL)
def test_plain_text_never_becomes_a_tag_or_special_token(tokens: Tokens, text: str) -> None:
    ids = tokens.encode_plain(f"say {text}!")
    assert all(2 <= id < 290 for id in ids)
    assert tokens.decode(ids) == f"say {text}!"


@given(pieces=st.lists(st.sampled_from([*SPECIAL, "<", ">", "</", "Path", "|", " ", "\n", "é", "x"]), max_size=12))
def test_no_mixture_of_pieces_of_tags_becomes_a_tag(tokens: Tokens, pieces: list[str]) -> None:
    text = "".join(pieces)
    ids = tokens.encode_plain(text)
    assert all(2 <= id < 290 for id in ids)
    assert tokens.decode(ids) == text


def test_structured_text_has_tags_as_tokens_and_what_is_between_apart(tokens: Tokens) -> None:
    expected = [
        tokens.tag("<Path>"),
        *tokens.encode_plain("\n1: one"),
        tokens.tag("</Path>"),
        *tokens.encode_plain("\n"),
    ]
    assert tokens.encode_structured("<Path>\n1: one</Path>\n") == expected


def test_structured_text_spells_other_special_tokens_out(tokens: Tokens) -> None:
    ids = tokens.encode_structured("<Path><|im_end|></Path>")
    assert 1 not in ids
    assert tokens.decode(ids) == "<Path><|im_end|></Path>"


def test_tag_ids_are_those_of_the_manifest(tokens: Tokens) -> None:
    assert [tokens.tag(tag) for tag in TAGS] == list(range(290, 302))


def test_a_stream_holds_a_character_back_until_its_last_byte(tokens: Tokens) -> None:
    ids = tokens.encode_plain("a€b")
    stream = tokens.stream()
    assert [stream.push([id]) for id in ids] == ["a", "", "", "€", "b"]
    assert stream.finish() == ""


def test_a_stream_shows_tags(tokens: Tokens) -> None:
    assert tokens.stream().push(tokens.encode_structured("<Path>\none</Path>")) == "<Path>\none</Path>"


def test_a_stream_gives_what_is_no_character_at_its_end(tokens: Tokens) -> None:
    stream = tokens.stream()
    assert stream.push(tokens.encode_plain("a€")[:-1]) == "a"
    assert stream.finish() == "\ufffd"


@given(ids=st.lists(st.integers(0, 301), max_size=30), width=st.integers(1, 4))
def test_a_stream_gives_the_decoded_text_however_it_is_cut(tokens: Tokens, ids: list[int], width: int) -> None:
    stream = tokens.stream()
    pieces = [stream.push(ids[start : start + width]) for start in range(0, len(ids), width)]
    assert "".join(pieces) + stream.finish() == tokens.decode(ids)


def test_the_ends_are_those_of_generation_config_then_the_tokenizers(prepared: Path, tmp_path: Path) -> None:
    assert Tokens.load(prepared).eos_ids == (1,)
    other = copy_model(prepared, tmp_path / "other")
    edit_json(other / "generation_config.json", eos_token_id=[7, 0])
    assert Tokens.load(other).eos_ids == (7, 0, 1)


def test_a_model_without_an_end_is_refused(prepared: Path, tmp_path: Path) -> None:
    other = copy_model(prepared, tmp_path / "other")
    edit_json(other / "generation_config.json", eos_token_id=None)
    edit_json(other / "tokenizer_config.json", eos_token=None)
    with pytest.raises(ValueError, match="names an end-of-sequence token"):
        Tokens.load(other)


def test_a_directory_that_is_not_prepared_is_refused(base: Path) -> None:
    with pytest.raises(ManifestError, match="is not a prepared checkpoint"):
        Tokens.load(base)


def test_a_plain_tokenizer_leaves_the_one_it_is_made_from_alone(prepared: Path) -> None:
    tokenizer = Tokenizer.from_file(str(prepared / "tokenizer.json"))
    plain = plain_tokenizer(tokenizer)
    assert plain.encode("<Path>").ids != tokenizer.encode("<Path>").ids == [298]
    assert len(json.loads(tokenizer.to_str())["added_tokens"]) == 14


def test_a_continued_prompt_ends_with_the_last_messages_content(tokens: Tokens) -> None:
    goal = "<Goal>\n<Outline>\n1: a\n</Outline>\n</Goal>"
    block = f"<Parallel>\n{goal}\n<Path>\n1: b\n</Path>\n<Conclusion>\nc\n</Conclusion>\n</Parallel>"
    structured = f"{block}\nAnswer:"
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": structured}]
    ids = tokens.continued(turns)
    assert ids == tokens.chat(turns, add_generation_prompt=False)[: len(ids)]
    content = tokens.encode_structured(structured)
    assert ids[-len(content) :] == content
