"""Boards: each has a CPU that is a target, and its own flash and RAM.

A name is that of a PlatformIO environment in ``firmware/platformio.ini``, which is PlatformIO's
name of the board where there is one.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Board:
    """A board, real or emulated; ``target`` is the CPU that code for it is generated for.

    ``flash`` and ``ram`` are in bytes; None: as much as there is.
    """

    name: str
    title: str
    target: str
    flash: int | None
    ram: int | None
    emulated: bool = False


_K = 1024

BOARDS = {
    board.name: board
    for board in (
        Board("native", "this computer", "host", None, None, emulated=True),
        Board("qemu_m0", "BBC micro:bit in QEMU", "cortex-m0", 128 * _K, 16 * _K, emulated=True),
        Board("qemu_m4", "MPS2 AN386 in QEMU", "cortex-m4", 4096 * _K, 4096 * _K, emulated=True),
        Board("qemu_rv32", "RISC-V virt in QEMU", "rv32imc", 4096 * _K, 4096 * _K, emulated=True),
        Board("simavr_uno", "Arduino Uno in simavr", "avr", 32 * _K, 2 * _K, emulated=True),
        Board("nucleo_f446re", "ST Nucleo F446RE", "cortex-m4", 512 * _K, 128 * _K),
        Board("hifive1-revb", "SiFive HiFive1 Rev B", "rv32imc", 4032 * _K, 16 * _K),
        Board("uno", "Arduino Uno", "avr", 31 * _K + 512, 2 * _K),
        Board("nucleo_f030r8", "ST Nucleo F030R8", "cortex-m0", 64 * _K, 8 * _K),
        Board("blackpill_f411ce", "WeAct Black Pill F411CE", "cortex-m4", 512 * _K, 128 * _K),
        Board("pico", "Raspberry Pi Pico", "cortex-m0plus", 2048 * _K, 264 * _K),
        Board("teensy41", "PJRC Teensy 4.1", "cortex-m7", 7936 * _K, 512 * _K),
        Board("pico2", "Raspberry Pi Pico 2", "cortex-m33", 4096 * _K, 520 * _K),
        Board("esp32-c3-devkitm-1", "Espressif ESP32-C3", "rv32imc", 4096 * _K, 400 * _K),
        Board("esp32dev", "Espressif ESP32 DevKit", "esp32", 4096 * _K, 320 * _K),
        # Of its 4 MB the CPU sees 1, without what comes before and behind a program.
        Board("nodemcuv2", "NodeMCU 1.0 (ESP-12E)", "esp8266", 1_044_464, 80 * _K),
    )
}
