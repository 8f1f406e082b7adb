"""Networks from their notation: ``32C3-MP2-64C3-MP2-128FC``, as papers write them.

Layers are separated by ``-``; ``2x`` before a layer repeats it.

======== =====================================================================================
``64C3`` convolution to 64 channels, 3x3, padded to keep the size; norm and sign follow
``C3S2`` after the channels: the same with stride 2; ``C3V`` without padding
``D3``   depthwise 3x3 convolution; norm and sign follow
``MP2``  2x2 max pooling, between a convolution and its norm as in the paper
``R3``   residual block on the layer before: x + C3(sign(norm(x))), the shortcut in plain integers
``256FC`` dense layer of 256 bits; norm and sign follow
======== =====================================================================================

A dense layer with one score a class and an output norm end every network, unsaid. With an integer
head that layer reads the sums of the last convolution, pooled or not, and no norm and sign come
between; all else is the same. On signals, which
are images of width 1, kernels and pools are 1-D: ``64C5`` sees five samples.
"""

import os
import re
from dataclasses import dataclass

import torch
from torch import nn

import edgebnn.nn as bnn
from edgebnn.errors import EdgebnnError
from edgebnn.nn.weights import BinaryConv
from edgebnn.wording import counted, kind

_MOST_WEIGHTS = 2**30  # 128 MB of flash
_BYTES_A_WEIGHT = 16  # in training: itself, its gradient and two averages of the optimizer
_REPEAT = re.compile(r"(?:([0-9]{1,20})x)?(.+)")
_LAYER = re.compile(
    r"(?P<dense>N)FC|(?P<conv>N)C(?P<kernel>N)(?:S(?P<stride>N))?(?P<valid>V?)"
    r"|D(?P<depthwise>N)|MP(?P<pool>N)|R(?P<residual>N)".replace("N)", "[1-9][0-9]{0,4})")
)


@dataclass(frozen=True, slots=True)
class Style:
    """What all layers of a network share.

    Attributes:
        sign: gradient estimator of the activations; see :class:`edgebnn.nn.Sign`.
        sign_beta: its steepness where it has one.
        learned_shift: a trainable shift a channel before each sign (RSign).
        weights: gradient estimator of the weights; see :class:`edgebnn.nn.BinaryLinear`.
        norm: "batch" or "shift", of hidden layers; the last is an ordinary one, as published.
        pad_value: around hidden convolutions, times the levels; -1 is free on the device, 0 is as
            published.
        dropout_input: probability of dropping an input.
        dropout_hidden: probability of dropping a hidden bit.
        bits: of an input, 1 to 8.
        zero_point: the input that stands for 0, as around the first convolution.
        levels: thresholds of each activation, 1, 3 or 7.
        level_spacing: from one to the next; 0 for what :class:`edgebnn.nn.Sign` takes.
        head: "sign", or "integer": the last layer reads the sums of the convolution before it.
    """

    sign: str = "ste"
    sign_beta: float = 5.0
    learned_shift: bool = False
    weights: str = "identity"
    norm: str = "batch"
    pad_value: int = -1
    dropout_input: float = 0.0
    dropout_hidden: float = 0.0
    bits: int = 8
    zero_point: int = 0
    levels: int = 1
    level_spacing: float = 0.0
    head: str = "sign"


def parse(notation: str) -> list[re.Match[str]]:
    """The layers of ``notation``, repetitions written out.

    Raises:
        EdgebnnError: a part that is no layer; named with an example of what is.
    """
    layers = []
    for part in notation.split("-"):
        repeat = _REPEAT.fullmatch(part)
        layer = _LAYER.fullmatch(repeat[2]) if repeat else None
        if repeat is None or layer is None:
            raise EdgebnnError(
                f"'{part}' in network '{notation}' is no layer; "
                "write layers as in 32C3-MP2-64C3-2xR3-64C3S2-D3-128FC"
            )
        count = int(repeat[1] or 1)
        if not 1 <= count <= 1000:
            raise EdgebnnError(f"'{part}' in network '{notation}' repeats {count} times")
        layers += [layer] * count
    return layers


def build(
    notation: str, shape: tuple[int, int, int], classes: int, style: Style | None = None
) -> nn.Module:
    """The network of ``notation`` for inputs of ``shape`` = (channels, height, width).

    Weights are drawn from torch's global generator.

    Raises:
        EdgebnnError: no such layer, images too small for the network, or no memory to train it.
    """
    with torch.device("meta"):  # which takes no memory
        weights = sum(p.numel() for p in _assemble(notation, shape, classes, style).parameters())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = min(_MOST_WEIGHTS, memory // _BYTES_A_WEIGHT)
    if weights > most:
        raise EdgebnnError(
            f"network '{notation}' has {weights} weights for these {kind(shape)}s, and this "
            f"computer can train {most} at most; make it smaller, or pool first"
        )
    return _assemble(notation, shape, classes, style)


def _assemble(
    notation: str, shape: tuple[int, int, int], classes: int, style: Style | None
) -> nn.Module:
    builder = _Builder(notation, shape, style or Style())
    for layer in parse(notation):
        builder.add(layer)
    return builder.finish(classes)


class _Builder:
    """Adds layers in order; while it is ``open``, no norm has seen the sums of the last one."""

    def __init__(self, notation: str, shape: tuple[int, int, int], style: Style) -> None:
        self.notation = notation
        self.style = style
        self.channels, self.height, self.width = shape
        self.largest = 2**style.bits - 1  # of the values that the next layer reads
        self.reach = 0  # of the sums that no norm has seen
        self.open = False
        self.pooled = False
        self.flat = False
        self.weighted = 0
        self.kind = kind(shape)
        self.signal = self.kind == "signal"
        size = shape[:2] if self.signal else shape
        first = bnn.Input(size, bits=style.bits, zero_point=style.zero_point)
        self.layers: list[nn.Module] = [first]
        if style.dropout_input:
            self.layers.append(bnn.Dropout(style.dropout_input))

    def add(self, layer: re.Match[str]) -> None:
        if layer["dense"]:
            self._close()
            self._flatten()
            self._dense(int(layer["dense"]))
        elif layer["conv"]:
            self._close()
            kernel, stride = int(layer["kernel"]), int(layer["stride"] or 1)
            padding = 0 if layer["valid"] else kernel // 2
            self.layers.append(self._conv(int(layer["conv"]), kernel, stride, padding))
            self.channels = int(layer["conv"])
            self._resize(kernel, stride, padding, layer[0])
        elif layer["depthwise"]:
            self._close()
            kernel = int(layer["depthwise"])
            groups = self.channels
            self.layers.append(self._conv(self.channels, kernel, 1, kernel // 2, groups))
            self._resize(kernel, 1, kernel // 2, layer[0])
        elif layer["pool"]:
            if self.flat:
                raise EdgebnnError(f"'{layer[0]}' follows a dense layer in '{self.notation}'")
            kernel = int(layer["pool"])
            self.layers.append((bnn.MaxPool1d if self.signal else bnn.MaxPool2d)(kernel))
            self.pooled = True
            self._resize(kernel, kernel, 0, layer[0])
        else:
            if not self.open or self.pooled or self.flat or self.weighted < 2:
                raise EdgebnnError(
                    f"'{layer[0]}' in '{self.notation}' needs a convolution of bits right before "
                    "it; pool after it, and mind that the first layer reads integers"
                )
            kernel = int(layer["residual"])
            if kernel % 2 == 0:
                raise EdgebnnError(f"'{layer[0]}' in '{self.notation}' changes the size; take R3")
            norm, sign = self._norm(), self._sign()
            reach, self.largest = self.reach, self.style.levels
            conv = self._conv(self.channels, kernel, 1, kernel // 2)
            self.reach += reach
            self.layers.append(bnn.Residual(norm, sign, conv))

    def finish(self, classes: int) -> nn.Module:
        if self.style.head == "integer":
            if self.flat or not self.open:
                raise EdgebnnError(
                    f"an integer head reads the sums of a convolution, and network "
                    f"'{self.notation}' does not end in one; change that, or set head=sign"
                )
            self.largest = self.reach
        else:
            self._close()
        self._flatten()
        features = self.channels
        bound = features * self.largest
        if bound >= 2**24:
            raise EdgebnnError(
                f"the last sums of network '{self.notation}' reach {bound}, and float32 is exact "
                f"below 2**24; pool first, or put a dense layer before the end"
            )
        self.layers.append(bnn.BinaryLinear(features, classes, estimator=self.style.weights))
        if self.style.norm == "shift":  # of hidden layers, as published; see docs/results.md
            norm = bnn.OutputNorm(classes, bound=bound, eps=1e-5, momentum=0.125)
        else:
            norm = bnn.OutputNorm(classes, bound=bound)
        self.layers.append(norm)
        return bnn.Sequential(*self.layers)

    def _dense(self, outputs: int) -> None:
        self.layers.append(bnn.BinaryLinear(self.channels, outputs, estimator=self.style.weights))
        self.reach = self.channels * self.largest
        self.channels = outputs
        self.open = True
        self.weighted += 1

    def _conv(
        self, outputs: int, kernel: int, stride: int, padding: int, groups: int = 1
    ) -> nn.Module:
        first = not any(isinstance(m, BinaryConv) for m in self.layers)
        self.open, self.pooled = True, False
        self.weighted += 1
        taps = kernel if self.signal else kernel**2
        self.reach = self.channels // groups * taps * self.largest
        kind = bnn.BinaryConv1d if self.signal else bnn.BinaryConv2d
        return kind(
            self.channels,
            outputs,
            kernel,
            stride=stride,
            padding=padding,
            pad_value=0 if first else self.style.pad_value * self.style.levels,
            groups=groups,
            estimator=self.style.weights,
        )

    def _norm(self) -> nn.Module:
        kind = bnn.ShiftBatchNorm if self.style.norm == "shift" else bnn.BatchNorm
        return kind(self.channels)

    def _sign(self) -> nn.Module:
        shifted = self.channels if self.style.learned_shift else None
        return bnn.Sign(
            self.style.sign,
            beta=self.style.sign_beta,
            num_features=shifted,
            levels=self.style.levels,
            spacing=self.style.level_spacing or None,
        )

    def _close(self) -> None:
        """Norm and sign after sums; then the values are bits, or of several levels."""
        if self.open:
            self.layers += [self._norm(), self._sign()]
            self.open = False
            self.largest = self.style.levels
            if self.style.dropout_hidden:
                self.layers.append(bnn.Dropout(self.style.dropout_hidden))

    def _flatten(self) -> None:
        if not self.flat:
            self.layers.append(bnn.Flatten())
            self.channels *= self.height * self.width
            self.flat = True

    def _resize(self, kernel: int, stride: int, padding: int, layer: str) -> None:
        if self.flat:
            raise EdgebnnError(f"'{layer}' follows a dense layer in '{self.notation}'")
        before = f"{self.width}x{self.height}"
        if self.signal:
            before = counted(self.height, "sample")
        self.height = (self.height + 2 * padding - kernel) // stride + 1
        if not self.signal:
            self.width = (self.width + 2 * padding - kernel) // stride + 1
        if self.height < 1 or self.width < 1:
            if self.kind == "row":
                raise EdgebnnError(
                    f"'{layer}' in '{self.notation}' needs neighbours, and rows of numbers have "
                    "none: take a network of dense layers, such as mlp-32k; or, where each row is "
                    "a signal, give all in an .npz, (N, T, 1)"
                )
            small = "short" if self.signal else "small"
            raise EdgebnnError(
                f"'{layer}' in '{self.notation}' does not fit into {before}; the {self.kind}s are "
                f"too {small} for it: take a network with less pooling, such as mlp-32k"
            )
