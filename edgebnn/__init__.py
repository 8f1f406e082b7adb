"""edgebnn: binarized neural networks from PyTorch to a microcontroller, equal to the bit.

``edgebnn.save``, ``load``, ``generate`` and ``write`` are imported on first use, because they need
torch; :mod:`edgebnn.ir`, ``reference``, ``plan``, ``cost`` and ``codegen`` do not.
"""

from typing import TYPE_CHECKING, Any

from edgebnn._version import __version__ as __version__
from edgebnn.errors import EdgebnnError

if TYPE_CHECKING:
    from edgebnn.api import generate, load, read, release, save, write

__all__ = ["EdgebnnError", "generate", "load", "read", "release", "save", "write"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edgebnn' has no attribute '{name}'")
    try:
        from edgebnn import api
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise EdgebnnError("this needs torch: pip install 'edgebnn[train]'") from None
    return getattr(api, name)
