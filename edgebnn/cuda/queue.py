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


class Queue:
    """The jobs for batches of one size; :meth:`run` starts them."""

    def __init__(self, gpu: Gpu, jobs: Sequence[Job], batch: int, filled: int) -> None:
        self._gpu = gpu
        fitting = [
            job
            for job in jobs
            if job.launch.least <= batch and (job.launch.most is None or batch <= job.launch.most)
        ]
        self._calls: list[tuple[Any, Grid, int]] = []
        self._which = np.zeros((len(fitting), WORDS), np.intp)
        self._fixed = np.zeros((len(fitting), WORDS), np.int64)
        for row, job in enumerate(fitting):
            grid = job.launch.grid(gpu.level)
            self._calls.append((job.kernel, grid, grid.blocks(batch, gpu.multiprocessors)))
            given = (job.source, job.other, job.result, job.weights, job.limits)
            for column, pointer in enumerate(given):
                self._which[row, column] = pointer.memory
                self._fixed[row, column] = pointer.an_image * filled + pointer.fixed
            self._fixed[row, -1] = batch

    def arguments(self, source: int, result: int, between: int, tables: int) -> NDArray[np.int64]:
        """(jobs, 6): each job's ``struct run`` for these addresses."""
        bases = np.array([0, source, result, between, tables], np.int64)
        return np.asarray(self._fixed + bases[self._which])

    def run(self, source: int, result: int, between: int, tables: int, stream: int) -> None:
        """Start all jobs, one after the other, on ``stream``."""
        arguments = self.arguments(source, result, between, tables)
        # The driver wants the address of a list of addresses, here of a single argument.
        addresses = _address(arguments) + arguments.strides[0] * np.arange(len(arguments))
        first, size = _address(addresses), addresses.itemsize
        for i, (kernel, grid, blocks) in enumerate(self._calls):
            self._gpu.launch(kernel, grid, blocks, first + i * size, stream)


def _address(array: NDArray[np.int64]) -> int:
    return int(array.__array_interface__["data"][0])
