from SCons.Script import Default, DefaultEnvironment

env = DefaultEnvironment()
cpu = ["-march=rv32imac", "-mabi=ilp32", "-mcmodel=medlow"]
env.Replace(
    AR="riscv64-unknown-elf-gcc-ar",
    CC="riscv64-unknown-elf-gcc",
    CXX="riscv64-unknown-elf-g++",
    LINK="riscv64-unknown-elf-gcc",
    RANLIB="riscv64-unknown-elf-gcc-ranlib",
    PROGNAME="firmware",
    PROGSUFFIX=".elf",
    ARFLAGS=["rc"],
)
env.Append(
    CCFLAGS=[*cpu, "-Os", "-ffunction-sections", "-fdata-sections", "-Wall"],
    CPPDEFINES=[("F_CPU", "$BOARD_F_CPU")],
    LINKFLAGS=[*cpu, "-Os", "-Wl,--gc-sections,--relax"],
)
Default(env.Alias("buildprog", env.BuildProgram()))
