"""What is launched for a batch: kernels in order, their grids, and the memory each is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn.cuda.gpu import WORDS, Gpu
from edgebnn.cuda.layers import Grid, Launch

PREFIX = "edgebnn_"
"""Of the names of kernels that torch runs."""


class Memory(IntEnum):
    """A piece of memory whose address is known when a batch runs."""

    NONE = 0
    SOURCE = 1  # the caller's
    RESULT = 2  # the caller's
    BETWEEN = 3  # of tensors between layers
    TABLES = 4
    BARRIER = 5  # the state of a grid's, which no other launch at the same time may use


@dataclass(frozen=True, slots=True)
class Pointer:
    """A place in memory: ``an_image`` bytes for each image of the filled batch, and ``fixed``."""

    memory: Memory = Memory.NONE
    an_image: int = 0
    fixed: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A kernel with what it is given."""

    kernel: Any  # the GPU's
    launch: Launch
    source: Pointer
    other: Pointer
    result: Pointer
    weights: Pointer
    limits: Pointer


@dataclass(frozen=True, slots=True)
class AtOnce:
    """The kernel of all layers with what it is given: a job for each, whose kernels are not run."""

    kernel: Any  # the GPU's
    launch: Launch
    layers: tuple[Job, ...]


class Queue:
    """What starts for batches of one size; :meth:`run` starts it.

    These are ``jobs``, one after the other, or ``at_once`` in their place.

    Attributes:
        needs_barrier: it is ``at_once``.
    """

    def __init__(
        self,
        gpu: Gpu,
        jobs: Sequence[Job],
        batch: int,
        filled: int,
        at_once: AtOnce | None = None,
    ) -> None:
        self._gpu = gpu
        self.needs_barrier = at_once is not None
        rows = [job for job in jobs if _fits(job.launch, batch)]
        starts = [(job.kernel, job.launch) for job in rows]
        if at_once is not None:
            rows, starts = list(at_once.layers), [(at_once.kernel, at_once.launch)]
        self._calls: list[tuple[Any, Grid, int]] = []
        for kernel, launch in starts:
            grid = launch.grid(gpu.level)
            self._calls.append((kernel, grid, grid.blocks(batch, gpu.multiprocessors)))
        count = len(rows) + self.needs_barrier
        self._which = np.zeros((count, WORDS), np.intp)
        self._fixed = np.zeros((count, WORDS), np.int64)
        for row, job in enumerate(rows):
            given = (job.source, job.other, job.result, job.weights, job.limits)
            for column, pointer in enumerate(given):
                self._which[row, column] = pointer.memory
                self._fixed[row, column] = pointer.an_image * filled + pointer.fixed
            self._fixed[row, -1] = batch
        if self.needs_barrier:
            self._which[-1, 0] = Memory.BARRIER

    def arguments(
        self, source: int, result: int, between: int, tables: int, barrier: int = 0
    ) -> NDArray[np.int64]:
        """(jobs, 6): each job's ``struct run`` for these addresses.

        Those of all layers at once are one argument: a row each, and one that has the barrier.
        """
        bases = np.array([0, source, result, between, tables, barrier], np.int64)
        return np.asarray(self._fixed + bases[self._which])

    def run(
        self, source: int, result: int, between: int, tables: int, stream: int, barrier: int = 0
    ) -> None:
        """Start all there is, in order, on ``stream``."""
        arguments = self.arguments(source, result, between, tables, barrier)
        # The driver wants the address of a list of addresses, here of a single argument.
        addresses = _address(arguments) + arguments.strides[0] * np.arange(len(arguments))
        first, size = _address(addresses), addresses.itemsize
        cooperative = self.needs_barrier
        for i, (kernel, grid, blocks) in enumerate(self._calls):
            self._gpu.launch(
                kernel, grid, blocks, first + i * size, stream, cooperative=cooperative
            )


def _fits(launch: Launch, batch: int) -> bool:
    return launch.least <= batch and (launch.most is None or batch <= launch.most)


def _address(array: NDArray[np.int64]) -> int:
    return int(array.__array_interface__["data"][0])
