"""Sums of sums: what a shortcut ends in."""

from dataclasses import dataclass

from edgebnn.bits import Layout, pixel_words, sum_bits, tensor_words
from edgebnn.ir import Add, Op, Sums, infer
from edgebnn.kernels.base import Inputs, Kernel, Table
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class AddView:
    """What ``add.c.j2`` prints; bits of a sum and words of a pixel of each source."""

    words: int
    pixels: int
    channels: int
    bits: int  # of the result
    source_bits: int
    source_words: int
    other_bits: int
    other_words: int
    tables: tuple[Table, ...] = ()
    scratch_words: int = 0

    @property
    def helpers(self) -> tuple[str, ...]:
        mixed = self.source_bits != self.other_bits or self.source_bits < self.bits
        return ("sum16",) if mixed else ()


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> AddView | None:
    (op,) = ops
    source, other = inputs
    if not isinstance(op, Add) or not isinstance(source, Sums) or not isinstance(other, Sums):
        return None
    if cpu.word_bits != 32:
        return None
    result = infer(op, source, other)
    assert isinstance(result, Sums)
    return AddView(
        words=tensor_words(result),
        pixels=source.height * source.width,
        channels=source.channels,
        bits=sum_bits(result),
        source_bits=sum_bits(source),
        source_words=pixel_words(source),
        other_bits=sum_bits(other),
        other_words=pixel_words(other),
    )


KERNEL = Kernel(
    "add",
    "direct",
    (Add,),
    frozenset({Layout.SUMS16, Layout.SUMS32}),
    fit,
    in_place=True,
)
