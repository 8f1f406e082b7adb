"""Dense layers on integers, by their bit planes: an AND and a popcount for each bit of the input.

Source: arXiv 1602.02830, section 1.4 (the first layer).
"""

from dataclasses import dataclass

from edgebnn.bits import Layout, pack
from edgebnn.ir import Conv, Dense, Ints, Op, fan_in, infer
from edgebnn.kernels.base import (
    HeadView,
    Inputs,
    Kernel,
    Table,
    Trips,
    dot_limits,
    head_trips,
    head_view,
)
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class Planes:
    """``bits`` planes of a row of inputs, and rows of weights as long as a plane."""

    inputs: int
    bits: int
    row_words: int
    weights: Table

    @property
    def words(self) -> int:
        return self.bits * self.row_words

    def trips(self, outputs: int, times: int = 1) -> Trips:
        calls = times * outputs
        return {
            "bit_planes.call": times,
            "bit_planes.fours": times * 8 * self.row_words,
            "bit_planes.planes": times * 8 * self.row_words * self.bits,
            "masked_sum.call": calls,
            "masked_sum.planes": calls * self.bits,
            "masked_sum.eights": calls * self.bits * (self.row_words // 8),
            "masked_sum.words": calls * self.bits * (self.row_words % 8),
        }


def planes(op: Dense | Conv, source: Ints) -> Planes:
    """The layer's weights as the planes take them."""
    rows = pack(op.weights.reshape(len(op.weights), -1))
    return Planes(fan_in(op), source.bits, rows.shape[1], Table("weights", "uint32_t", rows))


@dataclass(frozen=True, slots=True)
class DenseBitPlanes:
    """What ``dense_bit_planes.c.j2`` prints."""

    planes: Planes
    head: HeadView
    parameters: str = "const uint32_t *planes, uint32_t total"
    arguments: str = "planes, total"

    @property
    def helpers(self) -> tuple[str, ...]:
        return ("popcount", "bit_planes", *self.head.helpers)

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.planes.weights, *self.head.tables)

    @property
    def scratch_words(self) -> int:
        return self.planes.words

    def trips(self) -> Trips:
        name = "dense_bit_planes"
        parts = self.planes.trips(self.head.outputs)
        return {f"{name}.call": 1, **parts, **head_trips(name, self.head)}


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DenseBitPlanes | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Dense) or not isinstance(source, Ints) or cpu.word_bits != 32:
        return None
    head = head_view(op.head, infer(op, source), dot_limits(op.head), ">=")
    return DenseBitPlanes(planes(op, source), head)


KERNEL = Kernel("dense_bit_planes", "bit_planes", (Dense,), frozenset({Layout.BYTES}), fit)
