"""Modules of binarized networks, used like ``torch.nn``::

import edgebnn.nn as bnn

model = bnn.Sequential(
    bnn.Input((1, 28, 28), bits=8),
    bnn.Flatten(),
    bnn.BinaryLinear(784, 256), bnn.BatchNorm(256), bnn.Sign(),
    bnn.BinaryLinear(256, 10), bnn.OutputNorm(10),
)
"""

from torch.nn import Dropout, Flatten, MaxPool2d, Sequential

from edgebnn.nn.functional import clip_latent_, sign, square_hinge
from edgebnn.nn.layers import BinaryConv2d, BinaryLinear, Input, Sign
from edgebnn.nn.norm import BatchNorm, OutputNorm
from edgebnn.nn.optim import (
    Bop,
    CombinedOptimizer,
    ShiftAdaMax,
    clip_latent_after_step,
    constant,
    cosine,
    exponential,
    glorot_groups,
    halving,
    scale_rates,
    split_parameters,
)

__all__ = [
    "BatchNorm",
    "BinaryConv2d",
    "BinaryLinear",
    "Bop",
    "CombinedOptimizer",
    "Dropout",
    "Flatten",
    "Input",
    "MaxPool2d",
    "OutputNorm",
    "Sequential",
    "ShiftAdaMax",
    "Sign",
    "clip_latent_",
    "clip_latent_after_step",
    "constant",
    "cosine",
    "exponential",
    "glorot_groups",
    "halving",
    "scale_rates",
    "sign",
    "split_parameters",
    "square_hinge",
]
