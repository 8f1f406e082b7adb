"""Sums of sums: what a shortcut ends in."""

from dataclasses import dataclass

from edgebnn.bits import Layout, pixel_words, sum_bits, tensor_words
from edgebnn.ir import Add, Op, Sums, infer
from edgebnn.kernels.base import Inputs, Kernel, Table, Trips, Values, load, store
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class AddView:
    """What ``add.c.j2`` prints; bits of a sum and words of a pixel of each source.

    ``by_words`` says that all sums are of one size, and added a word at a time. Else the loads and
    the store are the functions that read and write one; "" where it is a word.
    """

    by_words: bool
    words: int
    pixels: int
    channels: int
    bits: int  # of the result
    source_bits: int
    source_words: int
    source_load: str
    other_bits: int
    other_words: int
    other_load: str
    store: str
    tables: tuple[Table, ...] = ()
    scratch_words: int = 0

    @property
    def helpers(self) -> tuple[str, ...]:
        if self.by_words:
            return ()
        return tuple(name for name in (self.source_load, self.other_load, self.store) if name)


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> AddView | None:
    (op,) = ops
    source, other = inputs
    if not isinstance(op, Add) or not isinstance(source, Sums) or not isinstance(other, Sums):
        return None
    result = infer(op, source, other)
    assert isinstance(result, Sums)
    bits, source_bits, other_bits = (sum_bits(sums) for sums in (result, source, other))
    pixels, channels = source.height * source.width, source.channels
    if cpu.narrow:  # then a sum has whole words, and no pixel ends in a gap
        pixels, channels = 1, pixels * channels
    return AddView(
        by_words=bits == source_bits == other_bits and not cpu.narrow,
        words=tensor_words(result, cpu.word_bits),
        pixels=pixels,
        channels=channels,
        bits=bits,
        source_bits=source_bits,
        source_words=pixel_words(source, cpu.word_bits),
        source_load=load(source, cpu),
        other_bits=other_bits,
        other_words=pixel_words(other, cpu.word_bits),
        other_load=load(other, cpu),
        store=store(result, cpu),
    )


def trips(view: AddView, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    if view.by_words:
        return {"add": 1, f"add.word{view.bits}": view.words}
    kind = f"[{view.source_bits} + {view.other_bits} to {view.bits}]"
    return {
        "add": 1,
        f"add.pixel{kind}": view.pixels,
        f"add.value{kind}": view.pixels * view.channels,
    }


KERNEL = Kernel(
    "add",
    "direct",
    ((Add,),),
    frozenset({Layout.SUMS16, Layout.SUMS32}),
    fit,
    in_place=True,
    trips=trips,
)
