"""Convolutions on integers, by sums of all subsets of four inputs of a copy of the window."""

from dataclasses import dataclass

from edgebnn.bits import Layout
from edgebnn.ir import Conv, Ints, Op, infer
from edgebnn.kernels.base import (
    HeadView,
    Inputs,
    Kernel,
    Table,
    Window,
    dot_limits,
    head_view,
    window,
)
from edgebnn.kernels.dense_subset_sums import SubsetSums, subset_sums
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class ConvSubsetSums:
    """What ``conv_subset_sums.c.j2`` prints."""

    channels: int
    window: Window
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
    def patch_offset(self) -> int:
        """Where the copy of the window begins, in words of scratch; the sums come first."""
        return self.sums.outputs + self.sums.table_words

    @property
    def scratch_words(self) -> int:
        return self.patch_offset + -(-self.sums.inputs // 4)


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvSubsetSums | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Conv) or not isinstance(source, Ints) or cpu.word_bits != 32:
        return None
    head = head_view(op.head, infer(op, source), dot_limits(op.head), ">=")
    return ConvSubsetSums(source.channels, window(op, source), subset_sums(op), head)


KERNEL = Kernel("conv_subset_sums", "subset_sums", (Conv,), frozenset({Layout.BYTES}), fit)
