"""What stands in the way of a training is found before its first epoch, in one line."""

import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import COMMAND, TRAIN, environment, mistake, printed, run_here
from test_training import MLP, refusal
from torch import nn

import edgebnn
import edgebnn.nn as bnn
from edgebnn.errors import EdgebnnError
from edgebnn.files import check_room, only_writer
from edgebnn.train import Dataset, Event, job, networks, train


def images(count: int, height: int, width: int) -> Dataset:
    """Noise of two classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, height, width), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % 2
    return Dataset("noise", pixels, labels, pixels, labels, ("a", "b"))


@pytest.mark.parametrize("kept", [True, False])
def test_a_network_that_cannot_be_lowered_is_not_trained(kept: bool, tmp_path: Path) -> None:
    """76,800 pixels of 8 bits: the sums are beyond what float32 holds exactly."""
    events: list[Event] = []
    output = tmp_path / "m.pt" if kept else None
    recipe = replace(MLP, network="2FC", teacher="4FC")  # its teacher is not trained either
    message = refusal(recipe, images(20, 240, 320), output=output, report=events.append)
    assert "sums reach 19584000" in message
    assert events == []
    assert list(tmp_path.iterdir()) == []


def test_last_sums_that_are_too_large_are_said_to_be() -> None:
    with pytest.raises(EdgebnnError, match=r"'MP2' reach 39168000, .* below 2\*\*24; pool first"):
        networks.build("MP2", (1, 480, 1280), 2)


@pytest.mark.parametrize("notation", ["99999FC-99999FC", "999x99999FC"])
def test_a_network_without_end_is_refused_before_memory_is_taken(
    notation: str, tmp_path: Path
) -> None:
    message = mistake(tmp_path, *TRAIN, "--set", f"network={notation}")
    assert f"network '{notation}' has " in message
    assert "weights for these images, and this computer can train " in message


def test_weighing_a_network_draws_nothing() -> None:
    torch.manual_seed(3)
    model = networks.build("16FC", (1, 4, 4), 2)
    torch.manual_seed(3)
    layer = bnn.BinaryLinear(16, 16)
    assert torch.equal(model[2].latent_weight, layer.latent_weight)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_batches_that_a_norm_does_not_take(count: int, tmp_path: Path) -> None:
    assert "batch_size is 1; give 2 to" in mistake(tmp_path, *TRAIN, "--set", "batch_size=1")
    data = replace(images(4, 8, 8), train_images=np.zeros((count, 1, 8, 8), np.uint8))
    data = replace(data, train_labels=np.zeros(count, np.int64))
    if count > 1:
        train(MLP, data, output=None, epochs=1, validation=0)
    else:
        message = refusal(MLP, data, output=None, validation=0)
        assert "batches of 1 image on 1 process are 1 each, of which a norm cannot" in message


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc', and torchrun sets a number from 1 on"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "-1"}, "LOCAL_RANK is '-1'"),
        ({"WORLD_SIZE": "2"}, "cannot join the 2 processes of WORLD_SIZE ("),
    ],
)
def test_an_environment_that_is_not_torchruns(
    variables: dict[str, str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert reason in mistake(tmp_path, *TRAIN, "--device", "cpu")


@pytest.mark.parametrize(
    "command", [("train", "digits"), ("bench", "train"), ("compare", "digits")]
)
def test_a_device_that_there_is_not(command: tuple[str, ...], tmp_path: Path) -> None:
    message = mistake(tmp_path, *command, "--device", "foo")
    assert "unknown device 'foo'; pick one of: auto, cpu, cuda" in message


# --- the disk -----------------------------------------------------------------------------------


@contextmanager
def disk_that_fills_up(size: int) -> Iterator[None]:
    """No file of this process may be larger; writing on is an OSError, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_without_room_is_found_before_training(tmp_path: Path) -> None:
    with disk_that_fills_up(200_000):
        assert "cannot write model.pt: File too large" in mistake(tmp_path, *TRAIN)
        printed(run_here(tmp_path, *TRAIN, "--set", "network=8FC", "--epochs", "1"))
    size = (tmp_path / "model.pt").stat().st_size
    with disk_that_fills_up(size):  # what is asked for is at least what is written
        message = mistake(tmp_path, *TRAIN, "--force", "--set", "network=8FC")
        assert "cannot write model.pt" in message


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam"},
        {"optimizer": "sgd"},
        {"optimizer": "bop"},
        {"optimizer": "shift-adamax", "glorot_rates": True},
        {"learned_shift": True, "sign": "swish_trained", "regularizer": "r1"},
        {"network": "8C3-MP2-8C3-R3"},
    ],
    ids=str,
)
def test_room_for_two_files_is_asked_for(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is there and the one that takes its place, and not much more."""
    asked: list[int] = []
    monkeypatch.setattr(job, "check_room", lambda _path, size: asked.append(size))
    path = tmp_path / "m.pt"
    recipe = replace(MLP, **{"network": "64FC", **options})
    for _ in range(2):
        train(recipe, images(40, 8, 8), output=path, epochs=1)
    size = path.stat().st_size
    assert 2 * size <= asked[0] < 4 * size + 2**16
    assert size <= asked[1] < asked[0]


@pytest.mark.parametrize("output", ["/sys/model.pt", "/proc/model.pt", "x" * 255])
def test_a_folder_that_takes_no_file_is_found_before_training(output: str, tmp_path: Path) -> None:
    assert f"cannot write {output}: " in mistake(tmp_path, *TRAIN, "-o", output)


def test_room_is_checked_and_left(tmp_path: Path) -> None:
    check_room(tmp_path / "a", 10**6)
    check_room(tmp_path / "a", 0)
    with pytest.raises(EdgebnnError, match=r"No space left on device; make room|File too large"):
        check_room(tmp_path / "a", 2**62)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("room", [0, 100, 5_000, 50_000])
def test_a_disk_that_fills_up_during_a_save_keeps_the_old_file(room: int, tmp_path: Path) -> None:
    def model(features: int) -> nn.Module:
        return bnn.Sequential(
            *(bnn.Input((features,)), bnn.BinaryLinear(features, 20)),
            bnn.OutputNorm(20, bound=255 * features),
        )

    path = tmp_path / "model.pt"
    edgebnn.save(model(10), path)
    before = path.read_bytes()
    with (
        disk_that_fills_up(room),
        pytest.raises(EdgebnnError, match=r"cannot write .*model.pt: File too large"),
    ):
        edgebnn.save(model(1000), path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"model.pt": before}


# --- two trainings of one file -------------------------------------------------------------------


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    with only_writer(path), only_writer(tmp_path / "other.pt"):
        with pytest.raises(EdgebnnError) as caught, only_writer(path):
            pass
        assert "m.pt is being written by another edgebnn" in str(caught.value)
        message = refusal(MLP, images(40, 8, 8), output=path)
        assert "is being written by another edgebnn" in message
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), only_writer(path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with only_writer(path):
        pass


def test_a_second_training_is_refused_until_the_first_has_died(tmp_path: Path) -> None:
    arguments = [*TRAIN, "--epochs", "1000", "--set", "batch_size=16", "-o", "model.pt"]
    first = subprocess.Popen(
        [*COMMAND, *arguments], cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.DEVNULL
    )
    try:
        begin = time.monotonic()
        while not (tmp_path / ".model.pt.lock").exists():
            assert time.monotonic() < begin + 60
            time.sleep(0.01)
        said = "model.pt is being written by another edgebnn; wait for it"
        done = run_here(tmp_path, *arguments)  # there may be a file already
        assert done.returncode == 1
        assert said in done.stderr or "model.pt exists; add --force" in done.stderr
        while not (tmp_path / "model.pt").exists():
            assert time.monotonic() < begin + 60
            time.sleep(0.01)
        for option in ("--resume", "--force"):
            done = run_here(tmp_path, *arguments, option)
            assert (done.returncode, done.stdout) == (1, "")
            assert said in done.stderr
            assert done.stderr.count("\n") == 1
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    printed(run_here(tmp_path, *TRAIN, "--epochs", "1", "-o", "model.pt", "--force"))
    kept = {path.name for path in tmp_path.iterdir() if not path.name.endswith(".part")}
    assert kept == {"model.pt", "tmp"}


def test_a_finished_file_is_trained_anew_by_force(tmp_path: Path) -> None:
    small = (*TRAIN, "--epochs", "1", "-o", "model.pt")
    printed(run_here(tmp_path, *small))
    first = (tmp_path / "model.pt").read_bytes()
    message = mistake(tmp_path, *small)
    assert "model.pt exists; add --force to train it anew, --resume to go on with" in message
    message = mistake(tmp_path, *small, "--resume")
    assert "is finished after 1 epoch; add --force in the place of --resume" in message
    assert "give one of --force and --resume" in mistake(tmp_path, *small, "--resume", "--force")
    printed(run_here(tmp_path, *small, "--force", "--seed", "5"))
    assert (tmp_path / "model.pt").read_bytes() != first
    assert edgebnn.read(tmp_path / "model.pt").metadata.seed == 5


def test_api_can_keep_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(b"old")
    message = refusal(MLP, images(40, 8, 8), output=path, replace=False)
    assert "m.pt exists" in message
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["m.pt"]
