"""vLLM KV connector: leases, fork and join at token granularity, and the guard (vLLM ``KVConnectorBase_V1``).

One object of this class lives in vLLM's scheduler process, one in each worker. The scheduler side decides: which blocks
are leased, which tokens of a new request come from leases, whether the request may run at all. The worker side copies.

The guard: KV of tokens that hide some earlier keys must never be computed as plain causal text, it would be wrong and
would enter the prefix cache under the same token hash. Such tokens end at ``layout(tokens).guarded``; unless the local
prefix-cache hit and the leases together reach that far, the request is not scheduled and is reported as *refused*. The
engine then aborts it, rebuilds the KV and asks again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from vllm.distributed import get_tensor_model_parallel_rank
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata, KVConnectorRole
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats
from vllm.v1.request import RequestStatus

from multiverse.engine import arena
from multiverse.engine.exports import Exports, Written
from multiverse.engine.kv_layout import KVCaches
from multiverse.engine.leases import LeaseTable, Spill
from multiverse.engine.segment import Export, Source
from multiverse.engine.transfer import ConnectorStats, Directions, ExportCopy, Load, StepTransfers, Stored
from multiverse.models.manifest import Manifest
from multiverse.structure.layout import layout

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.forward_context import ForwardContext
    from vllm.v1.attention.backend import AttentionMetadata
    from vllm.v1.core.block_pool import BlockPool
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.request import Request

SPILL_GIB = "spill_gib"
LEASE_SECONDS = "lease_seconds"
ARENA_PATHS, ARENA_SIZE = "arena_paths", "arena_size"


@dataclass(slots=True)
class _Waiting:
    """A request that has not ended. ``guarded`` is that of its first ``length`` tokens.

    exported: what became of its exports; None where there was no room, or no KV.
    """

    request: "Request"
    directions: Directions
    length: int = -1
    guarded: int = 0
    pieces: tuple[Source, ...] = ()
    exported: dict[str, Written | None] = field(default_factory=dict)


class MultiverseConnector(KVConnectorBase_V1):
    def __init__(self, vllm_config: "VllmConfig", role: KVConnectorRole, kv_cache_config: "KVCacheConfig") -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self._block_size = vllm_config.cache_config.block_size
        self._spill_gib = float(self._kv_transfer_config.get_from_extra_config(SPILL_GIB, 2.0))
        self._lease_seconds = float(self._kv_transfer_config.get_from_extra_config(LEASE_SECONDS, 900.0))
        self._arena_paths: list[str] = self._kv_transfer_config.get_from_extra_config(ARENA_PATHS, [])
        self._step = StepTransfers()
        if role == KVConnectorRole.SCHEDULER:
            self._vocabulary = Manifest.load(vllm_config.model_config.model).vocabulary()
            self._waiting: dict[str, _Waiting] = {}
            self._refused: dict[str, str] = {}
            self._reported: dict[str, Any] = {}
            self._preemptions = 0
        else:
            self._host: dict[str, KVCaches] = {}

    # ---- scheduler side -------------------------------------------------------------------------------------------

    def bind_gpu_block_pool(self, gpu_block_pool: "BlockPool") -> None:
        self._pool = gpu_block_pool
        block_bytes = sum(
            group.kv_cache_spec.page_size_bytes * len(group.layer_names)
            for group in self._kv_cache_config.kv_cache_groups
        )
        self._table = LeaseTable(gpu_block_pool, int(self._spill_gib * 2**30 / block_bytes))
        size = int(self._kv_transfer_config.get_from_extra_config(ARENA_SIZE, 0))
        self._exports = Exports(arena.Allocator(size), block_bytes, self._block_size)

    def on_new_request(self, request: "Request") -> None:
        directions = Directions.from_params(request.kv_transfer_params) if request.kv_transfer_params else None
        if directions is None:
            directions = Directions(segment=request.request_id, owner=0)
        if directions.lease is not None:
            self._table.expect(directions.lease)
        for adopted in directions.adopted:
            self._table.adopt(adopted.lease, directions.owner, adopted.tokens, adopted.place)
        self._waiting[request.request_id] = _Waiting(request, directions)

    def get_num_new_matched_tokens(self, request: "Request", num_computed_tokens: int) -> tuple[int | None, bool]:
        """How many tokens past the local hit the leases supply; None: not now (a source is still made, or refused)."""
        waiting = self._waiting[request.request_id]
        if waiting.length != request.num_tokens:
            waiting.length = request.num_tokens
            waiting.guarded = layout(self._vocabulary.kinds(request.all_token_ids)).guarded
        others = (export.lease for export in waiting.directions.exports if export.lease != waiting.directions.lease)
        if any(map(self._table.pending, others)):
            return None, False
        last = request.num_tokens - 1  # one token must be left to compute
        covered, pieces = num_computed_tokens, []
        for source in sorted(waiting.directions.sources, key=lambda source: source.start):
            if not source.start <= covered < min(source.stop, last):
                continue
            lease = self._table.get(source.lease)
            if lease is None:
                if self._table.pending(source.lease):
                    return None, False
                break
            stop = min(source.stop, last, source.start + lease.tokens - source.offset)
            if stop > covered:
                pieces.append(Source(source.lease, covered, stop, source.offset + covered - source.start))
                covered = stop
        if covered < waiting.guarded:
            reason = "preempted" if request.num_preemptions else "missing"
            self._refused[waiting.directions.segment] = reason
            return None, False
        waiting.pieces = tuple(pieces)
        self._make_room(request, waiting.directions.owner, frozenset(piece.lease for piece in pieces))
        return covered - num_computed_tokens, False

    def _make_room(self, request: "Request", owner: int, keep: frozenset[str]) -> None:
        blocks = -(-(request.num_tokens + 1) // self._block_size) + self._kv_cache_manager.watermark_blocks
        self._spill(self._table.make_room(blocks, owner, keep))

    def _spill(self, spills: list[Spill]) -> None:
        self._step.spills.extend(spills)

    def has_pending_block_frees(self) -> bool:
        """vLLM asks when a running request finds no free block: leases make room before anybody is preempted."""
        if not self._table.blocks_held:
            return False
        spills = self._table.make_room(1, owner=NEVER_DROP)
        self._spill(spills)
        return self._pool.get_num_free_blocks() > 0

    def update_state_after_alloc(self, request: "Request", blocks: "KVCacheBlocks", num_external_tokens: int) -> None:
        waiting = self._waiting[request.request_id]
        if num_external_tokens:
            target = tuple(blocks.get_block_ids()[0])
            for piece in waiting.pieces:
                lease = self._table.get(piece.lease)
                assert lease is not None
                self._step.loads.append(
                    Load(Stored.of(lease), piece.offset, target, piece.start, piece.stop - piece.start)
                )
        waiting.pieces = ()

    def build_connector_meta(self, scheduler_output: "SchedulerOutput") -> KVConnectorMetadata:
        step, self._step = self._step, StepTransfers()
        for request_id, count in scheduler_output.num_scheduled_tokens.items():
            waiting = self._waiting[request_id]
            if waiting.directions.exports:
                step.exports += self._export(waiting, waiting.request.num_computed_tokens + count)
            if waiting.directions.release:
                # Only now: blocks freed while the step is put together could be given to one of its own requests.
                self._release(waiting.directions.release)
                waiting.directions = replace(waiting.directions, release=())
        self._table.expire(self._lease_seconds)
        self._table.leaked += self._exports.expire(self._lease_seconds)
        step.forget = self._table.take_released_on_host()
        return step

    def _export(self, waiting: _Waiting, computed: int) -> list[ExportCopy]:
        """What a request that has ``computed`` tokens of KV behind this step exports in it."""
        directions, request = waiting.directions, waiting.request
        copies: list[ExportCopy] = []
        left: list[Export] = []
        ends = directions.always_lease or not {*request.output_token_ids[-1:]}.isdisjoint(directions.leasing_ids)
        for export in directions.exports:
            own = export.lease == directions.lease
            if own and not (ends and computed == request.num_tokens):
                left.append(export)
                continue
            lease = self._table.get(export.lease)
            if own:
                ids = tuple(self._kv_cache_manager.get_block_ids(request.request_id)[0])
                done = self._exports.write(export, Stored(export.lease, ids, None), computed)
            elif lease is not None and lease.place is None:
                done = self._exports.write(export, Stored.of(lease), lease.tokens)
            else:
                done = None
            waiting.exported[export.id] = done[1] if done is not None else None
            copies += [done[0]] if done is not None else []
        waiting.directions = replace(directions, exports=tuple(left))
        return copies

    def _release(self, ids: Iterable[str]) -> None:
        """Give back leases and exports."""
        ids = tuple(ids)
        self._table.release(ids)
        self._exports.release(ids)

    def request_finished(self, request: "Request", block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Lease the blocks if the segment ended as its lease wants; never delays vLLM's own freeing."""
        waiting = self._waiting.pop(request.request_id)
        directions = waiting.directions
        # Counted here: vLLM tells of a preemption with the request's next token, which one that is refused never gets.
        self._preemptions += request.num_preemptions
        self._refused.pop(directions.segment, None)
        lease = directions.lease
        if lease is not None:
            leasing = set(directions.leasing_ids)
            ended = request.status in (RequestStatus.FINISHED_STOPPED, RequestStatus.FINISHED_LENGTH_CAPPED)
            if ended and (directions.always_lease or not leasing.isdisjoint(request.output_token_ids)):
                tokens = request.num_computed_tokens - request.num_in_flight_tokens
                count = -(-tokens // self._block_size)
                self._table.hold(lease, directions.owner, [self._pool.blocks[id] for id in block_ids[:count]], tokens)
            else:
                self._table.give_up(lease)
        if request.status == RequestStatus.FINISHED_ABORTED:
            if directions.segment.startswith(RELEASE):
                self._release(directions.release)
            # Nobody hears of them.
            self._exports.release(waiting.exported)
        self._table.release(adopted.lease for adopted in directions.adopted)
        return False, {EXPORTED: waiting.exported} if waiting.exported else None

    def get_kv_connector_stats(self) -> KVConnectorStats | None:
        if self.role != KVConnectorRole.SCHEDULER:
            return None
        data: dict[str, Any] = {
            "leases": self._table.held,
            "leased_blocks": self._table.blocks_held,
            "host_blocks": self._table.host_used,
            "lease_spills": self._table.spilled,
            "lease_drops": self._table.dropped,
            "leases_leaked": self._table.leaked,
            "free_blocks": self._pool.get_num_free_blocks(),
            "exports": self._exports.held,
            "exported_bytes": self._exports.arena.used,
            "preemptions": self._preemptions,
            "refused": [[segment, reason] for segment, reason in self._refused.items()],
        }
        if data == self._reported and not self._refused:
            return None
        self._reported = data
        return ConnectorStats(data)

    @classmethod
    def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> KVConnectorStats:
        return ConnectorStats(data or {})

    # ---- worker side ----------------------------------------------------------------------------------------------

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        self._caches = KVCaches.of(list(kv_caches.values()))
        if self._arena_paths:
            self._arena_path = self._arena_paths[get_tensor_model_parallel_rank()]
            arena.describe(self._arena_path, packing=self._caches.packing, block_bytes=self._caches.block_bytes)

    def handle_preemptions(self, kv_connector_metadata: KVConnectorMetadata) -> None:
        """Runs before the step writes anything: copy out what is about to be overwritten."""
        assert isinstance(kv_connector_metadata, StepTransfers)
        for spill in kv_connector_metadata.spills:
            self._host[spill.lease] = self._caches.take(spill.block_ids)

    def start_load_kv(self, forward_context: "ForwardContext", **kwargs: Any) -> None:
        step = self._get_connector_metadata()
        assert isinstance(step, StepTransfers)
        for load in step.loads:
            self._copy(load)
        for lease in step.forget:
            self._host.pop(lease, None)

    def _copy(self, load: Load) -> None:
        source, blocks = self._stored(load.source)
        source.copy(blocks, load.source.skip + load.start, self._caches, load.target, load.target_start, load.length)

    def _stored(self, stored: Stored) -> tuple[KVCaches, Sequence[int]]:
        """Where the KV of a lease can be read, and its blocks there."""
        if stored.blocks is not None:
            return self._caches, stored.blocks
        if stored.place is None:
            kept = self._host[stored.lease]
        else:
            path = stored.place.paths[get_tensor_model_parallel_rank()]
            size = stored.place.blocks * self._caches.block_bytes
            kept = self._caches.host(stored.place.blocks, arena.part(path, stored.place.offset, size))
        return kept, range(kept.blocks)

    def wait_for_layer_load(self, layer_name: str) -> None:
        return

    def save_kv_layer(
        self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: "AttentionMetadata", **kwargs: Any
    ) -> None:
        return

    def wait_for_save(self) -> None:
        """The step's forward is done: what it made is there too."""
        step = self._get_connector_metadata()
        assert isinstance(step, StepTransfers)
        for export in step.exports:
            source, blocks = self._stored(export.source)
            chosen = blocks[export.first : export.first + export.count]
            memory = arena.part(self._arena_path, export.offset, export.count * self._caches.block_bytes)
            source.take(chosen, memory)


RELEASE = "release:"
EXPORTED = "exported"
"""Key of a finished request's ``kv_transfer_params``: by export id, what the arena holds of it (`Written`) or None."""
NEVER_DROP = 2**63
