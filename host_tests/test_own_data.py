"""A user's own images and arrays: taken as a person means them, never for others, or refused."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import mistake, output_here, run_here
from test_datasets import empty_cache, encoded, refusal, write_images
from test_model_files import plain

import edgebnn
import edgebnn.nn as bnn
from edgebnn.data import Dataset, Origin, load_dataset, read_image, transforms
from edgebnn.data.columns import Column
from edgebnn.errors import EdgebnnError
from edgebnn.train import get_recipe, networks, train

__all__ = ["empty_cache"]  # a fixture that every test here gets

TRAIN = ("--recipe", "mlp-16k", "--set", "network=16FC", "--epochs", "2", "-o", "model.pt")


def arrays(seed: int = 0, count: int = 60, **changes: object) -> dict[str, np.ndarray]:
    """Grey images of 8x8 in three classes, bright in one third each."""
    rng = np.random.default_rng(seed)
    parts: dict[str, object] = {}
    for part, size in (("train", count), ("test", count // 3)):
        labels = np.arange(size) % 3
        images = rng.integers(0, 100, (size, 8, 8), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[:, 3 * label : 3 * label + 2] += 150
        parts |= {f"{part}_images": images, f"{part}_labels": labels}
    parts |= changes
    return {key: np.asarray(value) for key, value in parts.items() if value is not None}


def saved(path: Path, **changes: object) -> str:
    np.savez(path, **arrays(**changes))  # type: ignore[arg-type]
    return str(path)


# --- never confused -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_own_data_with_the_name_of_a_known_set(kind: str, tmp_path: Path) -> None:
    """``digits.npz`` and ``./digits`` are the user's, in training and in every proof of it."""
    own = tmp_path / ("digits.npz" if kind == "npz" else "digits")
    if kind == "npz":
        saved(own)
    else:
        for part in ("train", "test"):
            images, labels = arrays()[f"{part}_images"], arrays()[f"{part}_labels"]
            for number, (image, label) in enumerate(zip(images, labels, strict=True)):
                path = own / part / str(label) / f"{number:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    text = output_here(tmp_path, "train", f"./{own.name}", *TRAIN)
    assert f"digits ({own}): 80 images of 8x8, grey, 3 classes; 60 to train, 20 to test" in text
    known = edgebnn.read(tmp_path / "model.pt").metadata
    assert (known.dataset, known.origin.path) == ("digits", str(own))
    assert known.test_accuracy is not None
    count = round(20 * known.test_accuracy)
    shown = output_here(tmp_path, "info", "model.pt")
    assert str(own) in shown
    assert known.origin.sha256[:12] in shown
    assert f"({count}/20)" in output_here(tmp_path, "verify", "model.pt")
    output_here(tmp_path, "release", "model.pt", "-o", "small.pt")
    assert edgebnn.read(tmp_path / "small.pt").metadata.origin == known.origin

    moved = own.rename(tmp_path / f"moved{own.suffix}")
    for model in ("model.pt", "small.pt"):
        message = mistake(tmp_path, "verify", model)
        assert f"trained on your own {own}, which is not there; name it" in message
        assert "--dataset PATH" in message
    assert f"({count}/20)" in output_here(tmp_path, "verify", "model.pt", "--dataset", moved.name)

    content = plain(tmp_path / "model.pt")  # what is told by its checksum is the model's own set
    content["metadata"]["test_accuracy"] = 0.125
    torch.save(content, tmp_path / "other.pt")
    done = run_here(tmp_path, "verify", "other.pt", "--dataset", moved.name)
    assert "the model file says 12.50 %" in done.stderr


def test_data_that_changed_are_not_those_of_the_model(tmp_path: Path) -> None:
    saved(tmp_path / "digits.npz")
    output_here(tmp_path, "train", "digits.npz", *TRAIN)
    saved(tmp_path / "digits.npz", seed=1)
    message = mistake(tmp_path, "verify", "model.pt")
    assert "digits.npz is not what the model was trained on: sha256 " in message
    assert "--dataset PATH" in message
    output_here(tmp_path, "verify", "model.pt", "--dataset", "digits.npz")  # as named


def test_a_known_set_is_told_apart_too(tmp_path: Path) -> None:
    """Whoever trains on a Dataset of their own, called digits, does not verify on the digits."""
    given = arrays()
    dataset = Dataset(
        "digits",
        given["train_images"][:, None],
        given["train_labels"],
        given["test_images"][:, None],
        given["test_labels"],
        ("0", "1", "2"),
    )
    changes = {"network": "16FC", "epochs": 1}
    train(get_recipe("mlp-16k").changed(changes), dataset, output=tmp_path / "model.pt")
    message = mistake(tmp_path, "verify", "model.pt")
    assert "the digits found here is not what the model was trained on" in message


def test_training_says_what_it_took(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    text = output_here(tmp_path, "train", "digits", *TRAIN)
    taken = "(built in, not ./digits): 1 797 images of 8x8, grey, 10 classes; 1 442 to train, 355 "
    assert taken in text.splitlines()[0]


def test_a_fifth_is_drawn_by_seed(tmp_path: Path) -> None:
    one = {"test_images": None, "test_labels": None, "count": 100}
    path = saved(tmp_path / "own.npz", **one)
    data = load_dataset(path)
    assert data.origin.split_seed == 0
    assert np.bincount(data.test_labels).tolist() == [7, 7, 7]  # of 34, 33, 33
    assert len(data.train_images) == 79
    assert np.array_equal(load_dataset(path).test_images, data.test_images)
    other = load_dataset(path, split_seed=3)
    assert not np.array_equal(other.test_images, data.test_images)
    both = np.concatenate([other.train_images, other.test_images])
    assert sorted(map(bytes, both)) == sorted(map(bytes, arrays(count=100)["train_images"]))
    # What a version of edgebnn or of NumPy draws, all of them draw.
    labels = np.arange(10) % 2
    saved(tmp_path / "ten.npz", images=np.arange(10)[:, None, None], labels=labels, **NONE)
    ten = load_dataset(str(tmp_path / "ten.npz"))
    assert ten.test_images.ravel().tolist() == [2, 3]
    assert output_here(tmp_path, "train", "own.npz", *TRAIN).count("a fifth of each class, seed 0")
    output_here(tmp_path, "verify", "model.pt")


NONE = dict.fromkeys(("train_images", "train_labels", "test_images", "test_labels"))


def test_data_folder_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bnn.Sequential(bnn.Input((4,)), bnn.BinaryLinear(4, 2), bnn.OutputNorm(2))
    edgebnn.save(model, tmp_path / "model.pt", dataset="mnist")
    (tmp_path / "file").write_text("")
    for folder in ("/nonexistent", tmp_path / "file"):
        said = f"--data {folder} is no folder"
        for dataset in ("mnist", "digits", "own.npz"):
            assert said in refusal(dataset, Path(folder))
            assert said in mistake(tmp_path, "train", dataset, "--data", folder, "-o", "new.pt")
        assert said in mistake(tmp_path, "compare", "digits", "--data", folder)
        for command in ("verify", "simulate"):
            assert said in mistake(tmp_path, command, "model.pt", "--data", folder)
            assert said in mistake(tmp_path, command, "model.pt", "--data", folder, "--random", "2")
        assert said in mistake(tmp_path, "frontier", "model.pt", "--data", folder)
    monkeypatch.setenv("EDGEBNN_DATA", "/nonexistent")
    assert "EDGEBNN_DATA is /nonexistent, which is no folder" in refusal("mnist")
    assert load_dataset("digits").name == "digits"  # in a package


def test_origin_is_kept_or_refused(tmp_path: Path) -> None:
    model = networks.build("8FC", (1, 2, 2), 2)
    origin = Origin("/somewhere/own.npz", "ab" * 32, 7)
    edgebnn.save(model, tmp_path / "model.pt", dataset="own", origin=origin)
    assert edgebnn.read(tmp_path / "model.pt").metadata.origin == origin
    content = plain(tmp_path / "model.pt")
    del content["metadata"]["origin"]  # as files were before
    torch.save(content, tmp_path / "model.pt")
    assert edgebnn.read(tmp_path / "model.pt").metadata.origin == Origin()
    for strange in (3, "x", {"split_seed": "x"}):
        content["metadata"]["origin"] = strange
        torch.save(content, tmp_path / "model.pt")
        with pytest.raises(EdgebnnError, match="damaged"):
            edgebnn.read(tmp_path / "model.pt")


# --- images in folders --------------------------------------------------------------------------


def picture(path: Path, image: Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def test_transparent_is_white(tmp_path: Path) -> None:
    """A black stroke on nothing is no black square."""
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[1, 2] = (0, 0, 0, 255)
    pixels[3, 3] = (200, 100, 0, 51)
    image = read_image(picture(tmp_path / "a.png", Image.fromarray(pixels)), channels=3)
    wanted = np.full((3, 4, 4), 255)
    wanted[:, 1, 2] = 0
    wanted[:, 3, 3] = (244, 224, 204)
    assert image.tolist() == wanted.tolist()
    grey = Image.fromarray(pixels[..., [0, 3]])
    image = read_image(picture(tmp_path / "b.png", grey), channels=1)
    assert image.shape == (1, 4, 4)
    assert (image[0, 1, 2], image[0, 0, 0], image[0, 3, 3]) == (0, 255, 244)
    palette = Image.new("P", (4, 4))
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putpixel((1, 1), 1)
    image = read_image(picture(tmp_path / "c.png", palette, transparency=0), channels=3)
    assert image[:, 0, 0].tolist() == [255] * 3
    assert image[:, 1, 1].tolist() == [10, 20, 30]


def test_grey_in_colour_files_is_grey(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(5):
            grey = Image.new("L", (4, 4), 20 * number + ord(name))
            mode = ("RGB", "P", "RGBA", "L", "RGB")[number]
            picture(tmp_path / name / f"{number}.png", grey.convert(mode))
    data = load_dataset(str(tmp_path))
    assert data.image_shape == (1, 4, 4)
    assert data.train_images[:, 0, 0, 0].tolist() == [97, 117, 137, 157, 98, 118, 138, 158]
    picture(tmp_path / "a" / "0.png", Image.new("RGB", (4, 4), (1, 2, 3)))
    assert load_dataset(str(tmp_path)).image_shape == (3, 4, 4)


def photographs(folder: Path) -> None:
    """Two classes of colour photographs of three sizes."""
    rng = np.random.default_rng(0)
    for name, colour in (("apple", (200, 40, 30)), ("lime", (60, 190, 40))):
        (folder / name).mkdir(parents=True)
        for number in range(15):
            width, height = ((64, 48), (48, 64), (50, 100))[number % 3]
            pixels = rng.integers(0, 60, (height, width, 3)) + np.array(colour) * 3 // 4
            image = Image.fromarray(pixels.astype(np.uint8))
            picture(folder / name / f"{number:02}.jpg", image, quality=90)


def test_photographs_of_many_sizes(tmp_path: Path) -> None:
    """Each is resized as it is read, in training, in the proof and alone."""
    photographs(tmp_path / "photos")
    train = ("train", "photos", *TRAIN[:-4], "--epochs", "20", "-o", "photos.pt")
    message = mistake(tmp_path, *train)
    assert "01.jpg is 48x64 but photos/apple/00.jpg is 64x48; have edgebnn train resize" in message
    assert "--set image_size=32, or make them one size" in message
    message = mistake(tmp_path, *train, "--set", "image_size=49")
    assert (
        "20 of 30 images are smaller than image_size 49, photos/apple/00.jpg the least, 64x48; "
        "give an image_size of 48 at most, or remove them" in message
    )
    for side, advice in ((1, "remove it"), (9, "remove it, or give an image_size of 9 at most")):
        picture(tmp_path / "photos" / "lime" / "tiny.png", Image.new("RGB", (side, side)))
        message = mistake(tmp_path, *train, "--set", "image_size=12")
        assert message.strip().endswith(
            f"photos/lime/tiny.png is {side}x{side}, smaller than image_size 12; {advice}"
        )
    (tmp_path / "photos" / "lime" / "tiny.png").unlink()
    text = output_here(tmp_path, *train, "--set", "image_size=12")
    assert "30 images of 12x12, colour, 2 classes" in text
    assert edgebnn.read(tmp_path / "photos.pt").metadata.preprocessing == ("resize 12",)
    assert "every output is equal" in output_here(tmp_path, "verify", "photos.pt")
    text = output_here(tmp_path, "verify", "photos.pt", "--dataset", "photos")
    assert "every output is equal" in text
    data = load_dataset(str(tmp_path / "photos"), image_size=12)
    alone = read_image(tmp_path / "photos" / "apple" / "04.jpg", 3)
    assert np.array_equal(data.test_images[0], transforms.resize(alone[None], 12)[0])
    assert output_here(tmp_path, "predict", "photos.pt", "photos/lime/03.jpg").startswith("lime")


def test_photographs_of_many_sizes_for_models_that_resize_none(tmp_path: Path) -> None:
    """A proof cannot train anew, as the message to who trains would have it."""
    photographs(tmp_path / "photos")
    torch.manual_seed(0)
    flat = bnn.Sequential(bnn.Input((4,)), bnn.BinaryLinear(4, 2), bnn.OutputNorm(2)).eval()
    columns = [Column("", 0, 0, 255)] * 4
    edgebnn.save(flat, tmp_path / "table.pt", columns=columns)
    edgebnn.save(networks.build("8FC", (3, 8, 8), 2), tmp_path / "image.pt")
    for name, advice in (
        ("table.pt", "the model takes 4 columns of numbers, and photos has none; name a table"),
        ("image.pt", "the model takes images of one size and resizes none; make them one size"),
    ):
        message = mistake(tmp_path, "verify", name, "--dataset", "photos")
        assert advice in message
        assert "edgebnn train" not in message


def test_photos_are_upright(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    for turned, wanted in ((1, np.arange(12).reshape(3, 4)), (6, None), (3, None)):
        exif = Image.Exif()
        exif[0x0112] = turned
        seen = read_image(picture(tmp_path / "a.png", image, exif=exif), channels=1)[0]
        turns = {1: 0, 3: 2, 6: -1}[turned]
        assert np.array_equal(seen, np.rot90(np.arange(12).reshape(3, 4), turns)), turned
        assert wanted is None or np.array_equal(seen, wanted)


def test_damaged_exif_is_no_warning(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "jpeg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(tmp_path / "a.jpg", channels=3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("b/notes.txt", "notes.txt is no image (.bmp"),
        ("b/photo.heic", "photo.heic is no image"),
        ("b/more/0.png", "more is a folder in that of a class"),
        ("b/x.png/0.png", "x.png is a folder in that of a class"),
        ("lost.png", "lost.png lies beside the folders of the classes"),
        ("b/empty.png", "empty.png is not a readable image"),
        ("b/moving.gif", "moving.gif has 2 images in it; keep one"),
    ],
)
def test_odd_file_in_a_folder_is_named(name: str, words: str, tmp_path: Path) -> None:
    write_images(tmp_path / "a", 5)
    write_images(tmp_path / "b", 5)
    for harmless in ("a/.DS_Store", "b/._000.png", "a/Thumbs.db", "desktop.ini", "labels.csv"):
        (tmp_path / harmless).write_bytes(b"\0")
    assert load_dataset(str(tmp_path)).train_labels.tolist() == [0] * 4 + [1] * 4
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"" if "empty" in name else encoded(1))
    if "gif" in name:
        frames = [Image.new("L", (32, 32), level) for level in (0, 255)]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    message = refusal(str(tmp_path))
    assert words in message
    assert str(tmp_path) in message


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 5)
    write_images(tmp_path / "b", 5)
    (tmp_path / "b" / "loop.png").symlink_to("loop.png")
    assert "loop.png" in refusal(str(tmp_path))
    (tmp_path / "b" / "loop.png").unlink()
    (tmp_path / "b" / "000.png").unlink()
    (tmp_path / "b").rename(tmp_path / "b\udcff")
    write_images(tmp_path / "b\udcff", 5)
    assert r"class name 'b\udcff' cannot be printed" in refusal(str(tmp_path))


def test_folder_of_idx_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"")
    assert f"train mnist --data {tmp_path}" in refusal(str(tmp_path))


# --- arrays -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "order", "wanted"),
    [
        ((8, 9), (0, 1, 2), (1, 8, 9)),
        ((1, 8, 9), (0, 1, 2, 3), (1, 8, 9)),
        ((3, 8, 9), (0, 1, 2, 3), (3, 8, 9)),
        ((8, 9, 1), (0, 3, 1, 2), (1, 8, 9)),
        ((8, 9, 3), (0, 3, 1, 2), (3, 8, 9)),
        ((8, 9, 4), (0, 3, 1, 2), (4, 8, 9)),
        ((6, 1, 128), (0, 1, 2, 3), (6, 1, 128)),
        ((16, 8, 8), (0, 1, 2, 3), (16, 8, 8)),
        ((8, 8, 16), None, ()),
        ((3, 32, 3), None, ()),
    ],
)
def test_channels_are_first_or_last(
    shape: tuple[int, ...], order: tuple[int, ...] | None, wanted: tuple[int, ...], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, *shape), dtype=np.uint8)
    given = {"train_images": images, "test_images": images[:20]}
    path = saved(tmp_path / "own.npz", **given)
    if order is None:
        assert "add an array layout='NCHW' or 'NHWC'" in refusal(path)
        for layout, axes in (("NCHW", (0, 1, 2, 3)), ("NHWC", (0, 3, 1, 2))):
            data = load_dataset(saved(tmp_path / "own.npz", layout=layout, **given))
            assert np.array_equal(data.train_images, images.transpose(axes))
        assert "layout is 'HWC'" in refusal(saved(tmp_path / "own.npz", layout="HWC", **given))
        return
    data = load_dataset(path)
    assert data.image_shape == wanted
    assert np.array_equal(data.test_images, images[:20].transpose(order).reshape(20, *wanted))


@pytest.mark.parametrize("dtype", ["int64", "uint16", "float32", "float64", "float16"])
def test_pixels_of_other_types(dtype: str, tmp_path: Path) -> None:
    good = arrays()
    keys = ("train_images", "test_images")
    whole = {key: good[key].astype(dtype) for key in keys}
    data = load_dataset(saved(tmp_path / "own.npz", **whole))
    assert np.array_equal(data.train_images[:, 0], good["train_images"])
    if "float" in dtype:
        units = {key: (good[key] / 255).astype(dtype) for key in keys}
        data = load_dataset(saved(tmp_path / "own.npz", **units))
        assert np.array_equal(data.test_images[:, 0], good["test_images"])
    masks = {key: good[key] > 99 for key in keys}
    data = load_dataset(saved(tmp_path / "own.npz", **masks))
    assert np.array_equal(data.test_images[:, 0], 255 * (good["test_images"] > 99))


@pytest.mark.parametrize(
    ("labels", "tested", "names", "numbers"),
    [
        ([0, 1, 3] * 20, [3, 1], ("0", "1", "3"), [2, 1]),
        ([-1, 1] * 30, [1, -1], ("-1", "1"), [1, 0]),
        ([10, 9] * 30, [10, 9], ("9", "10"), [1, 0]),
        (["no", "yes"] * 30, ["yes", "no"], ("no", "yes"), [1, 0]),
        ([b"no", b"yes"] * 30, [b"yes", b"no"], ("no", "yes"), [1, 0]),
        ([0.0, 2.0] * 30, [2.0, 0.0], ("0", "2"), [1, 0]),
        ([[0], [1]] * 30, [[1], [0]], ("0", "1"), [1, 0]),
        ([False, True] * 30, [True, False], ("0", "1"), [1, 0]),
    ],
)
def test_labels_are_classes(
    labels: list[object],
    tested: list[object],
    names: tuple[str, ...],
    numbers: list[int],
    tmp_path: Path,
) -> None:
    images = arrays()["test_images"][:2]
    given = {"train_labels": labels, "test_images": images, "test_labels": tested}
    data = load_dataset(saved(tmp_path / "own.npz", **given))
    assert data.class_names == names
    assert data.test_labels.tolist() == numbers
    assert data.train_labels.dtype == np.int64


def test_names_are_places_or_the_labels_themselves(tmp_path: Path) -> None:
    names = ["x", "a", "m"]
    data = load_dataset(saved(tmp_path / "own.npz", class_names=names))
    assert (data.class_names, data.test_labels[:3].tolist()) == (("x", "a", "m"), [0, 1, 2])
    texts = {"train_labels": ["a", "m", "x"] * 20, "test_labels": ["a", "m"] * 10}
    data = load_dataset(saved(tmp_path / "own.npz", class_names=names, **texts))
    assert (data.class_names, data.test_labels[:2].tolist()) == (("x", "a", "m"), [1, 2])


def test_arrays_as_keras_and_others_call_them(tmp_path: Path) -> None:
    good = list(arrays().values())
    two = ("images", "labels"), ("x", "y"), ("X", "Y"), ("X", "y"), ("data", "labels")
    for keys in (("x_train", "y_train", "x_test", "y_test"), ("X_train", "y_train"), *two):
        np.savez(tmp_path / "own.npz", **dict(zip(keys, good, strict=False)))
        data = load_dataset(str(tmp_path / "own.npz"))
        assert len(data.train_images) + len(data.test_images) == (80 if len(keys) == 4 else 60)
        assert data.origin.split_seed == (None if len(keys) == 4 else 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_images": np.zeros((60, 8, 8))}, "training images are float64 but test images"),
        ({"train_images": np.full((60, 8, 8), 256)}, "images are int64 from 0 to 256"),
        ({"train_images": np.full((60, 8, 8), "x")}, "images are <U1"),
        ({"train_images": np.zeros((60, 8, 8), complex)}, "images are complex128"),
        (
            {"train_images": np.array([{}] * 60)},
            "'train_images' holds Python objects",
        ),
        ({"train_labels": np.array([{}] * 60)}, "never unpickled; save numbers or texts"),
        ({"train_images": np.zeros(())}, "there are no training images"),
        ({"train_labels": np.eye(60)[:, :3]}, "labels.argmax(1)"),
        ({"train_labels": np.arange(60) + 0.5}, "labels are float64, one of them 0.5"),
        ({"train_labels": np.full(60, np.nan)}, "one of them nan"),
        ({"train_labels": ["a"] * 60}, "some labels are numbers and some texts"),
        ({"class_names": ["a", "b", "c", "d"]}, "class 'd' has nothing to train on"),
        ({"class_names": ["a", "b"]}, "a training label is 2; with 2 classes labels are 0 to 1"),
        ({"class_names": ["a", "b", "a"]}, "two classes are called 'a'"),
        ({"class_names": "abc"}, "class_names is no list of texts"),
        ({"class_names": ["a", "b\n", "c"]}, "class name 'b\\n' cannot be printed"),
        ({"train_labels": np.arange(60) % 3 - 1, "class_names": list("abc")}, "label is -1"),
        ({"test_labels": np.arange(20) % 4}, "a test label is 3, which no training label is"),
        ({"train_labels": np.zeros(60, int), "test_labels": np.zeros(20, int)}, "two classes"),
        (
            {"train_labels": None},
            "no array 'train_labels' (it has 'train_images', 'test_images', 'test_labels'); it "
            "needs train_images, train_labels, test_images, test_labels, or the first two to be",
        ),
        (
            {**NONE, "samples": [1], "kinds": [0]},
            "(it has 'samples', 'kinds'); it needs train_images, train_labels, test_images, "
            "test_labels, or x and y to be split",
        ),
        ({"test_labels": None}, "no array 'test_labels'"),
        ({"train_images": None, "train_labels": None}, "no array 'train_images'"),
        (NONE, "no array 'train_images'"),
        ({**NONE, "x": np.zeros((4, 3, 3)), "y": [0, 1, 1, 1]}, "of class '0' there is 1; 2 are"),
    ],
)
def test_arrays_that_are_refused(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    message = refusal(saved(tmp_path / "own.npz", **changes))
    assert words in message
    assert str(tmp_path / "own.npz") in message


def test_floats_that_are_no_pixels(tmp_path: Path) -> None:
    for value, words in ((-0.5, "from -0.5 to 1"), (1.5, "from 0 to 1.5"), (np.nan, "has NaN or")):
        images = np.ones((60, 8, 8), np.float32)
        images[0, 0, :2] = (0, value)
        test = np.ones((20, 8, 8), np.float32)
        path = saved(tmp_path / "own.npz", train_images=images, test_images=test)
        assert words in refusal(path)


def test_grey_images_for_a_network_of_colour_ones(tmp_path: Path) -> None:
    model = networks.build("8FC", (3, 8, 8), 3)
    edgebnn.save(model, tmp_path / "model.pt", class_names=("0", "1", "2"))
    saved(tmp_path / "own.npz")
    assert "(" in output_here(tmp_path, "verify", "model.pt", "--dataset", "own.npz")
