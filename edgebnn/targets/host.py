"""This computer."""

from edgebnn.targets.base import Cpu, Native, Target

TARGETS = (
    Target(
        name="host",
        title="this computer",
        cpu=Cpu("this computer", arch="host", word_bits=32, features=frozenset({"mul", "vectors"})),
        toolchain=Native(("cc", "gcc", "clang")),
    ),
)
