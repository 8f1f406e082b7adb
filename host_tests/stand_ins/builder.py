"""Builds for a board without a framework with the compiler on PATH, which its manifest names."""

from SCons.Script import Default, DefaultEnvironment

env = DefaultEnvironment()
prefix = env.BoardConfig().get("build.compiler")
flags = env.BoardConfig().get("build.flags").split()
env.Replace(
    AR=f"{prefix}gcc-ar",
    CC=f"{prefix}gcc",
    CXX=f"{prefix}g++",
    LINK=f"{prefix}gcc",
    RANLIB=f"{prefix}gcc-ranlib",
    PROGNAME="firmware",
    PROGSUFFIX=".elf",
    ARFLAGS=["rc"],
)
env.Append(
    CCFLAGS=[*flags, "-Os", "-ffunction-sections", "-fdata-sections", "-Wall"],
    CPPDEFINES=[("F_CPU", "$BOARD_F_CPU")],
    LINKFLAGS=[*flags, "-Os", "-Wl,--gc-sections,--relax"],
    LIBS=env.BoardConfig().get("build.libs", "").split(),
)
Default(env.Alias("buildprog", env.BuildProgram()))
