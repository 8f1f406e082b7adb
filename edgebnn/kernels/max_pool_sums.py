"""Max-pooling of sums, a channel at a time: what an integer head reads."""

from dataclasses import dataclass

from edgebnn.bits import Layout, pixel_words
from edgebnn.ir import MaxPool, Op, Sums
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import (
    Inputs,
    Kernel,
    SumsHead,
    Table,
    Trips,
    Values,
    Window,
    load,
    sums_head,
    window,
)
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class MaxPoolSums:
    """What ``max_pool_sums.c.j2`` prints; ``lowest`` is below no sum.

    ``row`` is from one pixel to the next. ``load`` is the function that reads a sum; "" where it is
    a word.
    """

    window: Window
    row: int
    lowest: int
    load: str
    head: SumsHead
    parameters: str
    arguments: str = "in, y, x"
    tables: tuple[Table, ...] = ()
    scratch_words: int = 0

    @property
    def helpers(self) -> tuple[str, ...]:
        return (*((self.load,) if self.load else ()), *self.head.helpers)


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> MaxPoolSums | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, MaxPool) or not isinstance(source, Sums) or op.all_set.any():
        return None
    windows = window(op, source)
    return MaxPoolSums(
        window=windows,
        row=pixel_words(source, cpu.word_bits),
        lowest=source.low,
        load=load(source, cpu),
        head=sums_head(source, cpu),
        parameters=f"const {cpu.word} *in, {cpu.place} y, {cpu.place} x",
    )


def trips(view: MaxPoolSums, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    w, channels = view.window, view.head.outputs
    windows = w.out_height * w.out_width
    load = f"max_pool_sums[{view.load or 'word'}]"
    return parts.total(
        {
            "max_pool_sums": 1,
            f"{load}.value": windows * channels,
            f"{load}.tap": windows * channels * w.taps,
            "max_pool_sums.single": channels * w.taps * (windows == 1),
        },
        parts.times(parts.window_loops(w, "max_pool_sums"), channels),
        parts.times(parts.head(view.head), windows),
    )


KERNEL = Kernel(
    "max_pool_sums",
    "direct",
    ((MaxPool,),),
    frozenset({Layout.SUMS16, Layout.SUMS32}),
    fit,
    trips=trips,
)
