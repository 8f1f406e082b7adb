"""Signs of integers: of the input, or of sums that are stored."""

from dataclasses import dataclass

from edgebnn.bits import Layout, pixel_words, sum_bits
from edgebnn.ir import Binarize, Bits, Ints, Op, ScoreVector, Sums, infer
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import (
    BitsHead,
    Inputs,
    Kernel,
    Table,
    Trips,
    Values,
    load,
    packed,
    smallest,
)
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class BinarizeView:
    """What ``binarize.c.j2`` prints; ``row`` is from one pixel to the next, in ``in``'s type.

    ``load`` is the function that reads a sum; "" where it is a word.
    """

    pixels: int
    row: int
    bits: int  # of an integer in memory: 8, 16 or 32
    load: str
    head: BitsHead
    parameters: str
    arguments: str = "in"
    scratch_words: int = 0

    @property
    def helpers(self) -> tuple[str, ...]:
        return (self.load,) if self.load else ()

    @property
    def tables(self) -> tuple[Table, ...]:
        return self.head.tables


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> BinarizeView | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Binarize) or isinstance(source, Bits | ScoreVector):
        return None
    result = infer(op, source)
    each = op.minimum.ndim == 3 and op.minimum.shape[:2] != (1, 1)  # pixel has its own
    rows = (-1, source.channels) if each else (-1,)
    tables: tuple[Table, ...] = (smallest("limits", op.minimum.reshape(rows), cpu),)
    inverted = bool(op.inverted.any())
    if inverted:
        tables += (packed("inverted", op.inverted.reshape(rows), cpu),)
    head = BitsHead(
        source.channels,
        pixel_words(result, cpu.word_bits),
        ">=",
        tables,
        inverted,
        place="[pixel]" if each else "",
    )
    ints = isinstance(source, Ints)
    return BinarizeView(
        pixels=source.height * source.width,
        row=source.channels if ints else pixel_words(source, cpu.word_bits),
        bits=sum_bits(source) if isinstance(source, Sums) else 8,
        load=load(source, cpu) if isinstance(source, Sums) else "",
        head=head,
        parameters=f"const {'uint8_t' if ints else cpu.word} *in",
    )


def trips(view: BinarizeView, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    return parts.total(
        {"binarize": 1, "binarize.pixel": view.pixels * (view.pixels > 1)},
        {f"binarize.value{view.bits}": view.pixels * view.head.outputs},
        parts.times(parts.head(view.head), view.pixels),
    )


KERNEL = Kernel(
    "binarize",
    "direct",
    ((Binarize,),),
    frozenset({Layout.BYTES, Layout.SUMS16, Layout.SUMS32}),
    fit,
    trips=trips,
)
