"""Archives of torch: a zip of tensors and plain data, read without running code, and not damaged.

torch checks nothing that it reads. Here each member's CRC is compared first; it finds bytes that
have changed. :func:`digest` of the content finds members of one file in another, and values that
were changed and written again.
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
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise EdgebnnError(
                f"{path}: damaged, the checksum of {damaged!r:.60} in it is another; copy it again"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except EdgebnnError:
        raise
    except pickle.UnpicklingError:
        raise EdgebnnError(
            f"{path}: refused, the file holds code or objects other than tensors and plain data"
        ) from None
    except OSError as error:
        raise EdgebnnError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # zipfile and torch raise many types for a damaged archive
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EdgebnnError(f"{path}: not an edgebnn model, or damaged ({reason})") from None


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
