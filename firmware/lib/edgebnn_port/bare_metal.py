"""Links for a board without a framework: PlatformIO runs this before it builds such a board.

Flash and RAM are as large as the board's manifest says. Nothing of libc is started or needed.
"""

from pathlib import Path

from SCons.Script import DefaultEnvironment

env = DefaultEnvironment()
board = env.BoardConfig()
symbols = {
    "port_flash_start": env.GetProjectOption("custom_flash_start", "0"),
    "port_flash_bytes": board.get("upload.maximum_size"),
    "port_ram_start": env.GetProjectOption("custom_ram_start", "0x20000000"),  # of a Cortex-M
    "port_ram_bytes": board.get("upload.maximum_ram_size"),
}
script = Path(env.subst("$PROJECT_DIR"), "lib", "edgebnn_port", "bare_metal.ld")
env.Append(
    CCFLAGS=["-ffreestanding"],
    LINKFLAGS=[
        "-nostdlib",
        *(f"-Wl,--defsym={name}={value}" for name, value in symbols.items()),
        f"-Wl,-T,{script}",
    ],
    LIBS=["gcc"],
)
