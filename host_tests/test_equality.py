"""torch = oracle = C on this computer, output by output, for 500 random networks.

And for 200 more whose norms are all shift norms, where no score may take a multiplication.
"""

import re
from collections import Counter
from pathlib import Path

import batches
import numpy as np
import pytest
from kernel_cases import PLAIN, WIDE
from networks import random_inputs, random_model
from torch import nn

import edgebnn.nn as bnn
from edgebnn import reference
from edgebnn.codegen import c
from edgebnn.codegen.library import Library, source_path
from edgebnn.device import build, host
from edgebnn.ir import Network
from edgebnn.lower import lower
from edgebnn.measure import integer_scores, to_device_layout
from edgebnn.plan import plan

NETWORKS = 500
SHIFT_NETWORKS, FIRST_SHIFT_SEED = 200, 3000
CHUNK = 20
STEPS = (bnn.ReLU, bnn.ReLU6, bnn.Hardtanh, bnn.LeakyReLU, bnn.PReLU, bnn.Scale, bnn.Bias)
INPUTS = 24


def device_inputs(x):
    """What the C reads for a batch of torch inputs; a signal is an image of width 1."""
    x = x.unsqueeze(3) if x.dim() == 3 else x
    return to_device_layout(x.numpy()) if x.dim() == 4 else x.numpy()


def check_equal(models: dict[int, nn.Module], folder: Path) -> dict[int, tuple[Network, Library]]:
    """Checks torch = oracle = C under sanitizers for networks by their seeds; gives what they are.

    Odd seeds have the code of microcontrollers, even ones that of hosts.
    """
    networks, inputs, outputs, libraries = {}, {}, {}, {}
    for seed, model in models.items():
        x = random_inputs(model, INPUTS, seed)
        network, given = lower(model), device_inputs(x)
        outputs[seed] = reference.run(network, given)
        scores = outputs[seed].scores
        torch_scores = integer_scores(model, x, network).reshape(INPUTS, -1)
        np.testing.assert_array_equal(torch_scores, scores, f"torch, network {seed}")
        libraries[seed] = c.generate(plan(network, PLAIN if seed % 2 else WIDE), f"k{seed}")
        networks[seed], inputs[seed] = network, given
    wanted = batches.expected({seed: (inputs[seed], outputs[seed]) for seed in models})
    image = build.build_host(batches.program(libraries, "host"), folder, sanitize=True)
    differing = batches.differing(host.run(image, wanted.records), wanted)
    assert differing == [], "networks whose C gives other scores or classes"
    return {seed: (networks[seed], libraries[seed]) for seed in models}


def check_scores_shift(network: Network, library: Library) -> None:
    """Checks that no score of an emitted network takes a multiplication by a scale."""
    factor = network.scores.factor
    assert not np.any(factor & (factor - 1))
    assert not np.any(factor < 0)
    # The one product is that of the dot itself, 2 * count, which is a shift to any compiler.
    source = library.files[source_path(library.name)]
    assert "_factor" not in source
    scores = re.findall(r"^.*(?:out\[o\]|shifted) =.*$", source, re.MULTILINE)
    assert scores
    assert all("*" not in line.replace("2 * count", "") for line in scores), scores


@pytest.mark.parametrize("start", range(0, NETWORKS, CHUNK))
def test_random_networks(start: int, tmp_path: Path) -> None:
    check_equal({seed: random_model(seed) for seed in range(start, start + CHUNK)}, tmp_path)


@pytest.mark.parametrize("start", range(0, SHIFT_NETWORKS, CHUNK))
def test_shift_norm_networks(start: int, tmp_path: Path) -> None:
    seeds = range(FIRST_SHIFT_SEED + start, FIRST_SHIFT_SEED + start + CHUNK)
    models = {seed: random_model(seed, shift_norms=True) for seed in seeds}
    for network, library in check_equal(models, tmp_path).values():
        check_scores_shift(network, library)


def test_shift_norm_networks_are_various() -> None:
    """The sample has equal and unequal shifts, the factor 0 and weights that were negated."""
    seen = {"equal": 0, "unequal": 0, "zero": 0, "all zero": 0, "negative": 0, "tables": 0}
    for seed in range(FIRST_SHIFT_SEED, FIRST_SHIFT_SEED + SHIFT_NETWORKS):
        model = random_model(seed, shift_norms=True)
        factor = lower(model).scores.factor
        norms = [m for m in model.modules() if isinstance(m, bnn.ShiftOutputNorm)]
        seen["negative"] += sum(bool((norm.fixed_point()[0] < 0).any()) for norm in norms)
        seen["zero"] += bool(np.any(factor == 0) and np.any(factor))
        seen["all zero"] += not np.any(factor)
        seen["equal"] += bool(np.all(factor == factor[0]) and factor[0] > 1)
        seen["unequal"] += len(np.unique(factor[factor > 0])) > 1
        seen["tables"] += len(factor) % 4 != 0
    assert min(seen.values()) >= 3, seen


def test_random_networks_are_various() -> None:
    """The sample covers what it claims to: every op, every input width, every hostile norm."""
    kinds: set[str] = set()
    bits, flips, constants, falling = set(), 0, 0, 0
    shift_norms = shifted_signs = shifted_after_pool = 0
    sizes: dict[str, set[int]] = {"features": set(), "channels": set(), "outputs": set()}
    classes: Counter[int] = Counter()
    steps: Counter[type[nn.Module]] = Counter()
    biases = 0
    unequal_pads: Counter[tuple[str, str, int]] = Counter()
    for seed in range(NETWORKS):
        model = random_model(seed)
        modules = list(model)
        shift_norms += any(isinstance(m, bnn.ShiftBatchNorm) for m in modules)
        for i, module in enumerate(modules):
            shifted = isinstance(module, bnn.Sign) and module.shift is not None
            shifted_signs += shifted
            before = modules[max(0, i - 4) : i]
            shifted_after_pool += shifted and any(isinstance(m, bnn.MaxPool2d) for m in before)
        network = lower(model)
        bits.add(network.input.bits)
        classes[network.num_classes] += 1
        for module in modules:
            steps[type(module)] += 1
            biases += getattr(module, "latent_weight", None) is not None and module.bias is not None
            if isinstance(module, bnn.BinaryLinear):
                sizes["features"].add(module.in_features)
            if isinstance(module, bnn.BinaryConv2d):
                sizes["channels"].add(module.in_channels)
            if isinstance(module, bnn.BinaryLinear | bnn.BinaryConv2d):
                sizes["outputs"].add(len(module.latent_weight))
        for op in network.ops:
            source = "Ints" if op.source == "input" else "Bits"
            kinds.add(f"{type(op).__name__} on {source}")
            if hasattr(op, "pad_value") and any(op.padding):
                kinds.add(f"pad {op.pad_value}")
                top, bottom, left, right = op.padding
                unequal = (top, left) != (bottom, right)
                unequal_pads[type(op).__name__, source, op.pad_value] += unequal
            flips += int(getattr(op, "all_set", np.zeros(1)).any())
            falling += int(getattr(op, "inverted", np.zeros(1)).any())
            head = getattr(op, "head", None)
            if hasattr(head, "min_dot"):
                reach = np.prod(op.weights.shape[1:])
                constants += int((head.min_dot > reach).any())
    assert bits == set(range(1, 9))
    assert kinds == {
        "Dense on Ints",
        "Dense on Bits",
        "Conv on Ints",
        "Conv on Bits",
        "DepthwiseConv on Ints",
        "DepthwiseConv on Bits",
        "MaxPool on Bits",
        "Binarize on Ints",
        "pad -1",
        "pad 0",
        "pad 1",
    }
    assert min(flips, constants, falling) >= 10
    assert min(steps[kind] for kind in STEPS) >= 10, steps
    assert biases >= 10
    pads = [("Ints", 0), *(("Bits", value) for value in (-1, 0, 1))]
    wanted = [(kind, *pad) for kind in ("Conv", "DepthwiseConv") for pad in pads]
    assert min(unequal_pads[pad] for pad in wanted) >= 3, unequal_pads
    assert all({1, 2, 31, 32, 33} <= seen for seen in sizes.values()), sizes
    assert min(classes[n] for n in (1, 2, 31, 32, 33)) >= 3, classes
    assert min(shift_norms, shifted_signs, shifted_after_pool) >= 20


def test_hidden_bits_equal_torch() -> None:
    """Not only scores: every bit between the layers is what torch's Sign gives."""
    compared = 0
    for seed in range(60):
        model = random_model(seed)
        x = random_inputs(model, 8, seed)
        network = lower(model)
        seen = []
        for module in model.modules():
            if isinstance(module, bnn.Sign):
                module.register_forward_hook(lambda _m, _i, y, seen=seen: seen.append(y.numpy()))
        integer_scores(model, x, network)
        traced = reference.trace(network, reference.check_inputs(network, device_inputs(x)))
        ends = [op for op in network.ops if type(op).__name__ != "MaxPool"][: len(seen)]
        for op, bits in zip(ends, seen, strict=True):
            mine = traced[op.name]
            theirs = bits.transpose(0, 2, 3, 1) if bits.ndim == 4 else bits.reshape(8, 1, 1, -1)
            if mine.shape != theirs.shape:
                continue  # pooled before the sign here, after it there
            np.testing.assert_array_equal(mine, theirs, f"{op.name}, network {seed}")
            compared += 1
    assert compared >= 80
