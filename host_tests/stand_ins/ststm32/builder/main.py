from SCons.Script import Default, DefaultEnvironment

env = DefaultEnvironment()
cpu = ["-mthumb", "-mcpu=" + env.BoardConfig().get("build.cpu")]
env.Replace(
    AR="arm-none-eabi-gcc-ar",
    CC="arm-none-eabi-gcc",
    CXX="arm-none-eabi-g++",
    LINK="arm-none-eabi-gcc",
    RANLIB="arm-none-eabi-gcc-ranlib",
    PROGNAME="firmware",
    PROGSUFFIX=".elf",
    ARFLAGS=["rc"],
)
env.Append(
    CCFLAGS=[*cpu, "-Os", "-ffunction-sections", "-fdata-sections", "-Wall"],
    CPPDEFINES=[("F_CPU", "$BOARD_F_CPU")],
    LINKFLAGS=[*cpu, "-Os", "-Wl,--gc-sections,--relax"],
    LIBS=["c", "gcc", "m"],
)
Default(env.Alias("buildprog", env.BuildProgram()))
