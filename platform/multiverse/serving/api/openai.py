"""OpenAI's responses and stream chunks, as JSON objects, for chat and for plain completions."""

import time
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol

from multiverse.engine.segment import TokenLogprob
from multiverse.serving.answer.answers import Answer, Text
from multiverse.serving.interface import Codec


class Form(Protocol):
    """One of the two forms. ``object`` and ``chunk_object``: what OpenAI calls the response and its chunks."""

    id_prefix: str
    object: str
    chunk_object: str

    def whole(self, answer: Answer) -> dict[str, Any]:
        """A response's choice, without index and finish reason."""
        ...

    def first(self) -> dict[str, Any] | None:
        """What a stream says before the first text, if anything."""
        ...

    def piece(self, text: Text, top: int | None) -> dict[str, Any]:
        """A chunk's choice with the next text; ``top``: alternatives per token, None without log-probabilities."""
        ...

    def empty(self) -> dict[str, Any]:
        """A chunk's choice without text."""
        ...


class ChatForm:
    id_prefix = "chatcmpl-"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def whole(self, answer: Answer) -> dict[str, Any]:
        asked = answer.request.sampling.logprobs
        logprobs = None if asked is None else self._logprobs(answer.logprobs, asked)
        return {"message": {"role": "assistant", "content": answer.text, "refusal": None}, "logprobs": logprobs}

    def first(self) -> dict[str, Any] | None:
        return {"delta": {"role": "assistant", "content": ""}, "logprobs": None}

    def piece(self, text: Text, top: int | None) -> dict[str, Any]:
        return {
            "delta": {"content": text.text},
            "logprobs": None if top is None else self._logprobs(text.logprobs, top),
        }

    def empty(self) -> dict[str, Any]:
        return {"delta": {}, "logprobs": None}

    def _logprobs(self, logprobs: Sequence[TokenLogprob | None], top: int) -> dict[str, Any]:
        """Tokens that the engine wrote have no log-probability and are left out."""
        content = [
            {
                **self._token(entry.token, entry.logprob),
                "top_logprobs": [self._token(*other) for other in entry.top[:top]],
            }
            for entry in logprobs
            if entry is not None
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._codec.decode([token])
        # Part of a character has no text of its own, and so no bytes that could be told from it.
        return {"token": text, "logprob": logprob, "bytes": None if "\ufffd" in text else list(text.encode())}


class CompletionForm:
    id_prefix = "cmpl-"
    object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def whole(self, answer: Answer) -> dict[str, Any]:
        text = Text(answer.text, tuple(answer.tokens), tuple(answer.logprobs))
        return self.piece(text, answer.request.sampling.logprobs)

    def first(self) -> dict[str, Any] | None:
        return None

    def piece(self, text: Text, top: int | None) -> dict[str, Any]:
        return {"text": text.text, "logprobs": None if top is None else self._logprobs(text, top)}

    def empty(self) -> dict[str, Any]:
        return {"text": "", "logprobs": None}

    def _logprobs(self, text: Text, top: int) -> dict[str, Any]:
        """A token that the engine wrote has null."""
        decoded = [self._codec.decode([token]) for token in text.tokens]
        offsets = list(accumulate(map(len, decoded[:-1]), initial=text.offset)) if decoded else []
        return {
            "tokens": decoded,
            "token_logprobs": [None if entry is None else entry.logprob for entry in text.logprobs],
            "top_logprobs": [
                None if entry is None else {self._codec.decode([token]): value for token, value in entry.top[:top]}
                for entry in text.logprobs
            ],
            "text_offset": offsets,
        }


class Reply:
    """Everything that is sent for one HTTP request."""

    def __init__(self, form: Form, id: str, model: str, n: int) -> None:
        self._form = form
        self._n = n
        self._common = {"id": id, "created": int(time.time()), "model": model}

    def response(self, answers: Sequence[Answer], ids: bool = False) -> dict[str, Any]:
        """The whole response. Its ``parallel`` is the first choice's; where there are several, each has its own too."""
        choices = []
        for index, answer in enumerate(answers):
            choice = {"index": index, **self._form.whole(answer), "finish_reason": answer.result.finish}
            choice |= {"token_ids": answer.tokens} if ids else {}
            choices.append(choice if len(answers) == 1 else choice | {"parallel": answer.parallel()})
        return {
            **self._common,
            "object": self._form.object,
            "choices": choices,
            "usage": usage(answers, self._n),
            "parallel": answers[0].parallel(),
        }

    def first(self, index: int) -> dict[str, Any] | None:
        choice = self._form.first()
        return None if choice is None else self._chunk(index, choice)

    def piece(self, index: int, text: Text, top: int | None, ids: bool = False) -> dict[str, Any]:
        choice = self._form.piece(text, top)
        if ids:
            choice |= {"token_ids": list(text.tokens), "token_index": text.index}
        return self._chunk(index, choice)

    def progress(self, index: int, parallel: dict[str, Any]) -> dict[str, Any]:
        return self._chunk(index, self._form.empty()) | {"parallel": parallel}

    def finish(self, index: int, answer: Answer) -> dict[str, Any]:
        """A choice's last chunk."""
        choice = self._form.empty() | {"finish_reason": answer.result.finish}
        return self._chunk(index, choice) | {"parallel": answer.parallel()}

    def usage(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """The stream's last chunk, if usage is asked for; ``parallel`` is there as in the whole response."""
        chunk = {**self._common, "object": self._form.chunk_object, "choices": []}
        return chunk | {"usage": usage(answers, self._n), "parallel": answers[0].parallel()}

    def _chunk(self, index: int, choice: dict[str, Any]) -> dict[str, Any]:
        choices = [{"index": index, "finish_reason": None, **choice}]
        return {**self._common, "object": self._form.chunk_object, "choices": choices}


def usage(answers: Sequence[Answer], n: int) -> dict[str, int]:
    """Each prompt counted once for its ``n`` choices, every token of every branch of every choice."""
    prompt = sum(len(answer.request.prompt) for answer in answers[::n])
    completion = sum(len(answer.result.tokens) for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
