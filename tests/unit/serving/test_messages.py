"""What a replica made in a few steps travels as one message."""

from multiverse.engine.segment import Delta, TokenLogprob
from multiverse.serving.fleet.messages import Failed, joined


def test_deltas_of_a_segment_become_one_in_their_order() -> None:
    outputs = [("a", Delta((1,))), ("b", Delta((7,))), ("a", Delta((2, 3))), ("a", Delta((4,), finish="stop"))]
    assert joined(outputs) == [("a", Delta((1, 2, 3, 4), finish="stop")), ("b", Delta((7,)))]


def test_logprobs_stay_with_their_tokens() -> None:
    logprobs = [TokenLogprob(id, -float(id)) for id in (1, 2, 3)]
    outputs = [("a", Delta((1,), tuple(logprobs[:1]))), ("a", Delta((2, 3), tuple(logprobs[1:]), "length"))]
    assert joined(outputs) == [("a", Delta((1, 2, 3), tuple(logprobs), "length"))]


def test_a_failure_comes_behind_what_there_was() -> None:
    failed = Failed("failed", "no more")
    assert joined([("a", Delta((1,))), ("a", failed)]) == [("a", Delta((1,))), ("a", failed)]
    assert joined([]) == []
