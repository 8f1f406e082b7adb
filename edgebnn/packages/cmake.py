"""A target for CMake, ``edgebnn::<name>``."""

from edgebnn.codegen.library import Library
from edgebnn.packages.base import with_files


def wrap(library: Library) -> Library:
    """``library`` with a ``CMakeLists.txt``, which serves ESP-IDF, too."""
    return with_files(library, "cmake", {"CMakeLists.txt": "CMakeLists.txt.j2"})
