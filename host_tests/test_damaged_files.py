"""Model files that are damaged: what was saved comes back, or one line says what is wrong."""

import re
import zipfile
from pathlib import Path
from typing import Any

import fuzz_files
import numpy as np
import pytest
import torch
from test_model_files import damaged, mlp, plain, refusal, residual, scores

import edgebnn
from edgebnn import archive, checkpoint


def members(path: Path) -> dict[str, bytes]:
    """By their names without the archive's own."""
    with zipfile.ZipFile(path) as file:
        return {name.partition("/")[2]: file.read(name) for name in file.namelist()}


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    edgebnn.save(mlp(), path, class_names=("a", "b", "c"), test_accuracy=0.5, seed=1)
    return path


def test_hostile_files_are_refused_or_as_good_as_before() -> None:
    """``python host_tests/fuzz_files.py`` reads 10,000."""
    seen = fuzz_files.fuzz([mlp(1), mlp(2), residual()], 500, seed=0)
    assert seen.total() == 500
    assert seen["flipped refused"] > 100


@pytest.mark.parametrize("form", ["training", "release"])
def test_a_flipped_byte_of_a_tensor_is_refused(form: checkpoint.Form, model_file: Path) -> None:
    edgebnn.save(mlp(), model_file, form=form)
    content = model_file.read_bytes()
    place = content.index(members(model_file)["data/0"])
    model_file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    message = refusal(lambda: edgebnn.load(model_file))
    assert re.search(r"damaged \(Bad CRC-32 for file '\w+/data/0'\); copy it again", message)


def test_a_member_that_torch_takes_for_a_folder_is_read(model_file: Path) -> None:
    """By an attribute that zipfile skips; torch gave what was in memory."""
    expected = scores(edgebnn.load(model_file))
    torch.save(plain(model_file), model_file)
    content = bytearray(model_file.read_bytes())
    place = content.rindex(b"/data/0", 0, content.rindex(b"/data/1"))
    begin = content.rindex(b"PK\x01\x02", 0, place)  # its entry in the list of all
    content[begin + 38] |= 0x10
    model_file.write_bytes(content)
    np.testing.assert_array_equal(scores(edgebnn.load(model_file)), expected)


def test_members_that_are_larger_than_the_file_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("m/data.pkl", bytes(10**7))
    message = refusal(lambda: edgebnn.load(tmp_path / "m.pt"))
    assert "its members are larger than itself" in message


def test_a_member_of_another_file_is_refused(model_file: Path, tmp_path: Path) -> None:
    """Its own checksum is right."""
    edgebnn.save(mlp(1), tmp_path / "1.pt", form="release")
    edgebnn.save(mlp(2), tmp_path / "2.pt", form="release")
    one, other = members(tmp_path / "1.pt"), members(tmp_path / "2.pt")
    assert one["data/0"] != other["data/0"]
    with zipfile.ZipFile(model_file, "w") as spliced:
        for name, data in {**one, "data/0": other["data/0"]}.items():
            spliced.writestr(f"model/{name}", data)
    assert "its content is not what was saved" in refusal(lambda: edgebnn.load(model_file))


def test_a_device_is_no_model() -> None:
    assert "is a device or a pipe" in refusal(lambda: edgebnn.load("/dev/zero"))


def test_a_changed_value_is_refused(model_file: Path) -> None:
    content = torch.load(model_file, weights_only=True)
    content["metadata"]["test_accuracy"] = 0.99
    torch.save(content, model_file)
    assert "its content is not what was saved" in refusal(lambda: edgebnn.load(model_file))


def test_a_part_that_is_not_known_is_refused(model_file: Path) -> None:
    """As the digest is under another name."""
    message = damaged(model_file, lambda content: content.update(sha255=""))
    assert "holds 'sha255', which this edgebnn does not know; update edgebnn" in message


def test_files_from_before_the_digest_load(model_file: Path) -> None:
    expected = scores(edgebnn.load(model_file))
    torch.save(plain(model_file), model_file)
    np.testing.assert_array_equal(scores(edgebnn.load(model_file)), expected)


def test_digest_tells_types_and_borders_apart() -> None:
    values: list[object] = [
        *(None, "", b"", 0, 0.0, -0.0, False, "0", "None", [], (), {}, [[]], [None], [[], []]),
        *(["a", "bc"], ["ab", "c"], {"a": 1}, {"a": "1"}, ["a", 1], {"b": 1}, {"a": 1, "b": 1}),
        *(torch.zeros(2), torch.zeros(1, 2), torch.zeros(2, dtype=torch.int32), torch.zeros(8)),
        *(torch.tensor(0.0), torch.zeros(2, dtype=torch.bfloat16), torch.ones(2), torch.zeros(0)),
    ]
    digests = [archive.digest(value) for value in values]
    assert len(set(digests)) == len(values)
    transposed = torch.arange(6.0).reshape(2, 3).T
    assert archive.digest(transposed) == archive.digest(transposed.contiguous())


def test_digest_of_hostile_content_takes_no_time(model_file: Path) -> None:
    """Lists of twice the same list, 100 deep, and one that holds itself."""
    tower: list[Any] = []
    for _ in range(100):
        tower = [tower, tower]
    assert len(archive.digest(tower)) == 64
    loop: list[Any] = []
    loop.append(loop)
    torch.save({**plain(model_file), "training": {"x": loop}, "sha256": ""}, model_file)
    assert "damaged" in refusal(lambda: edgebnn.load(model_file))


def test_saving_writes_checksums_whatever_torch_is_set_to(model_file: Path) -> None:
    before = torch.serialization.get_crc32_options()
    try:
        torch.serialization.set_crc32_options(False)
        edgebnn.save(mlp(), model_file)
        assert not torch.serialization.get_crc32_options()
    finally:
        torch.serialization.set_crc32_options(before)
    edgebnn.load(model_file)
