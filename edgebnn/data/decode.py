"""Files' bytes as arrays: idx, csv, images and wav; whatever is wrong is named by its path."""

import gzip
import io
import tarfile
import warnings
import wave
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgebnn.data.dataset import Progress
from edgebnn.data.transforms import resize
from edgebnn.errors import EdgebnnError

if TYPE_CHECKING:
    from PIL import Image

# What the readers of gzip, zip, tar, csv and npz raise for a file that is not whole.
BROKEN = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    MemoryError,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
)


_LEAST_SIZE = 8  # that all images are resized to for the sake of a small one


class ManySizes(EdgebnnError):
    """Images are of many sizes; ``what`` says which, and the message how to train on them."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what


def why(error: BaseException) -> str:
    """The first line of an error, or its kind where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def read_csv(path: Path) -> NDArray[np.int64]:
    """The table of whole numbers in a gzipped csv file that comes with a package."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.float64, ndmin=2)
    except BROKEN as error:
        raise EdgebnnError(f"{path} is broken ({why(error)}); reinstall its package") from error
    return table.astype(np.int64)


def unpack(path: Path) -> bytes:
    """The file's content, unpacked where it is a .gz."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except BROKEN as error:
        raise EdgebnnError(f"{path} is broken ({why(error)}); replace it") from error


def parse_idx(path: Path, content: bytes, dimensions: int) -> NDArray[np.uint8]:
    """An array in the idx format: 0, 0, 8 for uint8, rank, then big-endian sizes, then bytes."""
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes((0, 0, 8, dimensions)):
        raise EdgebnnError(f"{path} is not an idx file of {dimensions}-dimensional bytes")
    shape = np.frombuffer(content, dtype=">u4", count=dimensions, offset=4).astype(int).tolist()
    expected = header + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise EdgebnnError(f"{path} has {len(content)} bytes unpacked; its header says {expected}")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape).copy()


def read_wav(path: Path, name: str, content: bytes, rate: int) -> NDArray[np.int16]:
    """Samples of a wav file of one channel of 16 bits at ``rate`` Hz, ``name`` in ``path``."""
    try:
        with wave.open(io.BytesIO(content)) as sound:
            form = (sound.getnchannels(), 8 * sound.getsampwidth(), sound.getframerate())
            if form != (1, 16, rate):
                raise EdgebnnError(
                    f"{path}: {name} has {form[0]} channels of {form[1]} bits at {form[2]} Hz; "
                    f"give 1 channel of 16 bits at {rate} Hz"
                )
            data = sound.readframes(sound.getnframes())
            if len(data) != 2 * sound.getnframes():
                raise EdgebnnError(f"{path}: {name} is cut off; replace it")
    except (wave.Error, EOFError) as error:
        raise EdgebnnError(f"{path}: {name} is not a wav file ({why(error)})") from error
    return np.frombuffer(data, dtype="<i2").astype(np.int16)


def decode_images(
    contents: Iterator[tuple[str, bytes]],
    total: int,
    what: str,
    progress: Progress | None,
    size: int = 0,
) -> NDArray[np.uint8] | None:
    """Encoded images of one size as ``(N, C, H, W)``; grey among colour becomes colour.

    Where a ``size`` is given they may be of many, and are resized to it one by one.
    """
    decoded: list[NDArray[np.uint8]] = []
    small: list[tuple[str, tuple[int, int]]] = []  # sources, with heights and widths
    first = ""
    for done, (source, content) in enumerate(contents):
        if progress and done % 500 == 0:
            progress(what, done, total)
        image = _decode_one(source, content)
        if size:
            height, width = image.shape[1:]
            if size > min(height, width):
                small.append((source, (height, width)))
                continue
            image = resize(image[np.newaxis], size)[0]
        if not decoded:
            first = source
        elif image.shape[1:] != decoded[0].shape[1:]:
            sizes = [f"{shape[2]}x{shape[1]}" for shape in (image.shape, decoded[0].shape)]
            raise ManySizes(
                f"{source} is {sizes[0]} but {first} is {sizes[1]}",
                "have edgebnn train resize all by --set image_size=32, or make them one size",
            )
        decoded.append(image)
    if small:
        raise EdgebnnError(_too_small(small, total, size))
    if not decoded:
        return None
    channels = max(len(image) for image in decoded)
    images = np.empty((len(decoded), channels, *decoded[0].shape[1:]), dtype=np.uint8)
    for row, image in zip(images, decoded, strict=True):
        row[:] = image
    return images


def _too_small(small: list[tuple[str, tuple[int, int]]], total: int, size: int) -> str:
    """What to do about images that cannot become ``size`` x ``size``, for none is enlarged."""
    source, (height, width) = min(small, key=lambda one: min(one[1]))
    most = min(height, width)
    which = f"{source} is {width}x{height}, smaller than image_size {size}"
    if len(small) > 1:
        which = (
            f"{len(small)} of {total} images are smaller than image_size {size}, {source} the "
            f"least, {width}x{height}"
        )
    lower = f"give an image_size of {most} at most"
    remove = "remove it" if len(small) == 1 else "remove them"
    if most < _LEAST_SIZE:
        return f"{which}; {remove}"
    few = 10 * len(small) <= total
    return f"{which}; {f'{remove}, or {lower}' if few else f'{lower}, or {remove}'}"


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
    """An image as a viewer shows it: upright by its EXIF, what is transparent on white."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF, of many pixels
            with Image.open(io.BytesIO(content)) as image:
                if image.mode.startswith(("I", "F")):
                    raise EdgebnnError(
                        f"{source} has more than 8 bits a pixel; convert it to 8 bits"
                    )
                frames = getattr(image, "n_frames", 1)
                if frames > 1 and image.format != "MPO":  # a photo, with its preview
                    raise EdgebnnError(f"{source} has {frames} images in it; keep one")
                upright = ImageOps.exif_transpose(image)
                grey = image.mode in ("1", "L", "LA")
                pixels = np.array(_on_white(upright).convert("L" if grey else "RGB"))
    except EdgebnnError:
        raise
    except Exception as error:  # Pillow's readers raise many types for a damaged file
        raise EdgebnnError(f"{source} is not a readable image; replace or remove it") from error
    return pixels[np.newaxis] if grey else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _on_white(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    above = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
