"""AVR microcontrollers of 8 bits: constants stay in flash, which is an address space of its own."""

from edgebnn.targets.base import Cpu, Cross, Machine, Region, Simavr, Target

_K = 1024
_RAM = 0x80_0000  # what a linker adds to addresses of data

_ATMEGA328P = Machine(
    name="atmega328p",
    flash=Region(0, 32 * _K),
    ram=Region(_RAM + 0x100, 2 * _K),
    stack=128,
)
# The same instructions, and more memory than a test program needs. __flash reaches half of it.
_ATMEGA1284P = Machine(
    name="atmega1284p",
    flash=Region(0, 128 * _K),
    ram=Region(_RAM + 0x100, 16 * _K),
    stack=128,
)

TARGETS = (
    Target(
        name="avr",
        title="Microchip ATmega328P",
        cpu=Cpu(
            "ATmega328P",
            arch="avr",
            word_bits=8,
            index="uint16_t",
            constant="const __flash",
        ),
        toolchain=Cross(
            gcc="avr-gcc",
            gcc_package="gcc-avr avr-libc",
            gcc_flags=("-mmcu=atmega328p",),
            # GNU C has __flash; avr-gcc 5.4 calls some tables that became code uninitialized.
            dialect=("-std=gnu99", "-Wno-uninitialized"),
        ),
        emulators=(
            Simavr("atmega328p", 16_000_000, _ATMEGA328P),
            Simavr("atmega1284p", 16_000_000, _ATMEGA1284P),
        ),
        flash=32 * _K,
        ram=2 * _K,
    ),
)
