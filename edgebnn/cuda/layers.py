"""What a layer is on a GPU: its kernels, their constants and grids, and its tables."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.ir import Int32Array

LEVELS = ("popc", "xor", "bytes", "mma", "wgmma")
"""What products of bits are computed with, from what every GPU has to what only Hopper has.

A GPU computes with its own level and with all below it, if slowly: one of sm_100 has those up to
``bytes``, and takes ``xor`` apart into other instructions. ``templates/cuda`` has their numbers.
"""


@dataclass(frozen=True, slots=True)
class Grid:
    """How a kernel is launched: blocks for ``items`` an image, times ``columns``.

    A block takes ``per_block`` items. With ``resident`` there are at most as many blocks as the GPU
    has multiprocessors, and they take more work by themselves. ``shared`` is dynamic shared memory
    in bytes; ``together`` is how many blocks a multiprocessor should hold at least.
    """

    items: int
    per_block: int
    threads: int
    columns: int = 1
    shared: int = 0
    resident: bool = False
    together: int = 1

    def blocks(self, batch: int, multiprocessors: int) -> int:
        blocks = -(-batch * self.items // self.per_block) * self.columns
        return min(blocks, multiprocessors) if self.resident else blocks


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel: the function template ``body`` for the constants of its layer.

    ``grids`` are of the :data:`LEVELS`, or a single one for all of them. The kernel runs for
    batches from ``least`` to ``most`` images: a layer may have one for few and one for many.
    """

    suffix: str
    body: str
    grids: tuple[Grid, ...]
    reads_scratch: bool = False
    writes_scratch: bool = False
    least: int = 1
    most: int | None = None

    def grid(self, level: int) -> Grid:
        return self.grids[level if len(self.grids) > 1 else 0]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """The kernels of an op, which run one after the other, their constants and tables.

    ``scratch`` are bytes an image in which one of the kernels leaves something to the next.
    ``templates`` are the files of ``templates/cuda`` that have the bodies, in order; none: one of
    the name of each.
    """

    constants: Mapping[str, int | bool]
    launches: tuple[Launch, ...]
    weights: NDArray[np.uint32] | None = None
    limits: Int32Array | None = None
    scratch: int = 0
    templates: tuple[str, ...] = ()
