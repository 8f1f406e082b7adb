"""A component of ESP-IDF: its folder goes under a project's ``components/``."""

from edgebnn.codegen.library import Library
from edgebnn.packages import cmake
from edgebnn.packages.base import with_files


def wrap(library: Library) -> Library:
    """``library`` with the ``CMakeLists.txt`` of CMake and a manifest."""
    return with_files(cmake.wrap(library), "espidf", {"idf_component.yml": "idf_component.yml.j2"})
