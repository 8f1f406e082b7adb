"""A data set as a value, and what every loader must deliver.

Images are ``(N, C, H, W)`` uint8 from 0 to 255, signals ``(N, C, T, 1)``, labels ``(N,)`` int64,
split once and for all into training and test images. Nothing is scaled, shuffled or normalized: a
binarized network takes integers, and its first norm learns the rest.
"""

import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn.data.columns import Column
from edgebnn.errors import EdgebnnError
from edgebnn.wording import counted, kind

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
#: Told of slow work: what is being done, units done, units in all (0: not known).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Origin:
    """Which data these are, so that another set of the same name is not taken for them.

    Attributes:
        path: of the user's own file or folder, absolute; "" for a set that has a name here.
        sha256: of the contents of the files at ``path``; without a path, of the arrays; "" where
            nobody knows.
        split_seed: of the split into training and test images; None where none was made by seed.
    """

    path: str = ""
    sha256: str = ""
    split_seed: int | None = None


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
        columns: how numbers of a table became the bytes of its images ``(N, F, 1, 1)``; none where
            they are taken as they are.
        origin: where they come from; :func:`load_dataset` says it, :func:`identified` completes it.
    """

    name: str
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    class_names: tuple[str, ...]
    origin: Origin = Origin()
    columns: tuple[Column, ...] = ()

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


def identified(dataset: Dataset) -> Dataset:
    """``dataset`` with a checksum in its origin: of its arrays, where it has none."""
    if dataset.origin.sha256:
        return dataset
    digest = hashlib.sha256("\n".join(dataset.class_names).encode())
    for array in (
        *(dataset.train_images, dataset.train_labels),
        *(dataset.test_images, dataset.test_labels),
    ):
        digest.update(repr((str(array.dtype), array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return replace(dataset, origin=replace(dataset.origin, sha256=digest.hexdigest()))


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
        noun = kind(images.shape[1:])
        if len(images) != len(labels):
            raise EdgebnnError(
                f"{source}: {counted(len(images), f'{part} {noun}')} but "
                f"{counted(len(labels), 'label')}"
            )
        if not len(images):
            raise EdgebnnError(f"{source}: there are no {part} {noun}s")
        outside = labels[(labels < 0) | (labels >= len(class_names))]
        if outside.size:
            raise EdgebnnError(
                f"{source}: a {part} label is {outside[0]}; "
                f"with {len(class_names)} classes labels are 0 to {len(class_names) - 1}"
            )
    if train[0].shape[1:] != test[0].shape[1:]:
        noun = kind(train[0].shape[1:])
        raise EdgebnnError(
            f"{source}: training {noun}s are {_size(train[0].shape[1:])} "
            f"but test {noun}s {_size(test[0].shape[1:])}"
        )
    if len(class_names) < 2:
        raise EdgebnnError(f"{source}: a classifier needs two classes or more")
    check_names(source, class_names)
    return Dataset(
        name,
        np.ascontiguousarray(train[0]),
        train[1].astype(np.int64),
        np.ascontiguousarray(test[0]),
        test[1].astype(np.int64),
        tuple(class_names),
    )


def check_names(source: object, class_names: Sequence[str]) -> None:
    """Check that the names can stand in a line."""
    if strange := [name for name in class_names if not name.isprintable()]:
        raise EdgebnnError(f"{source}: class name {strange[0]!a:.60} cannot be printed; change it")


def _size(shape: Sequence[int]) -> str:
    """``(channels, height, width)`` as width x height, the way that image tools say it."""
    channels, height, width = shape
    if kind(shape) == "signal":
        return f"{counted(height, 'sample')} of {counted(channels, 'channel')}"
    return f"{width}x{height} {'grey' if channels == 1 else f'with {channels} channels'}"


def split_by_seed(
    source: object,
    images: NDArray[Any],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    seed: int,
) -> tuple[tuple[NDArray[Any], NDArray[np.int64]], tuple[NDArray[Any], NDArray[np.int64]]]:
    """((images, labels) to train, the same to test); a fifth of each class, drawn by ``seed``.

    The draw is of raw words of PCG64, a stream that NumPy promises not to change (NEP 19).
    """
    drawn = np.random.PCG64(seed).random_raw(len(labels))
    test = np.zeros(len(labels), dtype=np.bool_)
    for label, name in enumerate(class_names):
        rows = np.flatnonzero(labels == label)
        if len(rows) < 2:
            raise EdgebnnError(
                f"{source}: of class '{name}' there is {len(rows)}; 2 are the least, one to test"
            )
        order = np.argsort(drawn[rows], kind="stable")
        test[rows[order[: max(1, (len(rows) + 2) // 5)]]] = True
    return (images[~test], labels[~test]), (images[test], labels[test])


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
