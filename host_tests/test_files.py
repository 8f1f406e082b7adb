"""Files are written whole or not at all, and what stands in the way is said in one line."""

from pathlib import Path

import pytest

from edgebnn import files
from edgebnn.errors import EdgebnnError


def tree(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_text_is_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.md", "µ\nb\n")
    assert tree(tmp_path) == {"a.md": "µ\nb\n".encode()}


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt])
def test_block_that_fails_leaves_the_old_file(error: type[BaseException], tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "old")
    refused = pytest.raises(EdgebnnError if error is OSError else error)
    with refused, files.replacing(tmp_path / "a") as file:
        file.write(b"new")
        raise error("no more")
    assert tree(tmp_path) == {"a": b"old"}


@pytest.mark.parametrize("name", ["no/a", "file/a", "folder"])
def test_path_that_cannot_be_written_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(EdgebnnError) as refusal:
        files.write_text(tmp_path / name, "text")
    assert str(refusal.value).startswith(f"cannot write {tmp_path / name}: ")
    assert tree(tmp_path) == {"file": b""}


def test_texts_are_written_all_or_none(tmp_path: Path) -> None:
    assert files.write_texts(tmp_path, {"a": "1", "src/b": "2"}) == [
        tmp_path / "a",
        tmp_path / "src" / "b",
    ]
    assert tree(tmp_path) == {"a": b"1", "b": b"2"}
    with pytest.raises(EdgebnnError) as refusal:
        files.write_texts(tmp_path, {"a": "3", "src/b": "4", "a/c": "5"})
    assert str(refusal.value).startswith(f"cannot write to {tmp_path}: ")
    assert tree(tmp_path) == {"a": b"1", "b": b"2"}
