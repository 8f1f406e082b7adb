"""Tensilica Xtensa cores of Espressif chips: the ABI is call0 on an LX106, windowed on an LX6."""

from edgebnn.targets.base import Cpu, Cross, Machine, Qemu, Region, Target

# QEMU's machine of a core and memories, which are all RAM. The core starts where flash begins here,
# and the clock is its CCOUNT.
_SIM = Machine(
    name="sim",
    flash=Region(0x5000_0000, 4 << 20),
    ram=Region(0x6000_0000, 4 << 20),
    inputs=Region(0x6100_0000, 16 << 20),
    uart="simcall",
    clock_hz=40_000_000,
)
_QEMU = Qemu("qemu-system-xtensa", "qemu-system-misc", _SIM, ("-cpu", "lx106", "-semihosting"))
_MUL = frozenset({"mul"})

TARGETS = (
    Target(
        name="esp8266",
        title="Espressif ESP8266 (LX106)",
        # Its flash can be read in whole words alone; Arduino copies constants to RAM.
        cpu=Cpu("LX106", arch="xtensa", word_bits=32, constants_in_ram=True, features=_MUL),
        toolchain=Cross(
            gcc="xtensa-lx106-elf-gcc",
            gcc_package="gcc-xtensa-lx106",
            gcc_flags=("-mlongcalls", "-mtext-section-literals"),  # as Arduino's
        ),
        emulators=(_QEMU,),
    ),
    Target(
        name="esp32",
        title="Espressif ESP32 (LX6)",
        cpu=Cpu("LX6", arch="xtensa", word_bits=32, features=_MUL),
        toolchain=Cross(gcc="xtensa-esp32-elf-gcc", gcc_package="", gcc_flags=("-mlongcalls",)),
        doubt="not emulated, nor assembled: the C of esp8266",
    ),
)
