"""What the workers of a run tell each other about checkpoints, apart from what training sends."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist

Gather = Callable[[Any], list[Any]]
"""Gives every worker the values of all, by rank, once all have called it. Values must pickle."""


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of a run as one of them sees them.

    agree: for the thread that trains. gather and group: for the thread that saves. They must be apart from each other
    and from the process groups of training: collectives of one group pair up in the order in which each worker calls
    them, and between two threads that order is another on every worker.
    """

    rank: int
    world_size: int
    agree: Gather
    gather: Gather
    group: Any

    @classmethod
    def alone(cls) -> "Workers":
        """One process, without torch.distributed."""
        return cls(0, 1, lambda value: [value], lambda value: [value], None)

    @classmethod
    def of_process_group(cls, timeout: timedelta = timedelta(hours=2)) -> "Workers":
        """All of the default process group, by two new gloo groups; every worker must call this.

        timeout: how long one worker's writing and uploading may last longer than another's.
        """
        world_size = dist.get_world_size()
        agree, save = (dist.new_group(backend="gloo", timeout=timeout) for _ in range(2))

        def gather(value: Any, group: Any) -> list[Any]:
            values = [None] * world_size
            dist.all_gather_object(values, value, group=group)
            return values

        return cls(
            dist.get_rank(), world_size, lambda value: gather(value, agree), lambda value: gather(value, save), save
        )
