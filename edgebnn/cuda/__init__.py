"""Networks on a GPU: their kernels, and running them from torch.

``load``, ``Runner`` and ``binary_matmul`` need torch and are imported on first use; the rest does
not need it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgebnn.cuda.matmul import binary_matmul
    from edgebnn.cuda.runner import Runner, load

__all__ = ["Runner", "binary_matmul", "load"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edgebnn.cuda' has no attribute '{name}'")
    try:
        from edgebnn.cuda import matmul, runner
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        from edgebnn.errors import EdgebnnError

        raise EdgebnnError("this needs torch: pip install 'edgebnn[train]'") from None
    return getattr(matmul if name == "binary_matmul" else runner, name)
