"""How edgebnn writes files that it keeps: whole or not at all, whatever happens meanwhile.

New content goes into a hidden file beside the old one and takes its place in one step. An
exception, Ctrl-C included, leaves the old file as it was and nothing beside it.

What will be written for hours has one writer, by a lock on another hidden file beside it. The
system drops the lock when the process ends, however it does.
"""

import contextlib
import errno
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from edgebnn.errors import EdgebnnError

_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_FIXES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "; make room, or write to another disk"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "; write to another folder"),
    errno.ENAMETOOLONG: "; give a shorter one",
}


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
        raise _unwritten(path, error) from None
    finally:
        _remove(partial)


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """No other process is in such a block for ``path`` meanwhile.

    Raises:
        EdgebnnError: somebody is; or nothing can be written beside ``path``.
    """
    from filelock import FileLock, Timeout

    check_room(path, 1)  # filelock takes a folder without room for a lock that another one holds
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise EdgebnnError(
            f"{path} is being written by another edgebnn; wait for it, or give another -o"
        ) from None
    except OSError as error:
        raise _unwritten(path, error) from None
    try:
        yield
    finally:
        _remove(file)  # while it is held: who waits for this very file looks for it again
        lock.release()


def check_room(path: Path, size: int) -> None:
    """Check that ``size`` bytes can be written in the place of ``path``; nothing is left there.

    Raises:
        EdgebnnError: the disk is full, or does not take a file there.
    """
    partial = _partial(path)
    try:
        with partial.open("wb") as file:
            if hasattr(os, "posix_fallocate"):  # which takes the blocks, where there are any
                os.posix_fallocate(file.fileno(), 0, max(1, size))
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise _unwritten(path, error) from None
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
        raise _unwritten(folder, error, "cannot write to") from None
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


def _unwritten(path: Path, error: OSError, what: str = "cannot write") -> EdgebnnError:
    fix = _FIXES.get(error.errno or 0, "")
    return EdgebnnError(f"{what} {path}: {error.strerror or error}{fix}")


def _partial(path: Path) -> Path:
    """No two processes share one."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _remove(partial: Path) -> None:
    with contextlib.suppress(OSError):  # not there any more, or never was
        partial.unlink()
