"""Numbers with their nouns, and Markdown."""

from collections.abc import Sequence


def counted(count: int, noun: str) -> str:
    """(33612, "byte") -> "33 612 bytes", (1, "byte") -> "1 byte"."""
    number = f"{count:,}".replace(",", " ")
    return f"{number} {noun}" if count == 1 else f"{number} {noun}s"


def markdown(rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A Markdown table; the first row is its head, the first ``names`` columns are not numbers."""
    head, *body = rows
    rule = [*["---"] * names, *["---:"] * (len(head) - names)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))
