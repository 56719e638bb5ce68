"""Bodies to prompts: token ids in which tags come only from where they may."""

from collections.abc import Sequence
from dataclasses import dataclass

from multiverse.serving.api.errors import bad
from multiverse.serving.api.schema import ChatBody, CompletionBody
from multiverse.serving.interface import GenerationEngine
from multiverse.structure.grammar import GrammarError, parse


@dataclass(frozen=True, slots=True)
class Prompt:
    """``question``: the text that ``force`` mode plans from."""

    tokens: tuple[int, ...]
    question: str


def prompts(body: ChatBody | CompletionBody, engine: GenerationEngine) -> list[Prompt]:
    """The prompts of a body, in its order. Raises ApiError."""
    if isinstance(body, ChatBody):
        found = [_chat(body, engine)]
    else:
        found = [
            Prompt(tuple(engine.tokens.encode_plain(item)), item) if isinstance(item, str) else _ids(item, engine)
            for item in body.prompt
        ]
    field = "messages" if isinstance(body, ChatBody) else "prompt"
    for prompt in found:
        _check_length(field, prompt.tokens, engine.limits.max_model_len)
    return found


def _chat(body: ChatBody, engine: GenerationEngine) -> Prompt:
    # The newer name of the same role, which chat templates do not know.
    turns = [
        {"role": "system" if message.role == "developer" else message.role, "content": message.content}
        for message in body.messages
    ]
    try:
        tokens = engine.tokens.continued(turns) if body.continue_final_message else engine.tokens.chat(turns)
    except ValueError as error:
        raise bad("messages", f"messages: {error}") from error
    questions = [message.content for message in body.messages if message.role == "user"]
    return Prompt(tuple(tokens), questions[-1] if questions else body.messages[-1].content)


def _ids(ids: Sequence[int], engine: GenerationEngine) -> Prompt:
    size = engine.manifest.tokens
    for index, id in enumerate(ids):
        if not 0 <= id < size:
            raise bad("prompt", f"prompt[{index}] is {id}: must be a token id from 0 to {size - 1}")
    _check_tags(ids, engine)
    return Prompt(tuple(ids), engine.tokens.decode(ids))


def _check_tags(ids: Sequence[int], engine: GenerationEngine) -> None:
    tags = {id: tag for tag, id in engine.manifest.tag_ids.items()}
    if tags.keys().isdisjoint(ids):
        return
    pieces: list[str] = []
    start = 0
    for index, id in enumerate([*ids, None]):
        if id is None or id in tags:
            # A tag that is spelled with ordinary tokens is text: it must neither open nor close anything here.
            pieces.append(engine.tokens.decode(ids[start:index]).replace("<", "("))
            pieces.append("" if id is None else tags[id])
            start = index + 1
    try:
        parse("".join(pieces))
    except GrammarError as error:
        raise bad("prompt", f"prompt holds tag tokens that are not well-formed: {error}") from error


def _check_length(field: str, tokens: Sequence[int], max_model_len: int) -> None:
    if not tokens:
        raise bad(field, f"{field} is empty: must hold at least one token")
    if len(tokens) >= max_model_len:
        raise bad(
            field,
            f"{field} has {len(tokens)} tokens: must have at most {max_model_len - 1}, "
            f"one less than the model's context of {max_model_len}",
            "context_length_exceeded",
        )
