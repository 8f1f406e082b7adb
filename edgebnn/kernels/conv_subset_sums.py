"""Convolutions on integers, by sums of all subsets of four inputs of a copy of the window."""

from dataclasses import dataclass

from edgebnn.bits import Layout, words
from edgebnn.ir import Conv, Ints, Op, fan_in, infer
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import (
    HeadView,
    Inputs,
    Kernel,
    Table,
    Trips,
    Values,
    Window,
    dot_limits,
    head_view,
    window,
)
from edgebnn.kernels.dense_subset_sums import SubsetSums, subset_sums, sums_trips
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class ConvSubsetSums:
    """What ``conv_subset_sums.c.j2`` prints."""

    channels: int
    window: Window
    sums: SubsetSums
    head: HeadView
    patch_words: int
    parameters: str
    arguments: str = "sums, total"

    @property
    def helpers(self) -> tuple[str, ...]:
        return (*self.sums.helpers, *self.head.helpers)

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.sums.weights, *self.head.tables)

    @property
    def patch_offset(self) -> int:
        """Where the copy of the window begins, in words of scratch; the sums come first."""
        return self.sums.words

    @property
    def scratch_words(self) -> int:
        return self.patch_offset + self.patch_words


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvSubsetSums | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Conv) or not isinstance(source, Ints):
        return None
    return ConvSubsetSums(
        channels=source.channels,
        window=window(op, source),
        sums=subset_sums(op, source, cpu),
        head=head_view(op.head, infer(op, source), dot_limits(op.head), ">=", cpu),
        patch_words=words(8 * fan_in(op), cpu.word_bits),
        parameters=f"const {cpu.word} *sums, uint32_t total",
    )


def trips(view: ConvSubsetSums, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    w = view.window
    windows = w.out_height * w.out_width
    return parts.total(
        {"conv_subset_sums": 1},
        int_windows(w, view.channels),
        parts.times(sums_trips(view.sums), windows),
        parts.times(parts.head(view.head), windows),
    )


def int_windows(w: Window, channels: int) -> Trips:
    """The trips of copies of windows of integers."""
    taps = sum(parts.taps(w))
    pads = "whole" if not w.padded else "zeros" if w.pad_value == 0 else "others"
    return parts.total(
        parts.window_loops(w, "ints"),
        {"ints.value": (channels > 1) * taps * channels, f"ints[{pads}]": taps},
        {f"ints[{pads}].value": (channels > 1) * taps * channels},
        {parts.special("ints.channels", channels): taps},
    )


KERNEL = Kernel(
    "conv_subset_sums", "subset_sums", ((Conv,),), frozenset({Layout.BYTES}), fit, trips=trips
)
