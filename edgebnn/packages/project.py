"""A whole PlatformIO project: the firmware, for every board, with a library under its ``lib/``.

The firmware is the folder ``firmware`` as it ships; two files are made for a model: a header that
names it, and ``platformio.ini``, in which its board is the default.
"""

from dataclasses import replace

from edgebnn import golden
from edgebnn._version import __version__
from edgebnn.codegen.env import render, resource_dir
from edgebnn.codegen.library import Library
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Network

_DEFAULT = "default_envs = native"  # of firmware/platformio.ini


def wrap(library: Library, network: Network, board: str) -> Library:
    """The project of ``library``, made from ``network``, for ``board`` unless told otherwise.

    The library's own files are in ``lib/<name>/``.

    Raises:
        EdgebnnError: the library is called as parts of the firmware are.
    """
    if library.name.startswith("edgebnn"):
        raise EdgebnnError(
            f"in a project, names that begin with edgebnn are the firmware's own; try "
            f"--name m_{library.name}"
        )
    firmware = resource_dir("firmware")
    files = {
        path.relative_to(firmware).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(firmware.rglob("*"))
        if path.is_file() and not _made(path.relative_to(firmware).parts)
    }
    files["platformio.ini"] = files["platformio.ini"].replace(_DEFAULT, f"default_envs = {board}")
    files["include/edgebnn_model.h"] = _binding(library, network)
    files |= {f"lib/{library.name}/{path}": text for path, text in library.files.items()}
    return replace(library, files=files)


def _made(parts: tuple[str, ...]) -> bool:
    """Whether a build made it, in a checkout in which somebody has built."""
    return ".pio" in parts or "__pycache__" in parts


def _binding(library: Library, network: Network) -> str:
    sums = golden.checksums(network)
    return render(
        "packages/project/edgebnn_model.h.j2",
        version=__version__,
        name=library.name,
        macro=library.name.upper(),
        target=library.target,
        prepare=library.prepare,
        self_test=library.self_test,
        golden=sums,
        golden_lines=tuple(f"0x{value:08X}u," for value in sums),
    )
