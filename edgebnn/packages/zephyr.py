"""A module for Zephyr: its folder goes into ``ZEPHYR_EXTRA_MODULES``."""

from edgebnn.codegen.library import Library
from edgebnn.packages.base import with_files


def wrap(library: Library) -> Library:
    """``library`` with ``zephyr/``: module.yml, CMakeLists.txt and Kconfig."""
    names = ("module.yml", "CMakeLists.txt", "Kconfig")
    return with_files(library, "zephyr", {f"zephyr/{name}": f"{name}.j2" for name in names})
