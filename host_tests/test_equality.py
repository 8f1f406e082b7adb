"""torch = oracle = C on this computer, output by output, for 500 random networks."""

from pathlib import Path

import numpy as np
import pytest
from networks import random_inputs, random_model

from edgebnn import reference
from edgebnn.codegen import c
from edgebnn.device import harness, host
from edgebnn.lower import integer_scores, lower
from edgebnn.plan import plan
from edgebnn.targets import get_target
from edgebnn.verify import to_device_layout

NETWORKS = 500
CHUNK = 10
INPUTS = 24


def device_inputs(x):
    """What the C reads for a batch of torch inputs."""
    return to_device_layout(x.numpy()) if x.dim() == 4 else x.numpy()


@pytest.mark.parametrize("start", range(0, NETWORKS, CHUNK))
def test_random_networks(start: int, tmp_path: Path) -> None:
    for seed in range(start, start + CHUNK):
        model = random_model(seed)
        x = random_inputs(model, INPUTS, seed)
        network = lower(model)
        expected = reference.run(network, device_inputs(x))
        torch_scores = integer_scores(model, x, network).reshape(INPUTS, -1)
        np.testing.assert_array_equal(torch_scores, expected.scores, f"torch, network {seed}")
        library = c.generate(plan(network, get_target("host")), "net")
        folder = tmp_path / str(seed)
        outputs = host.run(harness.build_host(library, folder, sanitize=True), device_inputs(x))
        np.testing.assert_array_equal(outputs.scores, expected.scores, f"C, network {seed}")
        np.testing.assert_array_equal(outputs.classes, expected.classes, f"C, network {seed}")


def test_random_networks_are_various() -> None:
    """The sample covers what it claims to: every op, every input width, every hostile norm."""
    kinds: set[str] = set()
    bits, flips, constants, falling = set(), 0, 0, 0
    for seed in range(NETWORKS):
        network = lower(random_model(seed))
        bits.add(network.input.bits)
        for op in network.ops:
            source = "Ints" if op.source == "input" else "Bits"
            kinds.add(f"{type(op).__name__} on {source}")
            if hasattr(op, "pad_value") and any(op.padding):
                kinds.add(f"pad {op.pad_value}")
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


def test_hidden_bits_equal_torch() -> None:
    """Not only scores: every bit between the layers is what torch's Sign gives."""
    import edgebnn.nn as bnn

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
