"""Dense layers on integers for CPUs with vectors: each bit plane of the input against 16 rows.

Let plane p have s[p] bits set, of which a[p] are where the row has +1, and let it differ from the
row's bits in m[p] places, while r of these are set: m[p] = s[p] + r - 2 * a[p]. The dot product is
the sum over p of (2 * a[p] - s[p]) << p, an input of weight +1 counting 2 * x - x and one of -1
counting 0 - x. That is the sum of (r - m[p]) << p: what a row gives an input of ones in all planes,
less the sum of m[p] << p. So mismatches are all that is counted, as between rows of bits.
"""

from dataclasses import dataclass

import numpy as np

from edgebnn.bits import Layout
from edgebnn.ir import Dense, Ints, Levels, Op, Threshold, dot_bound, fan_in, infer
from edgebnn.kernels.base import HeadView, Inputs, Kernel, Table, head_view
from edgebnn.kernels.dense_lanes import Lanes, fits, lanes
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class DensePlaneLanes:
    """What ``dense_plane_lanes.c.j2`` prints; ``most`` is each row's dot with no mismatch."""

    inputs: int
    bits: int
    lanes: Lanes
    most: tuple[Table, ...]  # none where the head is a threshold, which has it in its limits
    head: HeadView
    parameters: str = "const uint32_t *counts"
    arguments: str = "counts"

    @property
    def helpers(self) -> tuple[str, ...]:
        return (*self.lanes.helpers, "planes", *self.head.helpers)

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.lanes.weights, *self.most, *self.head.tables)

    @property
    def scratch_words(self) -> int:
        return self.bits * self.lanes.row_words


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DensePlaneLanes | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Dense) or not isinstance(source, Ints) or not fits(cpu):
        return None
    rows = op.weights.reshape(len(op.weights), -1)
    most = rows.sum(axis=1) * (2**source.bits - 1)
    limits = None
    if isinstance(op.head, Threshold | Levels):
        all_differ = dot_bound(fan_in(op), source)
        limits = np.clip(most - op.head.min_dot, -1, all_differ).astype(np.int32)
    return DensePlaneLanes(
        inputs=fan_in(op),
        bits=source.bits,
        lanes=lanes(rows, source, cpu),
        most=() if limits is not None else (Table("most", "int32_t", most.astype(np.int32)),),
        head=head_view(op.head, infer(op, source), limits, "<=", cpu),
    )


KERNEL = Kernel("dense_plane_lanes", "lanes", ((Dense,),), frozenset({Layout.BYTES}), fit, rank=-3)
