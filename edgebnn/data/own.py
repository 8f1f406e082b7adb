"""The user's own images, in a folder a class or in one ``.npz``.

:func:`edgebnn.data.load_dataset` says how they are to be laid out.
"""

import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib.npyio import NpzFile

from edgebnn.data.dataset import Dataset, Progress, checked, split_every_fifth
from edgebnn.data.decode import BROKEN, decode_images, why
from edgebnn.errors import EdgebnnError
from edgebnn.files import replacing

_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff"))


def load_folder(root: Path, progress: Progress | None) -> Dataset:
    """Images in ``root``, which has train/ and test/ or else every fifth for testing."""
    train, test = root / "train", root / "test"
    if train.is_dir() != test.is_dir():
        present, absent = (train, test) if train.is_dir() else (test, train)
        raise EdgebnnError(f"{root} has {present.name}/ but no {absent.name}/; give both or none")
    split = train.is_dir()
    names = _class_folders(train if split else root)
    if split and (other := set(_class_folders(test)) ^ set(names)):
        raise EdgebnnError(f"class '{min(other)}' is not in both {train} and {test}")
    files, labels = [], []
    counts = []
    for folder in (train, test) if split else (root,):
        for label, name in enumerate(names):
            found = sorted(
                path for path in (folder / name).iterdir() if path.suffix.lower() in _SUFFIXES
            )
            if not found:
                raise EdgebnnError(f"{folder / name} has no images (.png, .jpg, ...)")
            if not split and len(found) < 5:
                raise EdgebnnError(f"{folder / name} has {len(found)} images; 5 are the least")
            files += found
            labels += [label] * len(found)
        counts.append(len(files))
    contents = ((str(path), path.read_bytes()) for path in files)
    try:
        images = decode_images(contents, len(files), f"reading {root.name}", progress)
    except OSError as error:
        raise EdgebnnError(f"{root}: cannot read an image ({why(error)})") from error
    assert images is not None
    targets = np.array(labels, dtype=np.int64)
    if split:
        cut = counts[0]
        parts = (images[:cut], targets[:cut]), (images[cut:], targets[cut:])
    else:
        parts = split_every_fifth(images, targets)
    return checked(root.resolve().name, root, *parts, names)


def _class_folders(folder: Path) -> list[str]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise EdgebnnError(f"{folder} has no folder a class; give {folder.name}/<class>/*.png")
    return names


def load_npz(path: Path, name: str | None = None) -> Dataset:
    """The arrays in ``path``; its stem is the data set's name where none is given."""
    keys = ("train_images", "train_labels", "test_images", "test_labels")
    try:
        # numpy leaves a file open that it opened itself and that turns out to be broken.
        with path.open("rb") as stream, _npz(stream) as file:
            if missing := [key for key in keys if key not in file.files]:
                raise EdgebnnError(
                    f"{path} has no array '{missing[0]}'; it needs {', '.join(keys)}"
                )
            arrays = [file[key] for key in keys]
            names = file["class_names"].tolist() if "class_names" in file.files else None
    except BROKEN as error:
        raise EdgebnnError(f"{path} is not a readable .npz ({why(error)})") from error
    train_images, train_labels, test_images, test_labels = arrays
    if names is None and train_labels.dtype.kind in "iu" and train_labels.size:
        names = [str(label) for label in range(max(int(train_labels.max()) + 1, 2))]
    train_images, test_images = (
        images[:, np.newaxis] if images.ndim == 3 else images
        for images in (train_images, test_images)
    )
    return checked(
        name or path.stem,
        path,
        (train_images, train_labels),
        (test_images, test_labels),
        [str(label) for label in names or ()],
    )


def save_npz(path: Path, dataset: Dataset) -> None:
    """``dataset`` as :func:`load_npz` reads it, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        np.savez(
            file,
            train_images=dataset.train_images,
            train_labels=dataset.train_labels,
            test_images=dataset.test_images,
            test_labels=dataset.test_labels,
            class_names=np.array(dataset.class_names),
        )


def _npz(stream: BinaryIO) -> NpzFile:
    if not zipfile.is_zipfile(stream):
        raise ValueError("not a zip archive")
    stream.seek(0)
    file: NpzFile = np.load(stream, allow_pickle=False)
    return file
