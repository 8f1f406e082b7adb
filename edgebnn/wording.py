"""Numbers with their nouns, what inputs are called, and Markdown."""

import re
from collections.abc import Sequence

_FIGURE = re.compile(r"\d (?:%|bytes|[kM]B)")


def counted(count: int, noun: str, nouns: str = "") -> str:
    """(33612, "byte") -> "33 612 bytes", (1, "byte") -> "1 byte"; ``nouns`` where an s is wrong."""
    number = f"{count:,}".replace(",", " ")
    return f"{number} {noun}" if count == 1 else f"{number} {nouns or f'{noun}s'}"


def kind(shape: Sequence[int]) -> str:
    """What an input of ``shape`` = (channels, height, width) is: "image", "signal" or "row"."""
    _, height, width = shape
    if width > 1:
        return "image"
    return "signal" if height > 1 else "row"


def without_figures(summary: str) -> str:
    """A recipe's summary without what is said of one model of it: its bytes, its accuracy."""
    parts = (part.split(", ") for part in summary.split("; "))
    kept = (", ".join(one for one in part if not _FIGURE.search(one)) for part in parts)
    return "; ".join(part for part in kept if part)


def markdown(rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A Markdown table; the first row is its head, the first ``names`` columns are not numbers."""
    head, *body = rows
    rule = [*["---"] * names, *["---:"] * (len(head) - names)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))
