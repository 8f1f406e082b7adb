"""Modules of binarized networks, used like ``torch.nn``::

import edgebnn.nn as bnn

model = bnn.Sequential(
    bnn.Input((1, 28, 28), bits=8),
    bnn.Flatten(),
    bnn.BinaryLinear(784, 256), bnn.BatchNorm(256), bnn.Sign(),
    bnn.BinaryLinear(256, 10), bnn.OutputNorm(10),
)
"""

from torch.nn import (
    Dropout,
    Flatten,
    Hardtanh,
    LeakyReLU,
    MaxPool1d,
    MaxPool2d,
    PReLU,
    ReLU,
    ReLU6,
    Sequential,
)

from edgebnn.nn.constants import Bias, Scale
from edgebnn.nn.functional import ap2, clip_latent_, predict, sign
from edgebnn.nn.layers import Add, Input, Residual, Sign
from edgebnn.nn.losses import ScaleRegularizer, cross_entropy, distillation, square_hinge
from edgebnn.nn.norm import BatchNorm, OutputNorm, ShiftBatchNorm, ShiftOutputNorm
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
from edgebnn.nn.statistics import recalibrate
from edgebnn.nn.weights import BinaryConv1d, BinaryConv2d, BinaryLinear, use_real_weights

__all__ = [
    "Add",
    "BatchNorm",
    "Bias",
    "BinaryConv1d",
    "BinaryConv2d",
    "BinaryLinear",
    "Bop",
    "CombinedOptimizer",
    "Dropout",
    "Flatten",
    "Hardtanh",
    "Input",
    "LeakyReLU",
    "MaxPool1d",
    "MaxPool2d",
    "OutputNorm",
    "PReLU",
    "ReLU",
    "ReLU6",
    "Residual",
    "Scale",
    "ScaleRegularizer",
    "Sequential",
    "ShiftAdaMax",
    "ShiftBatchNorm",
    "ShiftOutputNorm",
    "Sign",
    "ap2",
    "clip_latent_",
    "clip_latent_after_step",
    "constant",
    "cosine",
    "cross_entropy",
    "distillation",
    "exponential",
    "glorot_groups",
    "halving",
    "predict",
    "recalibrate",
    "scale_rates",
    "sign",
    "split_parameters",
    "square_hinge",
    "use_real_weights",
]
