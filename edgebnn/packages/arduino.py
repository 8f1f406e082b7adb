"""A library for the Arduino IDE, with a sketch that uses it."""

from edgebnn.codegen.library import Library
from edgebnn.packages.base import with_files
from edgebnn.targets import get_target


def wrap(library: Library) -> Library:
    """``library`` with ``library.properties`` and an example."""
    arch = get_target(library.target).cpu.arch
    sketch = f"examples/{library.name}_once_a_second/{library.name}_once_a_second.ino"
    return with_files(
        library,
        "arduino",
        {"library.properties": "library.properties.j2", sketch: "example.ino.j2"},
        architectures="avr" if arch == "avr" else "*",
    )
