"""Archives of torch: a zip of tensors and plain data, read without running code, and not damaged.

torch checks nothing that it reads. Here each member's CRC is compared first, which finds bytes that
have changed, and torch is given a clean archive of what was compared. :func:`digest` of the content
finds members of one file in another, and values that were changed and written again.
"""

import hashlib
import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from edgebnn.errors import EdgebnnError


def write(content: object, file: BinaryIO) -> None:
    """Write ``content`` to ``file``. A full disk is an OSError, which torch's own writer hides."""
    whole = io.BytesIO()
    crcs = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        torch.save(content, whole)
    finally:
        torch.serialization.set_crc32_options(crcs)
    file.write(whole.getbuffer())


def read(path: Path) -> Any:
    """What ``path`` holds, on the CPU. No code in it is ever run.

    Raises:
        EdgebnnError: it is no such archive, it is damaged, or it holds other objects.
    """
    if path.is_dir():
        raise EdgebnnError(f"{path} is a folder; give a model file")
    if path.exists() and not path.is_file():
        raise EdgebnnError(f"{path} is a device or a pipe; give a model file")
    if not path.is_file():
        raise EdgebnnError(f"{path}: no such file; `edgebnn train` makes one")
    try:
        if not zipfile.is_zipfile(path):
            raise EdgebnnError(
                f"{path}: not an edgebnn model, or cut short; train or copy it again"
            )
        checked = _checked(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(checked, map_location="cpu", weights_only=True)
    except EdgebnnError:
        raise
    except zipfile.BadZipFile as error:
        raise EdgebnnError(f"{path}: damaged ({error}); copy it again") from None
    except pickle.UnpicklingError:
        raise EdgebnnError(
            f"{path}: refused, the file holds code or objects other than tensors and plain data"
        ) from None
    except OSError as error:
        raise EdgebnnError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # zipfile and torch raise many types for a damaged archive
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EdgebnnError(f"{path}: not an edgebnn model, or damaged ({reason})") from None


def _checked(path: Path) -> io.BytesIO:
    """The members of an archive in a new one, if their CRCs are right.

    Two readers of one archive may see different things: an attribute of a member that zipfile
    skips makes torch take it for a folder, and give a tensor of whatever was in memory.
    """
    checked = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(checked, "w") as copy:
        members = {member.filename: member for member in archive.infolist()}
        if sum(member.file_size for member in members.values()) > path.stat().st_size:
            raise zipfile.BadZipFile("its members are larger than itself")
        for name, member in members.items():
            copy.writestr(name, archive.read(member))
    checked.seek(0)
    return checked


def digest(content: object) -> str:
    """SHA-256 of tensors and plain data, the same before :func:`write` and after :func:`read`.

    Raises:
        EdgebnnError: there is something else in it, or a tensor that is larger than its bytes.
    """
    return _digest(content, {}).hex()


def _digest(value: object, known: dict[int, bytes]) -> bytes:
    """``known`` has the digests of containers: a few of them can be a tree of any size."""
    if id(value) in known:
        return known[id(value)]
    whole = hashlib.sha256()
    for part in _parts(value, known):
        whole.update(struct.pack("<Q", len(part)))
        whole.update(part)
    found = whole.digest()
    if isinstance(value, dict | list | tuple):
        known[id(value)] = found
    return found


def _parts(value: object, known: dict[int, bytes]) -> Iterator[bytes | memoryview]:
    match value:
        case dict():
            yield b"dict"
            for key, item in value.items():
                yield _digest(key, known)
                yield _digest(item, known)
        case list() | tuple():
            yield b"list" if isinstance(value, list) else b"tuple"
            for item in value:
                yield _digest(item, known)
        case Tensor():
            if value.layout != torch.strided or (
                value.untyped_storage().nbytes() < value.numel() * value.element_size()
            ):
                raise EdgebnnError("a tensor is sparse, or has fewer bytes than its shape says")
            yield f"tensor {value.dtype} {tuple(value.shape)}".encode()
            flat = value.detach().cpu().contiguous().reshape(-1)
            yield flat.view(torch.uint8).numpy().data
        case float():
            yield b"float"
            yield struct.pack("<d", value)
        case None | bool() | int() | str() | bytes():
            yield type(value).__name__.encode()
            yield value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")
        case _:
            raise EdgebnnError(f"a {type(value).__name__} is neither tensor nor plain data")
