/*
 * A Cortex-M without a framework: start-up, vectors, clock and the main loop.
 *
 * Flags say what the board has: -D PORT_CORTEX_M_HZ=16000000, at how many Hz the CPU and SysTick
 * run; -D PORT_UART_..., which of the uart_*.c; -D PORT_VIRTUAL if it is emulated.
 */
#include "edgebnn_port.h"

#if defined(PORT_CORTEX_M_HZ)

#include <stdbool.h>

#include "port_bare.h"
#include "port_dwt.h"
#include "port_uart.h"

#define CPACR (*(volatile uint32_t *)0xE000ED88u)
#define ICSR (*(const volatile uint32_t *)0xE000ED04u)
#define SYST_CSR (*(volatile uint32_t *)0xE000E010u)
#define SYST_RVR (*(volatile uint32_t *)0xE000E014u)
#define SYST_CVR (*(volatile uint32_t *)0xE000E018u)

#define ICSR_PENDSTSET (1u << 26)

/* SysTick starts again twice a second, which its 24 bits allow up to 33 MHz. */
#define PERIOD (PORT_CORTEX_M_HZ / 2u)
#if PORT_CORTEX_M_HZ / 2 > 1 << 24
#error "SysTick is too short for half a second at PORT_CORTEX_M_HZ; divide the second further"
#endif

/* QEMU's -icount shift=8: an instruction takes 256 ns of the time that SysTick counts. */
#define INSTRUCTIONS_PER_SECOND 3906250u

void port_reset(void);

static volatile uint32_t periods;
static bool dwt_counts;

/* Whole periods of SysTick, and in `*rest` its ticks since; both of the same moment. */
static uint32_t systick(uint32_t *rest)
{
    uint32_t whole;
    uint32_t left;

    do {
        whole = periods;
        left = SYST_CVR;
    } while ((ICSR & ICSR_PENDSTSET) != 0u || periods != whole);
    *rest = PERIOD - 1u - left;
    return whole;
}

uint32_t port_ticks(void)
{
    uint32_t rest;

    if (dwt_counts) {
        return dwt_cycles();
    }
    const uint32_t whole = systick(&rest);
#if defined(PORT_VIRTUAL)
    /* rest * INSTRUCTIONS_PER_SECOND / HZ, reduced by 31250 so that it fits 32 bits. */
    return whole * (INSTRUCTIONS_PER_SECOND / 2u) + rest * 125u / (PORT_CORTEX_M_HZ / 31250u);
#else
    return whole * PERIOD + rest;
#endif
}

enum port_unit port_unit(void)
{
#if defined(PORT_VIRTUAL)
    return PORT_INSTRUCTIONS;
#else
    return dwt_counts ? PORT_CYCLES : PORT_TIMER;
#endif
}

uint32_t port_hz(void)
{
#if defined(PORT_VIRTUAL)
    return 0u;
#else
    return PORT_CORTEX_M_HZ;
#endif
}

void port_stop(int status)
{
#if defined(PORT_VIRTUAL)
    /* Semihosting: SYS_EXIT_EXTENDED with ADP_Stopped_ApplicationExit ends the emulator. */
    const uint32_t block[2] = {0x20026u, (uint32_t)status};
    register uint32_t operation __asm__("r0") = 0x20u;
    register const uint32_t *argument __asm__("r1") = block;
    __asm__ volatile("bkpt 0xAB" : "+r"(operation) : "r"(argument) : "memory");
#else
    (void)status;
#endif
    for (;;) {
    }
}

static void clock_start(void)
{
#if !defined(PORT_VIRTUAL)
    dwt_counts = dwt_start();
#endif
    SYST_RVR = PERIOD - 1u;
    SYST_CVR = 0u;
    SYST_CSR = 7u; /* the CPU's clock, an interrupt for each period, on */
}

void port_reset(void)
{
    bare_start();
#if defined(__ARM_FP)
    CPACR |= 0xFu << 20; /* until then an instruction of the FPU faults */
    __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
    uart_start();
    clock_start();
    bare_run();
}

static void fault(void)
{
    port_stop(FAULT_STATUS);
}

static void systick_wraps(void)
{
    periods++;
}

/* The initial stack pointer and the 15 system exceptions; no other interrupt is enabled. */
static const struct {
    const uint32_t *stack;
    void (*handlers[15])(void);
} vectors __attribute__((section(".vectors"), used)) = {
    port_stack_top,
    {port_reset, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault,
        fault, systick_wraps},
};

#endif
