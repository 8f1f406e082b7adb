"""Targets: everything that the generator and the tools must know about a CPU, one row each.

A new CPU is one more :class:`Target` in :data:`TARGETS`; nothing else in the package names a CPU.
"""

from dataclasses import dataclass, replace

from edgebnn.errors import EdgebnnError


@dataclass(frozen=True, slots=True)
class Machine:
    """A bare-metal memory map that emulators offer and the test harness links for.

    ``qemu`` names the QEMU machine. Inputs are placed at ``input_address`` before the program
    starts; results leave through the UART whose data register is ``uart_data``.
    """

    qemu: str
    flash: int
    flash_bytes: int
    ram: int
    ram_bytes: int
    input_address: int
    input_bytes: int
    uart: str  # "cmsdk" or "nrf51": the driver in the harness
    uart_base: int


@dataclass(frozen=True, slots=True)
class Cpu:
    """What the code generator must know of a CPU; ``word_bits`` is the width it computes in."""

    name: str
    word_bits: int = 32


@dataclass(frozen=True, slots=True)
class Target:
    """One CPU: how to compile for it and what emulates it.

    ``gcc_flags`` select the CPU for a GNU cross compiler, ``zig_flags`` for clang as shipped in
    the ``ziglang`` wheel. ``unicorn_cpu`` names the Unicorn CPU model (``UC_CPU_ARM_...``).
    ``kernels`` lists kernel names of :mod:`edgebnn.kernels` in order of preference.
    """

    name: str
    title: str
    cpu: Cpu
    kernels: tuple[str, ...]
    gcc: str
    gcc_flags: tuple[str, ...] = ()
    zig_flags: tuple[str, ...] = ()
    unicorn_cpu: str | None = None
    machine: Machine | None = None


_PORTABLE_KERNELS = ("rows", "subset_sums", "bit_planes", "bit_sliced", "direct")

_MPS2_AN386 = Machine(
    qemu="mps2-an386",
    flash=0x0000_0000,
    flash_bytes=4 << 20,
    ram=0x2000_0000,
    ram_bytes=4 << 20,
    input_address=0x2100_0000,
    input_bytes=16 << 20,
    uart="cmsdk",
    uart_base=0x4000_4000,
)
# The same, but external memory lies elsewhere.
_MPS2_AN500 = replace(_MPS2_AN386, qemu="mps2-an500", input_address=0x6000_0000)
_MICROBIT = Machine(
    qemu="microbit",
    flash=0x0000_0000,
    flash_bytes=0x0002_0000,
    ram=0x2000_0000,
    ram_bytes=16 << 10,
    input_address=0x0002_0000,
    input_bytes=0x0002_0000,
    uart="nrf51",
    uart_base=0x4000_2000,
)

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            name="host",
            title="this computer",
            cpu=Cpu("host"),
            kernels=_PORTABLE_KERNELS,
            gcc="cc",
        ),
        Target(
            name="cortex-m0",
            title="Arm Cortex-M0",
            cpu=Cpu("cortex-m0"),
            kernels=_PORTABLE_KERNELS,
            gcc="arm-none-eabi-gcc",
            gcc_flags=("-mcpu=cortex-m0", "-mthumb", "-mfloat-abi=soft"),
            zig_flags=("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0"),
            unicorn_cpu="UC_CPU_ARM_CORTEX_M0",
            machine=_MICROBIT,
        ),
        Target(
            name="cortex-m4",
            title="Arm Cortex-M4",
            cpu=Cpu("cortex-m4"),
            kernels=_PORTABLE_KERNELS,
            gcc="arm-none-eabi-gcc",
            gcc_flags=("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=soft"),
            zig_flags=("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m4"),
            unicorn_cpu="UC_CPU_ARM_CORTEX_M4",
            machine=_MPS2_AN386,
        ),
        Target(
            name="cortex-m7",
            title="Arm Cortex-M7",
            cpu=Cpu("cortex-m7"),
            kernels=_PORTABLE_KERNELS,
            gcc="arm-none-eabi-gcc",
            gcc_flags=("-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=soft"),
            zig_flags=("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m7"),
            unicorn_cpu="UC_CPU_ARM_CORTEX_M7",
            machine=_MPS2_AN500,
        ),
    )
}


def get_target(name: str) -> Target:
    """The target called ``name``.

    Raises:
        EdgebnnError: no such target; the message lists those there are.
    """
    try:
        return TARGETS[name]
    except KeyError:
        known = ", ".join(TARGETS)
        raise EdgebnnError(f"unknown target '{name}'; pick one of: {known}") from None
