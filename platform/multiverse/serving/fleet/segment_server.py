"""A replica's side: runs the segments of any number of routers on its engine.

All of a router's segments share one stream of outputs. What several of them made in one step of the engine travels as
one message, and so does what they made in a few steps: per token and branch, a message would cost more than the token.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from multiverse.engine.references import KVMismatch, KVReference
from multiverse.engine.segment import Segment
from multiverse.engine.vllm_engine import VllmEngine
from multiverse.serving.fleet.messages import Command, Failed, Output, Release, Status, Stop, Submit, joined
from multiverse.serving.fleet.store import Store
from multiverse.telemetry import traces

log = logging.getLogger(__name__)

SILENCE = 30.0
"""Seconds without a word from a router, after which it is taken for dead and all that is its own is dropped."""


GATHERED = 0.1
"""Seconds that a token waits for those behind it. A segment's first token and its end wait for nothing."""


@dataclass(slots=True)
class _Client:
    """One router: its running segments, its leases and exports, and outputs that it has not fetched.

    hurry: something is among the outputs that is not to wait.
    """

    outputs: asyncio.Queue[Output | None] = field(default_factory=asyncio.Queue)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    segments: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    held: dict[str, None] = field(default_factory=dict)
    heard: float = field(default_factory=time.monotonic)

    def put(self, output: Output | None, at_once: bool) -> None:
        self.outputs.put_nowait(output)
        if at_once:
            self.hurry.set()


class SegmentServer:
    def __init__(self, engine: VllmEngine, replica: str, store: Store, node: str) -> None:
        """replica: this one's name. store: how KV gets to other nodes. node: this one."""
        engine.transfers.replica, engine.transfers.node = replica, node
        self._engine = engine
        self._replica = replica
        self._store = store
        self._node = node
        self._clients: dict[str, _Client] = {}
        self._watch = asyncio.create_task(self._drop_silent())

    # ---- called by routers ----------------------------------------------------------------------------------------

    async def outputs(self, router: str) -> AsyncGenerator[list[Output], None]:
        """All outputs of a router's segments, those of a few steps together. Ends with `close` only."""
        client = self._client(router)
        while True:
            batch = [await client.outputs.get()]
            with suppress(TimeoutError):
                await asyncio.wait_for(client.hurry.wait(), GATHERED)
            await asyncio.sleep(0)  # what the same step of the engine made for other segments comes along
            client.hurry.clear()
            while not client.outputs.empty():
                batch.append(client.outputs.get_nowait())
            if found := joined([item for item in batch if item is not None]):
                yield found
            if None in batch:
                return

    def command(self, router: str, commands: Sequence[Command]) -> None:
        """Carry out commands in their order."""
        client = self._client(router)
        for command in commands:
            match command:
                case Submit(segment):
                    client.held |= dict.fromkeys(_made_by(segment))
                    client.segments[segment.id] = asyncio.create_task(self._run(client, segment))
                case Stop(id):
                    if (task := client.segments.get(id)) is not None:
                        task.cancel()
                case Release(ids):
                    self._release(client, ids)

    async def export(self, router: str, lease: str, start: int, like: Segment) -> KVReference | None:
        client = self._client(router)
        reference = await self._engine.export(lease, start, like)
        if reference is not None:
            client.held[reference.id] = None
        return reference

    async def exported(self, router: str, id: str) -> KVReference | None:
        self._client(router)
        return await self._engine.transfers.exported(id)

    async def carried(self, router: str, reference: KVReference) -> KVReference:
        self._client(router)
        return await self._store.put(reference)

    async def status(self, router: str) -> Status:
        """Also tells that the router lives. Raises if the engine is dead, before Serve finds that out."""
        await self._engine.check_health()
        self._client(router)
        stats = self._engine.figures
        stats |= {"kv_mismatches": self._engine.transfers.mismatches, **self._store.figures()}
        return Status(
            running=stats["running"],
            waiting=stats["waiting"],
            capacity=self._engine.kv_tokens,
            free=self._engine.free_tokens,
            rows=self._engine.config.max_num_seqs,
            stats=stats,
        )

    async def close(self, router: str) -> None:
        """A router goes: its segments are aborted and what they held is given back."""
        client = self._clients.pop(router, None)
        if client is None:
            return
        for task in client.segments.values():
            task.cancel()
        await asyncio.gather(*client.segments.values(), return_exceptions=True)
        self._store.drop(client.held)
        await self._engine.release(tuple(client.held))
        client.put(None, at_once=True)

    # ---- inside ---------------------------------------------------------------------------------------------------

    async def shutdown(self) -> None:
        self._watch.cancel()
        for router in tuple(self._clients):
            await self.close(router)

    def _client(self, router: str) -> _Client:
        client = self._clients.setdefault(router, _Client())
        client.heard = time.monotonic()
        return client

    def _release(self, client: _Client, ids: Sequence[str]) -> None:
        for id in ids:
            client.held.pop(id, None)
        self._store.drop(ids)
        self._background(self._engine.release(ids))

    def _background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        _TASKS.add(task)
        task.add_done_callback(_TASKS.discard)

    async def _run(self, client: _Client, segment: Segment) -> None:
        first = True
        try:
            local, fetched = await self._localized(segment)
            try:
                with traces.span("run", segment.trace, refusal=ValueError, segment=segment.id, replica=self._replica):
                    async with aclosing(self._engine.run(local)) as deltas:
                        async for delta in deltas:
                            client.put((segment.id, delta), at_once=first or delta.finish is not None)
                            first = False
            finally:
                self._store.drop(fetched)
        except asyncio.CancelledError:
            raise
        except ValueError as error:
            client.put((segment.id, Failed("refused", str(error))), at_once=True)
        except Exception as error:
            dead = not await self._alive()
            log.warning("segment %s failed: %s", segment.id, error)
            failed = Failed("dead" if dead else "failed", f"{type(error).__name__}: {error}")
            client.put((segment.id, failed), at_once=True)
        finally:
            client.segments.pop(segment.id, None)
            for id in segment.release:
                client.held.pop(id, None)

    async def _localized(self, segment: Segment) -> tuple[Segment, list[str]]:
        """The segment with KV of other nodes brought here; what cannot be brought is left out, and rebuilt."""
        adopted, fetched = [], []
        for name, reference in segment.adopted:
            if reference.node == self._node:
                adopted.append((name, reference))
                continue
            try:
                adopted.append((name, await self._store.get(reference, name)))
                fetched.append(name)
            except KVMismatch as error:
                log.warning("%s; it is made anew", error)
        return replace(segment, adopted=tuple(adopted)), fetched

    async def _alive(self) -> bool:
        try:
            await self._engine.check_health()
        except Exception:
            return False
        return True

    async def _drop_silent(self) -> None:
        while True:
            await asyncio.sleep(SILENCE / 3)
            oldest = time.monotonic() - SILENCE
            for router in [router for router, client in self._clients.items() if client.heard < oldest]:
                log.warning("router %s has been silent for %g s: its segments and KV are dropped", router, SILENCE)
                await self.close(router)


_TASKS: set[asyncio.Task[Any]] = set()
"""Running tasks nobody waits for: the event loop itself would let them be collected."""


def _made_by(segment: Segment) -> list[str]:
    """Ids of what the segment will leave behind."""
    return [*([segment.lease] if segment.lease is not None else []), *(export.id for export in segment.exports)]
