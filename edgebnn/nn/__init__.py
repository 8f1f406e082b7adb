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
from edgebnn.nn.layers import Add, BinaryConv2d, BinaryLinear, Input, Residual, Sign
from edgebnn.nn.norm import BatchNorm, OutputNorm

__all__ = [
    "Add",
    "BatchNorm",
    "BinaryConv2d",
    "BinaryLinear",
    "Dropout",
    "Flatten",
    "Input",
    "MaxPool2d",
    "OutputNorm",
    "Residual",
    "Sequential",
    "Sign",
    "clip_latent_",
    "sign",
    "square_hinge",
]
