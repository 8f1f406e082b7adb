"""A data set as a value, and what every loader must deliver.

Images are ``(N, C, H, W)`` uint8 from 0 to 255, labels ``(N,)`` int64, split once and for all into
training and test images. Nothing is scaled, shuffled or normalized: a binarized network takes
integers, and its first norm learns the rest.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn.errors import EdgebnnError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
#: Told of slow work: what is being done, units done, units in all (0: not known).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images and labels of one classification task, split once and for all.

    Attributes:
        name: as given to :func:`load_dataset`; the folder's or file's name for a path.
        train_images: ``(N, C, H, W)`` uint8.
        train_labels: ``(N,)`` int64, each in ``range(len(class_names))``.
        test_images: ``(M, C, H, W)`` uint8, the same C, H, W.
        test_labels: ``(M,)`` int64.
        class_names: one a class, in the order of the labels.
    """

    name: str
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    class_names: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width


def fingerprint(dataset: Dataset) -> str:
    """Tells data sets of one name apart; not meant against an attacker."""
    checksum = zlib.crc32(np.ascontiguousarray(dataset.train_labels).data)
    checksum = zlib.crc32(np.ascontiguousarray(dataset.train_images).data, checksum)
    return f"{len(dataset.train_images)} images, checksum {checksum:08x}"


def quantize(images: Images, bits: int) -> Images:
    """The ``bits`` (1 to 8) highest bits of every pixel: ``images >> (8 - bits)``.

    Raises:
        EdgebnnError: ``bits`` is not 1 to 8.
    """
    if not 1 <= bits <= 8:
        raise EdgebnnError(f"{bits} input bits; an image has 1 to 8 bits a pixel")
    return np.right_shift(images, np.uint8(8 - bits))


def checked(
    name: str,
    source: object,
    train: tuple[NDArray[Any], NDArray[Any]],
    test: tuple[NDArray[Any], NDArray[Any]],
    class_names: Sequence[str],
) -> Dataset:
    """Checks what every loader must deliver, and gives arrays their final types."""
    for part, (images, labels) in (("training", train), ("test", test)):
        if images.dtype != np.uint8:
            raise EdgebnnError(f"{source}: {part} images are {images.dtype}; give uint8, 0 to 255")
        if images.ndim != 4 or 0 in images.shape[1:]:
            raise EdgebnnError(
                f"{source}: {part} images have shape {images.shape}; "
                "give (N, C, H, W), or (N, H, W) for grey"
            )
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise EdgebnnError(
                f"{source}: {part} labels are {labels.dtype} of shape {labels.shape}; "
                "give integers of shape (N,)"
            )
        if len(images) != len(labels):
            raise EdgebnnError(f"{source}: {len(images)} {part} images but {len(labels)} labels")
        if not len(images):
            raise EdgebnnError(f"{source}: there are no {part} images")
        outside = labels[(labels < 0) | (labels >= len(class_names))]
        if outside.size:
            raise EdgebnnError(
                f"{source}: a {part} label is {outside[0]}; "
                f"with {len(class_names)} classes labels are 0 to {len(class_names) - 1}"
            )
    if train[0].shape[1:] != test[0].shape[1:]:
        raise EdgebnnError(
            f"{source}: training images are {_size(train[0].shape[1:])} "
            f"but test images {_size(test[0].shape[1:])}"
        )
    if len(class_names) < 2:
        raise EdgebnnError(f"{source}: a classifier needs two classes or more")
    return Dataset(
        name,
        np.ascontiguousarray(train[0]),
        train[1].astype(np.int64),
        np.ascontiguousarray(test[0]),
        test[1].astype(np.int64),
        tuple(class_names),
    )


def _size(shape: Sequence[int]) -> str:
    """``(channels, height, width)`` as width x height, the way that image tools say it."""
    channels, height, width = shape
    return f"{width}x{height} {'grey' if channels == 1 else f'with {channels} channels'}"


def _every_fifth(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """True for images 4, 9, 14, ... of each class: a stratified split that needs no seed."""
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[4::5]] = True
    return chosen


def split_every_fifth(
    images: NDArray[Any], labels: NDArray[Any]
) -> tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    """((images, labels) to train, the same to test); every fifth of each class tests."""
    test = _every_fifth(labels)
    return (images[~test], labels[~test]), (images[test], labels[test])
