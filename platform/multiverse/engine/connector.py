"""vLLM KV connector: leases, fork and join at token granularity, and the guard (vLLM ``KVConnectorBase_V1``).

One object of this class lives in vLLM's scheduler process, one in each worker. The scheduler side decides: which blocks
are leased, which tokens of a new request come from leases, whether the request may run at all. The worker side copies.

The guard: KV of tokens that hide some earlier keys must never be computed as plain causal text, it would be wrong and
would enter the prefix cache under the same token hash. Such tokens end at ``layout(tokens).guarded``; unless the local
prefix-cache hit and the leases together reach that far, the request is not scheduled and is reported as *refused*. The
engine then aborts it, rebuilds the KV and asks again.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata, KVConnectorRole
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats
from vllm.v1.request import RequestStatus

from multiverse.engine.kv_layout import KVCaches
from multiverse.engine.leases import LeaseTable, Spill
from multiverse.engine.segment import Source
from multiverse.engine.transfer import ConnectorStats, Directions, HostLeases, Load, StepTransfers
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


@dataclass(slots=True)
class _Waiting:
    """A request between its arrival and its admission. ``guarded`` is that of its first ``length`` tokens."""

    directions: Directions
    length: int = -1
    guarded: int = 0
    pieces: tuple[Source, ...] = ()


class MultiverseConnector(KVConnectorBase_V1):
    def __init__(self, vllm_config: "VllmConfig", role: KVConnectorRole, kv_cache_config: "KVCacheConfig") -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self._block_size = vllm_config.cache_config.block_size
        self._spill_gib = float(self._kv_transfer_config.get_from_extra_config(SPILL_GIB, 2.0))
        self._lease_seconds = float(self._kv_transfer_config.get_from_extra_config(LEASE_SECONDS, 900.0))
        self._step = StepTransfers()
        if role == KVConnectorRole.SCHEDULER:
            self._vocabulary = Manifest.load(vllm_config.model_config.model).vocabulary()
            self._waiting: dict[str, _Waiting] = {}
            self._refused: dict[str, str] = {}
            self._reported: dict[str, Any] = {}
            self._preemptions = 0
        else:
            self._host: HostLeases = {}

    # ---- scheduler side -------------------------------------------------------------------------------------------

    def bind_gpu_block_pool(self, gpu_block_pool: "BlockPool") -> None:
        self._pool = gpu_block_pool
        per_token = sum(
            group.kv_cache_spec.page_size_bytes * len(group.layer_names)
            for group in self._kv_cache_config.kv_cache_groups
        )
        host_tokens = int(self._spill_gib * 2**30 / (per_token / self._block_size))
        self._table = LeaseTable(gpu_block_pool, host_tokens)

    def on_new_request(self, request: "Request") -> None:
        directions = Directions.from_params(request.kv_transfer_params) if request.kv_transfer_params else None
        if directions is None:
            directions = Directions(segment=request.request_id, owner=0)
        if directions.lease is not None:
            self._table.expect(directions.lease)
        self._waiting[request.request_id] = _Waiting(directions)

    def get_num_new_matched_tokens(self, request: "Request", num_computed_tokens: int) -> tuple[int | None, bool]:
        """How many tokens past the local hit the leases supply; None: not now (a source is still made, or refused)."""
        waiting = self._waiting[request.request_id]
        if waiting.length != request.num_tokens:
            waiting.length = request.num_tokens
            waiting.guarded = layout(self._vocabulary.kinds(request.all_token_ids)).guarded
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
                    Load(lease.id, lease.block_ids or None, piece.offset, target, piece.start, piece.stop - piece.start)
                )
        waiting.pieces = ()

    def build_connector_meta(self, scheduler_output: "SchedulerOutput") -> KVConnectorMetadata:
        step, self._step = self._step, StepTransfers()
        for request_id in scheduler_output.num_scheduled_tokens:
            waiting = self._waiting[request_id]
            if waiting.directions.release:
                # Only now: blocks freed while the step is put together could be given to one of its own requests.
                self._table.release(waiting.directions.release)
                waiting.directions = replace(waiting.directions, release=())
        self._table.expire(self._lease_seconds)
        step.forget = self._table.take_released_on_host()
        return step

    def request_finished(self, request: "Request", block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Lease the blocks if the segment ended as its lease wants; never delays vLLM's own freeing."""
        directions = self._waiting.pop(request.request_id).directions
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
        if request.status == RequestStatus.FINISHED_ABORTED and directions.segment.startswith(RELEASE):
            self._table.release(directions.release)
        return False, None

    def get_kv_connector_stats(self) -> KVConnectorStats | None:
        if self.role != KVConnectorRole.SCHEDULER:
            return None
        data: dict[str, Any] = {
            "leases": self._table.held,
            "leased_blocks": self._table.blocks_held,
            "lease_spills": self._table.spilled,
            "lease_drops": self._table.dropped,
            "leases_leaked": self._table.leaked,
            "free_blocks": self._pool.get_num_free_blocks(),
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

    def handle_preemptions(self, kv_connector_metadata: KVConnectorMetadata) -> None:
        """Runs before the step writes anything: copy out what is about to be overwritten."""
        assert isinstance(kv_connector_metadata, StepTransfers)
        for spill in kv_connector_metadata.spills:
            self._host[spill.lease] = self._caches.gather(spill.block_ids, spill.tokens)

    def start_load_kv(self, forward_context: "ForwardContext", **kwargs: Any) -> None:
        step = self._get_connector_metadata()
        assert isinstance(step, StepTransfers)
        for load in step.loads:
            if load.blocks is None:
                self._caches.scatter(self._host[load.lease], load.start, load.target, load.target_start, load.length)
            else:
                self._caches.copy(load.blocks, load.start, load.target, load.target_start, load.length)
        for lease in step.forget:
            self._host.pop(lease, None)

    def wait_for_layer_load(self, layer_name: str) -> None:
        return

    def save_kv_layer(
        self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: "AttentionMetadata", **kwargs: Any
    ) -> None:
        return

    def wait_for_save(self) -> None:
        return


RELEASE = "release:"
NEVER_DROP = 2**63
