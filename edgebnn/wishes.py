"""What a user wishes of a plan: what it is to be best in, and the memory that there is."""

import re
from dataclasses import dataclass

from edgebnn.errors import EdgebnnError

#: What for kernels are chosen: "speed" is the fewest instructions, "size" the fewest bytes in
#: flash; "constant-time" leaves out kernels that take longer for some inputs.
OPTIMIZE = ("speed", "size", "constant-time")


@dataclass(frozen=True, slots=True)
class Wishes:
    """``ram`` and ``flash`` are bytes, None where there is enough.

    Raises:
        EdgebnnError: no such ``optimize``; the message lists those there are.
    """

    optimize: str = "speed"
    ram: int | None = None
    flash: int | None = None

    def __post_init__(self) -> None:
        if self.optimize not in OPTIMIZE:
            known = ", ".join(OPTIMIZE)
            raise EdgebnnError(f"unknown optimization '{self.optimize}'; pick one of: {known}")

    @property
    def constant_time(self) -> bool:
        return self.optimize == "constant-time"

    @property
    def any(self) -> bool:
        """Whether they differ from the usual."""
        return self != Wishes()


def size(text: str | None) -> int | None:
    """Bytes of a size: "16k" is 16 times 1024, "20000" so many bytes.

    Raises:
        EdgebnnError: it is none.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,8})([kK]?)", text)
    if match is None:
        raise EdgebnnError(f"'{text:.20}' is no size; give bytes, as in 20000, or 16k")
    return int(match[1]) * (1024 if match[2] else 1)
