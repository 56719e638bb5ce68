"""What the workers of a run tell each other about checkpoints, apart from what training sends."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")
Gather = Callable[[Any], list[Any]]
"""Gives every worker the values of all, by rank, once all have called it. Values must pickle."""


class CheckpointError(RuntimeError):
    """A worker could not save or read a checkpoint; says which and why."""


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


def together(gather: Gather, action: Callable[[], T]) -> list[T]:
    """What ``action`` returned on every worker. Raises CheckpointError on all of them if it failed on one."""
    value: Any = None
    problem = None
    try:
        value = action()
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    answers = gather((value, problem))
    problems = [f"worker {rank}: {problem}" for rank, (_, problem) in enumerate(answers) if problem]
    if problems:
        raise CheckpointError("; ".join(problems))
    return [value for value, _ in answers]
