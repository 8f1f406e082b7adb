"""Indentation of emitted C by its braces, so that templates may leave out a loop around a body."""

import re

_STEP = "    "
_WIDTH = 100
# Where a long line may go on in the next one: after a comma, before an operator.
_BREAK = re.compile(r"(?<=,) | (?=[-+*&|^?:] )| (?=(?:&&|\|\||<<|>>) )")
# And where it has none of these in reach: before a first argument, or what is assigned.
_FIRST = re.compile(r"(?<=\w\()(?![()])|(?<= =) (?!\{)")


def indented(text: str) -> str:
    """``text`` with each line indented by the braces around it, and code wrapped at 100 columns.

    Continued lines of a statement get one step more; comments keep their own shape and preprocessor
    lines the margin. Blank lines do not follow each other.
    """
    lines: list[str] = []
    braces = parentheses = 0
    comment = continued = False
    for raw in text.splitlines():
        line = raw.strip()
        if not line:
            if lines and lines[-1]:
                lines.append("")
            continue
        if comment or line.startswith("/*"):
            lines.append(_STEP * braces + (" " if comment else "") + line)
            comment = "*/" not in line
            continue
        if line.startswith("#"):
            lines.append(line)
            continue
        closing = len(line) - len(line.lstrip("}"))
        depth = braces - closing + (continued and not line.startswith("{"))
        lines += _wrapped(_STEP * depth, line, continued)
        code = line.split("/*")[0].rstrip()
        braces += code.count("{") - code.count("}")
        parentheses += code.count("(") - code.count(")")
        continued = parentheses > 0 or not code.endswith((";", "{", "}", ","))
    return "\n".join(lines) + "\n"


def _wrapped(indent: str, line: str, continued: bool) -> list[str]:
    """``line`` in pieces of at most 100 columns where it has places to break."""
    pieces = []
    while len(indent) + len(line) > _WIDTH:
        places = [match.start() for match in _BREAK.finditer(line)]
        fitting = [place for place in places if len(indent) + place <= _WIDTH]
        if not fitting:
            first = (match.start() for match in _FIRST.finditer(line.split("/*")[0]))
            fitting = [place for place in first if len(indent) + place <= _WIDTH]
        if not fitting:
            break
        pieces.append(indent + line[: fitting[-1]])
        line = line[fitting[-1] :].lstrip(" ")
        if not continued:
            indent, continued = indent + _STEP, True
    return [*pieces, indent + line]
