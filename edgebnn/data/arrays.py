"""The user's own arrays in one ``.npz``.

==================================================== ==============================================
train_images, train_labels, test_images, test_labels both parts; Keras' x_train, y_train, ... too
train_images, train_labels; or images, labels; x, y  one part, of which a fifth of each class tests;
                                                     data, labels and data, target, too
class_names                                          optional texts, in the order of the labels
layout                                               optional: "NCHW", "NHWC", "NCT" or "NTC", where
                                                     more than one may be
==================================================== ==============================================

Images are ``(N, H, W)``, ``(N, C, H, W)`` or ``(N, H, W, C)``: pixels from 0 to 255 of any type, or
floats from 0 to 1, which become ``rint(255 * value)``. Signals, ``(N, C, T)`` or ``(N, T, C)``, are
images of width 1: up to four channels are told apart from eight samples or more, other sizes need a
layout, and a signal of one channel is ``(N, T, 1)``.
``(N, F)`` is a table, whose numbers become bytes as :mod:`edgebnn.data.columns` says. Labels are
whole numbers or texts. Keys may be in capitals.
"""

import hashlib
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from edgebnn.data.columns import Column, as_bytes
from edgebnn.data.dataset import Dataset, Images, Origin, checked, split_by_seed
from edgebnn.data.decode import why
from edgebnn.data.labels import number_classes
from edgebnn.errors import EdgebnnError
from edgebnn.files import replacing
from edgebnn.wording import counted

_PAIRS = (  # images and labels, to train and to test
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
    ("images", "labels"),
    ("x", "y"),
    ("data", "labels"),
    ("data", "target"),
    ("x", "labels"),
)
_SHOWN = 8  # keys of a file that has others
_LAYOUTS = ("NCHW", "NHWC", "NCT", "NTC")
_LEAST_SAMPLES = 8  # of a signal that a shape is read for
_MOST_CHANNELS = 4  # that a shape is read for: grey, two of anything, colour, colour and alpha


def load_npz(
    path: Path,
    name: str | None = None,
    known: Sequence[Column] | None = None,
    split_seed: int = 0,
) -> Dataset:
    """The arrays in ``path``; its stem is the data set's name where none is given.

    Raises:
        EdgebnnError: they are not what the head of this module says; names ``path``.
    """
    try:
        # numpy leaves a file open that it opened itself and that turns out to be broken.
        with path.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a header that numpy can read all the same
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            with _npz(stream) as file:
                given, names, layout = _read(path, file)
            origin = Origin(str(path.resolve()), digest, None if len(given) > 2 else split_seed)
            noun = _kind(given[0], layout)
            numbers, found = number_classes(path, _labels(path, noun, given), names)
            parts = list(zip(given[::2], numbers, strict=True))
            if len(parts) == 1:
                parts = list(split_by_seed(path, given[0], numbers[0], found, split_seed))
            arrays = [part[0] for part in parts]
            columns: tuple[Column, ...] = ()
            if all(array.ndim == 2 for array in arrays):
                images, columns = _rows(path, arrays, known)
            else:
                pixels = _pixels(path, f"{noun}s", arrays)
                images = [_channels_first(path, one, layout) for one in pixels]
            train, test = zip(images, (part[1] for part in parts), strict=True)
            dataset = checked(name or path.stem, path, train, test, found)
            return replace(dataset, origin=origin, columns=columns)
    except EdgebnnError:
        raise
    except Exception as error:  # zipfile and numpy raise many types for a damaged file
        raise EdgebnnError(f"{path} is not a readable .npz ({why(error)})") from error


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
            layout=np.array("NCHW"),
        )


def _npz(stream: BinaryIO) -> NpzFile:
    if not zipfile.is_zipfile(stream):
        raise ValueError("not a zip archive")
    stream.seek(0)
    file: NpzFile = np.load(stream, allow_pickle=False)
    return file


def _read(path: Path, file: NpzFile) -> tuple[list[NDArray[Any]], list[str] | None, str | None]:
    """Arrays in the order of :data:`_PAIRS`, two or four of them; names of classes; layout."""
    arrays: dict[str, NDArray[Any]] = {}
    keys = _keys(path, file.files)
    for key in (*keys, "class_names", "layout"):
        if key in file.files:
            try:
                arrays[key] = file[key]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                raise EdgebnnError(
                    f"{path} is not a readable .npz: '{key}' holds Python objects, which are never "
                    "unpickled; save numbers or texts"
                ) from None
            if not isinstance(arrays[key], np.ndarray):
                raise EdgebnnError(f"{path}: '{key}' is no array; save it by numpy.savez")
    names = arrays.get("class_names")
    if names is not None and (names.ndim != 1 or names.dtype.kind not in "USiu"):
        raise EdgebnnError(f"{path}: class_names is no list of texts; give one a class")
    if names is not None and names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8")
    layout = str(arrays["layout"].item()) if "layout" in arrays else None
    if layout not in (None, *_LAYOUTS):
        raise EdgebnnError(f"{path}: layout is {layout!a:.20}; give {_either(_LAYOUTS)}")
    texts = None if names is None else [str(name) for name in names.tolist()]
    return [arrays[key] for key in keys], texts, layout


def _keys(path: Path, there: Sequence[str]) -> Sequence[str]:
    """The names of the arrays to take, two or four, as they are written in the file."""
    written = {key.lower(): key for key in there} | {key: key for key in there}
    for keys in _PAIRS:
        missing = [key for key in keys if key not in written]
        if not missing or missing == list(keys[2:]):
            return [written[key] for key in keys if key in written]
    has = f"it has {', '.join(map(repr, there[:_SHOWN]))}" if there else "it is empty"
    has += ", ..." if len(there) > _SHOWN else ""
    for keys in _PAIRS:
        missing = [key for key in keys if key not in written]
        if len(missing) < len(keys):
            raise EdgebnnError(
                f"{path} has no array '{missing[0]}' ({has}); it needs {', '.join(keys)}"
                + (", or the first two to be split" if len(keys) > 2 else "")
            )
    raise EdgebnnError(
        f"{path} has no array '{_PAIRS[0][0]}' ({has}); it needs {', '.join(_PAIRS[0])}, or x and "
        "y to be split"
    )


def _kind(images: NDArray[Any], layout: str | None) -> str:
    """What ``images`` are, before their channels are put first: "image", "signal" or "row"."""
    if images.ndim == 3:
        return (
            "signal" if (layout or _layout_of_three(images.shape[1:])) in _LAYOUTS[2:] else "image"
        )
    return "row" if images.ndim == 2 else "image"


def _labels(path: Path, noun: str, given: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
    """The labels, as many as there are images."""
    for title, images, labels in zip(("training", "test"), given[::2], given[1::2], strict=False):
        count = len(images) if images.ndim else 0
        if not count:
            raise EdgebnnError(f"{path}: there are no {title} {noun}s")
        if labels.ndim and count != len(labels):
            raise EdgebnnError(
                f"{path}: {counted(count, f'{title} {noun}')} but {counted(len(labels), 'label')}"
            )
    return given[1::2]


def _rows(
    path: Path, parts: Sequence[NDArray[Any]], known: Sequence[Column] | None
) -> tuple[list[Images], tuple[Column, ...]]:
    widths = [part.shape[1] for part in parts]
    if len(set(widths)) > 1 or 0 in widths:
        raise EdgebnnError(
            f"{path}: rows have {counted(widths[0], 'column')} to train on and {widths[1]} to "
            "test; give as many, one or more"
        )
    for part in parts:
        if part.dtype.kind not in "biuf":
            raise EdgebnnError(f"{path}: columns are {part.dtype}; give numbers")
        strange = np.argwhere(~np.isfinite(part))
        if len(strange):
            raise EdgebnnError(
                f"{path}: column {strange[0][1]} (from 0) has NaN or infinity in it; replace it"
            )
    return as_bytes(path, parts, [""] * widths[0], known)


def _pixels(path: Path, nouns: str, parts: Sequence[NDArray[Any]]) -> list[Images]:
    """Both parts as bytes, by one rule that looks at both; ``nouns`` say what they are."""
    kinds = {"images": "iu", "floats": "f", "masks": "b"}
    told = [next((k for k, v in kinds.items() if part.dtype.kind in v), "") for part in parts]
    first = parts[0].dtype
    if "" in told:
        strange = parts[told.index("")].dtype
        raise EdgebnnError(f"{path}: {nouns} are {strange}; give uint8, 0 to 255")
    if len(set(told)) > 1:
        raise EdgebnnError(
            f"{path}: training {nouns} are {first} but test {nouns} {parts[1].dtype}; give uint8"
        )
    if all(part.dtype == np.uint8 for part in parts) or not all(part.size for part in parts):
        return [part.astype(np.uint8, copy=False) for part in parts]
    if told[0] == "masks":
        return [np.where(part, np.uint8(255), np.uint8(0)) for part in parts]
    if not all(np.isfinite(part).all() for part in parts):
        raise EdgebnnError(f"{path}: {_one_of(nouns)} has NaN or infinity in it; replace it")
    low, high = min(part.min() for part in parts), max(part.max() for part in parts)
    if told[0] == "floats" and low >= 0 and high <= 1:
        return [np.rint(255.0 * part.astype(np.float64)).astype(np.uint8) for part in parts]
    if low >= 0 and high <= 255 and all((part == np.floor(part)).all() for part in parts):
        return [part.astype(np.uint8) for part in parts]
    other = "or floats from 0 to 1"
    if low < 0:
        bytes_already = told[0] == "images" and low >= -128 and high < 128
        how = "adding 128" if bytes_already else "as by numpy.rint(128 + 127 * x / abs(x).max())"
        other = f"{how}, with zero_point = 128 in the recipe"
    raise EdgebnnError(
        f"{path}: {nouns} are {first} from {low:g} to {high:g}; give uint8 from 0 to 255, {other}"
    )


def _one_of(nouns: str) -> str:
    return f"a{'n' if nouns.startswith('i') else ''} {nouns.removesuffix('s')}"


def _channels_first(path: Path, images: Images, layout: str | None) -> Images:
    """(N, C, H, W), from (N, H, W) and (N, H, W, C) too; (N, C, T, 1) from signals."""
    if images.ndim == 3:
        match layout or _layout_of_three(images.shape[1:]):
            case "NCT":
                return images[..., np.newaxis]
            case "NTC":
                return images.transpose(0, 2, 1)[..., np.newaxis]
        return images[:, np.newaxis]
    if images.ndim != 4:
        return images  # which `checked` refuses
    if layout in ("NCT", "NTC"):
        raise EdgebnnError(
            f"{path}: layout is '{layout}', and the images have shape {images.shape}; give three "
            f"axes, or {_either(_LAYOUTS[:2])}"
        )
    if layout is None:
        layout = _layout_of(path, images.shape[1:])
    return images.transpose(0, 3, 1, 2) if layout == "NHWC" else images


def _layout_of(path: Path, shape: Sequence[int]) -> str:
    """What a shape says by itself: channels are few, where height and width are not."""
    few = [size <= _MOST_CHANNELS for size in (shape[0], shape[2])]
    if few == [False, True]:
        return "NHWC"
    if few == [True, False] or (not any(few) and (shape[0] != shape[1] or shape[1] == shape[2])):
        return "NCHW"
    raise EdgebnnError(
        f"{path}: images of shape (N, {', '.join(map(str, shape))}) may have their channels first "
        "or last; add an array layout='NCHW' or 'NHWC'"
    )


def _layout_of_three(shape: Sequence[int]) -> str:
    """The same of (N, A, B): no image is as narrow as a signal has channels, and much longer."""
    if min(shape) > _MOST_CHANNELS or max(shape) < _LEAST_SAMPLES:
        return "NCHW"
    return "NCT" if shape[0] < shape[1] else "NTC"


def _either(names: Sequence[str]) -> str:
    *others, last = (repr(name) for name in names)
    return f"{', '.join(others)} or {last}"
