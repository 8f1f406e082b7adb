"""How the first layer is computed is a choice; that each way is right, test_kernels shows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import randomize
from torch import nn

import edgebnn.nn as bnn
from edgebnn import api, kernels, reference
from edgebnn.codegen import c
from edgebnn.device import build, qemu, unicorn
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Network
from edgebnn.lower import lower
from edgebnn.plan import plan
from edgebnn.targets import get_target

PLANES = kernels.first_layer_ways("bit-planes")


def lowered(seed: int, *layers: nn.Module) -> Network:
    torch.manual_seed(seed)
    model = bnn.Sequential(*layers)
    randomize(model, np.random.default_rng(seed))
    return lower(model.eval())


def dense(bits: int, inputs: int, outputs: int) -> Network:
    """Bits, then plain scores of them: no output of the first layer is lost."""
    first = (bnn.BinaryLinear(inputs, outputs), bnn.BatchNorm(outputs), bnn.Sign())
    last = bnn.BinaryLinear(outputs, 9)
    return lowered(100 * bits + inputs, bnn.Input((inputs,), bits=bits), *first, last)


def test_planes_take_less_memory_than_tables() -> None:
    """Scratch is what the planes need, and flash is the same but for the words' tails."""
    network = dense(8, 256, 64)
    tables, planes = (plan(network, get_target("cortex-m4"), prefer) for prefer in ((), PLANES))
    assert planes.steps[0].view.scratch_words == 8 * 256 // 32
    assert tables.steps[0].view.scratch_words == 64 + 16 * 8
    assert planes.constant_bytes == tables.constant_bytes


def test_the_choice_is_the_callers() -> None:
    network = dense(4, 40, 8)
    target = get_target("cortex-m4")
    for choice, names in kernels.FIRST_LAYER.items():
        first = plan(network, target, names).steps[0]
        assert first.kernel.way == (names or ("subset_sums",))[0], choice
        assert [step.kernel.way for step in plan(network, target, names).steps[1:]] == ["rows"]


def test_comments_name_the_kernel() -> None:
    model = bnn.Sequential(bnn.Input((40,), bits=4), bnn.BinaryLinear(40, 8))
    for choice, name in (("auto", "subset_sums"), ("bit-planes", "bit_planes")):
        text = api.generate(model, target="cortex-m4", first_layer=choice).files["src/model.c"]
        assert f"/* dense1: 40 x 4 bits -> 8 scores [{name}] */" in text


def test_a_choice_that_is_none() -> None:
    with pytest.raises(EdgebnnError, match="'fast'; pick one of: auto, subset-sums, bit-planes"):
        kernels.first_layer_ways("fast")


@pytest.mark.parametrize("choice", ["subset-sums", "bit-planes"])
def test_a_choice_without_a_layer_for_it(choice: str) -> None:
    """A depthwise first layer and a binarized input have kernels of their own."""
    depthwise = bnn.BinaryConv2d(2, 2, 2, groups=2)
    for first in ((depthwise, bnn.Sign()), (bnn.Sign(), bnn.BinaryConv2d(2, 2, 2), bnn.Sign())):
        layers = (bnn.Input((2, 3, 3), bits=2), *first, bnn.Flatten(), bnn.BinaryLinear(8, 2))
        model = bnn.Sequential(*layers)
        api.generate(model)
        with pytest.raises(EdgebnnError, match="Conv or Dense on integers, and the network has no"):
            api.generate(model, target="cortex-m4", first_layer=choice)


def test_the_papers_mlp_fits_the_largest_target(tmp_path: Path) -> None:
    """784-2048-2048-2048-10, the Torch7 network: 1.27 MB of constants, in both emulators."""
    target = get_target("cortex-m7")
    layers: list[nn.Module] = [bnn.Input((784,))]
    for inputs in (784, 2048, 2048):
        layers += [bnn.BinaryLinear(inputs, 2048), bnn.BatchNorm(2048), bnn.Sign()]
    network = lowered(1, *layers, bnn.BinaryLinear(2048, 10), bnn.OutputNorm(10, bound=2048))
    inputs = np.random.default_rng(1).integers(0, 256, (3, 784), dtype=np.uint8)
    expected = reference.run(network, inputs).scores
    for prefer in ((), PLANES):
        library = c.generate(plan(network, target, prefer), "net")
        assert library.constant_bytes > 1_250_000
        firmware = build.build_firmware(library, target, tmp_path / "-".join(("net", *prefer)))
        for emulator in (unicorn, qemu):
            scores = emulator.run(firmware, inputs, counted=1).scores
            np.testing.assert_array_equal(scores, expected, emulator.__name__)
