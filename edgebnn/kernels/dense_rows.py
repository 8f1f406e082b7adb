"""Dense layers on bits, a row of weights an output: XNOR and popcount."""

from dataclasses import dataclass

from edgebnn.bits import Layout, pack
from edgebnn.ir import Bits, Dense, Op, fan_in, infer
from edgebnn.kernels.base import HeadView, Inputs, Kernel, Table, head_view, mismatch_limits
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class DenseRows:
    """What ``dense_rows.c.j2`` prints."""

    inputs: int
    row_words: int
    weights: Table
    head: HeadView
    scratch_words: int = 0
    parameters: str = "const uint32_t *in"
    arguments: str = "in"

    @property
    def helpers(self) -> tuple[str, ...]:
        return ("popcount", "mismatches", *self.head.helpers)

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.weights, *self.head.tables)


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DenseRows | None:
    (op,) = ops
    if not isinstance(op, Dense) or not isinstance(inputs[0], Bits) or cpu.word_bits != 32:
        return None
    count = fan_in(op)
    rows = pack(op.weights).reshape(len(op.weights), -1)
    head = head_view(op.head, infer(op, *inputs), mismatch_limits(op.head, count), "<=")
    return DenseRows(count, rows.shape[1], Table("weights", "uint32_t", rows), head)


KERNEL = Kernel("dense_rows", "rows", (Dense,), frozenset({Layout.ROWS}), fit)
