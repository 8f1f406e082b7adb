"""How edgebnn writes files that it keeps: whole or not at all, whatever happens meanwhile.

New content goes into a hidden file beside the old one and takes its place in one step. An
exception, Ctrl-C included, leaves the old file as it was and nothing beside it.
"""

import contextlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from edgebnn.errors import EdgebnnError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` when the block ends well, and vanishes otherwise.

    Raises:
        EdgebnnError: for an OSError, in the block too; names ``path``.
    """
    partial = _partial(path)
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise EdgebnnError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        _remove(partial)


def write_text(path: Path, text: str) -> None:
    """``text`` as the UTF-8 file ``path``. Raises EdgebnnError as :func:`replacing` does."""
    with replacing(path) as file:
        file.write(text.encode())


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Files of ``folder`` (relative path -> text, UTF-8), all or none; returns their paths.

    Folders that are missing are made.

    Raises:
        EdgebnnError: for an OSError; names ``folder``.
    """
    paths = [folder / name for name in texts]
    try:
        for path, text in zip(paths, texts.values(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            _partial(path).write_bytes(text.encode())
        for path in paths:
            _partial(path).replace(path)
    except OSError as error:
        raise EdgebnnError(f"cannot write to {folder}: {error.strerror or error}") from None
    finally:
        for path in paths:
            _remove(_partial(path))
    return paths


def write_zip(path: Path, folder: str, texts: Mapping[str, str]) -> None:
    """``texts`` (relative path -> text) below ``folder`` in the archive ``path``.

    The same texts give the same bytes: entries have no date.

    Raises:
        EdgebnnError: as :func:`replacing`.
    """
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, text in texts.items():
            entry = zipfile.ZipInfo(f"{folder}/{name}")  # of 1980, the first day there is
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text.encode())


def _partial(path: Path) -> Path:
    """No two processes share one."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _remove(partial: Path) -> None:
    with contextlib.suppress(OSError):  # not there any more, or never was
        partial.unlink()
