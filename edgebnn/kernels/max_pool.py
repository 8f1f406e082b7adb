"""Max-pooling of bits: an OR, or an AND in the channels whose norm falls."""

from dataclasses import dataclass

from edgebnn.bits import Layout
from edgebnn.ir import Bits, MaxPool, Op
from edgebnn.kernels.base import BitPixel, Inputs, Kernel, Table, Window, bit_pixel, packed, window
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class MaxPoolWords:
    """What ``max_pool.c.j2`` prints.

    ``inverts`` says that some channels take the AND; they are the bits of ``mask`` where a pixel
    has one word, else of the table.
    """

    window: Window
    pixel: BitPixel
    inverts: bool
    mask: int
    tables: tuple[Table, ...]
    scratch_words: int = 0
    helpers: tuple[str, ...] = ()


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> MaxPoolWords | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, MaxPool) or not isinstance(source, Bits):
        return None
    masks = packed("all_set", op.all_set, cpu)
    inverts = bool(masks.values.any())
    pixel = bit_pixel(source, cpu)
    tables = (masks,) if inverts and pixel.words > 1 else ()
    return MaxPoolWords(window(op, source), pixel, inverts, int(masks.values[0]), tables)


KERNEL = Kernel("max_pool", "direct", ((MaxPool,),), frozenset({Layout.ROWS}), fit)
