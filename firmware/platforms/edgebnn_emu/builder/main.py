"""Builds for a virtual board with the compilers on PATH; "upload" starts it, "stop" ends it."""

import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

from SCons.Script import COMMAND_LINE_TARGETS, AlwaysBuild, Default, DefaultEnvironment

env = DefaultEnvironment()
board = env.BoardConfig()
prefix = board.get("build.compiler", "")  # of the compiler's name; none for this computer
sys.path.insert(0, str(Path(env.PioPlatform().get_dir(), "builder")))
import board_process  # noqa: E402
import emulators  # noqa: E402


def use_compiler(prefix, packages, *names):
    """Compile with the first of the compilers ``names`` that is on PATH."""
    for name in names:
        if shutil.which(prefix + name, path=env["ENV"]["PATH"]):
            break
    else:
        sys.stderr.write(f"Error: {prefix}{names[0]} is not on PATH; apt-get install {packages}\n")
        env.Exit(1)
    env.Replace(CC=prefix + name, LINK=prefix + name, AR=prefix + "ar", RANLIB=prefix + "ranlib")


if prefix:
    use_compiler(prefix, board.get("build.package"), "gcc")
    env.Replace(
        SIZETOOL=prefix + "size",
        SIZECHECKCMD="$SIZETOOL -A -d $SOURCES",
        SIZEPROGREGEXP=r"^(?:\.text|\.data)\s+(\d+).*",
        SIZEDATAREGEXP=r"^(?:\.data|\.bss)\s+(\d+).*",
    )
    # The same as edgebnn simulate compiles with, so that costs can be compared.
    flags = board.get("build.flags").split()
    env.Append(
        CCFLAGS=[*flags, "-ffunction-sections", "-fdata-sections"],
        LINKFLAGS=[*flags, "-Wl,--gc-sections"],
    )
else:
    use_compiler("", "gcc", "gcc", "clang", "cc")
env.Replace(PROGNAME="firmware", PROGSUFFIX=".elf", ARFLAGS=["rcs"])
env.Append(CCFLAGS=["-g"], CFLAGS=["-std=" + board.get("build.dialect", "c99")])
env.AddBuildMiddleware(lambda source: None, "*.cpp")  # Arduino's port; needs no C++ compiler here


def fail(problem):
    sys.stderr.write(f"Error: {problem}\n")
    return 1


def upload(source, target, env):
    """Start the virtual board with the program; it goes on when this build has ended."""
    url = env.subst("$UPLOAD_PORT") or env.GetProjectOption("upload_port", "")
    port = urlsplit(url)
    if port.scheme != "socket" or port.hostname != "127.0.0.1" or not port.port:
        return fail(f"upload_port is '{url}'; make it socket://127.0.0.1:NUMBER")
    program = str(Path(env.subst("$PROGPATH")).resolve())
    folder = Path(env.subst("$BUILD_DIR")).resolve()
    emulator = board.get("emulator", {})
    # A test that hangs must not do so for good: when the board ends, so does "pio test".
    seconds = int(env.GetProjectOption("custom_test_seconds"))
    try:
        board_process.start(
            emulators.command(emulator, program, folder) if emulator else [program],
            folder,
            port.port,
            emulated=bool(emulator),
            test_seconds=seconds if "__test" in COMMAND_LINE_TARGETS else 0,
        )
    except board_process.BoardError as error:
        return fail(error)
    print(f"The board runs, its serial line is {url}; -t stop ends it")
    return 0


def stop(source, target, env):
    """End the virtual board, if it runs."""
    try:
        board_process.stop(Path(env.subst("$BUILD_DIR")).resolve())
    except board_process.BoardError as error:
        return fail(error)
    return 0


program = env.BuildProgram()
AlwaysBuild(env.Alias("nobuild", program))
Default(env.Alias("buildprog", program))
env.AddPlatformTarget(
    "upload", program, env.VerboseAction(upload, "Starting the virtual board"), "Upload"
)
env.AddPlatformTarget(
    "stop", None, env.VerboseAction(stop, "Stopping the virtual board"), "Stop the virtual board"
)
