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
    memcpy = _memcpy(megabytes * 2**20)
    rows: dict[str, list[float]] = {"export": [], "adopt": [], "idle_step": [], "cached_step": []}
    async with fleet_of(config) as router:
        fleet: Fleet = router.fleet
        first, second = sorted(fleet.links)
        count = megabytes * 2**20 // fleet.costs.kv_bytes
        for number in range(repeats + 1):
            tokens = write.text(count)
            held = Segment(f"given-{number}", tokens, _ONE, lease=f"given-{number}", prefill_only=True, replica=first)
            await _first(fleet, held)
            link = fleet.links[first]
            # What carries the export is a step of one token; such a step without one is taken off.
            begun = time.perf_counter()
            await _first(fleet, Segment(f"idle-{number}", tokens[:1], _ONE, cache_salt="idle", replica=first))
            idle = time.perf_counter() - begun
            begun = time.perf_counter()
            reference = await link.export(f"given-{number}", 0, held)
            exported = time.perf_counter() - begun
            assert reference is not None, "the KV finds no room in the arena"
            if nodes_differ := fleet.links[second].node != link.node:
                begun = time.perf_counter()
                reference = await link.carried(reference)
                exported += time.perf_counter() - begun
                assert reference is not None
            want = Segment(
                f"taken-{number}",
                [*tokens, *write.text(2)],
                _ONE,
                sources=(Source("theirs", 0, count, 0),),
                adopted=(("theirs", reference),),
                cache_salt=f"taken-{number}",
                replica=second,
            )
            taken = await _first(fleet, want)
            # The same request again finds all but the last block in the cache, and has its first token without a copy.
            cached = await _first(fleet, replace(want, id=f"again-{number}", sources=(), adopted=()))
            await fleet.release([f"given-{number}"])
            await link.release([reference.id])
            if number:  # the first one touches memory for the first time
                for name, value in zip(rows, (exported, taken, idle, cached), strict=True):
                    rows[name].append(value)
    medians = {name: statistics.median(values) for name, values in rows.items()}
    seconds = max(1e-9, medians["export"] - medians["idle_step"]) + max(1e-9, medians["adopt"] - medians["cached_step"])
    size = count * fleet.costs.kv_bytes
    return {
        "bytes": size,
        "copies": 4 if nodes_differ else 2,
        "checksums": 2,
        "seconds": seconds,
        "MB_per_s": size / 1e6 / seconds,
        "memcpy_MB_per_s": megabytes * 2**20 / 1e6 / memcpy,
        "ratio_to_memcpy": size / seconds / (megabytes * 2**20 / memcpy),
        "seconds_with_steps": medians["export"] + medians["adopt"],
        **{f"{name}_s": value for name, value in medians.items()},
    }


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
