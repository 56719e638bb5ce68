"""Renders chat templates with the messages' contents kept apart from the template's own text.

The template is rendered with placeholders of private-use characters in place of contents, and what it wrote is split
at them. So contents never meet the template's special tokens before both are tokenized.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_OPEN, _CLOSE, _EDGE = "\ue0f0", "\ue0f1", "\u205f"
_PLACEHOLDER = re.compile(f"({_EDGE}?){_OPEN}(\\d+){_CLOSE}({_EDGE}?)")
_ROLE = re.compile(r"[A-Za-z_]+")


@dataclass(frozen=True, slots=True)
class Rendered:
    """One message's content as the template shows it."""

    role: str
    text: str


def render(
    hf_tokenizer: Any, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool
) -> list[str | Rendered]:
    """The template's own pieces (str) and the contents between them, in order.

    A template that trims a content (``| trim``, ``.strip()``) is followed, on each side by itself: the placeholder has
    a white-space character at both ends, and is looked at for what is left of them. Templates that look into a content
    (to cut an earlier answer's reasoning off, for instance) do not find there what they look for: it stays whole.
    Raises ValueError for a tokenizer without template, a role that is not a word, what the template itself refuses,
    and a content that the template drops or changes in another way.
    """
    from jinja2 import TemplateError

    if not hf_tokenizer.chat_template:
        raise ValueError("the model has no chat template; send a plain completion request instead")
    for message in messages:
        if not _ROLE.fullmatch(message["role"]):
            raise ValueError(f"a message's role is {message['role']!r}; it must be a word like 'user'")
    stand_ins = [{**message, "content": f"{_EDGE}{_OPEN}{i}{_CLOSE}{_EDGE}"} for i, message in enumerate(messages)]
    try:
        text = hf_tokenizer.apply_chat_template(stand_ins, tokenize=False, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:
        raise ValueError(f"the model's chat template refuses these messages: {error}") from error
    parts: list[str | Rendered] = []
    seen, end = set(), 0
    for match in _PLACEHOLDER.finditer(text):
        if match.start() > end:
            parts.append(text[end : match.start()])
        left, number, right = match.groups()
        message = messages[int(number)]
        content = message["content"]
        content = content if left else content.lstrip()
        parts.append(Rendered(message["role"], content if right else content.rstrip()))
        seen.add(int(number))
        end = match.end()
    if end < len(text):
        parts.append(text[end:])
    if missing := set(range(len(messages))) - seen:
        raise ValueError(f"the model's chat template drops or changes the content of message {min(missing)}")
    return parts
