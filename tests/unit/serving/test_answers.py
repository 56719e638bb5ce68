"""Events to answers."""

from multiverse.engine.segment import Sampling, TokenLogprob
from multiverse.serving.answer.answers import Answer, Text
from multiverse.serving.api.speedup import Gain
from multiverse.serving.events import (
    Block,
    BlockForked,
    Branch,
    BranchFinished,
    BranchRetried,
    Event,
    FellBack,
    Finished,
    Result,
    TokensAdded,
)
from multiverse.serving.request import GenerationRequest, ParallelOptions
from tests.unit.serving.http_fakes import FIRST, HEAD, SECOND, TAG_IDS, TAIL, Words, block_of_two


def answer(words: Words, *, tags: bool = True, stop: tuple[str, ...] = ()) -> Answer:
    request = GenerationRequest("r", (50, 51), Sampling(max_tokens=9, stop=stop), ParallelOptions(mode="auto"))
    return Answer(request, words, TAG_IDS, tags=tags)


def pieces(folded: Answer, events: list[Event]) -> list[str]:
    return [piece.text for event in events if (piece := folded.push(event)) is not None and piece.text]


def test_later_branch_is_held_back_until_the_earlier_one_is_done() -> None:
    words = Words()
    assert pieces(answer(words), block_of_two(words)) == [
        HEAD,
        "\n<Path>\n1: one.",
        "\n",
        "</Path>",
        SECOND,
        "\n<Conclusion>",
        "\nboth\n</Conclusion>\n</Parallel>\nDone.",
    ]


def test_text_is_that_of_the_result() -> None:
    words = Words()
    folded = answer(words)
    pieces(folded, block_of_two(words))
    assert folded.text == HEAD + FIRST + SECOND + TAIL == words.decode(folded.result.tokens)


def test_nested_block_is_read_inside_its_branch() -> None:
    words = Words()
    events: list[Event] = [
        BlockForked((), 1, ("1: a", "2: b")),
        TokensAdded(((1, 2),), words.ids("last")),
        BranchFinished(((1, 2),), "stop", 1, 1.0),
        TokensAdded(((1, 1),), words.ids("first")),
        BlockForked(((1, 1),), 2, ("1.1: c", "1.2: d")),
        TokensAdded(((1, 1), (2, 2)), words.ids("third")),
        TokensAdded(((1, 1), (2, 1)), words.ids("second")),
        BranchFinished(((1, 1), (2, 1)), "stop", 1, 1.0),
        BranchFinished(((1, 1), (2, 2)), "stop", 1, 1.0),
        TokensAdded(((1, 1),), words.ids("fourth")),
        BranchFinished(((1, 1),), "stop", 4, 1.0),
    ]
    assert pieces(answer(words), events) == ["first", "second", "third", "fourth", "last"]


def test_parallel_has_figures_and_tree() -> None:
    words = Words()
    folded = answer(words)
    pieces(folded, block_of_two(words))
    told = folded.parallel()
    assert told.pop("milliseconds") >= 0
    assert told == {
        "mode": "auto",
        "reduce": "kv",
        "tokens": len(words.structured(HEAD + FIRST + SECOND + TAIL)),
        "critical_path": 40,
        "x": 1.5,
        "ended": True,
        "speedup": None,
        "fallbacks": [],
        "blocks": [
            {
                "id": 1,
                "width": 2,
                "milliseconds": 25.0,
                "branches": [
                    {
                        "outline": "add",
                        "text": "one.",
                        "tokens": 6,
                        "finish_reason": "stop",
                        "milliseconds": 20.0,
                        "blocks": [],
                    },
                    {
                        "outline": "take",
                        "text": "two.",
                        "tokens": 6,
                        "finish_reason": "length",
                        "milliseconds": 10.0,
                        "blocks": [],
                    },
                ],
            }
        ],
    }


def test_parallel_has_the_gain_where_it_is_known() -> None:
    folded = answer(Words())
    folded.gain = Gain(sequential=3.0, taken=2.0, expected=1.8, batch=1.0)
    folded.push(Finished(Result((), "stop", 0, 1.0)))
    assert folded.parallel()["speedup"] == {
        "measured": 1.5,
        "milliseconds": 2000.0,
        "sequential_milliseconds": 3000.0,
    }


def test_nested_blocks_hang_under_their_branch() -> None:
    words = Words()
    folded = answer(words)
    inner = Block(2, (Branch("1.1: c", words.structured("\n<Path>\n1.1: x</Path>"), "given_up", 1.0),), 2.0)
    outer = Block(1, (Branch("1: a", words.structured("\n<Path>\n1: y</Path>"), "stop", 3.0, (inner,)),), 4.0)
    folded.push(Finished(Result((), "length", 0, 1.0, (outer,), ("stray_tag",))))
    (branch,) = folded.parallel()["blocks"][0]["branches"]
    assert branch["blocks"][0]["branches"][0]["text"] == "x"
    assert branch["blocks"][0]["branches"][0]["finish_reason"] == "given_up"
    assert folded.parallel()["fallbacks"] == ["stray_tag"]


def test_progress_tells_forks_deltas_branches_and_joins() -> None:
    words = Words()
    folded = answer(words)
    told = []
    for event in block_of_two(words):
        folded.push(event)
        told.append(folded.progress(event))
    first, second = ((1, 1),), ((1, 2),)
    times = [progress.pop("at") for progress in told if progress is not None]
    assert times == sorted(times)
    assert [progress for progress in told if progress is not None] == [
        {"event": "fork", "block": 1, "place": (), "outlines": ["add", "take"]},
        {"event": "delta", "block": 1, "branch": 2, "place": second, "delta": "two."},
        {
            "event": "branch",
            "block": 1,
            "branch": 2,
            "place": second,
            "finish_reason": "length",
            "tokens": 6,
            "milliseconds": 10.0,
        },
        {"event": "delta", "block": 1, "branch": 1, "place": first, "delta": "one."},
        {
            "event": "branch",
            "block": 1,
            "branch": 1,
            "place": first,
            "finish_reason": "stop",
            "tokens": 6,
            "milliseconds": 20.0,
        },
        {"event": "join", "block": 1, "place": (), "milliseconds": 25.0},
    ]


def test_progress_tells_fallbacks() -> None:
    told = answer(Words()).progress(FellBack((), "no_goal"))
    assert told == {"event": "fallback", "place": (), "reason": "no_goal", "at": 0.0}


def test_progress_tells_that_a_branch_moved() -> None:
    told = answer(Words()).progress(BranchRetried(((1, 2),)))
    assert told == {"event": "retry", "block": 1, "branch": 2, "place": ((1, 2),), "at": 0.0}


def test_without_tags_only_the_chain_is_left() -> None:
    words = Words()
    folded = answer(words, tags=False)
    streamed = "".join(pieces(folded, block_of_two(words)))
    assert streamed == folded.text == "Look.one.two.Done."


def test_log_probabilities_come_in_reading_order_and_none_for_written_tokens() -> None:
    words = Words()
    folded = answer(words)
    (a, b, c) = words.ids("a", "b", "c")
    of_b, of_c = TokenLogprob(b, -0.5), TokenLogprob(c, -0.25)
    events: list[Event] = [
        BlockForked((), 1, ("1: x", "2: y")),
        TokensAdded(((1, 2),), (c,), (of_c,)),
        TokensAdded(((1, 1),), (a,), written=True),
        TokensAdded(((1, 1),), (b,), (of_b,)),
        BranchFinished(((1, 1),), "stop", 2, 1.0),
    ]
    assert [folded.push(event) for event in events] == [
        None,
        None,
        Text("a", (a,), (None,), 0),
        Text("b", (b,), (of_b,), 1, 1),
        Text("c", (c,), (of_c,), 2, 2),
    ]


def stopped(words: Words, *text: str, stop: tuple[str, ...], stop_text: str | None) -> list[str]:
    folded = answer(words, stop=stop)
    events: list[Event] = [TokensAdded((), words.ids(word)) for word in text]
    return pieces(folded, [*events, Finished(Result((), "stop", 0, 1.0, stop_text=stop_text))])


def test_stop_string_never_shows() -> None:
    assert stopped(Words(), "one ", "E", "N", "D", stop=("END",), stop_text="one ") == ["one "]


def test_text_that_only_began_like_a_stop_string_comes_later() -> None:
    assert stopped(Words(), "one ", "E", "N", "x", stop=("END",), stop_text=None) == ["one ", "ENx"]


def test_beginning_of_a_stop_string_comes_at_the_end() -> None:
    assert stopped(Words(), "one ", "E", stop=("END",), stop_text="one E") == ["one ", "E"]


def test_stop_string_inside_a_token_cuts_it() -> None:
    assert stopped(Words(), "a.b", stop=(".",), stop_text="a") == ["a"]
