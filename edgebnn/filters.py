"""How often filters repeat: what a convolution could share between its output channels.

Courbariaux et al. (arXiv 1602.02830, section 3.2) count the unique 2-D kernels of each layer, where
a kernel and its inverse count once, because the popcount of one gives the other's. A k x k kernel
of bits has only 2**(k*k) forms, so wide layers repeat them.

Counted are the signs as they are deployed. Lowering may store a channel inverted, which changes
the count of unique 2-D kernels but not the one with inverses merged.
"""

from dataclasses import dataclass

import numpy as np

from edgebnn.ir import BoolArray, Conv, DepthwiseConv, Network


@dataclass(frozen=True, slots=True)
class Repeats:
    """The filters of one convolution; a 2-D kernel is what joins one input to one output channel.

    ``distinct`` counts 2-D kernels that differ, ``merged`` those that also differ from each other's
    inverse. ``filters`` are whole 3-D filters, one an output channel; ``copies`` of them equal an
    earlier one.
    """

    name: str
    height: int
    width: int
    kernels: int
    distinct: int
    merged: int
    filters: int
    copies: int

    @property
    def fraction(self) -> float:
        """Of all 2-D kernels, those that would have to be computed (the paper's 42 %)."""
        return self.merged / self.kernels


def count(network: Network) -> tuple[Repeats, ...]:
    """The repeats in each convolution of ``network``; none if it has none."""
    return tuple(
        _repeats(op.name, op.weights if isinstance(op, Conv) else np.moveaxis(op.weights, -1, 0))
        for op in network.ops
        if isinstance(op, Conv | DepthwiseConv)
    )


def _repeats(name: str, weights: BoolArray) -> Repeats:
    """``weights`` are (outputs, height, width, channels), or without channels if depthwise."""
    outputs, height, width = weights.shape[:3]
    whole = weights.reshape(outputs, height, width, -1)
    kernels = whole.transpose(0, 3, 1, 2).reshape(-1, height * width)
    # Of a kernel and its inverse, the one that begins with +1 stands for both.
    merged = kernels == kernels[:, :1]
    return Repeats(
        name,
        height,
        width,
        len(kernels),
        _distinct(kernels),
        _distinct(merged),
        outputs,
        outputs - _distinct(whole.reshape(outputs, -1)),
    )


def _distinct(rows: BoolArray) -> int:
    return len(np.unique(np.packbits(rows, axis=1), axis=0))
