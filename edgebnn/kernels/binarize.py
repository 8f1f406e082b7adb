"""Signs of integers: of the input, or of sums that are stored."""

from dataclasses import dataclass

from edgebnn.bits import Layout, pack, pixel_words, sum_bits
from edgebnn.ir import Binarize, Bits, Ints, Op, ScoreVector, Sums, infer
from edgebnn.kernels.base import BitsHead, Inputs, Kernel, Table, smallest
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class BinarizeView:
    """What ``binarize.c.j2`` prints; ``row`` is from one pixel to the next, in ``in``'s type."""

    pixels: int
    row: int
    bits: int  # of an integer in memory: 8, 16 or 32
    head: BitsHead
    scratch_words: int = 0
    arguments: str = "in"

    @property
    def in_type(self) -> str:
        return "uint8_t" if self.bits == 8 else "uint32_t"

    @property
    def parameters(self) -> str:
        return f"const {self.in_type} *in"

    @property
    def helpers(self) -> tuple[str, ...]:
        return ("sum16",) if self.bits == 16 else ()

    @property
    def tables(self) -> tuple[Table, ...]:
        return self.head.tables


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> BinarizeView | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Binarize) or isinstance(source, Bits | ScoreVector):
        return None
    if cpu.word_bits != 32:
        return None
    result = infer(op, source)
    tables: tuple[Table, ...] = (smallest("limits", op.minimum),)
    inverted = bool(op.inverted.any())
    if inverted:
        tables += (Table("inverted", "uint32_t", pack(op.inverted)),)
    head = BitsHead(source.channels, pixel_words(result), ">=", tables, inverted)
    return BinarizeView(
        pixels=source.height * source.width,
        row=source.channels if isinstance(source, Ints) else pixel_words(source),
        bits=sum_bits(source) if isinstance(source, Sums) else 8,
        head=head,
    )


KERNEL = Kernel(
    "binarize", "direct", (Binarize,), frozenset({Layout.BYTES, Layout.SUMS16, Layout.SUMS32}), fit
)
