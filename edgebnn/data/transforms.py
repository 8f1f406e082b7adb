"""What is done to images outside the network: before it in training and on the device alike.

A model file names its steps, so that ``verify`` and ``simulate`` repeat them, and the emitted C has
them beside the network, as ``<name>_prepare()`` (see :mod:`edgebnn.codegen.prepare`).

========= =================================================================================
resize N  to N x N pixels: means over areas, rounded half up
gcn       global contrast normalization: each image less its mean, by its deviation
zca       normalization in floats, then ZCA whitening with the training images' covariance
========= =================================================================================

``resize`` and ``gcn`` are exact integer arithmetic, the same on every machine. ``zca`` is not, and
needs the training images: no device can do it. ``gcn`` and ``zca`` end as bytes again:
``128 + 40 * value``, rounded and clipped to 0 to 255.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgebnn.data.dataset import Dataset, Images
from edgebnn.errors import EdgebnnError

_UNIT = 40.0  # grey levels a standard deviation
_ZCA_EPS = 0.1  # in units of variance of GCN'ed pixels
_CHUNK = 5000
_INT64_PIXELS = 65536  # an image of so many has squares below 2**63 in gcn


def check_steps(steps: Sequence[str]) -> None:
    """Raises EdgebnnError unless every step is one that this module knows."""
    for step in steps:
        name, _, value = step.partition(" ")
        if name == "resize" and value.isascii() and value.isdigit() and 1 <= int(value) <= 4096:
            continue
        if step not in ("gcn", "zca"):
            raise EdgebnnError(f"unknown preprocessing '{step}'; known: resize N, gcn, zca")


def apply(dataset: Dataset, steps: Sequence[str]) -> Dataset:
    """``dataset`` with every image put through ``steps``; statistics are the training images'."""
    check_steps(steps)
    for step in steps:
        train, test = dataset.train_images, dataset.test_images
        if step == "gcn":
            train, test = gcn(train), gcn(test)
        elif step == "zca":
            train, test = _zca(train, test)
        else:
            size = int(step.split()[1])
            train, test = resize(train, size), resize(test, size)
        dataset = replace(dataset, train_images=train, test_images=test)
    return dataset


def apply_to_image(pixels: Images, steps: Sequence[str]) -> Images:
    """The same for (N, C, H, W) images on their own.

    Raises:
        EdgebnnError: a step needs the statistics of a training set.
    """
    check_steps(steps)
    for step in steps:
        if step == "zca":
            raise EdgebnnError(
                "the model takes ZCA-whitened images, which one image does not tell how to make"
            )
        pixels = gcn(pixels) if step == "gcn" else resize(pixels, int(step.split()[1]))
    return pixels


def first_size(steps: Sequence[str]) -> int:
    """What images are resized to before all else; 0 where they are not."""
    check_steps(steps)
    name, _, value = (steps[0] if steps else "").partition(" ")
    return int(value) if name == "resize" else 0


def resize(images: Images, size: int) -> Images:
    """(N, C, H, W) to (N, C, size, size): each pixel the mean of the area that it covers.

    Raises:
        EdgebnnError: ``size`` is more than the image has; means make nothing larger.
    """
    height, width = images.shape[2:]
    if size > min(height, width):
        raise EdgebnnError(f"cannot resize {width}x{height} images to {size}x{size}; give less")
    rows, columns = _overlaps(height, size), _overlaps(width, size)
    area = height * width  # the sum of an output pixel's weights
    result = np.empty((*images.shape[:2], size, size), dtype=np.uint8)
    for start in range(0, len(images), _CHUNK):
        part = images[start : start + _CHUNK].astype(np.float64)  # sums below 2**53 are exact
        sums = (rows @ part @ columns.T).astype(np.int64)
        result[start : start + _CHUNK] = (2 * sums + area) // (2 * area)
    return result


def _overlaps(before: int, after: int) -> NDArray[np.float64]:
    """(after, before): how much output pixel i covers of input pixel j, in 1/after pixels."""
    i, j = np.arange(after)[:, None], np.arange(before)[None, :]
    low = np.maximum(i * before, j * after)
    high = np.minimum((i + 1) * before, (j + 1) * after)
    covered: NDArray[np.float64] = np.maximum(high - low, 0).astype(np.float64)
    return covered


def gcn(images: Images) -> Images:
    """(N, C, H, W): each pixel 128 + 40 * (pixel - mean) / deviation of its image.

    That is the nearest integer, halves rounded up, clipped to 0 to 255; an image of one value is
    128 all over. With n pixels, their sum s and the sum q of their squares, a pixel x is 128 + k
    for the greatest k of ``80 * (n*x - s) >= (2*k - 1) * sqrt(n*q - s*s)``, which the signed
    squares of both sides decide. So a pixel's value makes the result, and 256 of them all results.
    """
    count = math.prod(images.shape[1:])
    result = np.empty_like(images)
    for start in range(0, len(images), _CHUNK):
        flat = images[start : start + _CHUNK].reshape(-1, count)
        results = _gcn_of_values(flat)[np.arange(len(flat))[:, None], flat]
        result[start : start + _CHUNK] = results.reshape(-1, *images.shape[1:])
    return result


def _gcn_of_values(flat: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, n) to (N, 256): what gcn makes of each value in each image."""
    count = flat.shape[1]
    exact = np.int64 if count <= _INT64_PIXELS else object  # of Python's integers, which are slow
    sums = flat.sum(axis=1, dtype=np.int64)[:, None].astype(exact)
    squares = np.square(flat.astype(np.uint32)).sum(axis=1, dtype=np.int64)[:, None].astype(exact)
    spread = count * squares - sums * sums  # n*n times the variance
    above = 80 * (count * np.arange(256).astype(exact) - sums)

    def reached(k: NDArray[np.int64]) -> NDArray[np.bool_]:
        half = (2 * k - 1).astype(exact)
        return np.asarray(above * abs(above) >= half * abs(half) * spread, dtype=np.bool_)

    deviation = np.sqrt(np.maximum(spread, 1).astype(np.float64))
    # Floats are off near a whole number alone, where k is that number in any case.
    below = np.floor(above.astype(np.float64) / (2 * deviation))
    k = np.clip(below, -129, 127).astype(np.int64)
    k = np.clip(k + reached(k + 1), -128, 127)
    return np.where(spread > 0, 128 + k, 128).astype(np.uint8)


def _gcn(images: Images) -> NDArray[np.float32]:
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(flat.std(axis=1, keepdims=True), np.float32(1e-3))
    return flat.reshape(images.shape)


def _zca(train: Images, test: Images) -> tuple[Images, Images]:
    """W = U (S + eps)^(-1/2) U^T of the training images' covariance U S U^T, applied to both."""
    shape = train.shape[1:]
    flat = _gcn(train).reshape(len(train), -1)
    mean = flat.mean(axis=0)
    flat -= mean
    covariance = (flat.T @ flat).astype(np.float64) / len(flat)
    values, vectors = np.linalg.eigh(covariance)
    scaled = vectors / np.sqrt(np.maximum(values, 0.0) + _ZCA_EPS)
    whiten = (scaled @ vectors.T).astype(np.float32)
    other = _gcn(test).reshape(len(test), -1) - mean
    white = [part @ whiten for part in (flat, other)]
    unit = white[0].std()
    first, second = (_to_bytes(part / unit).reshape(len(part), *shape) for part in white)
    return first, second


def _to_bytes(values: NDArray[np.float32]) -> Images:
    return np.asarray(np.clip(np.rint(128.0 + _UNIT * values), 0, 255), dtype=np.uint8)
