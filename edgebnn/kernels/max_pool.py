"""Max-pooling of bits: an OR, or an AND in the channels whose norm falls."""

from dataclasses import dataclass

from edgebnn.bits import Layout, pack
from edgebnn.ir import Bits, MaxPool, Op, infer
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Inputs, Kernel, Reading, Table, Trips, Values, Window, window
from edgebnn.kernels.pixels import BitPixel, alike, bit_pixel, own_table
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
    pixel = bit_pixel(source, cpu, alike(source, infer(op, source), cpu))
    masks = own_table("all_set", pack(op.all_set, pixel.bits), cpu)
    inverts = bool(masks.values.any())
    tables = (masks,) if inverts and pixel.words > 1 else ()
    return MaxPoolWords(window(op, source), pixel, inverts, int(masks.values[0]), tables)


def trips(view: MaxPoolWords, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    w, words = view.window, view.pixel.words
    windows = w.out_height * w.out_width
    several = f"max_pool[{'words' if words > 1 else 'word'}{', inverted' * view.inverts}]"
    shape = f"{several}[{w.kernel_height}x{w.kernel_width}]"
    return {
        "max_pool": 1,
        "max_pool.pixel": windows,
        several: windows * words,
        f"{several}.tap": windows * words * w.taps,
        shape: windows * words,
        **parts.times(parts.window_loops(w, "max_pool"), words),
    }


KERNEL = Kernel(
    "max_pool",
    "direct",
    ((MaxPool,),),
    frozenset({Layout.ROWS}),
    fit,
    trips=trips,
    reading=Reading.ALIKE,
)
