"""Max-pooling of bits of several planes: the largest number in each lane of a word, bit by bit.

Of two numbers the larger one has the first digit, from the top, in which they differ. The largest
of opposite numbers is the opposite of the least, which is what channels take whose norm falls; the
opposite of a level has the opposite bits.
"""

from dataclasses import dataclass

from edgebnn.bits import Layout, image_words, pack
from edgebnn.ir import Bits, MaxPool, Op, infer
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Inputs, Kernel, Reading, Table, Trips, Values, Window, window
from edgebnn.kernels.pixels import BitPixel, alike, bit_pixel, own_table
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class MaxPoolLevels:
    """What ``max_pool_levels.c.j2`` prints, as ``max_pool.py`` has it.

    Planes are ``plane_words`` apart in the source and ``out_words`` in the result.
    """

    planes: int
    plane_words: int
    out_words: int
    window: Window
    pixel: BitPixel
    inverts: bool
    mask: int
    tables: tuple[Table, ...]
    scratch_words: int = 0
    helpers: tuple[str, ...] = ()


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> MaxPoolLevels | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, MaxPool) or not isinstance(source, Bits):
        return None
    result = infer(op, source)
    pixel = bit_pixel(source, cpu, alike(source, result, cpu))
    masks = own_table("all_set", pack(op.all_set, pixel.bits), cpu)
    inverts = bool(masks.values.any())
    return MaxPoolLevels(
        planes=source.planes,
        plane_words=image_words(source, cpu.word_bits) * pixel.in_word,
        out_words=image_words(result, cpu.word_bits) * pixel.in_word,
        window=window(op, source),
        pixel=pixel,
        inverts=inverts,
        mask=int(masks.values[0]),
        tables=(masks,) if inverts and pixel.words > 1 else (),
    )


def trips(view: MaxPoolLevels, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    w, words = view.window, view.pixel.words
    windows = w.out_height * w.out_width
    name = f"max_pool_levels{view.planes}"
    several = f"{name}[{'words' if words > 1 else 'word'}{', inverted' * view.inverts}]"
    shape = f"{several}[{w.kernel_height}x{w.kernel_width}]"
    return {
        "max_pool_levels": 1,
        "max_pool_levels.pixel": windows,
        "max_pool_levels[narrow].tap": windows * words * w.taps * view.pixel.narrow,
        f"{name}.word": windows * words,
        f"{name}.tap": windows * words * w.taps,
        several: windows * words,
        f"{several}.tap": windows * words * w.taps,
        shape: windows * words,
        **parts.times(parts.window_loops(w, "max_pool_levels"), words),
    }


KERNEL = Kernel(
    "max_pool_levels",
    "levels",
    ((MaxPool,),),
    frozenset({Layout.PLANES}),
    fit,
    trips=trips,
    reading=Reading.ALIKE,
)
