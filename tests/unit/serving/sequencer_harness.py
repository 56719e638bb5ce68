"""Runs the sequencer on the fake engine and collects what it tells."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from multiverse.engine.segment import Sampling, Segment
from multiverse.serving.events import Event, Finished, Result
from multiverse.serving.request import GenerationRequest, ParallelOptions
from multiverse.serving.sequencing.sequencer import EngineLimits, Sequencer
from multiverse.structure.tracker import Tracker
from tests.unit.serving.fake_engine import FakeEngine, Model, WordCodec, script

GOAL_2 = "<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n<Outline>\n2: b\n</Outline>\n</Goal>"
GOAL_3 = GOAL_2.replace("</Goal>", "<Outline>\n3: c\n</Outline>\n</Goal>")


@dataclass(frozen=True)
class Run:
    codec: WordCodec
    engine: FakeEngine
    events: list[Event]

    @property
    def result(self) -> Result:
        assert isinstance(self.events[-1], Finished)
        return self.events[-1].result

    @property
    def text(self) -> str:
        return self.codec.decode(self.result.tokens)

    def of(self, kind: type) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def segment(self, ending: str) -> Segment:
        """The only segment whose tokens end with ``ending``."""
        (found,) = [s for s in self.engine.segments if self.codec.decode(s.tokens).endswith(ending)]
        return found

    def masked(self, segment: Segment) -> set[str]:
        return {self.codec.decode((id,)) for id in segment.masked}


async def run(
    continuations: Mapping[str, str] | Model,
    *,
    codec: WordCodec | None = None,
    jitter: int | None = None,
    max_tokens: int = 400,
    max_model_len: int = 1000,
    trained: bool = True,
    sampling: Sampling | None = None,
    prompt: str = "Q",
    arrival: int = 0,
    cache_salt: str = "",
    **parallel: object,
) -> Run:
    """Run one request to its end, ``auto`` unless ``mode`` says otherwise; when it tells so, nothing is left."""
    codec = codec or WordCodec()
    model = script(codec, continuations) if isinstance(continuations, Mapping) else continuations
    engine = FakeEngine(codec, model, jitter)
    options = ParallelOptions(**{"mode": "auto", **parallel})  # type: ignore[arg-type]
    request = GenerationRequest(
        "r",
        tuple(codec.encode(prompt)),
        sampling or Sampling(max_tokens=max_tokens),
        options,
        question="What?",
        arrival=arrival,
        cache_salt=cache_salt,
    )
    sequencer = Sequencer(engine, codec, EngineLimits(max_model_len, trained))
    events: list[Event] = []
    async for event in sequencer.generate(request):
        events.append(event)
        assert engine.idle or not isinstance(event, Finished)
    return Run(codec, engine, events)


def babble(codec: WordCodec, seed: int, wild: float = 0.0) -> Model:
    """A model that writes random text in well-formed structure; a share ``wild`` of its tokens is any tag at all.

    What it writes behind the same tokens is always the same, wherever the segment began.
    """
    draw_tag = list(codec.vocabulary.tag_ids)

    def choose(draw: random.Random, tracker: Tracker, text: str) -> str:
        if draw.random() < wild:
            return draw.choice(draw_tag)
        top = tracker.open_tags[-1] if tracker.open_tags else "<Path>"
        match top:
            case "<Parallel>":
                closing = text.rstrip("\n").endswith("</Conclusion>")
                return draw.choice(("\n", "</Parallel>" if closing else "<Goal>"))
            case "<Goal>":
                some = "</Outline>" in text.rsplit("<Goal>", 1)[1]
                return draw.choice(("\n", "<Outline>", "<Outline>", "</Goal>" if some else "\n"))
            case "<Outline>":
                inner = text.rsplit("<Outline>", 1)[1]
                if ":" in inner:
                    return draw.choice((" word", "</Outline>"))
                return "\n" if not inner.endswith("\n") else _number(text)
            case "<Conclusion>":
                return draw.choice((" so", "\n", "</Conclusion>"))
            case _:
                choices = (" a", " b", "\n", " c", "<Parallel>", "<eos>", "</Path>")
                return draw.choice(choices)

    def model(segment: Segment) -> Iterator[int]:
        tracker = Tracker(codec.vocabulary)
        tracker.push_all(segment.tokens)
        tokens = list(segment.tokens)
        attempt = 0
        while True:
            draw = random.Random(f"{seed} {attempt} {tokens}")
            piece = choose(draw, tracker, codec.decode(tokens))
            if piece == "<eos>":
                return
            (id,) = codec.encode(piece)
            if id in segment.masked:
                attempt += 1
                continue
            attempt = 0
            tokens.append(id)
            tracker.push(id)
            yield id

    return model


def _number(text: str) -> str:
    """The number of the outline that is being written, behind those of its branch."""
    goal = text.rsplit("<Goal>", 1)[1]
    return f"{goal.count('<Outline>')}:"
