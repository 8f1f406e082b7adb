"""The first layer by bit planes equals the oracle, on every width of input and every target."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import randomize
from numpy.typing import NDArray
from torch import nn

import edgebnn.nn as bnn
from edgebnn import api, kernels, reference
from edgebnn.codegen import c
from edgebnn.codegen.library import Library
from edgebnn.device import build, elf, host, qemu, unicorn
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Network
from edgebnn.lower import lower
from edgebnn.plan import plan
from edgebnn.targets import get_target

PLANES = kernels.first_layer_ways("bit-planes")
EMULATED = ("cortex-m0", "cortex-m4", "cortex-m7")
BITS = range(1, 9)

# Around one word, around the eight words of a carry-save tree, and beyond both.
DENSE = ((1, 33), (31, 1), (32, 31), (33, 32), (255, 5), (256, 3), (257, 2), (521, 4))
# (channels, height, width), outputs, kernel, stride, padding
CONV = (
    ((1, 5, 6), 33, (3, 3), (1, 1), (1, 1)),
    ((3, 7, 5), 31, (3, 2), (2, 1), (2, 0)),
    ((33, 4, 5), 1, (2, 4), (1, 3), (0, 2)),
    ((32, 3, 3), 32, (1, 1), (1, 1), (0, 0)),
)


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


def scores(bits: int, inputs: int, outputs: int) -> Network:
    """The first layer is the last: its dots are the scores."""
    layer = bnn.BinaryLinear(inputs, outputs)
    return lowered(100 * bits + inputs, bnn.Input((inputs,), bits=bits), layer)


def conv(bits: int, shape, outputs: int, kernel, stride, padding) -> Network:
    layer = bnn.BinaryConv2d(shape[0], outputs, kernel, stride=stride, padding=padding)
    height = (shape[1] + 2 * padding[0] - kernel[0]) // stride[0] + 1
    width = (shape[2] + 2 * padding[1] - kernel[1]) // stride[1] + 1
    first = (layer, bnn.BatchNorm(outputs), bnn.Sign(), bnn.Flatten())
    last = bnn.BinaryLinear(outputs * height * width, 9)
    return lowered(bits, bnn.Input(shape, bits=bits), *first, last)


def networks(bits: int) -> Iterator[Network]:
    for inputs, outputs in DENSE:
        yield dense(bits, inputs, outputs)
        yield scores(bits, inputs, outputs)
    for case in CONV:
        yield conv(bits, *case)


def hostile_inputs(network: Network) -> NDArray[np.uint8]:
    """Nothing, all, each bit alone in all inputs, one bit in one input, and noise."""
    size, bits = network.input_bytes, network.input.bits
    rng = np.random.default_rng(size)
    rows = [np.zeros(size), np.full(size, 2**bits - 1)]
    rows += [np.full(size, 1 << bit) for bit in range(bits)]
    for place in {0, size - 1, *rng.integers(0, size, 6)}:
        rows.append(np.where(np.arange(size) == place, 1 << int(rng.integers(bits)), 0))
    rows += list(rng.integers(0, 2**bits, (8, size)))
    rows += list(rng.integers(0, 2, (4, size)) * (2**bits - 1))
    return np.array(rows).astype(np.uint8)


def generated(network: Network, target: str) -> Library:
    scheduled = plan(network, get_target(target), PLANES)
    assert scheduled.steps[0].kernel.way == "bit_planes"
    return c.generate(scheduled, "net")


@pytest.mark.parametrize("bits", BITS)
def test_bit_planes_on_this_computer(bits: int, tmp_path: Path) -> None:
    for index, network in enumerate(networks(bits)):
        inputs = hostile_inputs(network)
        built = build.build_host(generated(network, "host"), tmp_path / str(index), sanitize=True)
        outputs, expected = host.run(built, inputs), reference.run(network, inputs)
        np.testing.assert_array_equal(outputs.scores, expected.scores, f"network {index}")


@pytest.mark.parametrize("target_name", EMULATED)
@pytest.mark.parametrize("bits", BITS)
def test_bit_planes_on_emulated_cpus(bits: int, target_name: str, tmp_path: Path) -> None:
    """Every fourth network for each number of bits; over all, each is met twice."""
    target = get_target(target_name)
    for index, network in enumerate(networks(bits)):
        if index % 4 != bits % 4:
            continue
        inputs = hostile_inputs(network)
        library = generated(network, target_name)
        firmware = build.build_firmware(library, target, tmp_path / str(index))
        assert elf.undefined_symbols(firmware.model_object) == ()
        expected = reference.run(network, inputs).scores
        for emulator in (unicorn, qemu):
            outputs, where = (
                emulator.run(firmware, inputs, counted=1),
                f"{emulator.__name__}, network {index}",
            )
            np.testing.assert_array_equal(outputs.scores, expected, where)


def test_planes_take_less_memory_than_tables() -> None:
    """Scratch is what the planes need, and flash is the same but for the words' tails."""
    network = dense(8, 256, 64)
    tables, planes = (plan(network, get_target("host"), prefer) for prefer in ((), PLANES))
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
        text = api.generate(model, first_layer=choice).files["src/model.c"]
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
            api.generate(model, first_layer=choice)


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
