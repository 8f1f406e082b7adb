/*
 * A RISC-V core of 32 bits without a framework.
 *
 * Flags say what the board has: -D PORT_RISCV_HZ=16000000, at how many Hz the core runs;
 * -D PORT_UART_..., which of the uart_*.c; -D PORT_VIRTUAL if it is QEMU's machine "virt".
 */
#include "port_bare.h"

#if defined(PORT_RISCV_HZ)

/*
 * Registers of the machine (The RISC-V Instruction Set Manual, volume II), by number: compilers do
 * not agree on whether their names need the extension Zicsr. Of a 12-bit immediate the assembler
 * wants the sign.
 */
#define CSR_READ(value, number) \
    __asm__ volatile(".insn i 0x73, 2, %0, x0, %1" : "=r"(value) : "i"((number) - 0x1000))
#define CSR_WRITE(number, value) \
    __asm__ volatile(".insn i 0x73, 1, x0, %0, %1" ::"r"(value), "i"(number))
#define MTVEC 0x305
#define MCYCLE 0xB00
#define MINSTRET 0xB02

/* QEMU's "virt": writing here ends it, with a status of 0 or another one above the 0x3333. */
#define TEST_DEVICE (*(volatile uint32_t *)0x00100000u)

void port_reset(void);
void port_main(void);

uint32_t port_ticks(void)
{
    uint32_t ticks;

#if defined(PORT_VIRTUAL)
    CSR_READ(ticks, MINSTRET);
#else
    CSR_READ(ticks, MCYCLE);
#endif
    return ticks;
}

enum port_unit port_unit(void)
{
#if defined(PORT_VIRTUAL)
    return PORT_INSTRUCTIONS;
#else
    return PORT_CYCLES;
#endif
}

uint32_t port_hz(void)
{
#if defined(PORT_VIRTUAL)
    return 0u;
#else
    return PORT_RISCV_HZ;
#endif
}

void port_stop(int status)
{
#if defined(PORT_VIRTUAL)
    TEST_DEVICE = status == 0 ? 0x5555u : (uint32_t)status << 16 | 0x3333u;
#else
    (void)status;
#endif
    for (;;) {
    }
}

static void __attribute__((aligned(4))) fault(void)
{
    port_stop(FAULT_STATUS);
}

void port_main(void)
{
    bare_start();
    CSR_WRITE(MTVEC, fault);
    uart_start();
    bare_run();
}

/* The first instructions of the image, where the core or a boot loader jumps to. */
__attribute__((naked, used, section(".vectors"))) void port_reset(void)
{
    __asm__ volatile("la sp, port_stack_top\n\ttail port_main");
}

#endif
