"""Names that are safe in C source, whatever the user called things."""

import re

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


# Headers that <name>.h would hide.
_HEADERS = frozenset(
    [
        "arduino",
        "assert",
        "complex",
        "ctype",
        "errno",
        "fenv",
        "float",
        "inttypes",
        "iso646",
        "limits",
        "locale",
        "math",
        "memory",
        "new",
        "setjmp",
        "signal",
        "stdalign",
        "stdarg",
        "stdatomic",
        "stdbool",
        "stddef",
        "stdint",
        "stdio",
        "stdlib",
        "stdnoreturn",
        "string",
        "tgmath",
        "threads",
        "time",
        "uchar",
        "unistd",
        "wchar",
        "wctype",
    ]
)


def check_prefix(name: str) -> str:
    """``name`` if it can begin every public C name, in lower case.

    Raises:
        EdgebnnError: it cannot; the message suggests one that can.
    """
    plain = re.fullmatch(r"[a-z](_?[a-z0-9]){0,40}", name)
    if plain and name not in _RESERVED and name not in _HEADERS:
        return name
    suggestion = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:38]
    if not suggestion[:1].isalpha() or suggestion in _RESERVED | _HEADERS:
        suggestion = f"m_{suggestion}".rstrip("_")
    raise EdgebnnError(f"'{name}' is not usable as a C prefix; try --name {suggestion}")


def comment_text(text: str) -> str:
    """``text`` as it may stand in a C comment: nothing that ends one, no control characters."""
    return re.sub(r"[^A-Za-z0-9 _.,+-]", "_", text)[:60]
