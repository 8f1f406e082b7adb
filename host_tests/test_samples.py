"""Sample inputs in model files: what is kept, what comes back, what is refused."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_cli import output_here
from test_model_files import convnet, mlp, plain

import edgebnn
import edgebnn.nn as bnn
from edgebnn import archive, measure, samples
from edgebnn.errors import EdgebnnError
from edgebnn.lower import lower


def inputs(count: int, *shape: int, top: int = 15) -> NDArray[np.uint8]:
    values = np.arange(count * int(np.prod(shape))) % (top + 1)
    return values.astype(np.uint8).reshape(count, *shape)


def written(path: Path, **changes: object) -> None:
    """The model file at ``path`` again, with other content and the digest of that."""
    content = plain(path) | changes
    content.pop("sha256", None)
    content["sha256"] = archive.digest(content)
    torch.save(content, path)


@pytest.mark.parametrize("form", ["training", "release"])
def test_they_come_back_and_stay(form: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.pt" for n in range(3)]
    given = inputs(5, 2, 6, 8, top=7)
    edgebnn.save(convnet(), paths[0], samples=given, form=form)
    edgebnn.release(edgebnn.read(paths[0]), paths[1])
    edgebnn.calibrate(edgebnn.read(paths[1]), paths[2], torch.from_numpy(given[1:3]).float())
    for path, wanted in zip(paths, (given, given, given[1:3]), strict=True):
        content = edgebnn.read(path)
        assert np.array_equal(content.samples, wanted)
        assert np.array_equal(measure.samples(content, lower(content.model)), wanted)
    assert edgebnn.read(paths[2]).form == "release"


def test_a_file_without_has_none(tmp_path: Path) -> None:
    edgebnn.save(mlp(), tmp_path / "model.pt")
    assert edgebnn.read(tmp_path / "model.pt").samples.shape == (0, 16)


def test_no_more_are_kept_than_there_is_room_for(tmp_path: Path) -> None:
    edgebnn.save(mlp(), tmp_path / "model.pt", samples=inputs(100, 16))
    assert np.array_equal(edgebnn.read(tmp_path / "model.pt").samples, inputs(32, 16))
    assert samples.room((3, 64, 64)) == 5
    assert samples.room((3, 200, 200)) == 0
    packed = samples.pack(inputs(3, 3, 200, 200), (3, 200, 200), 8)
    assert samples.unpack(packed, (3, 200, 200), 8).shape == (0, 3, 200, 200)


def test_images_are_samples_of_a_flat_network(tmp_path: Path) -> None:
    edgebnn.save(mlp(), tmp_path / "model.pt", samples=inputs(2, 1, 4, 4))
    assert np.array_equal(edgebnn.read(tmp_path / "model.pt").samples, inputs(2, 16))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (inputs(2, 15), "give inputs as (N, 16)"),
        (inputs(1, 16)[0], "give inputs as (N, 16)"),
        (inputs(2, 16, top=16), "no integers from 0 to 15"),
        (inputs(2, 16) / 2, "no integers from 0 to 15"),
        (inputs(2, 16).astype(int) - 1, "no integers from 0 to 15"),
        (inputs(2, 16).astype(int) + 256, "no integers from 0 to 15"),
        (np.full((2, 16), np.nan), "no integers from 0 to 15"),
        (np.full((2, 16), 1e30), "no integers from 0 to 15"),
    ],
)
def test_what_is_no_input_is_refused(given: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(EdgebnnError) as caught:
        edgebnn.save(mlp(), tmp_path / "model.pt", samples=given)
    assert message in str(caught.value)
    assert not (tmp_path / "model.pt").exists()


def stream(values: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(zlib.compress(values), np.uint8).copy())


@pytest.mark.parametrize(
    "content",
    [
        None,
        "samples",
        [1, 2],
        torch.zeros(8),
        torch.zeros((2, 4), dtype=torch.uint8),
        torch.zeros(8, dtype=torch.uint8),
        torch.zeros(0, dtype=torch.uint8),
        stream(bytes(32))[:-3],
        stream(bytes(33)),
        stream(bytes([16]) * 16),
        stream(bytes(2**26)),
    ],
)
def test_damage_is_one_line(content: object, tmp_path: Path) -> None:
    """Also what unpacks to more than any model keeps."""
    path = tmp_path / "model.pt"
    edgebnn.save(mlp(), path, samples=inputs(2, 16))
    written(path)
    edgebnn.read(path)
    written(path, samples=content)
    with pytest.raises(EdgebnnError, match="its sample inputs are damaged"):
        edgebnn.read(path)


def test_they_are_compressed(tmp_path: Path) -> None:
    sizes = []
    for given in (None, np.zeros((32, 2, 6, 8))):
        file = io.BytesIO()
        edgebnn.save(convnet(), tmp_path / "model.pt", samples=given)
        file.write((tmp_path / "model.pt").read_bytes())
        sizes.append(file.tell())
    assert sizes[1] - sizes[0] < 500


def test_a_model_without_is_measured_on_noise(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = (bnn.Input((64,), bits=1), bnn.BinaryLinear(64, 8), bnn.OutputNorm(8, bound=64))
    edgebnn.save(bnn.Sequential(*layers), tmp_path / "m.pt")
    options = ("-t", "cortex-m4", "--inputs", "2")
    text = output_here(tmp_path, "bench", "models", "m.pt", *options)
    assert "Mean of 2 random inputs: m." in text
