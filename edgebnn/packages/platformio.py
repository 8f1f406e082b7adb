"""A library for PlatformIO: its folder goes under a project's ``lib/``."""

import json
from dataclasses import replace

from edgebnn._version import __version__
from edgebnn.codegen.library import Library
from edgebnn.packages.base import DESCRIPTION
from edgebnn.targets import get_target
from edgebnn.targets.base import Target


def wrap(library: Library) -> Library:
    """``library`` with a manifest, ``library.json``, beside its ``src/``."""
    manifest = {
        "name": library.name,
        "version": __version__,
        "description": DESCRIPTION,
        "frameworks": "*",
        "platforms": _platforms(get_target(library.target)),
        "headers": f"{library.name}.h",
        # Without it gcc may turn loops into calls of memset; the library wants no libc.
        "build": {"flags": "-ffreestanding"},
    }
    text = json.dumps(manifest, indent=2) + "\n"
    return replace(library, files={**library.files, "library.json": text})


def _platforms(target: Target) -> str | list[str]:
    """Code for 32 bits runs everywhere else, and refuses to be compiled for an AVR."""
    return ["atmelavr", "edgebnn_emu"] if target.cpu.arch == "avr" else "*"
