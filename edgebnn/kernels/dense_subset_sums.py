"""Dense layers on integers, by sums of all subsets of four inputs: a look-up for four products."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import Layout, pack
from edgebnn.ir import BoolArray, Conv, Dense, Ints, Op, fan_in, infer
from edgebnn.kernels.base import HeadView, Inputs, Kernel, Table, dot_limits, head_view
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class SubsetSums:
    """Rows of weights in blocks of 32 inputs, of which the first one may have less.

    A word of the table is one output's part of a block.
    """

    inputs: int
    outputs: int
    first_block: int
    weights: Table

    @property
    def first_lookups(self) -> int:
        """Tables of 16 subset sums that the first block takes."""
        return -(-self.first_block // 4)

    @property
    def table_words(self) -> int:
        return 16 * min(8, -(-self.inputs // 4))


def subset_sums(op: Dense | Conv) -> SubsetSums:
    """The layer's weights as the look-ups take them."""
    outputs, inputs = len(op.weights), fan_in(op)
    first_block = inputs % 32 or 32
    words = _block_columns(op.weights.reshape(outputs, -1), first_block)
    return SubsetSums(inputs, outputs, first_block, Table("weights", "uint32_t", words))


def _block_columns(rows: BoolArray, first_block: int) -> NDArray[np.unsignedinteger]:
    """(outputs, n) booleans -> words, of which (block, output) holds up to 32 weights of a row."""
    first, rest = np.split(rows, [first_block], axis=1)
    return np.concatenate([pack(first).T.ravel(), pack(rest).T.ravel()])


@dataclass(frozen=True, slots=True)
class DenseSubsetSums:
    """What ``dense_subset_sums.c.j2`` prints."""

    sums: SubsetSums
    head: HeadView
    parameters: str = "const uint32_t *sums, uint32_t total"
    arguments: str = "sums, total"

    @property
    def helpers(self) -> tuple[str, ...]:
        return ("subset_sums", *self.head.helpers)

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.sums.weights, *self.head.tables)

    @property
    def scratch_words(self) -> int:
        return self.sums.outputs + self.sums.table_words


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DenseSubsetSums | None:
    (op,) = ops
    if not isinstance(op, Dense) or not isinstance(inputs[0], Ints) or cpu.word_bits != 32:
        return None
    head = head_view(op.head, infer(op, *inputs), dot_limits(op.head), ">=")
    return DenseSubsetSums(subset_sums(op), head)


KERNEL = Kernel("dense_subset_sums", "subset_sums", (Dense,), frozenset({Layout.BYTES}), fit)
