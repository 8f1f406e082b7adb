"""Packages: what a build system wants beside the C of a library, one file a build system.

A package takes a :class:`edgebnn.codegen.library.Library` and returns it with files added. It
neither moves nor changes the header and the source, so whatever is compiled and measured is the
same in all of them. Nothing is written.
"""

from collections.abc import Callable

from edgebnn.codegen.library import Library
from edgebnn.errors import EdgebnnError
from edgebnn.packages import arduino, cmake, espidf, platformio, zephyr

_WRAPS: dict[str, tuple[Callable[[Library], Library], ...]] = {
    "c": (),
    "platformio": (platformio.wrap,),
    "arduino": (arduino.wrap,),
    "cmake": (cmake.wrap,),
    "espidf": (espidf.wrap,),
    "zephyr": (zephyr.wrap,),
}
FORMATS = (*_WRAPS, "all")
"""What :func:`wrap` takes; "all" is every build system at once, which do not get into each other's
way."""


def wrap(library: Library, form: str) -> Library:
    """``library`` with the files of a format.

    Raises:
        EdgebnnError: no such format; the message lists those there are.
    """
    if form not in FORMATS:
        raise EdgebnnError(f"unknown format '{form}'; pick one of: {', '.join(FORMATS)}")
    steps = [step for steps in _WRAPS.values() for step in steps]
    for step in steps if form == "all" else _WRAPS[form]:
        library = step(library)
    return library
