"""Random networks for the equality tests: a seed names one network and its inputs, for good."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

import edgebnn.nn as bnn
from edgebnn import checkpoint
from edgebnn.nn.record import record
from edgebnn.nn.trace import trace
from edgebnn.nn.weights import BinaryConv

CLASSES = (1, 1, 1, 2, 2, *range(3, 13), 31, 32, 33)
CHANNELS = (1, 1, 2, 3, 5, 31, 32, 33)  # of images
_LARGEST_TABLE = 30_000  # bytes: an AVR has no array beyond 32 767
WIDTHS = (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 63, 64, 65, 96, 100)


def random_model(seed: int, shift_norms: bool | None = None) -> nn.Module:
    """A network of random layers in a random order that makes sense, with hostile norms.

    ``shift_norms`` makes every norm a shift norm or none; by default some networks have them.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = _Builder(rng).build()
    choices = np.random.default_rng([seed, 1])  # draws of its own, so that the rest stays
    if shift_norms is None:
        shift_norms = bool(choices.random() < 0.25)
    if shift_norms:
        model = _with_shift_norms(model)
    model = _with_shifted_signs(model, choices)
    steps = np.random.default_rng([seed, 2])
    if steps.random() < 0.4:
        _add_steps(model, steps, biases=True)
    randomize(model, rng)
    _randomize_signs(model, choices)
    return model.eval()


def random_signal_model(seed: int) -> nn.Module:
    """As :func:`random_model`, of signals: 1-D convolutions and pools, and perhaps a shortcut."""
    rng = np.random.default_rng([seed, 3])
    torch.manual_seed(seed)
    model = _SignalBuilder(rng).build()
    if rng.random() < 0.25:
        model = _with_shift_norms(model)
    model = _with_shifted_signs(model, rng)
    if rng.random() < 0.4:
        shortcuts = any(isinstance(module, bnn.Residual) for module in model)  # of bare sums
        _add_steps(model, rng, biases=not shortcuts)
    randomize(model, rng)
    _randomize_signs(model, rng)
    return model.eval()


def random_residual_model(seed: int) -> nn.Module:
    """As :func:`random_model`, with shortcuts over convolutions and over dense layers."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = _ResidualBuilder(rng).build()
    if seed % 3 == 0:
        for name, module in list(model.named_modules()):
            parent, _, child = name.rpartition(".")
            if isinstance(module, bnn.OutputNorm):
                module = bnn.ShiftOutputNorm(module.num_features, bound=module.bound)
            elif isinstance(module, bnn.BatchNorm):
                module = bnn.ShiftBatchNorm(module.num_features)
            else:
                continue
            setattr(model.get_submodule(parent), child, module)
    steps = np.random.default_rng([seed, 2])
    if steps.random() < 0.4:
        for sequence in [m for m in model.modules() if isinstance(m, nn.Sequential)]:
            _add_steps(sequence, steps)
    randomize(model, rng)
    return model.eval()


def random_inputs(model: nn.Module, count: int, seed: int) -> torch.Tensor:
    """(count, *shape) uint8: noise, sparse, constant and extreme inputs of the model's range."""
    rng = np.random.default_rng(seed)
    first = next(m for m in model.modules() if isinstance(m, bnn.Input))
    top = 2**first.bits - 1
    x = rng.integers(0, top + 1, (count, *first.shape))
    x[1::4] *= rng.random(x[1::4].shape) < 0.2
    x[0], x[-1] = 0, top
    if count > 4:
        x[4] = rng.integers(0, 2, first.shape) * top
    return torch.from_numpy(x.astype(np.uint8))


class _Builder:
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.layers: list[nn.Module] = []

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, *values):
        return values[self.rng.integers(len(values))]

    def width(self, most: int = 100) -> int:
        return int(self.pick(*[w for w in WIDTHS if w <= most]))

    def build(self) -> nn.Module:
        bits = int(self.rng.integers(1, 9))
        if self.chance(0.35):
            features = self.width() * int(self.rng.integers(1, 5))
            self.layers.append(bnn.Input((features,), bits=bits))
            shape = (features, 1, 1)
            binary = self.binarize_input(features)
        else:
            shape = (
                int(self.pick(*CHANNELS)),
                int(self.rng.integers(1, 13)),
                int(self.rng.integers(1, 13)),
            )
            self.layers.append(bnn.Input(shape, bits=bits))
            binary = self.binarize_input(shape[0])
            for _ in range(int(self.rng.integers(0, 4))):
                shape, binary = self.conv(shape, binary)
            if self.chance(0.1) and binary:
                return self.finish_with_conv(shape)
            self.layers.append(bnn.Flatten())
        features = shape[0] * shape[1] * shape[2]
        row = shape[1] * shape[2] * -(-shape[0] // 8)  # bytes of an output's weights
        for _ in range(int(self.rng.integers(0, 3))):
            width = min(self.width(), _LARGEST_TABLE // row)
            self.layers.append(bnn.BinaryLinear(features, width))
            self.norms(width)
            self.layers.append(bnn.Sign())
            if self.chance(0.1):
                self.layers.append(bnn.Dropout(0.3))
            features, row = width, -(-width // 8)
        classes = min(int(self.pick(*CLASSES)), _LARGEST_TABLE // row)
        self.layers.append(bnn.BinaryLinear(features, classes))
        self.output_norm(classes)
        return bnn.Sequential(*self.layers)

    def binarize_input(self, channels: int) -> bool:
        if not self.chance(0.1):
            return False
        self.norms(channels)
        self.layers.append(bnn.Sign())
        return True

    def norms(self, channels: int) -> None:
        for _ in range(int(self.pick(0, 1, 1, 1, 1, 2))):
            self.layers.append(bnn.BatchNorm(channels))
            if self.chance(0.1):
                self.layers.append(bnn.Dropout(0.5))

    def conv(self, shape, binary):
        channels, height, width = shape
        top, left = (int(self.pick(0, 0, 1, 1, 2)) for _ in range(2))
        sides = padding = (top, top, left, left)
        if self.chance(0.3):
            sides = padding = (top, int(self.pick(0, 1, 2)), left, int(self.pick(0, 1, 2)))
        kernel = (
            int(self.rng.integers(1, min(4, height + sum(sides[:2])) + 1)),
            int(self.rng.integers(1, min(4, width + sum(sides[2:])) + 1)),
        )
        stride = (int(self.pick(1, 1, 2, 3)), int(self.pick(1, 1, 2)))
        if self.chance(0.15):
            padding = "same"
            conv = bnn.BinaryConv2d(1, 1, kernel, stride=stride, padding=padding)
            sides = conv.sides(height, width)
        elif sides[::2] == sides[1::2] and self.chance(0.5):
            padding = sides[::2]
        depthwise = self.chance(0.25)
        out = channels if depthwise else self.width(65)
        self.layers.append(
            bnn.BinaryConv2d(
                channels,
                out,
                kernel,
                stride=stride,
                padding=padding,
                pad_value=int(self.pick(-1, 0, 0, 1)) if binary else 0,
                groups=channels if depthwise else 1,
            )
        )
        height = (height + sum(sides[:2]) - kernel[0]) // stride[0] + 1
        width = (width + sum(sides[2:]) - kernel[1]) // stride[1] + 1
        place = self.pick("none", "before", "between", "after", "flat")
        size = (
            int(self.rng.integers(1, min(3, height) + 1)),
            int(self.rng.integers(1, min(3, width) + 1)),
        )
        step = self.pick(None, 1, size)
        pool = bnn.MaxPool2d(size, step)
        if place == "before":
            self.layers.append(pool)
        self.norms(out)
        if place == "between":
            self.layers.append(pool)
            self.norms(out)
        self.layers.append(bnn.Sign())
        if place == "after":
            self.layers.append(pool)
        if place in ("before", "between", "after"):
            step = size if step is None else (step, step) if step == 1 else step
            height = (height - size[0]) // step[0] + 1
            width = (width - size[1]) // step[1] + 1
        return (out, height, width), True

    def finish_with_conv(self, shape) -> nn.Module:
        channels, height, width = shape
        classes = int(self.pick(*CLASSES))
        padding = int(self.pick(0, 1))
        kernel = (height + 2 * padding, width + 2 * padding)
        pad_value = int(self.pick(-1, 0, 1))
        conv = bnn.BinaryConv2d(channels, classes, kernel, padding=padding, pad_value=pad_value)
        self.layers.append(conv)
        self.output_norm(classes)
        self.layers.append(bnn.Flatten())
        return bnn.Sequential(*self.layers)

    def output_norm(self, classes: int) -> None:
        if self.chance(0.75):
            self.layers.append(bnn.OutputNorm(classes, bound=2**23))


class _SignalBuilder(_Builder):
    def build(self) -> nn.Module:
        channels, length = int(self.pick(*CHANNELS)), int(self.rng.integers(1, 41))
        bits = int(self.pick(1, 2, 4, 7, 8, 8, 8))
        zero_point = int(self.pick(0, 2**bits // 2, self.rng.integers(0, 2**bits)))
        self.layers.append(bnn.Input((channels, length), bits=bits, zero_point=zero_point))
        binary = self.binarize_input(channels)
        for _ in range(int(self.rng.integers(1, 4))):
            channels, length = self.signal_conv(channels, length, binary)
            binary = True
        classes = int(self.pick(*CLASSES))
        if self.chance(0.15):
            pad_value = int(self.pick(-1, 0, 1))
            self.layers.append(bnn.BinaryConv1d(channels, classes, length, pad_value=pad_value))
        else:
            row = length * -(-channels // 8)
            self.layers.append(bnn.Flatten())
            classes = min(classes, _LARGEST_TABLE // row)
            self.layers.append(bnn.BinaryLinear(channels * length, classes))
        self.output_norm(classes)
        return bnn.Sequential(*self.layers)

    def signal_conv(self, channels: int, length: int, binary: bool) -> tuple[int, int]:
        """A layer with its norms, signs and pools; the new channels and samples."""
        kernel, stride = int(self.rng.integers(1, 8)), int(self.pick(1, 1, 2, 3))
        padding = self.pick("same", "causal", int(self.pick(0, 1, 2)), tuple(self.draw(0, 4, 2)))
        depthwise = self.chance(0.25)
        out = channels if depthwise else self.width(65)
        settings = {
            "stride": stride,
            "padding": padding,
            "pad_value": int(self.pick(-1, 0, 0, 1)) if binary else 0,
            "groups": channels if depthwise else 1,
        }
        conv = bnn.BinaryConv1d(channels, out, kernel, **settings)
        if length + sum(conv.sides(length)) < kernel:
            conv = bnn.BinaryConv1d(channels, out, kernel, **{**settings, "padding": "causal"})
        length = (length + sum(conv.sides(length)) - kernel) // stride + 1
        self.layers.append(conv)
        if self.chance(0.2):
            body = bnn.BinaryConv1d(out, out, 3, padding="same", pad_value=int(self.pick(-1, 0, 1)))
            self.layers.append(bnn.Residual(bnn.BatchNorm(out), bnn.Sign(), body))
        place = self.pick("none", "before", "between", "after")
        window = int(self.rng.integers(1, min(3, length) + 1))
        step = self.pick(None, 1, 2)
        pool = bnn.MaxPool1d(window, step)
        if place == "before":
            self.layers.append(pool)
        self.norms(out)
        if place == "between":
            self.layers.append(pool)
            self.norms(out)
        self.layers.append(bnn.Sign())
        if place == "after":
            self.layers.append(pool)
        if place != "none":
            length = (length - window) // (step or window) + 1
        return out, length

    def draw(self, low: int, high: int, count: int) -> list[int]:
        return [int(n) for n in self.rng.integers(low, high, count)]


class Shortcuts(nn.Module):
    """Sums r[0], r[1], ...: each step adds what a body makes of one of them, or one, to another."""

    def __init__(self, bodies: list[nn.Module], picks: list[tuple[int, int]], kind: str) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(bodies)
        self.adds = nn.ModuleList([bnn.Add() for _ in bodies])
        self.picks = picks
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sums = [x]
        for (first, second), body, add in zip(self.picks, self.bodies, self.adds, strict=True):
            x, y = sums[first], body(sums[second])
            if self.kind == "module":
                x = add(x, y)
            elif self.kind == "function":
                x = torch.add(y, x)
            elif self.kind == "method":
                x = x.add(y)
            else:
                x = x + y
            sums += [y, x]
        return x


class Fork(nn.Module):
    """Two layers on the same input, added."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one = one
        self.other = other

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.one(x)
        y += self.other(x)
        return y


class _ResidualBuilder(_Builder):
    def build(self) -> nn.Module:
        bits = int(self.pick(1, 2, 4, 8, 8, 8))  # many that 16-bit sums do not hold
        if self.chance(0.35):
            features = self.width() * int(self.rng.integers(1, 5))
            self.layers.append(bnn.Input((features,), bits=bits))
        else:
            channels = int(self.pick(*CHANNELS, 33))
            size = (int(self.rng.integers(1, 10)), int(self.rng.integers(1, 10)))
            self.layers.append(bnn.Input((channels, *size), bits=bits))
            binary = self.binarize_input(channels)
            for _ in range(int(self.pick(1, 1, 2))):
                out = channels if self.chance(0.2) else self.width(65)
                self.stem(lambda c=channels, o=out, b=binary: self.same_conv(c, o, b))
                self.residual(out, lambda i, o: self.same_conv(i, o, True))
                channels, binary, size = out, True, self.to_bits(out, size)
            self.layers.append(bnn.Flatten())
            features = channels * size[0] * size[1]
        if self.chance(0.5):
            width = self.width()
            self.stem(lambda f=features, w=width: bnn.BinaryLinear(f, w))
            self.residual(width, bnn.BinaryLinear)
            self.to_bits(width, None)
            features = width
        classes = int(self.pick(*CLASSES))
        self.stem(lambda: bnn.BinaryLinear(features, classes))
        if self.chance(0.4):
            self.residual(classes, bnn.BinaryLinear)
        self.output_norm(classes)
        return bnn.Sequential(*self.layers)

    def stem(self, layer) -> None:
        """The first sums: of one layer, or of two added."""
        self.layers.append(Fork(layer(), layer()) if self.chance(0.25) else layer())

    def same_conv(self, channels: int, out: int, binary: bool) -> nn.Module:
        """A convolution that keeps height and width."""
        kernel = self.pick((1, 1), (3, 3), (3, 3), (1, 3), (5, 1))
        return bnn.BinaryConv2d(
            channels,
            out,
            kernel,
            padding=(kernel[0] // 2, kernel[1] // 2),
            pad_value=int(self.pick(-1, 0, 0, 1)) if binary else 0,
            groups=channels if channels == out and self.chance(0.4) else 1,
        )

    def residual(self, width: int, layer) -> None:
        """One or more shortcuts; ``layer`` makes a layer of (inputs, outputs)."""
        if self.chance(0.4):
            self.layers.append(bnn.Residual(*self.body(width, layer)))
            return
        steps = int(self.rng.integers(1, 4))
        picks, bodies = [], []
        for step in range(steps):
            picks.append(tuple(int(i) for i in self.rng.integers(0, 2 * step + 1, 2)))
            plain = self.chance(0.2)
            bodies.append(nn.Identity() if plain else nn.Sequential(*self.body(width, layer)))
        kind = self.pick("module", "function", "method", "operator")
        self.layers.append(Shortcuts(bodies, picks, kind))

    def body(self, width: int, layer) -> list[nn.Module]:
        kept, self.layers = self.layers, []
        inner = width
        for _ in range(int(self.rng.integers(0, 2))):
            self.norms(inner)
            between = self.width(33)
            self.layers += [bnn.Sign(), layer(inner, between)]
            inner = between
        self.norms(inner)
        self.layers += [bnn.Sign(), layer(inner, width)]
        kept, self.layers = self.layers, kept
        return kept

    def to_bits(self, channels: int, size):
        """Norms and a sign, of an image perhaps with a pool; returns the new size."""
        place = self.pick("none", "before", "after") if size else "none"
        if place != "none":
            window = tuple(int(self.rng.integers(1, min(3, n) + 1)) for n in size)
            size = tuple(n // w for n, w in zip(size, window, strict=True))
        if place == "before":
            self.layers.append(bnn.MaxPool2d(window))
        self.norms(channels)
        self.layers.append(bnn.Sign())
        if place == "after":
            self.layers.append(bnn.MaxPool2d(window))
        return size


def _with_shift_norms(model: nn.Module) -> nn.Module:
    layers: list[nn.Module] = []
    reach = 0
    for module in model:
        if isinstance(module, bnn.BinaryLinear | BinaryConv):
            reach = 255 * module.latent_weight[0].numel()
        if isinstance(module, bnn.OutputNorm):
            module = bnn.ShiftOutputNorm(module.num_features, bound=reach)
        elif isinstance(module, bnn.BatchNorm):
            module = bnn.ShiftBatchNorm(module.num_features)
        layers.append(module)
    return bnn.Sequential(*layers)


def _with_shifted_signs(model: nn.Module, rng: np.random.Generator) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 0
    for module in model:
        if isinstance(module, bnn.Input):
            channels = module.shape[0]
        elif isinstance(module, bnn.BinaryLinear | BinaryConv):
            channels = len(module.latent_weight)
        if isinstance(module, bnn.Sign) and rng.random() < 0.25:
            module = bnn.Sign(num_features=channels)
        layers.append(module)
    return bnn.Sequential(*layers)


def random_steps(
    rng: np.random.Generator, count: int, channels: int = 1, axes: int = 0
) -> list[nn.Module]:
    """Layers that rise or fall: plateaus, ties with integers, next to nothing, beyond every value.

    Where ``channels`` is not 1 some have a value a channel; behind the channels there are ``axes``.
    """

    def number() -> float:
        value = rng.normal() * 10.0 ** rng.uniform(-6, 3)
        return float(np.round(3 * rng.normal()) if rng.random() < 0.4 else value)

    def constants(module: nn.Module) -> nn.Module:
        with torch.no_grad():
            drawn = [number() for _ in range(module.value.numel())]
            module.value.copy_(torch.tensor(drawn).reshape(module.value.shape))
        return module

    def step() -> nn.Module:
        shape = () if channels == 1 else (channels, *[1] * axes)
        match int(rng.integers(0, 10)):
            case 0:
                return nn.ReLU()
            case 1:
                return nn.ReLU6()
            case 2:
                low = number()
                return nn.Hardtanh(low, low + abs(number()) + 1e-3)
            case 3:
                return nn.LeakyReLU(float(rng.choice([0.0, 0.01, 0.1, 1.0, 3.0])))
            case 4:
                prelu = nn.PReLU(channels if rng.random() < 0.5 else 1)
                with torch.no_grad():
                    prelu.weight.copy_(torch.from_numpy(np.abs(rng.normal(size=len(prelu.weight)))))
                    prelu.weight[torch.from_numpy(rng.random(len(prelu.weight)) < 0.3)] = 0.0
                return prelu
            case 5 | 6:
                return (
                    bnn.Scale(number()) if rng.random() < 0.4 else constants(bnn.Scale(None, shape))
                )
            case 7 | 8:
                return (
                    bnn.Bias(number()) if rng.random() < 0.4 else constants(bnn.Bias(None, shape))
                )
            case _:
                return bnn.Scale(float(rng.choice([-1.0, -0.1, 0.1, -1e30, 0.0])))

    return [step() for _ in range(count)]


@torch.no_grad()
def _add_steps(model: nn.Sequential, rng: np.random.Generator, biases: bool = False) -> None:
    """Puts layers that rise or fall before signs, and ``biases`` into layers with weights."""
    layers = list(model)
    weighted = [m for m in layers if isinstance(m, bnn.BinaryLinear | BinaryConv)]
    channels, axes, begin = 1, 0, 0
    for module in layers:
        if isinstance(module, bnn.Input):
            channels, axes = module.shape[0], len(module.shape) - 1
            begin = list(model).index(module) + 1
        elif module in weighted:
            channels, axes = len(module.latent_weight), module.latent_weight.dim() - 2
            begin = list(model).index(module) + 1
            if biases and module is not weighted[-1] and rng.random() < 0.3:
                drawn = rng.normal(size=channels) * 10.0 ** rng.uniform(-3, 2)
                drawn[::2] = np.round(drawn[::2])
                module.bias = nn.Parameter(torch.from_numpy(drawn.astype(np.float32)))
        elif isinstance(module, nn.Sequential | Fork | Shortcuts):
            channels, begin = 1, list(model).index(module) + 1
        elif isinstance(module, bnn.Sign):
            end = list(model).index(module)
            if rng.random() < 0.6 and not any(isinstance(m, bnn.Sign) for m in model[begin:end]):
                for step in random_steps(rng, int(rng.integers(1, 4)), channels, axes):
                    model.insert(int(rng.integers(begin, list(model).index(module) + 1)), step)
            begin = list(model).index(module) + 1


@torch.no_grad()
def _randomize_signs(model: nn.Module, rng: np.random.Generator) -> None:
    """Shifts of every size: next to nothing, exact ties with integers, beyond every value."""
    for module in model.modules():
        if isinstance(module, bnn.Sign) and module.shift is not None:
            n = module.num_features
            shift = rng.normal(size=n) * 10.0 ** rng.uniform(-8, 3, n)
            shift[rng.random(n) < 0.4] = 0.0
            whole = rng.random(n) < 0.3
            shift[whole] = np.round(5 * rng.normal(size=int(whole.sum())))
            module.shift.copy_(torch.from_numpy(shift))


@torch.no_grad()
def randomize(model: nn.Module, rng: np.random.Generator) -> None:
    """Latent weights with exact zeros; norms with negative, zero and tiny scales and exact ties."""
    for module in model.modules():
        if isinstance(module, bnn.BinaryLinear | BinaryConv):
            latent = module.latent_weight
            latent[torch.from_numpy(rng.random(tuple(latent.shape)) < 0.02)] = 0.0
        if not isinstance(module, bnn.BatchNorm):
            continue
        n = module.num_features
        reach = 10.0 ** rng.uniform(-1, 3)
        weight = rng.normal(size=n)
        mean = rng.normal(size=n) * reach
        var = (reach * rng.uniform(0.01, 2.0, n)) ** 2
        bias = rng.normal(size=n)
        kind = rng.integers(0, 8, n)
        weight[kind == 0] = 0.0
        bias[(kind == 0) & (rng.random(n) < 0.5)] = 0.0
        weight[kind == 1] *= 1e-30
        tie = (kind == 2) | (kind == 3)
        mean[tie] = np.round(mean[tie])
        bias[tie] = 0.0
        bias[kind == 4] = -0.0
        var[kind == 5] = 0.0
        module.weight.copy_(torch.from_numpy(weight))
        module.bias.copy_(torch.from_numpy(bias))
        module.running_mean.copy_(torch.from_numpy(mean))
        module.running_var.copy_(torch.from_numpy(var))


def save_unproven(model: nn.Module, path: Path, **options: Any) -> None:
    """Writes a model file of a network that does not lower, as an older edgebnn did."""
    unproven = SimpleNamespace(
        layers=record(trace(model), options.get("form", "training")),
        network=SimpleNamespace(num_classes=0),
    )
    with mock.patch.object(checkpoint, "prove", return_value=unproven):
        checkpoint.save(model, path, **options)


def random_levels_model(seed: int) -> nn.Module:
    """As the others, in turns, whose signs have 1, 3 or 7 levels; some with an integer head."""
    rng = np.random.default_rng([seed, 4])
    build = (random_model, random_residual_model, random_signal_model)[seed % 3]
    model = build(seed)
    if isinstance(model, nn.Sequential) and rng.random() < 0.5:
        model = _with_integer_head(model)
    levels = 1
    for name, module in list(model.named_modules()):  # as they run
        if isinstance(module, bnn.Sign):
            levels = int(rng.choice((1, 3, 7), p=(0.15, 0.55, 0.3)))
            spacing = float(10.0 ** rng.uniform(-2, 1)) if levels > 1 else None
            sign = bnn.Sign(num_features=module.num_features, levels=levels, spacing=spacing)
            sign.load_state_dict(module.state_dict())
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, sign)
        elif isinstance(module, BinaryConv):
            module.pad_value *= levels
        elif isinstance(module, bnn.OutputNorm):
            module.bound = 2**24 - 1
    return model.eval()


def _with_integer_head(model: nn.Sequential) -> nn.Sequential:
    """Without what comes between the last convolution and Flatten, but for pools; if it may be."""
    layers = list(model)
    flat = next((i for i, m in enumerate(layers) if isinstance(m, nn.Flatten)), len(layers) - 1)
    begin = max((i for i in range(flat) if not _between(layers[i])), default=0)
    sums, head = layers[begin], layers[flat + 1 :]
    whole = [m for m in layers[:begin] if isinstance(m, bnn.Input)]
    reach = 255 if sum(isinstance(m, bnn.Sign) for m in layers[:begin]) == 0 else 7
    weighted = [m for m in sums.modules() if isinstance(m, BinaryConv)]
    if not whole or not weighted or not head or not isinstance(head[0], bnn.BinaryLinear):
        return model
    reach *= sum(m.latent_weight[0].numel() for m in weighted) * head[0].in_features
    if reach * (1 if len(weighted) == 1 else 2**8) >= 2**24:  # shortcuts may add sums to themselves
        return model
    for module in weighted:
        module.bias = None
    pools = [m for m in layers[begin:flat] if isinstance(m, nn.MaxPool1d | nn.MaxPool2d)]
    return bnn.Sequential(*layers[: begin + 1], *pools, nn.Flatten(), *head)


def _between(module: nn.Module) -> bool:
    """Whether it may stand between sums and what reads them next."""
    weights = (bnn.BinaryLinear, BinaryConv)
    return not any(isinstance(m, (*weights, bnn.Input)) for m in module.modules())
