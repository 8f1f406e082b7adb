"""The count of repeated filters, on networks whose repeats are known."""

import numpy as np
import pytest
import torch
from networks import random_model

import edgebnn.nn as bnn
from edgebnn import filters
from edgebnn.ir import Conv, DepthwiseConv
from edgebnn.lower import lower

# Four 2x2 kernels, no two equal or inverse to each other.
A, B, C, D = (
    np.array(rows, dtype=np.float32)
    for rows in ([[1, 1], [1, 1]], [[1, -1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [-1, 1]])
)


def repeats(weights: list[list[np.ndarray]]) -> filters.Repeats:
    """Of a convolution with these 2-D kernels, by output and input channel."""
    latent = torch.tensor(np.array(weights))
    outputs, channels = latent.shape[:2]
    layer = bnn.BinaryConv2d(channels, outputs, 2)
    layer.latent_weight.data = latent
    head = (bnn.Sign(), bnn.Flatten(), bnn.BinaryLinear(2 * outputs, 2))
    (known,) = filters.count(lower(bnn.Sequential(bnn.Input((channels, 3, 2)), layer, *head)))
    return known


def test_all_different() -> None:
    known = repeats([[A, B], [C, D]])
    assert (known.kernels, known.distinct, known.merged) == (4, 4, 4)
    assert (known.filters, known.copies, known.fraction) == (2, 0, 1.0)
    assert (known.name, known.height, known.width) == ("conv1", 2, 2)


def test_inverses_count_once() -> None:
    known = repeats([[A, -A], [-B, B], [A, B]])
    assert (known.kernels, known.distinct, known.merged) == (6, 4, 2)
    assert (known.filters, known.copies) == (3, 0)
    assert known.fraction == pytest.approx(1 / 3)


def test_copies_of_whole_filters() -> None:
    """An order is part of a 3-D filter, and its inverse is not a copy."""
    known = repeats([[A, B], [B, A], [A, B], [-A, -B], [A, B]])
    assert (known.kernels, known.distinct, known.merged) == (10, 4, 2)
    assert (known.filters, known.copies) == (5, 2)


def test_latent_weights_count_by_their_signs() -> None:
    known = repeats([[0.1 * A, 0.9 * A], [0 * A, -0.3 * A]])
    assert (known.distinct, known.merged) == (2, 1)


def test_depthwise_kernels_are_whole_filters() -> None:
    layer = bnn.BinaryConv2d(4, 4, 2, groups=4)
    layer.latent_weight.data = torch.tensor(np.array([A, B, A, -B])).reshape(4, 1, 2, 2)
    head = (bnn.Sign(), bnn.Flatten(), bnn.BinaryLinear(4, 2))
    (known,) = filters.count(lower(bnn.Sequential(bnn.Input((4, 2, 2)), layer, *head)))
    assert (known.kernels, known.distinct, known.merged) == (4, 3, 2)
    assert (known.filters, known.copies) == (4, 1)


def test_no_convolution_no_rows() -> None:
    assert filters.count(lower(bnn.Sequential(bnn.Input((4,)), bnn.BinaryLinear(4, 2)))) == ()


def test_random_networks_against_sets_of_tuples() -> None:
    """The same counts by the definition, one kernel at a time."""
    layers = 0
    for seed in range(80):
        network = lower(random_model(seed))
        counted = {known.name: known for known in filters.count(network)}
        for op in network.ops:
            if not isinstance(op, Conv | DepthwiseConv):
                continue
            weights = (
                op.weights if isinstance(op, Conv) else op.weights.transpose(2, 0, 1)[..., None]
            )
            kernels = [
                tuple(weights[o, :, :, i].ravel().tolist())
                for o in range(len(weights))
                for i in range(weights.shape[-1])
            ]
            known = counted.pop(op.name)
            assert known.kernels == len(kernels)
            assert known.distinct == len(set(kernels))
            inverted = (tuple(not bit for bit in kernel) for kernel in kernels)
            assert known.merged == len(
                {frozenset(pair) for pair in zip(kernels, inverted, strict=True)}
            )
            whole = [tuple(one.ravel().tolist()) for one in weights]
            assert known.filters - known.copies == len(set(whole))
            layers += 1
        assert not counted
    assert layers > 50
