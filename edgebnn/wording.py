"""Numbers with their nouns."""


def counted(count: int, noun: str) -> str:
    """(33612, "byte") -> "33 612 bytes", (1, "byte") -> "1 byte"."""
    number = f"{count:,}".replace(",", " ")
    return f"{number} {noun}" if count == 1 else f"{number} {noun}s"
