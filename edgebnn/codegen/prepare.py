"""``<name>_prepare()``: the steps before a network, in integer C, equal to the training's.

What each step means is in :mod:`edgebnn.data.transforms`. A device has neither a division nor,
maybe, a product, and 64 bits in pieces; so a mean is divided by eight subtractions, and the values
that normalization gives are found by a walk over all 256 pixel values, of additions alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgebnn.codegen.names import comment_text
from edgebnn.data import transforms
from edgebnn.errors import EdgebnnError, TooLarge
from edgebnn.ir import Network
from edgebnn.targets.base import Cpu

_MOST_GCN = 65536  # inputs, of which the squares of transforms.gcn stay below 2**63
_MOST_AREA = 2**23  # of which 511 stay below 2**32
_YOURS = "prepare inputs yourself and add --no-prepare"


class Size(NamedTuple):
    """Of an image, in pixels."""

    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Prepare:
    """What is to be done to images (channels, height, width) of bytes before the network."""

    steps: tuple[str, ...]
    right_shift: int
    image: tuple[int, int, int]

    def inputs(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Images (N, image_bytes) as a device has them, channels last, as inputs of the network."""
        channels, height, width = self.image
        images = pixels.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
        done = transforms.apply_to_image(images, self.steps) >> np.uint8(self.right_shift)
        return np.ascontiguousarray(done.transpose(0, 2, 3, 1)).reshape(len(pixels), -1)


@dataclass(frozen=True, slots=True)
class SideView:
    """Rows or columns in resizing: a pixel of the image has ``pixel`` units, one made ``made``."""

    pixel: int
    made: int


@dataclass(frozen=True, slots=True)
class ResizeView:
    """What the function prints that resizes.

    A mean is a weighted sum divided by the sum of the weights, rounded. Both are doubled: then half
    the ``divisor`` is an integer. Eight subtractions divide; the first one is of ``first_part``.
    """

    before: str  # "28x28"
    size: int
    rows: SideView
    columns: SideView
    channels: int
    row_bytes: int
    half: int
    divisor: int
    first_part: int  # 128 * divisor
    weighted: bool  # not all weights are one


@dataclass(frozen=True, slots=True)
class GcnView:
    """What the functions print that normalize."""

    step: int  # 80 times the number of inputs
    growth_high: int  # of 2 * step * step
    growth_low: int


@dataclass(frozen=True, slots=True)
class PrepareView:
    """All of ``<name>_prepare()``: what is done to which images, and by which calls."""

    image_bytes: int
    height: int
    width: int
    channels: int
    text: str  # "resize 16, then gcn"
    stack: int  # bytes, more than any compiler was seen to take
    calls: tuple[str, ...]
    resize: ResizeView | None
    gcn: GcnView | None
    right_shift: int
    bits_left: int  # of a pixel, after it
    product: str  # the function that multiplies; "" where the CPU does
    helpers: tuple[str, ...]


def prepare_of(
    network: Network,
    steps: Sequence[str],
    right_shift: int,
    image: tuple[int, int, int] | None = None,
    size: Size | None = None,
) -> Prepare | None:
    """What a device does before ``network``; None where that is nothing, or of an unknown image.

    Args:
        steps: of :mod:`edgebnn.data.transforms`.
        right_shift: the number of low bits that pixels lose at last.
        image: channels, height and width of the images of the training, where they are known.
        size: that of the device's images, instead.

    Raises:
        EdgebnnError: a device cannot do a step, or ``size`` does not lead to the network's inputs.
    """
    if not steps and not right_shift:
        if size is not None:
            raise EdgebnnError("the model takes images as they are; leave out --image")
        return None
    if "zca" in steps:
        raise EdgebnnError(
            "the model takes ZCA-whitened images, which no device makes: the whitening is a matrix "
            f"of {network.input_bytes}x{network.input_bytes} floats of the training images, and "
            f"not in the model; {_YOURS}"
        )
    transforms.check_steps(steps)
    resized = [step for step in steps if step.startswith("resize")]
    if resized and tuple(resized) != tuple(steps[:1]):
        listed = ", then ".join(steps)
        raise EdgebnnError(f"a device can resize first and once alone, not {listed}; {_YOURS}")
    if not resized:
        if size is not None:
            raise EdgebnnError("the model's images are not resized; leave out --image")
        shape = network.input
        image = (shape.channels, shape.height, shape.width)
    elif size is not None:
        image = (_channels(network) if image is None else image[0], *size)
    if image is None:
        return None
    prepare = Prepare(tuple(steps), right_shift, image)
    if resized:
        _check_resize(prepare, network)
    if "gcn" in steps and network.input_bytes > _MOST_GCN:
        raise EdgebnnError(f"gcn of more than {_MOST_GCN} inputs is not for a device; {_YOURS}")
    return prepare


def _channels(network: Network) -> int:
    """Of images; a network of rows of numbers has taken grey ones, until somebody says else."""
    shape = network.input
    return 1 if shape.height == shape.width == 1 else shape.channels


def _check_resize(prepare: Prepare, network: Network) -> None:
    shape, (channels, height, width) = network.input, prepare.image
    size = int(prepare.steps[0].split()[1])
    if size > min(height, width):
        raise EdgebnnError(
            f"cannot resize {width}x{height} images to {size}x{size}; give a larger --image"
        )
    own, made = (shape.channels, shape.height, shape.width), (channels, size, size)
    flat = shape.height == shape.width == 1 and math.prod(made) == network.input_bytes
    if made != own and not flat:
        raise EdgebnnError(
            f"resized images are {'x'.join(map(str, made))}, the model takes "
            f"{'x'.join(map(str, own))} (channels x height x width); {_YOURS}"
        )
    if made != own and channels > 1:
        raise EdgebnnError(
            f"a flat network takes the {channels} channels of an image one after the other, "
            f"which a device does not resize; {_YOURS}"
        )
    rows, columns = _sides(prepare)
    if rows.made * columns.made > _MOST_AREA:
        raise EdgebnnError(f"means of {width}x{height} images do not fit 32 bits; {_YOURS}")


def _sides(prepare: Prepare) -> tuple[SideView, SideView]:
    size = int(prepare.steps[0].split()[1])
    rows, columns = (
        SideView(size // math.gcd(size, before), before // math.gcd(size, before))
        for before in prepare.image[1:]
    )
    return rows, columns


def prepare_view(prepare: Prepare, network: Network, prefix: str, cpu: Cpu) -> PrepareView:
    """What is printed of ``prepare`` for a CPU; every name in C begins with ``prefix``.

    Raises:
        TooLarge: the image is larger than the CPU can have.
    """
    channels, height, width = prepare.image
    image_bytes = math.prod(prepare.image)
    if image_bytes > cpu.largest_array:
        raise TooLarge(
            f"the image has {image_bytes} bytes, and the CPU no array beyond {cpu.largest_array}; "
            f"{_YOURS}"
        )
    resize = None
    if prepare.steps and prepare.steps[0].startswith("resize"):
        rows, columns = _sides(prepare)
        weights = rows.made * columns.made
        resize = ResizeView(
            before=f"{width}x{height}",
            size=int(prepare.steps[0].split()[1]),
            rows=rows,
            columns=columns,
            channels=channels,
            row_bytes=width * channels,
            half=weights,
            divisor=2 * weights,
            first_part=256 * weights,
            weighted=rows.pixel > 1 or columns.pixel > 1,
        )
    gcn = None
    if "gcn" in prepare.steps:
        step = 80 * network.input_bytes
        growth = 2 * step * step
        gcn = GcnView(step, growth >> 32, growth & 0xFFFFFFFF)
    product = "" if "mul" in cpu.features else f"{prefix}product"
    used = gcn is not None or (resize is not None and resize.weighted)
    shift = (f"shift right by {prepare.right_shift}",) if prepare.right_shift else ()
    functions = [step.split()[0] for step in (*prepare.steps, *shift)]
    sources = ("pixels", *("input" for _ in functions[1:]))
    return PrepareView(
        image_bytes=image_bytes,
        height=height,
        width=width,
        channels=channels,
        text=", then ".join(comment_text(step) for step in (*prepare.steps, *shift)),
        stack=600 if gcn is not None else 100,
        calls=tuple(
            f"{prefix}prepare_{function}({source}, input);"
            for function, source in zip(functions, sources, strict=True)
        ),
        resize=resize,
        gcn=gcn,
        right_shift=prepare.right_shift,
        bits_left=8 - prepare.right_shift,
        product=product,
        helpers=("product",) if product and used else (),
    )
