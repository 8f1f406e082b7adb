"""Images around the network: preprocessing, to the number, and augmentation, by offset."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from test_cli import mistake, output, output_here
from torch import Tensor

import edgebnn
from edgebnn.data.transforms import apply, apply_to_image, check_steps, gcn, resize
from edgebnn.errors import EdgebnnError
from edgebnn.train import Dataset, get_recipe, load_dataset, networks, train
from edgebnn.train.augment import Augmentation, augment


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def dataset(images: NDArray[np.uint8], test: int = 20) -> Dataset:
    labels = np.arange(len(images), dtype=np.int64) % 2
    return Dataset("own", images[test:], labels[test:], images[:test], labels[:test], ("a", "b"))


# --- resize -------------------------------------------------------------------------------------


def test_halving_takes_the_means_of_four() -> None:
    image = np.array([[0, 1, 10, 20], [1, 0, 30, 41], [255, 255, 3, 4], [255, 255, 3, 4]], np.uint8)
    wanted = [[1, 25], [255, 4]]  # 0.5, 25.25 and 3.5: halves are rounded up
    assert resize(image[None, None], 2)[0, 0].tolist() == wanted
    assert resize(image[None, None], 4)[0, 0].tolist() == image.tolist()


def by_fractions(image: NDArray[np.uint8], size: int) -> list[list[int]]:
    """The definition: the mean over the area that an output pixel covers, rounded half up."""
    height, width = image.shape

    def cover(i: int, j: int, before: int) -> Fraction:
        low = max(Fraction(i * before, size), Fraction(j))
        return max(Fraction(0), min(Fraction((i + 1) * before, size), Fraction(j + 1)) - low)

    rows = []
    for y in range(size):
        row = []
        for x in range(size):
            total = sum(
                cover(y, i, height) * cover(x, j, width) * int(image[i, j])
                for i in range(height)
                for j in range(width)
            )
            mean = total * Fraction(size, height) * Fraction(size, width)
            row.append(int((mean + Fraction(1, 2)) // 1))
        rows.append(row)
    return rows


@pytest.mark.parametrize(
    ("height", "width", "size"), [(7, 7, 3), (9, 5, 4), (6, 8, 5), (8, 8, 7), (5, 5, 1)]
)
def test_resize_equals_fractions(height: int, width: int, size: int) -> None:
    images = noise(2, 2, height, width)
    images[0, 0] = 127 + (images[0, 0] & 1)  # means near a half
    resized = resize(images, size)
    assert (resized.dtype, resized.shape) == (np.uint8, (2, 2, size, size))
    for n in range(2):
        for c in range(2):
            assert resized[n, c].tolist() == by_fractions(images[n, c], size)


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_constant_images_stay_constant(value: int) -> None:
    images = np.full((1, 3, 28, 28), value, np.uint8)
    assert np.array_equal(resize(images, 16), images[:, :, :16, :16])


def test_resize_makes_nothing_larger() -> None:
    with pytest.raises(EdgebnnError, match=r"cannot resize 7x9 images to 8x8; give less"):
        resize(noise(1, 1, 9, 7), 8)


def test_resizing_many_images_is_resizing_each() -> None:
    images = noise(5003, 1, 5, 5)
    assert np.array_equal(resize(images, 3)[4998:], resize(images[4998:], 3))


# --- normalization ------------------------------------------------------------------------------


def test_gcn_gives_each_image_one_mean_and_deviation() -> None:
    images = noise(50, 1, 8, 8) // 3 + 40
    images[0] = 7  # constant: nothing to scale by
    done = apply_to_image(images, ("gcn",)).astype(np.float64)
    assert np.all(done[0] == 128)
    flat = done[1:].reshape(49, -1)
    assert np.abs(flat.mean(1) - 128).max() < 1
    assert np.abs(flat.std(1) - 40).max() < 1
    brighter = (images[1:].astype(int) * 2 + 1).astype(np.uint8)
    assert np.array_equal(apply_to_image(brighter, ("gcn",)), done[1:])
    both = apply(dataset(images), ("gcn",))
    assert np.array_equal(np.concatenate([both.test_images, both.train_images]), done)


def by_definition(image: NDArray[np.uint8]) -> list[int]:
    """128 + floor(40 * (x - mean) / deviation + 1/2) in Python's integers, of each pixel."""
    counts = {
        int(value): int(n) for value, n in zip(*np.unique(image, return_counts=True), strict=True)
    }
    n, s = image.size, sum(value * times for value, times in counts.items())
    spread = n * sum(value * value * times for value, times in counts.items()) - s * s
    results = {}
    for value in counts:
        # floor((80 * d / sqrt(spread) + 1) / 2), of which the inner floor may be taken first
        above = 80 * (n * value - s)
        ratio = 0
        if spread:
            ratio = math.isqrt(above * above // spread)
            if above < 0:
                ratio = -ratio - (ratio * ratio * spread != above * above)
        results[value] = min(max(128 + (ratio + 1) // 2, 0), 255)
    return [results[value] for value in image.ravel().tolist()]


def extremes(channels: int, height: int, width: int) -> list[NDArray[np.uint8]]:
    """Images at the ends: of one value, of one other pixel, of 0 and 255 in turn, a ramp."""
    shape = (channels, height, width)
    size = math.prod(shape)
    places = np.arange(size)
    flat = [np.full(size, value) for value in (0, 7, 128, 255)]
    flat += [
        np.where(places == place, on, off)
        for place in (0, size - 1)
        for on, off in ((255, 0), (0, 255), (8, 7), (1, 0))
    ]
    flat += [places % 2 * 255, places // max(width, 1) % 2 * 255, places % 256, 255 - places % 256]
    return [one.astype(np.uint8).reshape(shape) for one in flat]


SHAPES = [
    (1, 1, 1),
    (1, 1, 2),
    (3, 1, 1),
    (1, 7, 5),
    (3, 9, 7),
    (1, 8, 8),
    (2, 16, 16),
    (1, 28, 28),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_gcn_is_the_nearest_integer(shape: tuple[int, int, int]) -> None:
    images = np.stack([*extremes(*shape), *noise(20, *shape), *(noise(20, *shape) // 60 + 9)])
    for image, done in zip(images, gcn(images), strict=True):
        assert (done.dtype, done.shape) == (np.uint8, shape)
        assert done.ravel().tolist() == by_definition(image)


def odd_distances(count: int, squares: int, most: int) -> Iterator[list[int]]:
    """All falling lists of ``count`` odd numbers whose squares add up to ``squares``."""
    if count == 0:
        yield from [[]] if squares == 0 else []
        return
    for distance in range(most, 0, -2):
        if count * distance * distance >= squares >= distance * distance:
            for rest in odd_distances(count - 1, squares - distance * distance, distance):
                yield [distance, *rest]


def tied() -> NDArray[np.uint8]:
    """Images 4x4 with mean 60 and deviation 16, where every pixel lies between two integers."""
    distances = np.array(list(odd_distances(8, 8 * 16 * 16, 45)))
    return (60 + np.hstack([distances, -distances])).astype(np.uint8).reshape(-1, 1, 4, 4)


def test_gcn_rounds_halves_up() -> None:
    images = tied()
    assert len(images) > 40
    distances = images.astype(np.int64) - 60
    assert np.all(distances % 2 == 1)
    assert np.array_equal(gcn(images), np.clip(128 + (5 * distances + 1) // 2, 0, 255))
    for image, done in zip(images, gcn(images), strict=True):
        assert done.ravel().tolist() == by_definition(image)


def test_gcn_of_a_large_image() -> None:
    """Its squares do not fit into 64 bits; one pixel of it is another one than all the others."""
    large = np.full((1, 3, 300, 400), 255, np.uint8)
    large[0, 1, 2, 3] = 254
    noisy = [np.maximum(noise(1, 3, 300, 400), least) for least in range(0, 160, 8)]
    large = np.concatenate([large, large * 0 + 9, *noisy])
    done = gcn(large)
    assert np.all(done[1] == 128)
    for image, one in zip(large, done, strict=True):
        assert one.ravel().tolist() == by_definition(image)


def test_zca_takes_neighbours_apart() -> None:
    smooth = noise(1020, 1, 8, 8).astype(np.int64)
    smooth = sum(np.roll(smooth, (i, j), (2, 3)) for i in range(3) for j in range(3)) // 9
    images = smooth.astype(np.uint8)
    before, after = dataset(images), apply(dataset(images), ("zca",))
    assert after.train_images.dtype == np.uint8

    def between(x: NDArray[np.uint8]) -> float:
        table = np.corrcoef(x.reshape(len(x), -1).T)
        return float(np.abs(table - np.eye(len(table))).mean())

    assert between(after.train_images) < 0.4 * between(before.train_images)
    pixels = after.train_images.astype(np.float64)
    assert abs(pixels.mean() - 128) < 1
    assert abs(pixels.std() - 40) < 2
    # The test images go through the training images' statistics, whatever else is tested.
    alone = apply(replace(before, test_images=before.test_images[:3]), ("zca",))
    assert np.abs(alone.test_images.astype(int) - after.test_images[:3]).max() <= 1
    assert np.array_equal(alone.train_images, after.train_images)


def test_steps_run_in_their_order() -> None:
    images = noise(30, 1, 8, 8)
    done = apply(dataset(images), ("resize 4", "gcn")).test_images
    assert np.array_equal(done, apply_to_image(resize(images[:20], 4), ("gcn",)))
    assert np.array_equal(done, apply_to_image(images[:20], ("resize 4", "gcn")))
    assert apply(data := dataset(images), ()) is data


@pytest.mark.parametrize(
    "step", ["blur", "resize", "resize x", "resize 0", "resize 5000", "gcn 3", "resize ٣", ""]
)
def test_unknown_steps_are_refused(step: str) -> None:
    for action in (
        lambda: check_steps((step,)),
        lambda: apply_to_image(noise(1, 1, 8, 8), (step,)),
        lambda: apply(dataset(noise(30, 1, 8, 8)), (step,)),
    ):
        with pytest.raises(EdgebnnError, match="unknown preprocessing"):
            action()


# --- a model with preprocessing -----------------------------------------------------------------


@pytest.fixture(scope="module")
def small_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 4x4 images of 4 bits that are made from 8x8 ones, trained for two epochs."""
    path = tmp_path_factory.mktemp("small") / "model.pt"
    changes = {"network": "32FC", "image_size": 4, "whiten": "gcn", "input_bits": 4, "epochs": 2}
    train(get_recipe("mlp-16k").changed(changes), load_dataset("digits"), output=path)
    return path


def test_model_file_names_the_steps(small_images: Path, tmp_path: Path) -> None:
    steps = ("resize 4", "gcn")
    content = edgebnn.read(small_images)
    assert content.metadata.preprocessing == steps
    assert content.metadata.image == (1, 8, 8)
    edgebnn.release(content, tmp_path / "release.pt")
    released = edgebnn.read(tmp_path / "release.pt").metadata
    assert released == content.metadata
    assert released.input_steps == (*steps, "shift right by 4")
    shown = output_here(tmp_path, "info", small_images)
    assert "resize 4, then gcn, then shift right by 4" in shown
    output_here(tmp_path, "generate", small_images, "--name", "net", "-o", "out")
    header = (tmp_path / "out" / "src" / "net.h").read_text()
    assert "first put through: resize 4, then gcn, then shift right by 4\n" in header
    assert "#define NET_IMAGE_BYTES 64u\n" in header


def test_proofs_repeat_the_steps(small_images: Path, tmp_path: Path) -> None:
    accuracy = edgebnn.read(small_images).metadata.test_accuracy
    assert accuracy is not None
    assert accuracy > 0.5
    text = output(tmp_path, "verify", small_images)
    correct = round(accuracy * 355)
    assert len(re.findall(rf"\({correct}/355\) +│ +0 │", text)) == 3
    arguments = ("simulate", small_images, "--images", "10", "--counted", "2")
    assert "every output is equal, bit for bit" in output(tmp_path, *arguments)


def test_predict_repeats_the_steps(small_images: Path, tmp_path: Path) -> None:
    images = load_dataset("digits").test_images[:5]
    model = edgebnn.load(small_images)
    inputs = apply_to_image(images, ("resize 4", "gcn")) >> 4
    wanted = model(torch.from_numpy(inputs)).argmax(1)
    for image, label in zip(images, wanted, strict=True):
        Image.fromarray(image[0]).save(tmp_path / "digit.png")
        text = output_here(tmp_path, "predict", small_images, "digit.png")
        assert text.split()[0] == str(int(label))
    Image.fromarray(noise(3, 3)).save(tmp_path / "digit.png")
    message = mistake(tmp_path, "predict", small_images, "digit.png")
    assert "cannot resize 3x3 images to 4x4" in message


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (("blur",), "unknown preprocessing 'blur'; known: resize N, gcn, zca"),
        (("resize",), "unknown preprocessing 'resize'"),
        (("resize 9",), "cannot resize 8x8 images to 9x9"),
    ],
)
def test_hostile_steps_are_one_line(steps: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    model = networks.build("8FC", (1, 8, 8), 10)
    names = tuple("0123456789")
    edgebnn.save(
        model, tmp_path / "model.pt", preprocessing=steps, dataset="digits", class_names=names
    )
    Image.fromarray(noise(8, 8)).save(tmp_path / "image.png")
    for command in (("verify", "model.pt"), ("predict", "model.pt", "image.png")):
        assert reason in mistake(tmp_path, *command)


def test_whitened_models_take_no_single_image(tmp_path: Path) -> None:
    edgebnn.save(networks.build("8FC", (1, 8, 8), 2), tmp_path / "model.pt", preprocessing=("zca",))
    Image.fromarray(noise(8, 8)).save(tmp_path / "image.png")
    message = mistake(tmp_path, "predict", "model.pt", "image.png")
    assert "ZCA-whitened" in message


# --- augmentation -------------------------------------------------------------------------------


def images(count: int = 40, channels: int = 2, height: int = 6, width: int = 7) -> Tensor:
    return torch.from_numpy(noise(count, channels, height, width) | 1)  # 0 is what comes in


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """By hand, pixel for pixel."""
    result = torch.zeros_like(image)
    _, height, width = image.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                result[:, y, x] = image[:, y - down, x - right]
    return result


@pytest.mark.parametrize("most", [1, 2])
def test_shift_moves_by_whole_pixels(most: int) -> None:
    torch.manual_seed(0)
    before = images(200)
    after = augment(before, Augmentation(shift=most))
    assert (after.dtype, after.shape) == (before.dtype, before.shape)
    reach = range(-most, most + 1)
    offsets = set()
    for one, moved in zip(before, after, strict=True):
        found = [(y, x) for y in reach for x in reach if torch.equal(shifted(one, y, x), moved)]
        assert len(found) == 1
        offsets |= set(found)
    assert offsets == {(y, x) for y in reach for x in reach}


def test_flip_mirrors_about_half() -> None:
    torch.manual_seed(0)
    before = images(200)
    after = augment(before, Augmentation(flip=True))
    same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    mirrored = [torch.equal(a.flip(2), b) for a, b in zip(before, after, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 60 < sum(mirrored) < 140
    assert after.dtype == torch.uint8


def test_nothing_asked_nothing_done(monkeypatch: pytest.MonkeyPatch) -> None:
    before = images()
    state = torch.get_rng_state()
    assert augment(before, Augmentation()) is before
    assert torch.equal(torch.get_rng_state(), state)
    assert get_recipe("mlp-16k").augmentation == Augmentation()

    def refuse(*_: object) -> None:
        raise AssertionError("the affine change ran")

    monkeypatch.setattr("edgebnn.train.augment._affine", refuse)
    augment(before, Augmentation(shift=1, flip=True))
    for how in (Augmentation(rotate=1.0), Augmentation(scale=0.1)):
        with pytest.raises(AssertionError, match="ran"):
            augment(before, how)


@pytest.mark.parametrize(
    "how", [Augmentation(rotate=15.0), Augmentation(scale=0.2), Augmentation(2, True, 10.0, 0.1)]
)
def test_changes_repeat_with_the_seed(how: Augmentation) -> None:
    before = images()
    kept = before.clone()
    torch.manual_seed(1)
    first = augment(before, how)
    torch.manual_seed(1)
    assert torch.equal(augment(before, how), first)
    assert not torch.equal(augment(before, how), first)
    assert torch.equal(before, kept)
    assert (first.dtype, first.shape) == (before.dtype, before.shape)
    assert len({tuple(image.flatten().tolist()) for image in first}) == len(before)


def test_a_small_turn_keeps_the_middle() -> None:
    torch.manual_seed(0)
    before = torch.zeros(20, 1, 9, 9, dtype=torch.uint8)
    before[:, :, 3:6, 3:6] = 200
    after = augment(before, Augmentation(rotate=20.0, scale=0.1))
    assert torch.all(after[:, 0, 4, 4] == 200)
    assert torch.all(after[:, 0, 0] == 0)
    assert not torch.equal(after, before)
