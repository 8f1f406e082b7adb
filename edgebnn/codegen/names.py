"""Names that are safe in C source and as files, whatever the user called things.

A library is ``digits.h`` with ``digits_predict()``, and its folder is on the include path: there
``sched.h`` hides POSIX's, ``servo.h`` Arduino's ``<Servo.h>`` where a file system knows no case. No
form of a header's name both keeps ``digits.h`` and cannot be another's: an affix would change it
for everybody, and a sub-folder is not what Arduino and PlatformIO look for. ``#include_next`` would
pass on what is hidden, but it is not C99. So one affix is suggested where it is needed: headers.txt
lists what ISO C, POSIX, glibc, newlib, avr-libc, compilers, Arduino, vendors and Windows have, and
such a name is refused with ``servo_net`` as the way out. Of all that is listed nothing ends in
``_net``, nor does it of what the compilers installed here bring; tests compare both.
"""

import functools
import re
from pathlib import Path

from edgebnn.errors import EdgebnnError

# The keywords of C and C++.
_RESERVED = frozenset(
    [
        "alignas",
        "alignof",
        "and",
        "and_eq",
        "asm",
        "auto",
        "bitand",
        "bitor",
        "bool",
        "break",
        "case",
        "catch",
        "char",
        "class",
        "compl",
        "const",
        "constexpr",
        "continue",
        "decltype",
        "default",
        "delete",
        "do",
        "double",
        "else",
        "enum",
        "explicit",
        "export",
        "extern",
        "false",
        "float",
        "for",
        "friend",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "main",
        "mutable",
        "namespace",
        "new",
        "noexcept",
        "not",
        "not_eq",
        "nullptr",
        "operator",
        "or",
        "or_eq",
        "private",
        "protected",
        "public",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "template",
        "this",
        "throw",
        "true",
        "try",
        "typedef",
        "typeid",
        "typename",
        "union",
        "unsigned",
        "using",
        "virtual",
        "void",
        "volatile",
        "while",
        "xor",
        "xor_eq",
    ]
)

# What file systems, build systems and the project of a firmware have taken.
_TAKEN = frozenset(
    [
        *("aux", "con", "nul", "prn", "com1", "com2", "com3", "com4", "lpt1", "lpt2", "lpt3"),
        *("all", "clean", "depend", "edit_cache", "help", "install", "list_install_components"),
        *("package", "package_source", "rebuild_cache", "test"),
        *("edgebnn", "edgebnn_link", "edgebnn_model", "edgebnn_port"),
    ]
)


@functools.cache
def headers() -> frozenset[str]:
    """The stems in headers.txt."""
    text = Path(__file__).with_name("headers.txt").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return frozenset(word for line in lines for word in line.split())


def _usable(name: str) -> bool:
    plain = re.fullmatch(r"[a-z](_?[a-z0-9]){0,40}", name)
    taken = name in _RESERVED or name in _TAKEN or name in headers() or name.endswith("intrin")
    return plain is not None and not taken


def check_prefix(name: str) -> str:
    """``name`` if it can begin every public C name and be a header's, ``name.h``, in lower case.

    Raises:
        EdgebnnError: it cannot; the message suggests one that can.
    """
    if _usable(name):
        return name
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:36].rstrip("_")
    choices = (plain, f"{plain}_net", f"m_{plain}", "model")
    suggestion = next(choice for choice in choices if _usable(choice))
    why = "is not usable as a C prefix"
    if name in headers():
        why = f"would hide another {name}.h"
    elif name in _TAKEN:
        why = "is a name that file systems or builds keep for themselves"
    raise EdgebnnError(f"'{name}' {why}; try --name {suggestion}")


def comment_text(text: str) -> str:
    """``text`` as it may stand in a C comment: nothing that ends one, no control characters."""
    return re.sub(r"[^A-Za-z0-9 _.,+-]", "_", text)[:60]
