"""Recipes: a network and how to train it, under one name.

All use Adam at 1e-2 with a cosine to zero and the square hinge, in batches of 128: of the simple
recipes tried, the one that trains binarized networks best. Hidden widths are multiples of 32, so
that rows of bits fill whole words on every target. Networks adapt to the images' shape and to the
number of classes; the sizes in the names are for 28x28 grey images and ten classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

import edgebnn.nn as bnn
from edgebnn.errors import EdgebnnError

#: (channels, height, width) and the number of classes, to a network with fresh latent weights.
Build = Callable[[tuple[int, int, int], int], nn.Module]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A network and how to train it.

    Attributes:
        name: as given on the command line.
        summary: one line on the network.
        build: makes the network; draws its weights from torch's global generator.
        epochs: passes over the training images.
        batch_size: images a step, over all processes.
        learning_rate: of Adam at the first step; it falls to 0 as half a cosine.
        loss: "square_hinge" or "cross_entropy".
        input_bits: 1 to 8; images lose their ``8 - input_bits`` lowest bits.
    """

    name: str
    summary: str
    build: Build
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 1e-2
    loss: Literal["square_hinge", "cross_entropy"] = "square_hinge"
    input_bits: int = 8


def mlp(
    shape: tuple[int, int, int], classes: int, *, widths: tuple[int, ...], bits: int = 8
) -> nn.Module:
    """Dense layers of ``widths`` bits, each with norm and sign, then the scores of the classes."""
    channels, height, width = shape
    features = channels * height * width
    largest = features * (2**bits - 1)
    layers: list[nn.Module] = [bnn.Input(shape, bits=bits), bnn.Flatten()]
    for outputs in widths:
        layers += [bnn.BinaryLinear(features, outputs), bnn.BatchNorm(outputs), bnn.Sign()]
        features = largest = outputs
    layers += [bnn.BinaryLinear(features, classes), bnn.OutputNorm(classes, bound=largest)]
    return bnn.Sequential(*layers)


def conv(
    shape: tuple[int, int, int], classes: int, *, widths: tuple[int, ...], bits: int = 8
) -> nn.Module:
    """3x3 convolutions of ``widths`` channels, each pooled 2x2, then the scores of the classes.

    The border of the image is padded with 0, that of hidden layers with -1, the bit 0.

    Raises:
        EdgebnnError: images are too small to be halved once a layer.
    """
    channels, height, width = shape
    least = 2 ** len(widths)
    if min(height, width) < least:
        raise EdgebnnError(
            f"images of {width}x{height} are too small for {len(widths)} poolings; "
            f"take mlp-32k, or images of {least}x{least} or more"
        )
    layers: list[nn.Module] = [bnn.Input(shape, bits=bits)]
    for place, outputs in enumerate(widths):
        pad_value = -1 if place else 0
        layers += [
            bnn.BinaryConv2d(channels, outputs, 3, padding=1, pad_value=pad_value),
            bnn.MaxPool2d(2),
            bnn.BatchNorm(outputs),
            bnn.Sign(),
        ]
        channels, height, width = outputs, height // 2, width // 2
    features = channels * height * width
    layers += [bnn.Flatten(), bnn.BinaryLinear(features, classes)]
    layers += [bnn.OutputNorm(classes, bound=features)]
    return bnn.Sequential(*layers)


#: Every recipe that the command line knows.
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="mlp-16k",
            summary="two dense layers of 128 bits; 14.8 kB of weights, quick to train",
            build=partial(mlp, widths=(128, 128)),
            epochs=40,
        ),
        Recipe(
            name="mlp-32k",
            summary="two dense layers of 256 bits; 33.6 kB of weights",
            build=partial(mlp, widths=(256, 256)),
            epochs=30,
        ),
        Recipe(
            name="conv-16k",
            summary="3x3 convolutions of 32, 64 and 128 channels, pooled; 13.0 kB of weights",
            build=partial(conv, widths=(32, 64, 128)),
            epochs=15,
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        EdgebnnError: no such recipe; the message lists those there are.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise EdgebnnError(f"unknown recipe '{name}'; pick one of: {', '.join(RECIPES)}") from None
