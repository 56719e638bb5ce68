"""Answers to the stages' questions, good and bad ones, by what is in the question."""

import json
import random
import re
from collections.abc import Sequence
from typing import Any

from multiverse.curation.llm.accounting import Accounting
from multiverse.curation.llm.calls import Call, Reply
from tests.unit.curation.plans import random_replies

Message = dict[str, str]
NONSENSE = (
    "",
    "I cannot do that.",
    '{"steps": {"1": "a", "2',
    '{"steps": {"0": "a", "99999": "b"}}',
    '{"steps": {"2": "a"}, "sub_steps": {"1": "b"}}',
    '{"needs": {"1": [1]}}',
    '{"needs": {}, "alternatives": [["7"]]}',
    '{"blocks": {"1": {"outlines": ["a"], "conclusion": ""}}}',
    '{"blocks": {}}',
    "[]",
    "null",
    '{"steps": {}, "needs": {}, "blocks": {}}',
    "</Path>",
)


def good_answer(messages: Sequence[Message], seed: int = 0) -> str:
    """A plan that is drawn from the chain's length and ``seed``, and texts for its blocks."""
    first = next(message["content"] for message in messages if message["role"] == "user")
    questions = [message["content"] for message in messages if message["role"] == "user"]
    question = next(text for text in reversed(questions) if not text.startswith("That answer cannot be used"))
    count = re.search(r"cut into (\d+) numbered sentences", first)
    assert count is not None
    sentences = int(count[1])
    steps, needs = random_replies(random.Random(f"{seed} {first}"), sentences)
    if "First question" in question:
        return steps
    if "Second question" in question:
        return needs
    widths = [int(found[1]) for found in re.finditer(r"^Block \d+, (\d+) branches:", question, re.MULTILINE)]
    blocks = {
        str(number): {
            "outlines": [f"look at part {chr(97 + place % 26)}{'x' * (place // 26)} of it" for place in range(width)],
            "conclusion": "All parts are done.",
        }
        for number, width in enumerate(widths, start=1)
    }
    return json.dumps({"blocks": blocks})


def bad_answer(messages: Sequence[Message], draw: random.Random) -> str:
    """Nonsense, or a good answer that was damaged."""
    if draw.random() < 0.5:
        return draw.choice(NONSENSE)
    text = list(good_answer(messages, draw.randrange(100)))
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(text))
        text[at : at + draw.randint(0, 3)] = draw.choice(["", "0", "9", "]", "}", '"', "1, 1"])
    return "".join(text)


class ScriptedLLM:
    """An `LLM` that answers at once. share_bad: of the answers that are bad ones. Empty answers become a blank."""

    def __init__(self, share_bad: float = 0.0, seed: int = 0) -> None:
        self._share, self._draw = share_bad, random.Random(seed)
        self.calls: list[Call] = []
        self.accounting = Accounting()

    async def __call__(self, call: Call) -> Reply:
        self.calls.append(call)
        is_bad = self._draw.random() < self._share
        text = bad_answer(call.messages, self._draw) if is_bad else good_answer(call.messages)
        return reply(text or " ")


def reply(text: str, **more: Any) -> Reply:
    values: dict[str, Any] = {"prompt_tokens": 10, "completion_tokens": len(text.split()), "attempts": 1}
    return Reply(text, **(values | {"cached": False, "cost": 0.001, "model": "scripted"} | more))
