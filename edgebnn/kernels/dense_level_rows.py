"""Dense layers on bits of several planes, a row of weights an output: each plane against the row.

The dot is the sum over p of ``2**p * (n - 2 * m[p])`` with m[p] mismatches of plane p: the largest
dot less twice the sum of ``m[p] << p``.
"""

from dataclasses import dataclass

from edgebnn.bits import Layout
from edgebnn.ir import Bits, Dense, Op, dot_bound, fan_in, infer
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import (
    HeadView,
    Inputs,
    Kernel,
    Reading,
    Table,
    Trips,
    Values,
    counts,
    head_view,
    mismatch_limits,
)
from edgebnn.kernels.pixels import packed_rows
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class DenseLevelRows:
    """What ``dense_level_rows.c.j2`` prints; ``most`` is the largest dot."""

    planes: int
    most: int
    row_words: int
    weights: Table
    head: HeadView
    parameters: str
    arguments: str = "in"
    scratch_words: int = 0

    @property
    def helpers(self) -> tuple[str, ...]:
        return ("popcount", "mismatches", *self.head.helpers)

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.weights, *self.head.tables)


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DenseLevelRows | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Dense) or not isinstance(source, Bits):
        return None
    if not counts(fan_in(op), cpu):
        return None
    most = dot_bound(fan_in(op), source)
    weights = packed_rows("weights", op.weights, source, cpu)
    return DenseLevelRows(
        planes=source.planes,
        most=most,
        row_words=weights.values.shape[1],
        weights=weights,
        head=head_view(op.head, infer(op, source), mismatch_limits(op.head, most), "<=", cpu),
        parameters=f"const {cpu.word} *in",
    )


def trips(view: DenseLevelRows, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    outputs = view.head.outputs
    planes = outputs * view.planes
    name = "dense_level_rows"
    return parts.total(
        {
            name: 1,
            f"{name}.plane": planes,
            f"{parts.special(f'{name}[{view.planes}]', view.row_words)}.plane": planes,
        },
        parts.times(parts.mismatches(view.row_words, "[planes]"), planes),
        parts.head(view.head),
    )


KERNEL = Kernel(
    "dense_level_rows",
    "level_rows",
    ((Dense,),),
    frozenset({Layout.PLANES}),
    fit,
    trips=trips,
    reading=Reading.ROW,
)
