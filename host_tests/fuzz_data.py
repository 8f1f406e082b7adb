"""Damaged and odd data files: each is loaded whole, or refused in one line that names it.

``python host_tests/fuzz_data.py [FILES] [SEED]`` makes them of good ones: tables, arrays and
folders of images, cut, flipped, spliced, with other types, keys, shapes, texts and separators.
"""

import io
import random
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgebnn.data import Dataset, load_dataset
from edgebnn.errors import EdgebnnError

Arrays = dict[str, np.ndarray]
CELLS = (
    *("", " ", "x", "nan", "NaN", "inf", "-inf", "1e999", "-0", "0x10", "1_0", "1,5", "1.5.2"),
    *('"', '""', '"a', "a\nb", "\0", "\x1b[2J", "\ud7ff", "٣", "1" * 400, "label", "-1e-320"),
)
DTYPES = ("?", "i1", "u1", "<u2", ">i4", "<i8", "<u8", "<f2", "<f4", ">f8", "<c16", "<U3", "S2")


def table(rng: random.Random) -> list[list[str]]:
    """Rows of a good table, with a header or without."""
    names = [["a", "b", "c", rng.choice(("label", "kind"))]] if rng.random() < 0.5 else []
    kinds = rng.choice((("no", "yes"), ("0", "1", "3"), ("-1", "1")))
    rows = [
        [
            *(f"{rng.gauss(0, 10 ** rng.randint(-3, 6)):.6g}" for _ in range(3)),
            kinds[i % len(kinds)],
        ]
        for i in range(rng.randint(6, 30))
    ]
    return names + rows


def written(rows: list[list[str]], separator: str = ",", end: str = "\n") -> bytes:
    return end.join(separator.join(row) for row in rows).encode(errors="surrogatepass")


def arrays(rng: random.Random) -> Arrays:
    random_ = np.random.default_rng(rng.randrange(2**32))
    shape = rng.choice(((5, 4), (1, 5, 6), (5, 6, 3), (7,)))
    good: Arrays = {}
    for part, count in (("train", 12), ("test", 6)):
        good[f"{part}_images"] = random_.integers(0, 256, (count, *shape), dtype=np.uint8)
        good[f"{part}_labels"] = np.arange(count) % 3
    if rng.random() < 0.3:
        good["class_names"] = np.array(["a", "b", "c"])
    return good


def packed(values: Arrays) -> bytes:
    buffer = io.BytesIO()
    save = np.savez_compressed if len(values) % 2 else np.savez
    save(buffer, **values)  # type: ignore[arg-type]
    return buffer.getvalue()


def flipped(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: random.Random, data: bytes) -> bytes:
    begin = rng.randrange(len(data)) if rng.random() < 0.2 else 0
    return data[begin : begin + rng.randrange(len(data) + 1)]


def spliced(rng: random.Random, data: bytes) -> bytes:
    place, other = (rng.randrange(len(data)) for _ in range(2))
    return data[:place] + rng.choice((data[other:], rng.randbytes(20), b"")) + data[place:]


BYTES = (flipped, cut, spliced)


# --- kinds of mutants: each gives the name of a file in an empty folder -------------------------


def csv_bytes(rng: random.Random, folder: Path) -> str:
    data = rng.choice(BYTES)(rng, written(table(rng)))
    (folder / "own.csv").write_bytes(data)
    return "own.csv"


def csv_cells(rng: random.Random, folder: Path) -> str:
    """Texts in columns of numbers, NaN, missing cells and labels."""
    rows = table(rng)
    for _ in range(rng.choice((1, 1, 3))):
        row = rng.choice(rows)
        row[rng.randrange(len(row))] = rng.choice(CELLS)
    (folder / "own.csv").write_bytes(written(rows))
    return "own.csv"


def csv_ragged(rng: random.Random, folder: Path) -> str:
    rows = table(rng)
    row = rng.choice(rows)
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.5 and row:
            row.pop(rng.randrange(len(row)))
        else:
            row.insert(rng.randrange(len(row) + 1), rng.choice(("1", "", "x")))
    (folder / "own.csv").write_bytes(written(rows))
    return "own.csv"


def csv_form(rng: random.Random, folder: Path) -> str:
    """Other separators, ends of lines, encodings and orders of bytes."""
    separator, end = rng.choice(",;\t|: "), rng.choice(("\n", "\r\n", "\r", "\n\n", "\n\r"))
    data = written(table(rng), separator, end)
    if rng.random() < 0.5:
        data = rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\0", b"#x\n")) + data
    if rng.random() < 0.3:
        data = data.decode("latin-1").encode(rng.choice(("utf-16", "utf-16-be", "utf-32", "cp037")))
    name = rng.choice(("own.csv", "own.tsv", "own.CSV"))
    (folder / name).write_bytes(data)
    return name


def npz_bytes(rng: random.Random, folder: Path) -> str:
    (folder / "own.npz").write_bytes(rng.choice(BYTES)(rng, packed(arrays(rng))))
    return "own.npz"


def npz_members(rng: random.Random, folder: Path) -> str:
    """Members damaged under a checksum that is right: headers of .npy, mostly."""
    with (
        zipfile.ZipFile(io.BytesIO(packed(arrays(rng)))) as good,
        zipfile.ZipFile(folder / "own.npz", "w") as bad,
    ):
        victim = rng.choice(good.namelist())
        for name in good.namelist():
            data = good.read(name)
            if name == victim:
                head = rng.choice(BYTES)(rng, data[:128])
                data = head + data[128:] if rng.random() < 0.7 else rng.choice(BYTES)(rng, data)
            bad.writestr(name, data)
    return "own.npz"


def npz_types(rng: random.Random, folder: Path) -> str:
    values = arrays(rng)
    for name in rng.sample(sorted(values), rng.randint(1, 3)):
        values[name] = _cast(rng, values[name])
    (folder / "own.npz").write_bytes(packed(values))
    return "own.npz"


def _cast(rng: random.Random, array: np.ndarray) -> np.ndarray:
    match rng.randrange(4):
        case 0:
            return array.astype(object)
        case 1 if array.dtype.kind in "iu":
            odd = array.astype(np.float64)
            odd.ravel()[rng.randrange(odd.size)] = rng.choice(
                (np.nan, np.inf, -np.inf, 0.5, -1, 1e300)
            )
            return odd
    try:
        return array.astype(rng.choice(DTYPES))
    except (ValueError, TypeError):
        return array[:0]


def npz_shapes(rng: random.Random, folder: Path) -> str:
    values = arrays(rng)
    name = rng.choice(sorted(values))
    array = values[name]
    changes: tuple[Callable[[], Any], ...] = (
        lambda: array[..., None],
        lambda: array[None],
        lambda: array.ravel(),
        lambda: array[0],
        lambda: array[:0],
        lambda: array[1:],
        lambda: array.T,
        lambda: np.asarray(array.ravel()[0]),
        lambda: array.reshape(*array.shape, 1, 1),
        lambda: array[..., :0],
        lambda: array[:, None],
    )
    values[name] = rng.choice(changes)()
    (folder / "own.npz").write_bytes(packed(values))
    return "own.npz"


def npz_keys(rng: random.Random, folder: Path) -> str:
    values = arrays(rng)
    names = sorted(values)
    for old in rng.sample(names, rng.randint(1, 3)):
        new = rng.choice(
            (*names, "x", "y", "images", "labels", "layout", "x_train", "", "../a", "é")
        )
        values[new] = values.pop(old, np.zeros(3))
    (folder / "own.npz").write_bytes(packed(values))
    return "own.npz"


def npz_others(rng: random.Random, folder: Path) -> str:
    """Other files under the name: an array alone, a text, a zip of texts, a table."""
    buffer = io.BytesIO()
    match rng.randrange(4):
        case 0:
            np.save(buffer, np.zeros(3))
        case 1:
            buffer.write(written(table(rng)))
        case 2:
            with zipfile.ZipFile(buffer, "w") as archive:
                archive.writestr(rng.choice(("train_images", "train_images.npy")), b"text")
        case _:
            buffer.write(rng.randbytes(rng.randrange(300)))
    (folder / "own.npz").write_bytes(buffer.getvalue())
    return "own.npz"


def images(rng: random.Random, folder: Path) -> str:
    """A folder of good images with one among them that is damaged or odd."""
    form = rng.choice(("png", "jpeg", "gif", "bmp", "ppm", "tiff", "webp"))
    for name in ("a", "b"):
        (folder / "own" / name).mkdir(parents=True)
        for number in range(5):
            mode = rng.choice(("L", "RGB", "RGBA", "P", "LA", "1", "I;16"))
            mode = mode if form in ("png", "tiff") and number == 0 else "RGB"
            image = Image.new("RGB", (4, 4), (rng.randrange(256),) * 3)
            image = Image.new(mode, (4, 4)) if mode == "I;16" else image.convert(mode)
            image.save(folder / "own" / name / f"{number}.{form}")
    victim = rng.choice(sorted(folder.rglob(f"*.{form}")))
    match rng.randrange(5):
        case 0:
            victim.rename(victim.with_suffix(rng.choice((".txt", ".PNG", ".jpg", "", ".npz"))))
        case 1:
            Image.new("RGB", (4, rng.randint(1, 9))).save(victim)
        case _:
            victim.write_bytes(rng.choice(BYTES)(rng, victim.read_bytes()))
    return "own"


KINDS = (
    *(csv_bytes, csv_cells, csv_ragged, csv_form, npz_bytes, npz_members, npz_types, npz_shapes),
    *(npz_keys, npz_others, images),
)


def whole(data: Dataset) -> None:
    """Check what every loader promises."""
    for part, labels in (
        (data.train_images, data.train_labels),
        (data.test_images, data.test_labels),
    ):
        assert (part.dtype, labels.dtype) == (np.uint8, np.int64)
        assert part.shape == (len(labels), *data.image_shape)
        assert part.size
        assert labels.min() >= 0
        assert labels.max() < len(data.class_names)
    assert len(set(data.class_names)) == len(data.class_names) >= 2
    assert all(name.isprintable() for name in data.class_names)
    assert len(data.origin.sha256) == 64
    assert len(data.columns) in (0, data.image_shape[0])


def fuzz(count: int, seed: int) -> Counter[str]:
    """Load ``count`` mutants; returns how many of each kind were loaded or refused.

    Raises:
        AssertionError: one was loaded in part, or its refusal is no single line that names it.
        Exception: whatever else a file makes a loader raise; warnings too.
    """
    seen: Counter[str] = Counter()
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(count):
            folder = Path(name) / "data"
            folder.mkdir()
            kind = KINDS[number % len(KINDS)]
            path = folder / kind(rng, folder)
            try:
                whole(load_dataset(str(path)))
            except EdgebnnError as error:
                said = str(error)
                assert said.isprintable(), f"{number} of seed {seed}: {said!r}"
                assert str(path) in said, f"{number} of seed {seed}: {said}"
                seen[f"{kind.__name__} refused"] += 1
            except Exception as error:
                error.add_note(f"mutant {number} of seed {seed}, {kind.__name__}")
                raise
            else:
                seen[f"{kind.__name__} loaded"] += 1
            shutil.rmtree(folder)
    return seen


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    begin = time.monotonic()
    seen = fuzz(count, seed)
    for what in sorted(seen):
        print(f"{seen[what]:6} {what}")
    print(f"{count} files, {time.monotonic() - begin:.1f} s: no traceback")


if __name__ == "__main__":
    main()
