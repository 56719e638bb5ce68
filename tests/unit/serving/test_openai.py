"""Responses and chunks in OpenAI's form."""

from multiverse.engine.segment import Sampling, TokenLogprob
from multiverse.serving.answer.answers import Answer, Text
from multiverse.serving.api.openai import ChatForm, CompletionForm, Reply
from multiverse.serving.events import Finished, Result, TokensAdded
from multiverse.serving.request import GenerationRequest
from tests.unit.serving.http_fakes import TAG_IDS, Words


def answered(words: Words, logprobs: int | None = None) -> Answer:
    answer = Answer(GenerationRequest("r", (50, 51), Sampling(9, logprobs=logprobs)), words, TAG_IDS)
    a, b, c = words.ids("a", "bé", "c")
    answer.push(TokensAdded((), (a,), written=True))
    answer.push(TokensAdded((), (b,), (TokenLogprob(b, -0.5, ((b, -0.5), (c, -1.5))),)))
    answer.push(Finished(Result((a, b), "length", 2, 1.0)))
    return answer


def test_chat_leaves_out_log_probabilities_that_are_not_there() -> None:
    words = Words()
    choice = ChatForm(words).whole(answered(words, logprobs=1))
    token = {"token": "bé", "logprob": -0.5, "bytes": [98, 195, 169]}
    assert choice["logprobs"] == {"content": [{**token, "top_logprobs": [token]}], "refusal": None}


def test_part_of_a_character_has_no_bytes() -> None:
    words = Words()
    (part,) = words.ids("\ufffd")
    choice = ChatForm(words).piece(Text("", (part,), (TokenLogprob(part, -1.0),)), 0)
    assert choice["logprobs"]["content"] == [{"token": "\ufffd", "logprob": -1.0, "bytes": None, "top_logprobs": []}]


def test_plain_completion_lists_every_token_with_its_offset() -> None:
    words = Words()
    choice = CompletionForm(words).whole(answered(words, logprobs=2))
    assert choice["logprobs"] == {
        "tokens": ["a", "bé"],
        "token_logprobs": [None, -0.5],
        "top_logprobs": [None, {"bé": -0.5, "c": -1.5}],
        "text_offset": [0, 1],
    }


def test_offsets_of_a_later_piece_go_on() -> None:
    words = Words()
    (token,) = words.ids("x")
    choice = CompletionForm(words).piece(Text("x", (token,), (None,), offset=7), 0)
    assert choice["logprobs"]["text_offset"] == [7]


def test_without_being_asked_for_there_are_no_log_probabilities() -> None:
    words = Words()
    assert ChatForm(words).whole(answered(words))["logprobs"] is None


def test_prompt_counts_once_for_its_choices() -> None:
    words = Words()
    reply = Reply(CompletionForm(words), "id", "m", n=2)
    answers = [answered(words) for _ in range(4)]
    assert reply.response(answers)["usage"] == {"prompt_tokens": 4, "completion_tokens": 8, "total_tokens": 12}
