"""Arm Cortex-M cores, each on a machine that QEMU has; a new core is one more row."""

from dataclasses import replace

from edgebnn.targets.base import (
    Abi,
    Cpu,
    Cross,
    Machine,
    Qemu,
    Region,
    Target,
    Unicorn,
)

# Procedure Call Standard for the Arm Architecture, 6.1.1. A Thumb instruction has two halfwords if
# the top five bits of the first are 0b11101, 0b11110 or 0b11111 (Armv7-M Architecture Reference
# Manual, A5.1).
_THUMB = Abi(
    arch="UC_ARCH_ARM",
    modes=("UC_MODE_THUMB", "UC_MODE_MCLASS"),
    constants="arm_const",
    prefix="UC_ARM_REG_",
    arguments=("r0", "r1"),
    result="r0",
    stack="sp",
    stack_align=8,
    back="lr",
    pc="pc",
    kept=("r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11"),
    code_bit=1,
    wide_mask=0xF800,
    wide=(0xE800, 0xF000, 0xF800),
)

_MPS2_AN386 = Machine(
    name="mps2-an386",
    flash=Region(0x0000_0000, 4 << 20),
    ram=Region(0x2000_0000, 4 << 20),
    inputs=Region(0x2100_0000, 16 << 20),
    uart="cmsdk",
    uart_base=0x4000_4000,
    clock_hz=25_000_000,
)
_MPS2_AN385 = replace(_MPS2_AN386, name="mps2-an385")
# The same, but external memory lies elsewhere.
_MPS2_AN500 = replace(_MPS2_AN386, name="mps2-an500", inputs=Region(0x6000_0000, 16 << 20))
_MPS2_AN505 = Machine(
    name="mps2-an505",
    flash=Region(0x1000_0000, 4 << 20),
    ram=Region(0x3800_0000, 4 << 20),
    inputs=Region(0x8000_0000, 16 << 20),
    uart="cmsdk",
    uart_base=0x5020_0000,
    clock_hz=20_000_000,
)
_MPS3_AN547 = Machine(
    name="mps3-an547",
    flash=Region(0x0000_0000, 512 << 10),
    ram=Region(0x2000_0000, 512 << 10),
    inputs=Region(0x6000_0000, 16 << 20),
    uart="cmsdk",
    uart_base=0x5930_3000,
    clock_hz=32_000_000,
)
_MICROBIT = Machine(
    name="microbit",
    flash=Region(0x0000_0000, 0x0002_0000),
    ram=Region(0x2000_0000, 16 << 10),
    inputs=Region(0x0002_0000, 0x0002_0000),
    uart="nrf51",
    uart_base=0x4000_2000,
    clock_hz=16_000_000,
)
# In Unicorn any core has any memory; where QEMU's machine is a small one, this is not.
_ROOMY = replace(_MPS2_AN386, name="4 MB of flash and of RAM")


def _core(
    core: str, machine: Machine | None, *features: str, measured: Machine | None = None
) -> Target:
    """The target of a core by the suffix of its name, such as "m4".

    ``machine`` is QEMU's, ``measured`` is Unicorn's; None: that emulator does not have the core.
    """
    name = f"cortex-{core}"
    known_as = f"Cortex-{core.upper()}".replace("PLUS", "+")
    # Vectors lie in the registers of floats, and zig has to be told of them.
    helium = "helium" in features
    registers, eabi, more = ("hard", "eabihf", "+mve_fp") if helium else ("soft", "eabi", "")
    emulators: tuple[Unicorn | Qemu, ...] = ()
    if measured is not None:
        model = "M0" if core == "m0plus" else core.upper()  # both are Armv6-M
        emulators += (Unicorn(f"UC_CPU_ARM_CORTEX_{model}", _THUMB, measured),)
    if machine is not None:
        options = ("-semihosting-config", "enable=on,target=native")
        emulators += (Qemu("qemu-system-arm", "qemu-system-arm", machine, options),)
    return Target(
        name=name,
        title=f"Arm {known_as}",
        cpu=Cpu(known_as, arch="arm", word_bits=32, features=frozenset({"mul", *features})),
        toolchain=Cross(
            gcc="arm-none-eabi-gcc",
            gcc_package="gcc-arm-none-eabi",
            gcc_wheel="gcc_arm_none_eabi",
            gcc_flags=(f"-mcpu={name}", "-mthumb", f"-mfloat-abi={registers}"),
            zig_flags=("-target", f"thumb-freestanding-{eabi}", f"-mcpu=cortex_{core}{more}"),
        ),
        emulators=emulators,
        alike="cortex-m0" if "thumb1" in features else "cortex-m4",
    )


TARGETS = (
    _core("m0", _MICROBIT, "thumb1", measured=_ROOMY),
    _core("m0plus", _MICROBIT, "thumb1", measured=_ROOMY),
    _core("m3", _MPS2_AN385, "clz", "thumb2", measured=_MPS2_AN385),
    _core("m4", _MPS2_AN386, "clz", "thumb2", "dsp", measured=_MPS2_AN386),
    _core("m7", _MPS2_AN500, "clz", "thumb2", "dsp", measured=_MPS2_AN500),
    _core("m33", _MPS2_AN505, "clz", "thumb2", "dsp", measured=_ROOMY),
    _core("m55", _MPS3_AN547, "clz", "thumb2", "dsp", "helium"),
)
