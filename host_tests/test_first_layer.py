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
from edgebnn.cost import cost
from edgebnn.device import build, qemu, unicorn
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Network
from edgebnn.lower import lower
from edgebnn.plan import plan
from edgebnn.targets import get_target

PLANES = kernels.first_layer_ways("bit-planes")
TABLES = kernels.first_layer_ways("subset-sums")


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
    tables, planes = (plan(network, get_target("cortex-m4"), way) for way in (TABLES, PLANES))
    assert planes.steps[0].view.scratch_words == 8 * 256 // 32
    assert tables.steps[0].view.scratch_words == 64 + 16 * 8
    assert planes.constant_bytes == tables.constant_bytes


def pooled(bits: int = 4, outputs: int = 8, kernel: int = 3, **pool: int) -> Network:
    """A convolution with a pool, then plain scores."""
    first = (bnn.BinaryConv2d(2, outputs, kernel, padding=1), bnn.MaxPool2d(2, **pool))
    norm = (bnn.BatchNorm(outputs), bnn.Sign(), bnn.Flatten())
    size = (8 + 2 - kernel - 1) // pool.get("stride", 2) + 1
    last = bnn.BinaryLinear(outputs * size**2, 3)
    return lowered(bits, bnn.Input((2, 8, 8), bits=bits), *first, *norm, last)


def test_the_choice_is_the_callers() -> None:
    target = get_target("cortex-m4")
    ways = {
        "auto": "tree",
        "tree": "tree",
        "columns": "digit_columns",
        "subset-sums": "subset_sums",
        "bit-planes": "bit_planes",
    }
    assert ways.keys() == kernels.FIRST_LAYER.keys()
    for choice, way in ways.items():
        names = kernels.first_layer_ways(choice)
        if choice != "columns":  # they are for dense layers
            first, *others = plan(pooled(), target, names).steps
            assert first.kernel.way == way, choice
            pools = [] if way == "tree" else ["direct"]  # the tree has done it
            assert [step.kernel.way for step in others] == [*pools, "rows"]
        if choice != "tree":
            first, *others = plan(dense(4, 40, 8), target, names).steps
            assert first.kernel.way == (names or ("subset_sums",))[0], choice
            assert [step.kernel.way for step in others] == ["rows"]


def test_a_tree_is_for_sums_and_code_of_moderate_size() -> None:
    """Beyond 15 bits of a dot, or too many filters of too many taps, and on words of 8 bits."""
    m4, avr = get_target("cortex-m4"), get_target("avr")
    tree = kernels.first_layer_ways("tree")
    chosen = plan(pooled(8, kernel=7), m4).steps[0]
    assert (chosen.kernel.way, len(chosen.ops)) == ("tree", 2)
    for network, target in (
        (pooled(8, kernel=9), m4),  # 162 taps of 255
        (pooled(4, outputs=512, kernel=7), m4),
        (pooled(), avr),
    ):
        assert plan(network, target).steps[0].kernel.way == "subset_sums"
        with pytest.raises(EdgebnnError, match=f"tree takes no layer of .* '{target.name}'; leave"):
            plan(network, target, tree)


def test_windows_of_a_pool_that_meet_are_pooled_by_the_pool() -> None:
    first, second, _ = plan(pooled(stride=1), get_target("cortex-m4")).steps
    assert [first.kernel.way, second.kernel.way] == ["tree", "direct"]


def test_two_rows_at_once_may_be_too_much_code_where_one_is_not() -> None:
    first, second, _ = plan(pooled(outputs=96, kernel=5), get_target("cortex-m4")).steps
    assert [first.kernel.way, second.kernel.way] == ["tree", "direct"]
    assert 1500 < first.view.additions < 3000


def test_weights_in_code_are_no_constants() -> None:
    network, target = pooled(), get_target("cortex-m4")
    first = cost(plan(network, target)).ops[0]
    assert (first.name, first.kernel) == ("conv1 + pool1", "tree")
    assert (first.constant_bytes, first.weight_bits) == (0, 8 * 2 * 9)
    assert first.macs == 64 * 8 * 2 * 9


def test_comments_name_the_kernel() -> None:
    model = bnn.Sequential(bnn.Input((40,), bits=4), bnn.BinaryLinear(40, 8))
    for choice, name in (("auto", "subset_sums"), ("bit-planes", "bit_planes")):
        text = api.generate(model, target="cortex-m4", first_layer=choice).files["src/model.c"]
        assert f"/* dense1: 40 x 4 bits -> 8 scores [{name}] */" in text


def test_a_choice_that_is_none() -> None:
    with pytest.raises(
        EdgebnnError, match="'fast'; pick one of: auto, tree, columns, subset-sums, bit-planes"
    ):
        kernels.first_layer_ways("fast")


@pytest.mark.parametrize("choice", ["tree", "columns", "subset-sums", "bit-planes"])
def test_a_choice_without_a_layer_for_it(choice: str) -> None:
    """A depthwise first layer and a binarized input have kernels of their own."""
    depthwise = bnn.BinaryConv2d(2, 2, 2, groups=2)
    for first in ((depthwise, bnn.Sign()), (bnn.Sign(), bnn.BinaryConv2d(2, 2, 2), bnn.Sign())):
        layers = (bnn.Input((2, 3, 3), bits=2), *first, bnn.Flatten(), bnn.BinaryLinear(8, 2))
        model = bnn.Sequential(*layers)
        api.generate(model)
        with pytest.raises(EdgebnnError, match=r" on integers, and the network has no"):
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
    for prefer in ((), TABLES, PLANES):
        library = c.generate(plan(network, target, prefer), "net")
        assert library.constant_bytes > 1_250_000
        firmware = build.build_firmware(library, target, tmp_path / "-".join(("net", *prefer)))
        for emulator in (unicorn, qemu):
            scores = emulator.run(firmware, inputs, counted=1).scores
            np.testing.assert_array_equal(scores, expected, emulator.__name__)
