"""One vLLM engine as a Serve replica, for any number of routers."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, replace
from typing import Any

import ray
from ray import serve

from deployments.transports import RayObjects
from multiverse.config import AppConfig
from multiverse.engine.references import KVReference
from multiverse.engine.segment import Segment
from multiverse.serving.fleet.messages import Command, Output, Status


@serve.deployment
class EngineReplica:
    """Ready when its engine has started and passed the self-test. Every call names the replica it is meant for."""

    async def __init__(self, config: AppConfig) -> None:  # type: ignore[misc]  # Serve awaits it
        from multiverse.engine.vllm_engine import VllmEngine
        from multiverse.serving.fleet.segment_server import SegmentServer
        from multiverse.serving.fleet.store import Store
        from multiverse.telemetry.engines import EngineMeter
        from multiverse.telemetry.export import build_ray

        settings = await asyncio.to_thread(config.engine_config)
        if settings.threads is None and config.num_gpus == 0 and config.engines_per_node > 1:
            # A lone engine's threads are bound to the cores by vLLM, which several engines would all do alike.
            settings = replace(settings, threads=max(1, (os.cpu_count() or 1) // config.engines_per_node))
        self._id = serve.get_replica_context().replica_id.unique_id
        self._engine = await VllmEngine.start(settings)
        # The other policies do not weigh anything.
        self._costs = await self._measured() if config.placement == "adaptive" else None
        store = Store(RayObjects(), settings.tensor_parallel_size, settings.transfer_bytes)
        node = ray.get_runtime_context().get_node_id()
        self._server = SegmentServer(self._engine, self._id, store, node)
        self._meter = EngineMeter(build_ray(config.name, serve=True))

    async def _measured(self) -> dict[str, Any]:
        from multiverse.engine.measure_costs import longest_prefill, measure_costs, measure_link
        from multiverse.evaluation.comparison import banned_ids

        # A context that is shorter still is for tests of limits, which placement has nothing to do with.
        longest = longest_prefill(self._engine.max_model_len)
        banned = banned_ids(self._engine.manifest, self._engine.end_ids)
        words = self._engine.vocabulary.ordinary_ids
        costs = await measure_costs(self._engine, words, banned, longest=longest)
        near = await measure_link(self._engine, words, banned, self._kv_bytes, longest)
        return {"engine": asdict(costs), **({"near": asdict(near)} if near is not None else {})}

    @property
    def _kv_bytes(self) -> int:
        """Of a token."""
        return self._engine.transfers.block_bytes // self._engine.block_size

    async def hello(self, *, replica: str) -> dict[str, Any]:
        """What a router must know of the engines."""
        return {
            "replica": self._id,
            "pid": os.getpid(),
            "max_model_len": self._engine.max_model_len,
            "costs": self._costs,
            "kv_bytes": self._kv_bytes,
            "rows": self._engine.config.max_num_seqs,
        }

    async def outputs(self, router: str, *, replica: str) -> AsyncGenerator[list[Output], None]:
        self._check(replica)
        async for batch in self._server.outputs(router):
            yield batch

    async def command(self, router: str, commands: Sequence[Command], *, replica: str) -> None:
        self._check(replica)
        self._server.command(router, commands)

    async def export(self, router: str, lease: str, start: int, like: Segment, *, replica: str) -> KVReference | None:
        self._check(replica)
        return await self._server.export(router, lease, start, like)

    async def exported(self, router: str, id: str, *, replica: str) -> KVReference | None:
        self._check(replica)
        return await self._server.exported(router, id)

    async def carried(self, router: str, reference: KVReference, *, replica: str) -> KVReference:
        self._check(replica)
        return await self._server.carried(router, reference)

    async def status(self, router: str, *, replica: str) -> Status:
        self._check(replica)
        return await self._server.status(router)

    async def close(self, router: str, *, replica: str) -> None:
        self._check(replica)
        await self._server.close(router)

    async def check_health(self) -> None:
        """Asked by Serve every two seconds; an engine that does not answer has its replica replaced."""
        await self._engine.check_health()
        self._meter.take(self._engine.figures)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Asked by Serve: what `deployments.scaling.by_segments` goes by."""
        stats = self._engine.stats
        return {"segments": float(stats.running + stats.waiting)}

    async def __del__(self) -> None:
        await self._server.shutdown()
        self._engine.shutdown()

    def _check(self, replica: str) -> None:
        if replica != self._id:
            raise RuntimeError(f"this is replica {self._id}; the call was meant for {replica}")
