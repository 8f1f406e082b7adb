"""The emitted C of seven tiny networks, kept under golden/ to be read in review.

After a wanted change: ``pytest host_tests/test_golden.py --force-regen``, then read the diff.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_regressions.file_regression import FileRegressionFixture
from torch import nn

import edgebnn.nn as bnn
from edgebnn import api
from edgebnn.codegen.indent import indented
from edgebnn.codegen.library import Library
from edgebnn.device import build, host
from edgebnn.lower import lower
from edgebnn.measure import integer_scores, to_device_layout

GOLDEN = Path(__file__).resolve().parent / "golden"


@torch.no_grad()
def by_formula(*layers: nn.Module) -> nn.Module:
    """The network with weights and norms from formulas, the same on every machine and torch."""
    model = bnn.Sequential(*layers).eval()
    for place, module in enumerate(model.modules()):
        if isinstance(module, bnn.BinaryLinear | bnn.BinaryConv2d):
            i = torch.arange(module.latent_weight.numel())
            signs = 1.0 - 2.0 * ((i * i + 5 * i + i // 3 + place) % 7 < 3)
            module.latent_weight.copy_(signs.reshape(module.latent_weight.shape))
        elif isinstance(module, bnn.BatchNorm):
            i = torch.arange(module.num_features)
            module.weight.copy_(torch.where(i % 3 == 1, -0.5, 0.75))  # every third falls
            module.bias.copy_(0.25 * (i % 4) - 0.25)
            module.running_mean.copy_(1.5 - 0.75 * (i % 5))
            module.running_var.copy_(4.0 + i)
    return model


def mlp() -> nn.Module:
    """16 inputs of 8 bits, 8 hidden bits, 3 classes."""
    hidden = (bnn.BinaryLinear(16, 8), bnn.BatchNorm(8), bnn.Sign())
    output = (bnn.BinaryLinear(8, 3), bnn.OutputNorm(3, bound=8))
    return by_formula(bnn.Input((16,), bits=8), *hidden, *output)


def conv() -> nn.Module:
    """A binarized image, a convolution padded with zero and pooled before a norm that falls."""
    first = (bnn.BatchNorm(1), bnn.Sign())
    second = (bnn.BinaryConv2d(1, 5, 3, padding=1), bnn.MaxPool2d(2), bnn.BatchNorm(5), bnn.Sign())
    output = (bnn.Flatten(), bnn.BinaryLinear(30, 3), bnn.OutputNorm(3, bound=30))
    return by_formula(bnn.Input((1, 4, 6), bits=2), *first, *second, *output)


def depthwise() -> nn.Module:
    """A depthwise layer on integers and one on bits; scores are the plain sums."""
    first = (bnn.BinaryConv2d(3, 3, 3, padding=1, groups=3), bnn.BatchNorm(3), bnn.Sign())
    second = (
        bnn.BinaryConv2d(3, 3, 3, stride=2, padding=1, pad_value=-1, groups=3),
        bnn.BatchNorm(3),
        bnn.Sign(),
    )
    output = (bnn.Flatten(), bnn.BinaryLinear(12, 2))
    return by_formula(bnn.Input((3, 4, 4), bits=4), *first, *second, *output)


def planes() -> nn.Module:
    """A convolution on integers, here by their bit planes, with a border of zeros."""
    hidden = (bnn.BinaryConv2d(2, 4, 3, stride=2, padding=1), bnn.BatchNorm(4), bnn.Sign())
    output = (bnn.Flatten(), bnn.BinaryLinear(24, 3), bnn.OutputNorm(3, bound=24))
    return by_formula(bnn.Input((2, 4, 6), bits=3), *hidden, *output)


def tree() -> nn.Module:
    """A convolution on integers and its pool: nine taps of grey, a border of zeros."""
    hidden = (bnn.BinaryConv2d(1, 5, 3, padding=1), bnn.MaxPool2d(2), bnn.BatchNorm(5), bnn.Sign())
    output = (bnn.Flatten(), bnn.BinaryLinear(30, 3), bnn.OutputNorm(3, bound=30))
    return by_formula(bnn.Input((1, 4, 6), bits=8), *hidden, *output)


def digits() -> nn.Module:
    """Seven inputs of 4 bits, whose digits say which columns are added and which taken away."""
    hidden = (bnn.BinaryLinear(7, 5), bnn.BatchNorm(5), bnn.Sign())
    output = (bnn.BinaryLinear(5, 3), bnn.OutputNorm(3, bound=5))
    return by_formula(bnn.Input((7,), bits=4), *hidden, *output)


def residual() -> nn.Module:
    """A shortcut over a dense layer; the scores are made of its sums."""
    first = (bnn.BatchNorm(24), bnn.Sign(), bnn.BinaryLinear(24, 3))
    block = bnn.Residual(bnn.BatchNorm(3), bnn.Sign(), bnn.BinaryLinear(3, 3))
    return by_formula(bnn.Input((24,), bits=3), *first, block, bnn.OutputNorm(3, bound=27))


def columns() -> nn.Module:
    """Twelve binarized inputs, and outputs enough that their weights lie in columns."""
    first = (bnn.BatchNorm(12), bnn.Sign())
    hidden = (bnn.BinaryLinear(12, 20), bnn.BatchNorm(20), bnn.Sign())
    output = (bnn.BinaryLinear(20, 3), bnn.OutputNorm(3, bound=20))
    return by_formula(bnn.Input((12,), bits=4), *first, *hidden, *output)


NETWORKS = {
    "mlp": mlp,
    "conv": conv,
    "depthwise": depthwise,
    "planes": planes,
    "tree": tree,
    "digits": digits,
    "residual": residual,
    "columns": columns,
}
FIRST_LAYER = {"planes": "bit-planes", "digits": "columns"}


def generated(name: str, model: nn.Module, target: str) -> Library:
    choice = FIRST_LAYER.get(name, "auto")
    return api.generate(model, target=target, name=name, first_layer=choice)


@pytest.mark.parametrize("suffix", [".c", ".h"])
@pytest.mark.parametrize("name", NETWORKS)
def test_emitted_files_are_the_reviewed_ones(
    name: str, suffix: str, file_regression: FileRegressionFixture
) -> None:
    library = generated(name, NETWORKS[name](), "cortex-m4")
    text = library.files[f"src/{name}{suffix}"]
    assert text.count("\n") < 730, "too long to read in review"
    file_regression.check(
        text, encoding="utf-8", newline="", fullpath=GOLDEN / f"{name}{suffix}", extension=suffix
    )


def test_no_line_of_code_is_wide() -> None:
    """Where the first comma is out of reach, it goes on before an argument, or what is assigned."""
    name = "fashion_network_with_a_long_name"
    head = f"static struct {name}_pair *{name}_add_lists(const uint32_t *columns, uint32_t step)"
    cast = f"const struct {name}_pair *end = (const struct {name}_pair *){name}_add_lists(a, 2u);"
    assert indented(f"{head}\n{{\n{cast}\n}}\n").splitlines() == [
        head.partition("(")[0] + "(",
        "    const uint32_t *columns, uint32_t step)",
        "{",
        f"    const struct {name}_pair *end =",
        f"        (const struct {name}_pair *){name}_add_lists(a, 2u);",
        "}",
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_reviewed_files_compute_what_torch_does(name: str, tmp_path: Path) -> None:
    model = NETWORKS[name]()
    network = lower(model)
    first = next(module for module in model.modules() if isinstance(module, bnn.Input))
    i = np.arange(32 * network.input_bytes)
    x = (i * i // 13 % 2**first.bits).astype(np.uint8).reshape(32, *first.shape)
    expected = integer_scores(model, torch.from_numpy(x), network)
    assert len(set(expected.argmax(axis=1))) > 1, "the network tells nothing apart"
    inputs = to_device_layout(x) if x.ndim == 4 else x
    library = generated(name, model, "host")
    outputs = host.run(build.build_host(library, tmp_path, sanitize=True), inputs)
    np.testing.assert_array_equal(outputs.scores, expected)
