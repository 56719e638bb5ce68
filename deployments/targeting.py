"""Serve calls that go to one chosen replica (Ray Serve's ``RequestRouter`` extension point)."""

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from multiverse.serving.fleet.directory import tell


class Targeted(RequestRouter):  # type: ignore[misc]  # mypy does not look into Ray
    """Routes a call to the replica named by its keyword ``replica``, or to any where that is "".

    Serve sends the class by value: it must not name anything of this module. ``topic``: under which
    `multiverse.serving.fleet.directory` tells of the replicas.
    """

    def initialize_state(self, topic: str) -> None:
        self._topic = topic

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        wanted = pending_request.kwargs.get("replica", "") if pending_request is not None else ""
        chosen = [replica for replica in candidate_replicas if wanted in ("", replica.replica_id.unique_id)]
        # A replica that is gone cannot be waited for: few calls may wait at the same time, and the others would not get
        # through. Any other one says that it is not the one that was meant.
        chosen = chosen or candidate_replicas
        for replica in chosen:
            # Serve asks a replica how long its queue is before it sends it anything, and waits where that is not
            # answered in a tenth of a second. There is nothing to choose by it here.
            self.replica_queue_len_cache.update(replica.replica_id, 0)
        return [chosen] if chosen else []

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        RequestRouter.update_replicas(self, replicas)
        tell(self._topic, {replica.replica_id.unique_id: replica.node_id for replica in replicas})
