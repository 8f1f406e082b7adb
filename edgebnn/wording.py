"""Numbers with their nouns."""

_HISSING = ("s", "x", "ch")


def counted(count: int, noun: str) -> str:
    """(33612, "byte") -> "33 612 bytes", (1, "byte") -> "1 byte"."""
    number = f"{count:,}".replace(",", " ")
    if count == 1:
        return f"{number} {noun}"
    return f"{number} {noun}es" if noun.endswith(_HISSING) else f"{number} {noun}s"
