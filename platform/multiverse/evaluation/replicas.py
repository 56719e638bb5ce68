"""Joins of branches that ran on different replicas: are they lossless, and how fast does the KV get there?

Both start the Serve application with several engine replicas, and drive them as a router does.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from multiverse.application import fleet_of, free_port, serving
from multiverse.config import AppConfig
from multiverse.engine.rebuild import Rebuilder
from multiverse.engine.segment import Delta, Fork, Placed, Sampling, Segment, Source
from multiverse.evaluation.comparison import Comparison, banned_ids
from multiverse.evaluation.documents import DocumentWriter, border_documents
from multiverse.evaluation.free import compare_answer, generate_freely
from multiverse.evaluation.lossless import CONTINUATION, MIN_TOKENS, TOLERANCE, Replayed, compare, control
from multiverse.evaluation.replay import Document
from multiverse.models.manifest import Manifest
from multiverse.models.reference import load_reference
from multiverse.models.tokens import Tokens
from multiverse.serving.fleet.fleet import Fleet


class InTurn:
    """A `SegmentEngine` over a fleet that gives each segment to the next replica, whoever holds what it reads."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._turn = itertools.cycle(sorted(fleet.links))

    async def run(self, segment: Segment) -> AsyncGenerator[Delta, None]:
        async for delta in self._fleet.run(replace(segment, replica=next(self._turn))):
            yield delta

    async def release(self, leases: Sequence[str]) -> None:
        await self._fleet.release(leases)

    def place(self, fork: Fork) -> Placed:
        return self._fleet.place(fork)

    def elsewhere(self, replica: str) -> str:
        return self._fleet.elsewhere(replica)


async def continued(
    engine: InTurn, documents: Sequence[Document], manifest: Manifest, banned: Sequence[int], concurrency: int
) -> list[list[Replayed]]:
    """Greedy continuations of every probe; the KV before it is made part by part, each on another replica."""
    rebuilder = Rebuilder(engine, manifest.vocabulary())
    gate = asyncio.Semaphore(concurrency)

    async def one(document: Document, number: int) -> Replayed:
        async with gate:
            segment = Segment(
                id=f"replicas-{document.name}-{number}",
                tokens=document.prompt(document.probes[number]),
                sampling=Sampling(max_tokens=CONTINUATION, temperature=0.0, logprobs=0),
                masked=tuple(banned),
                cache_salt="replicas",
            )
            sources, leases = await rebuilder.rebuild(list(segment.tokens), segment)
            tokens: list[int] = []
            logprobs: list[float] = []
            async for delta in engine.run(replace(segment, sources=tuple(sources), release=tuple(leases))):
                tokens += delta.tokens
                logprobs += [entry.logprob for entry in delta.logprobs or ()]
            return Replayed(tuple(tokens), tuple(logprobs))

    async def whole(document: Document) -> list[Replayed]:
        return list(await asyncio.gather(*(one(document, number) for number in range(len(document.probes)))))

    return [await whole(document) for document in documents]


def measure_lossless(config: AppConfig, nodes: int, concurrency: int = 16) -> dict[str, Any]:
    """Documents and free generation, branches spread over ``config.replicas`` replicas on ``nodes`` Ray nodes."""
    with serving(config, port=free_port(), quiet=True, nodes=nodes):
        return asyncio.run(_lossless(config, concurrency))


async def _lossless(config: AppConfig, concurrency: int) -> dict[str, Any]:
    model = (await asyncio.to_thread(config.engine_config)).model
    manifest, reference = Manifest.load(model), load_reference(model)
    banned = banned_ids(manifest, Tokens.load(model).eos_ids)
    made = border_documents(manifest.vocabulary(), config.engine.block_size or 128)
    documents = [Document.of(name, ids, manifest.vocabulary(), header=3) for name, ids in made.items()]
    phases: dict[str, Comparison] = {}
    async with fleet_of(config) as router:
        replayed = await continued(InTurn(router.fleet), documents, manifest, banned, concurrency)
        answers = await generate_freely(router.engine, concurrency, max_tokens=320)
        await asyncio.sleep(2.5)  # what was given back is told with the next status
        stats, figures = await router.engine.stats(), router.fleet.figures
    documented = phases["documents, part by part"] = Comparison()
    for document, items in zip(documents, replayed, strict=True):
        compare(documented, reference, document, items, banned, "replicas")
    live = phases["live"] = Comparison()
    for answer in answers:
        compare_answer(live, reference, router.engine, answer, "live")
    total = Comparison()
    for phase in phases.values():
        total.take(phase)
    off = max(control(reference, one, items) for one, items in list(zip(documents, replayed, strict=True))[::4])
    ok = (
        total.max_abs_dlogp <= TOLERANCE
        and not total.unequal
        and total.tokens_compared >= MIN_TOKENS
        and total.shortest >= CONTINUATION
        and off > 10 * TOLERANCE
        and min(figures.pulled, figures.placed["remote"]) > 0
        and stats["leases"] == stats["known_leases"] == stats["exports"] == 0
    )
    return {
        **total.report(),
        "control_dlogp": off,
        "preemptions": stats["preemptions"],
        "replicas": config.replicas,
        "pulled": figures.pulled,
        "branches": dict(figures.placed),
        "bytes_between_nodes": stats["received_bytes"],
        "rebuilds": stats["rebuilds"],
        "leases_left": stats["leases"],
        "exports_left": stats["exports"],
        "phases": {name: phase.figures() for name, phase in phases.items()},
        "ok": ok,
    }


def measure_join(config: AppConfig, nodes: int, megabytes: int, repeats: int) -> dict[str, Any]:
    """How long ``megabytes`` of KV take from one replica's cache to another's, beside a plain memcpy of as much."""
    with serving(config, port=free_port(), quiet=True, nodes=nodes):
        return asyncio.run(_join(config, megabytes, repeats))


async def _join(config: AppConfig, megabytes: int, repeats: int) -> dict[str, Any]:
    model = (await asyncio.to_thread(config.engine_config)).model
    write = DocumentWriter(Manifest.load(model).vocabulary())
    block = config.engine.block_size or 128
    async with fleet_of(config) as router:
        kv_bytes = router.fleet.costs.kv_bytes
        count = -(-megabytes * 2**20 // kv_bytes // block) * block
        size = count * kv_bytes
        memcpy = size / _memcpy(size)
        rows = {
            name: await _moves(router.fleet, write, count, offset, repeats)
            for name, offset in (("whole_blocks", 0), ("token_by_token", block // 2 - 7))
        }
    parts = {name: {part: statistics.median(row[part] for row in rows[name]) for part in _PARTS} for name in rows}
    moved = {
        name: part["export"] - part["idle_step"] + part["adopt"] - part["cached_step"] for name, part in parts.items()
    }
    return {
        "bytes": size,
        "copies": int(rows["whole_blocks"][0]["copies"]),
        "checksums": 2,
        "memcpy_MB_per_s": memcpy / 1e6,
        **{f"{name}_MB_per_s": size / 1e6 / seconds for name, seconds in moved.items()},
        **{f"{name}_ratio_to_memcpy": size / seconds / memcpy for name, seconds in moved.items()},
        "ratio_to_memcpy": size / max(moved.values()) / memcpy,
        "seconds": moved,
        "parts_s": parts,
    }


_PARTS = ("export", "idle_step", "adopt", "cached_step")


async def _moves(fleet: Fleet, write: DocumentWriter, count: int, offset: int, repeats: int) -> list[dict[str, float]]:
    """Move the KV of ``count`` tokens, which lie ``offset`` tokens further back where they come from.

    Exporting rides on a step of the giving engine, and taking over on one of the taking engine. What these steps take
    without it is taken off: a step with nothing to do, and the same request again, which finds its KV in the cache.
    """
    first, second = sorted(fleet.links)
    rows = []
    for number in range(repeats + 1):
        tokens, name = write.text(offset + count), f"{offset}-{number}"
        held = Segment(f"given-{name}", tokens, _ONE, lease=f"given-{name}", prefill_only=True, replica=first)
        await _first(fleet, held)
        link, row = fleet.links[first], {"copies": 2.0}
        row["idle_step"] = await _first(
            fleet, Segment(f"idle-{name}", tokens[:1], _ONE, cache_salt="idle", replica=first)
        )
        begun = time.perf_counter()
        reference = await link.export(f"given-{name}", 0, held)
        if reference is not None and fleet.links[second].node != link.node:
            reference = await link.carried(reference)
            row["copies"] = 4.0
        row["export"] = time.perf_counter() - begun
        if reference is None:
            raise RuntimeError(f"the arena has no room for the KV of {len(tokens)} tokens")
        want = Segment(
            f"taken-{name}",
            [*tokens[offset:], *write.text(2)],
            _ONE,
            sources=(Source("theirs", 0, count, offset),),
            adopted=(("theirs", reference),),
            cache_salt=f"taken-{name}",
            replica=second,
        )
        row["adopt"] = await _first(fleet, want)
        row["cached_step"] = await _first(fleet, replace(want, id=f"again-{name}", sources=(), adopted=()))
        await fleet.release([f"given-{name}"])
        await link.release([reference.id])
        rows.append(row)
    return rows[1:]  # the first one touches memory for the first time


_ONE = Sampling(max_tokens=1, temperature=0.0)


async def _first(fleet: Fleet, segment: Segment) -> float:
    """Seconds until a segment's end, which is one token away."""
    begun = time.perf_counter()
    async for _ in fleet.run(segment):
        pass
    return time.perf_counter() - begun


def _memcpy(size: int) -> float:
    """Seconds of one copy between two warm buffers, the median of 15."""
    source, target = np.ones(size, dtype=np.uint8), np.zeros(size, dtype=np.uint8)
    times = []
    for _ in range(15):
        begun = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)
