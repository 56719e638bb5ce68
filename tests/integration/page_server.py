"""The page's server over an engine that is told what to say."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from multiverse.serving.access.access import Access
from multiverse.serving.access.admission import Admission, AdmissionLimits
from multiverse.serving.api.http import build_asgi
from multiverse.serving.events import (
    Block,
    BlockForked,
    BlockJoined,
    Branch,
    BranchFinished,
    BranchRetried,
    Event,
    FellBack,
    Finished,
    Result,
    TokensAdded,
)
from multiverse.serving.request import GenerationRequest
from tests.integration.http_surface import surface
from tests.unit.serving.http_fakes import FakeEngine, sequential

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
LONG = "unbreakable" * 40


def nested(outline: str = "walk", text: str = "one ") -> list[Event | float]:
    """A block of two on two replicas, whose second branch has a block of two in it, and moves; with pauses."""
    words = engine.tokens
    head = words.structured(
        f"Look.\n<Parallel>\n<Goal>\n<Outline>\n1: {outline}\n</Outline>\n<Outline>\n2: light\n</Outline>\n</Goal>"
    )
    inner = words.structured("<Parallel>\n<Goal>\n<Outline>\n2.1: sun\n</Outline>\n</Goal>")
    rest = words.structured("\n<Conclusion>\nboth help\n</Conclusion>\n</Parallel>\nlast words\n</Path>")
    tail = words.structured("\n<Conclusion>\nget up\n</Conclusion>\n</Parallel>\nDone.")
    first, second = ((1, 1),), ((1, 2),)
    third, fourth = (*second, (2, 1)), (*second, (2, 2))
    said = words.ids(text)
    block = Block(2, (Branch("2.1: sun", said, "stop", 1.0, (), "a"), Branch("2.2: lamp", said, "length", 1.0)), 9.0)
    branches = (
        Branch(f"1: {outline}", said * 3, "stop", 80.0, (), "app#Engine#a"),
        Branch("2: light", said * 4, "stop", 90.0, (block,), "app#Engine#b"),
    )
    return [
        0.1,
        TokensAdded((), head),
        BlockForked((), 1, (f"1: {outline}", "2: light"), ("app#Engine#a", "app#Engine#b")),
        0.05,
        TokensAdded(first, said),
        TokensAdded(second, words.ids("before ")),
        TokensAdded(second, inner),
        BlockForked(second, 2, ("2.1: sun", "2.2: lamp"), ("app#Engine#a", "app#Engine#b")),
        0.1,
        TokensAdded(third, said),
        TokensAdded(fourth, said),
        BranchFinished(third, "stop", 1, 5.0),
        0.1,
        BranchFinished(fourth, "length", 1, 5.0),
        BlockJoined(second, 2, 9.0),
        TokensAdded(second, rest),
        BranchRetried(second),
        BranchFinished(second, "stop", 4, 90.0),
        FellBack(first, "stray_tag"),
        TokensAdded(first, said * 2),
        0.1,
        BranchFinished(first, "stop", 3, 80.0),
        BlockJoined((), 1, 100.0),
        TokensAdded((), tail),
        Finished(Result(head + said * 7 + tail, "stop", 20, 1.5, (Block(1, branches, 100.0),), ("stray_tag",))),
    ]


def script(request: GenerationRequest) -> list[Any]:
    one = list(sequential(engine.tokens, "One", " two"))
    match request.question:
        case "block":
            return nested()
        case "hostile":
            return nested(HOSTILE, HOSTILE)
        case "long":
            return nested(LONG, LONG)
        case "fail":
            return [RuntimeError("out of memory")]
        case "fail later":
            return [one[0], 0.2, RuntimeError("out of memory")]
        case "lose":
            return [one[0], 0.2, one[1], 0.2, *one[1:]]
        case "wait":
            return [one[0], 60.0]
        case said if said.startswith("echo "):
            return list(sequential(engine.tokens, said.removeprefix("echo ")))
        case _:
            return one


engine = FakeEngine(script, max_model_len=2000, trained=True)
engine.figures |= {"steps": ((1.0, 0.1), (2.0, 0.1)), "running": 1, "replicas": 1}


class Losing:
    """ASGI: loses the connection after some chunks of the answer to "lose"."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked, sent = b"", 0

        async def received() -> Message:
            nonlocal asked
            message = await receive()
            asked += message.get("body", b"")
            return message

        async def lose(message: Message) -> None:
            nonlocal sent
            sent += 1
            if b'"lose"' in asked and sent > 3:
                raise OSError("lost on purpose")
            await send(message)

        await self._app(scope, received, lose)


@contextmanager
def serving(access: Access | None = None, running: int = 8) -> Iterator[str]:
    """The server's address. A request that finds ``running`` others is refused."""
    app = build_asgi(engine, "tiny", access=access, admission=Admission(AdmissionLimits(running, max_waiting=0)))
    with surface(Losing(app), log_level="critical") as port:
        yield f"http://127.0.0.1:{port}/"


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for it; fails when it takes longer."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
