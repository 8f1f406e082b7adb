"""Dense layers on integers, by sums of all subsets of four inputs: a look-up for four products."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import Layout, pack, pixel_words
from edgebnn.ir import BoolArray, Conv, Dense, Ints, Op, Sums, dot_bound, fan_in, infer
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
    load,
    store,
)
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class SubsetSums:
    """Rows of weights in blocks of a word of inputs, of which the first one may have less.

    A word of ``weights`` is one output's part of a block. ``load`` and ``store`` are the functions
    that read and write the sum of an output, ``load_table`` and ``store_table`` a subset sum of
    four inputs; "" where it is a word.
    """

    inputs: int
    outputs: int
    first_block: int
    block: int
    weights: Table
    sums_words: int  # the sum of each output
    table_words: int  # the tables of a block
    load: str
    store: str
    load_table: str
    store_table: str

    @property
    def first_lookups(self) -> int:
        """Tables of 16 subset sums that the first block takes."""
        return -(-self.first_block // 4)

    @property
    def block_lookups(self) -> int:
        """And each of the other blocks."""
        return self.block // 4

    @property
    def words(self) -> int:
        return self.sums_words + self.table_words

    @property
    def helpers(self) -> tuple[str, ...]:
        used = (self.load_table, self.store_table, self.load, self.store)
        return (*(name for name in used if name), "subset_sums")


def subset_sums(op: Dense | Conv, source: Ints, cpu: Cpu) -> SubsetSums:
    """The layer's weights as the look-ups take them."""
    outputs, inputs, block = len(op.weights), fan_in(op), cpu.word_bits
    first_block = inputs % block or block
    words = _block_columns(op.weights.reshape(outputs, -1), first_block, cpu)
    # Sums lie in memory as those of layers do, two to a word only where a word is not one.
    sums = Sums(1, 1, outputs, 0, _word_or(dot_bound(inputs, source), cpu))
    table = Sums(1, 1, 16 * -(-min(inputs, block) // 4), 0, _word_or(dot_bound(4, source), cpu))
    return SubsetSums(
        inputs,
        outputs,
        first_block,
        block,
        Table("weights", cpu.word, words, words=True),
        pixel_words(sums, cpu.word_bits),
        pixel_words(table, cpu.word_bits),
        load(sums, cpu),
        store(sums, cpu),
        load(table, cpu),
        store(table, cpu),
    )


def _word_or(most: int, cpu: Cpu) -> int:
    """What has to be held by what holds ``most``, or by a word where that is large enough."""
    return most if cpu.narrow else 2**31 - 1


def _block_columns(rows: BoolArray, first_block: int, cpu: Cpu) -> NDArray[np.unsignedinteger]:
    """(outputs, n) booleans -> words, of which (block, output) holds a word of weights of a row."""
    first, rest = np.split(rows, [first_block], axis=1)
    columns = [pack(part, cpu.word_bits).T.ravel() for part in (first, rest)]
    return np.concatenate(columns)


@dataclass(frozen=True, slots=True)
class DenseSubsetSums:
    """What ``dense_subset_sums.c.j2`` prints."""

    sums: SubsetSums
    head: HeadView
    parameters: str
    arguments: str = "sums, total"

    @property
    def helpers(self) -> tuple[str, ...]:
        return (*self.sums.helpers, *self.head.helpers)

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.sums.weights, *self.head.tables)

    @property
    def scratch_words(self) -> int:
        return self.sums.words


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DenseSubsetSums | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Dense) or not isinstance(source, Ints):
        return None
    head = head_view(op.head, infer(op, source), dot_limits(op.head), ">=", cpu)
    parameters = f"const {cpu.word} *sums, uint32_t total"
    return DenseSubsetSums(subset_sums(op, source, cpu), head, parameters)


def trips(view: DenseSubsetSums, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    return parts.total({"dense_subset_sums": 1}, sums_trips(view.sums), parts.head(view.head))


def sums_trips(sums: SubsetSums) -> Trips:
    """The trips of the sums of one row of inputs, and of reading them."""
    blocks = (sums.inputs - sums.first_block) // sums.block
    fours = sums.first_lookups + blocks * sums.block_lookups
    return {
        "subset_sums": 1 + blocks,
        "subset_sums.four": fours,
        "subset_sums.missing": -sums.first_block % 4,
        "subset_sums.first": sums.outputs,
        "subset_sums.lookup": sums.outputs * sums.first_lookups,
        f"subset_sums[{sums.first_lookups}]": sums.outputs,
        "subset_sums.block": blocks,
        "subset_sums.sum": blocks * sums.outputs,
        "subset_sums.value": sums.outputs,
    }


KERNEL = Kernel(
    "dense_subset_sums", "subset_sums", ((Dense,),), frozenset({Layout.BYTES}), fit, trips=trips
)
