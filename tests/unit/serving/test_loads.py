"""What a router knows of the load that it makes, and what it expects from what it has seen."""

import pytest

from multiverse.serving.fleet.loads import Load, Loads
from multiverse.serving.placement.traffic import GUESS, RECENT, Lengths, Traffic
from multiverse.serving.placement.view import Prompts


def test_a_request_counts_on_each_replica_by_its_rows_there() -> None:
    loads = Loads()
    for replica, request in [("a", 1), ("a", 2), ("a", 2), ("b", 2), ("b", 2)]:
        loads.begin(replica, request, context=100, prefill=0)
    assert loads.of("a") == Load(rows=3, context=300, prefill=0, requests=1.5)
    assert loads.of("b") == Load(rows=2, context=200, prefill=0, requests=0.5)
    loads.end("b", 2, 100)
    loads.end("b", 2, 100)
    assert loads.of("a").requests == pytest.approx(2.0)
    assert loads.of("b") == Load()


def test_a_prompt_weighs_until_it_is_computed() -> None:
    loads = Loads()
    loads.begin("a", 1, context=100, prefill=70)
    assert loads.of("a").prefill == 70
    loads.computed("a", 70)
    assert loads.of("a").prefill == 0


def test_lengths_are_guessed_until_something_has_ended() -> None:
    lengths = Lengths()
    assert (lengths.expected(1000), lengths.expected(7)) == (GUESS, 7)
    lengths.add(10)
    lengths.add(30)
    assert lengths.expected(1000) == 20


def test_lengths_forget() -> None:
    lengths = Lengths()
    lengths.add(10**6)
    for _ in range(RECENT):
        lengths.add(5)
    assert lengths.expected(1000) == 5


def test_prompts_go_where_nobody_is_less_loaded() -> None:
    """Four prompts in 2 s, two to replicas with 1 row, two to such with 3; of 8 replicas, 2 have less than 2 rows."""
    traffic = Traffic()
    for at, rows in enumerate([1, 3, 1, 3]):
        traffic.prompt(at / 2, rows, 0.25)
    prompts = traffic.prompts(2.0, lambda rows: 2 if rows < 2 else 4, 8)
    assert prompts == Prompts(by_rows=(1.0, 1.0, 0.25, 0.25), mean=0.25, prefill=0.25)


def test_that_is_good_for_about_one_prompt() -> None:
    prompts = Prompts(by_rows=(1.0,), mean=0.25, prefill=0.1)
    assert (prompts.expected(0, 1.0), prompts.expected(9, 1.0)) == (1.0, 0.0)
    assert (prompts.expected(0, 100.0), prompts.expected(9, 100.0)) == (26.0, 24.0)
