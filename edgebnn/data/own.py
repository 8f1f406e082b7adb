"""The user's own images, in a folder a class.

:func:`edgebnn.data.load_dataset` says how they are to be laid out. What a folder has beside them
is refused by its name, so that no image is left out unsaid; hidden files, and those that systems
leave behind, are not looked at.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgebnn.data.dataset import Dataset, Images, Origin, Progress, checked, split_every_fifth
from edgebnn.data.decode import decode_images, why
from edgebnn.errors import EdgebnnError
from edgebnn.wording import counted

_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
)
_LEFT_BEHIND = frozenset(("thumbs.db", "desktop.ini"))
_IDX = "train-images-idx3-ubyte"


def load_folder(root: Path, progress: Progress | None, size: int = 0) -> Dataset:
    """Images in ``root``, which has train/ and test/ or else every fifth for testing.

    All are resized to ``size``, unless it is 0.
    """
    try:
        return _load_folder(root, progress, size)
    except OSError as error:
        where = error.filename or root
        raise EdgebnnError(f"cannot read {where}: {error.strerror or why(error)}") from None


def _load_folder(root: Path, progress: Progress | None, size: int) -> Dataset:
    train, test = root / "train", root / "test"
    if train.is_dir() != test.is_dir():
        present, absent = (train, test) if train.is_dir() else (test, train)
        raise EdgebnnError(f"{root} has {present.name}/ but no {absent.name}/; give both or none")
    split = train.is_dir()
    names = _class_folders(train if split else root)
    if split and (other := set(_class_folders(test)) ^ set(names)):
        raise EdgebnnError(f"class '{min(other)}' is not in both {train} and {test}")
    files: list[Path] = []
    labels: list[int] = []
    counts = []
    for folder in (train, test) if split else (root,):
        for label, name in enumerate(names):
            found = _images_in(folder / name)
            if not found:
                raise EdgebnnError(f"{folder / name} has no images (.png, .jpg, ...)")
            if not split and len(found) < 5:
                raise EdgebnnError(
                    f"{folder / name} has {counted(len(found), 'image')}; 5 are the least"
                )
            files += found
            labels += [label] * len(found)
        counts.append(len(files))
    digest = hashlib.sha256()

    def contents() -> Iterator[tuple[str, bytes]]:
        for path in files:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode(errors="surrogateescape"))
            digest.update(hashlib.sha256(content).digest())
            yield str(path), content

    images = decode_images(contents(), len(files), f"reading {root.name}", progress, size)
    assert images is not None
    images = _without_colour(images)
    targets = np.array(labels, dtype=np.int64)
    if split:
        cut = counts[0]
        parts = (images[:cut], targets[:cut]), (images[cut:], targets[cut:])
    else:
        parts = split_every_fifth(images, targets)
    place = root.resolve()
    origin = Origin(str(place), digest.hexdigest())
    return replace(checked(place.name, root, *parts, names), origin=origin)


def _visible(folder: Path) -> list[Path]:
    """What is in ``folder`` and is the user's, in the order of the names."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in _LEFT_BEHIND
    )


def _class_folders(folder: Path) -> list[str]:
    inside = _visible(folder)
    names = [path.name for path in inside if path.is_dir()]
    if not names and any(path.name.startswith(_IDX) for path in inside):
        raise EdgebnnError(f"{folder} holds idx files, as of MNIST; train mnist --data {folder}")
    if not names:
        raise EdgebnnError(f"{folder} has no folder a class; give {folder.name}/<class>/*.png")
    if stray := [path for path in inside if path.suffix.lower() in _SUFFIXES and path.is_file()]:
        raise EdgebnnError(f"{stray[0]} lies beside the folders of the classes; move it into one")
    return names


def _images_in(folder: Path) -> list[Path]:
    found = _visible(folder)
    for path in found:
        if path.is_dir():
            raise EdgebnnError(f"{path} is a folder in that of a class; move its images out of it")
        if path.suffix.lower() not in _SUFFIXES:
            known = ", ".join(sorted(_SUFFIXES))
            raise EdgebnnError(f"{path} is no image ({known}); convert it or move it away")
    return found


def _without_colour(images: Images) -> Images:
    """(N, 1, H, W) where all of (N, 3, H, W) are grey in colour files."""
    if images.shape[1] == 3 and (images[:, :1] == images[:, 1:]).all():
        return np.ascontiguousarray(images[:, :1])
    return images
