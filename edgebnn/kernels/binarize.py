"""Signs, or levels, of integers: of the input, or of sums that are stored."""

from dataclasses import dataclass, replace

from edgebnn.bits import Layout, pixel_words, sum_bits
from edgebnn.ir import Binarize, Bits, Ints, Op, Quantize, ScoreVector, Sums, infer
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import (
    BitsHead,
    Inputs,
    Kernel,
    LevelsHead,
    Table,
    Trips,
    Values,
    bits_head,
    levels_head,
    load,
    smallest,
)
from edgebnn.kernels.pixels import packed_like
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
    head: BitsHead | LevelsHead
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
    if not isinstance(op, Binarize | Quantize) or isinstance(source, Bits | ScoreVector):
        return None
    result = infer(op, source)
    assert isinstance(result, Bits)
    each = op.inverted.ndim == 3 and op.inverted.shape[:2] != (1, 1)  # pixel has its own
    rows = (-1, source.channels) if each else (-1,)
    levels = isinstance(op, Quantize)
    limits = op.minimum.reshape(rows if not levels else (-1, source.channels))
    tables: tuple[Table, ...] = (smallest("limits", limits, cpu),)
    inverted = bool(op.inverted.any())
    if inverted:
        tables += (packed_like("inverted", op.inverted.reshape(rows), result, cpu),)
    place = "[pixel]" if each else ""
    head: BitsHead | LevelsHead = (levels_head if levels else bits_head)(result, tables, ">=", cpu)
    head = replace(head, inverted=inverted, place=place)
    if isinstance(head, LevelsHead) and each:
        pixels = source.height * source.width
        later = (f"[pixel + {level * pixels}u]" for level in range(1, result.levels))
        head = replace(head, rows=("[pixel]", *later))
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
    ((Binarize,), (Quantize,)),
    frozenset({Layout.BYTES, Layout.SUMS16, Layout.SUMS32}),
    fit,
    trips=trips,
)
