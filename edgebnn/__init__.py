"""edgebnn: binarized neural networks from PyTorch to a microcontroller, equal to the bit.

``edgebnn.save``, ``load``, ``generate`` and ``write`` are imported on first use, because they need
torch; :mod:`edgebnn.ir`, ``reference``, ``plan``, ``cost`` and ``codegen`` do not. ``edgebnn.cuda``
runs models on a GPU.

torch's threads wait for each other in a loop that takes a whole core from whoever else runs, unless
``OMP_WAIT_POLICY`` says "passive" before torch is imported; here it does if you have not set it.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from edgebnn._version import __version__ as __version__
from edgebnn.errors import EdgebnnError

if TYPE_CHECKING:
    from edgebnn import cuda as cuda
    from edgebnn.api import generate, load, read, release, save, write

__all__ = ["EdgebnnError", "calibrate", "generate", "load", "read", "release", "save", "write"]


os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name == "cuda":
        return importlib.import_module("edgebnn.cuda")
    if name not in __all__:
        raise AttributeError(f"module 'edgebnn' has no attribute '{name}'")
    try:
        from edgebnn import api
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        raise EdgebnnError("this needs torch: pip install 'edgebnn[train]'") from None
    return getattr(api, name)
