"""Headers beside a library, on request: a test vector, by which a device's first run checks itself,
and the names of the classes.

Both are tables that a user includes where they are wanted: the library needs neither.
"""

import re
from dataclasses import dataclass

import numpy as np

from edgebnn import golden, reference
from edgebnn.codegen.prepare import Prepare
from edgebnn.codegen.views import ArrayView, array_view
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Network, told_apart
from edgebnn.kernels import Table
from edgebnn.targets.base import Cpu

_PLAIN = re.compile(r"[A-Za-z0-9 _.,+:;()/=<>!*-]")


@dataclass(frozen=True, slots=True)
class TablesView:
    """What a header of tables prints; ``attribute`` keeps a table in flash."""

    attribute: str
    arrays: tuple[ArrayView, ...]
    best: int  # the class of a test vector


@dataclass(frozen=True, slots=True)
class ClassNamesView:
    """The names as C spells them, each in ``size`` bytes with the zero at its end."""

    attribute: str
    size: int
    names: tuple[str, ...]


def vector_path(name: str) -> str:
    """Where the header of the test vector of library ``name`` is."""
    return f"src/{name}_vector.h"


def class_names_path(name: str) -> str:
    """Where the header of the class names of library ``name`` is."""
    return f"src/{name}_class_names.h"


def vector_view(name: str, network: Network, prepare: Prepare | None, cpu: Cpu) -> TablesView:
    """The first golden vector of ``network``; an image of such noise where images are prepared."""
    tables = []
    given = golden.inputs(network, 1)
    if prepare is not None:
        channels, height, width = prepare.image
        image = golden.noise(1, channels * height * width)
        tables.append(Table("image", "uint8_t", image[0]))
        given = prepare.inputs(image)
    outputs = reference.run(network, given)
    tables.append(Table("input", "uint8_t", given[0]))
    tables.append(Table("scores", "int32_t", outputs.scores[0].astype(np.int32)))
    arrays = tuple(array_view(f"{name}_vector", table, cpu) for table in tables)
    return TablesView(_attribute(cpu), arrays, int(outputs.classes[0]))


def class_names_view(network: Network, names: tuple[str, ...], cpu: Cpu) -> ClassNamesView:
    """``names``, one for each class.

    Raises:
        EdgebnnError: there are none.
    """
    if not names:
        count = told_apart(network.num_classes)
        raise EdgebnnError(
            f"the model has no names of its {count} classes; save it with class_names=[...]"
        )
    size = 1 + max(len(name.encode()) for name in names)
    return ClassNamesView(_attribute(cpu), size, tuple(_literal(name) for name in names))


def _attribute(cpu: Cpu) -> str:
    """C++, as sketches of Arduino are in, has no __flash; this is the same for both."""
    return "" if cpu.constant == "const" else " __attribute__((__progmem__))"


def _literal(text: str) -> str:
    """``text`` as a C string of UTF-8, in which no escape runs into the next character."""
    spelled = (
        chr(byte) if byte < 128 and _PLAIN.fullmatch(chr(byte)) else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{"".join(spelled)}"'
