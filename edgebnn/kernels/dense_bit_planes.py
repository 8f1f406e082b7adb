"""Dense layers on integers, by their bit planes: an AND and a popcount for each bit of the input.

Source: arXiv 1602.02830, section 1.4 (the first layer).
"""

from dataclasses import dataclass

from edgebnn.bits import Layout
from edgebnn.ir import Conv, Dense, Ints, Op, fan_in, infer
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import (
    HeadView,
    Inputs,
    Kernel,
    Table,
    Trips,
    Values,
    dot_limits,
    head_view,
    packed,
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


def fits(cpu: Cpu) -> bool:
    """Planes are made four inputs at a time, which takes a word of 32 bits."""
    return cpu.word_bits == 32


def planes(op: Dense | Conv, source: Ints, cpu: Cpu) -> Planes:
    """The layer's weights as the planes take them."""
    weights = packed("weights", op.weights.reshape(len(op.weights), -1), cpu)
    return Planes(fan_in(op), source.bits, weights.values.shape[1], weights)


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


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DenseBitPlanes | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Dense) or not isinstance(source, Ints) or not fits(cpu):
        return None
    head = head_view(op.head, infer(op, source), dot_limits(op.head), ">=", cpu)
    return DenseBitPlanes(planes(op, source, cpu), head)


def trips(view: DenseBitPlanes, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    return parts.total({"dense_bit_planes": 1}, planes_trips(view.planes, view.head))


def planes_trips(planes: Planes, head: HeadView) -> Trips:
    """The trips of the planes of one row of inputs, and of the outputs."""
    blocks, left = divmod(planes.row_words, 8)
    fours, rows = 8 * planes.row_words, head.outputs * planes.bits
    return parts.total(
        {
            "bit_planes": 1,
            "bit_planes.four": fours,
            "bit_planes.missing": 32 * planes.row_words - planes.inputs,
            "bit_planes.plane": fours * planes.bits,
            "masked_sum": head.outputs,
            "masked_sum.plane": rows,
            "masked_sum.word": rows * left,
            "masked_sum.block": rows * blocks,
            f"masked_sum[{left} beside {'blocks' if blocks > 1 else blocks}]": rows,
            parts.special("masked_sum.planes", planes.bits): rows,
        },
        parts.head(head),
    )


KERNEL = Kernel(
    "dense_bit_planes",
    "bit_planes",
    ((Dense,),),
    frozenset({Layout.BYTES}),
    fit,
    rank=1,
    trips=trips,
)
