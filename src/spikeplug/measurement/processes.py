"""Share one measurement between several processes: which pieces each does, and the results of all, by piece."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from spikeplug.errors import SpikeplugError

T = TypeVar("T")

# A process that is done waits for the others, however long they take. One that died is noticed by its connection.
_PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Processes:
    """This process, number `rank` of `size`. The default is a process that works alone.

    With a size above 1, every process must hold the whole model and evaluate the same settings, and torch.distributed
    must be initialised.
    group   the torch process group to exchange results in; None: all processes
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    @property
    def leads(self) -> bool:
        """Whether this process has rank 0: it alone prints and writes files."""
        return self.rank == 0

    def share(self, costs: Sequence[int]) -> list[int]:
        """Return the indices, rising, of the pieces of work that this process does. costs: the cost of every piece.

        Each piece goes to the process with the least cost so far. Every process computes the same distribution, so all
        of them together do each piece once.
        """
        loads = [0] * self.size
        mine = []
        for index, cost in enumerate(costs):
            idlest = loads.index(min(loads))
            loads[idlest] += cost
            if idlest == self.rank:
                mine.append(index)
        return mine

    def gather(self, value: T) -> list[T]:
        """Exchange one value per process; return the list of all values, in the order of ranks.

        All processes must call it, and all get the same list. Values are pickled, so floats keep every bit.
        """
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values


@contextmanager
def joined() -> Iterator[Processes]:
    """Yield the processes that torchrun (or another launcher with its variables) started together, or this one alone.

    Reads RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. The backend is gloo on any device: a few kilobytes of results
    are exchanged in host memory.
    Errors: SpikeplugError for variables that contradict each other.
    """
    import torch.distributed as dist

    size = _number("WORLD_SIZE", 1)
    if size == 1 or not dist.is_available():
        yield Processes()
        return
    rank = _number("RANK", None)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise SpikeplugError(f"WORLD_SIZE is {size}, but {name} is not set: start the processes with torchrun.")
    if not 0 <= rank < size:
        raise SpikeplugError(f"RANK is {rank}, but WORLD_SIZE is {size}: start the processes with torchrun.")
    dist.init_process_group("gloo", rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        yield Processes(rank, size)
    finally:
        dist.destroy_process_group()


def is_first_process() -> bool:
    """Return whether this process should print and write files: RANK, or else LOCAL_RANK, is 0 or neither is set."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def threads_each() -> int | None:
    """Return how many CPU threads each process that torchrun started on this machine should use; None: torch's choice.

    torchrun sets OMP_NUM_THREADS=1 if it is not set, which leaves cores idle. Here the cores are divided evenly. None
    for a single process, or if OMP_NUM_THREADS has another value.
    """
    together = _number("LOCAL_WORLD_SIZE", 1)
    if together == 1 or os.environ.get("OMP_NUM_THREADS", "1") != "1":
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // together)


def _number(name: str, default: int | None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    try:
        return int(text)
    except ValueError as error:
        given = f"is {text!r}" if text else "is not set"
        raise SpikeplugError(f"the environment variable {name} {given}: start the processes with torchrun.") from error
