"""Dense layers on sums: an integer head, which adds or subtracts each of them."""

from dataclasses import dataclass

from edgebnn.bits import Layout, pixel_words, words
from edgebnn.ir import Dense, Op, Sums, infer
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
    packed,
)
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class DenseSums:
    """What ``dense_sums.c.j2`` prints.

    From one pixel to the next are ``row`` words of sums and ``weight_words`` of weights. ``load``
    is the function that reads a sum; "" where it is a word.
    """

    pixels: int
    channels: int
    row: int
    weight_words: int
    load: str
    weights: Table
    head: HeadView
    parameters: str
    arguments: str = "in"
    scratch_words: int = 0

    @property
    def helpers(self) -> tuple[str, ...]:
        return (*((self.load,) if self.load else ()), *self.head.helpers)

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.weights, *self.head.tables)


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DenseSums | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Dense) or not isinstance(source, Sums):
        return None
    return DenseSums(
        pixels=source.height * source.width,
        channels=source.channels,
        row=pixel_words(source, cpu.word_bits),
        weight_words=words(source.channels, cpu.word_bits),
        load=load(source, cpu),
        weights=packed("weights", op.weights, cpu).reshaped(len(op.weights), -1),
        head=head_view(op.head, infer(op, source), dot_limits(op.head), ">=", cpu),
        parameters=f"const {cpu.word} *in",
    )


def trips(view: DenseSums, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    pixels = view.pixels * view.head.outputs
    sums = pixels * view.channels
    row = f"dense_sums[{'words' if view.weight_words > 1 else 'word'}]"
    few = parts.special("dense_sums.channels", view.channels)
    load = f"dense_sums[{view.load or 'word'}]"
    return parts.total(
        {
            "dense_sums": 1,
            "dense_sums.pixel": pixels * (view.pixels > 1),
            "dense_sums.sum": sums,
            "dense_sums.minus": sums - parts.set_bits(view.weights),
            f"{row}.pixel": pixels,
            f"{row}.sum": sums,
            f"{load}.sum": sums,
            few: pixels,
            f"{few}.sum": sums,
        },
        parts.head(view.head),
    )


KERNEL = Kernel(
    "dense_sums",
    "adds",
    ((Dense,),),
    frozenset({Layout.SUMS16, Layout.SUMS32}),
    fit,
    trips=trips,
)
