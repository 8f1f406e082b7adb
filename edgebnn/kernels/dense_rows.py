"""Dense layers on bits, a row of weights an output: XNOR and popcount."""

from dataclasses import dataclass

from edgebnn.bits import Layout
from edgebnn.ir import Bits, Dense, Op, fan_in, infer
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
class DenseRows:
    """What ``dense_rows.c.j2`` prints."""

    inputs: int
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


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DenseRows | None:
    (op,) = ops
    if not isinstance(op, Dense) or not isinstance(inputs[0], Bits):
        return None
    count = fan_in(op)
    if not counts(count, cpu):
        return None
    weights = packed_rows("weights", op.weights, inputs[0], cpu)
    head = head_view(op.head, infer(op, *inputs), mismatch_limits(op.head, count), "<=", cpu)
    return DenseRows(count, weights.values.shape[1], weights, head, f"const {cpu.word} *in")


def trips(view: DenseRows, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    rows = parts.times(parts.mismatches(view.row_words), view.head.outputs)
    return parts.total({"dense_rows": 1}, rows, parts.head(view.head))


KERNEL = Kernel(
    "dense_rows",
    "rows",
    ((Dense,),),
    frozenset({Layout.ROWS}),
    fit,
    trips=trips,
    reading=Reading.ROW,
)
