/*
 * The cycle counter in the debug unit of an Armv7-M core (Armv7-M Architecture Reference Manual,
 * C1.8), whatever else runs there. Smaller cores have none, and an emulator's may stand still.
 */
#ifndef PORT_DWT_H
#define PORT_DWT_H

#include <stdbool.h>
#include <stdint.h>

#if defined(__ARM_ARCH_7M__) || defined(__ARM_ARCH_7EM__)

#define DEMCR (*(volatile uint32_t *)0xE000EDFCu)
#define DWT_CTRL (*(volatile uint32_t *)0xE0001000u)
#define DWT_CYCCNT (*(volatile uint32_t *)0xE0001004u)

/* Start the counter; false if it does not count. */
static inline bool dwt_start(void)
{
    DEMCR |= 1u << 24; /* TRCENA */
    DWT_CTRL |= 1u;    /* CYCCNTENA */

    const uint32_t before = DWT_CYCCNT;
    return DWT_CYCCNT != before;
}

static inline uint32_t dwt_cycles(void)
{
    return DWT_CYCCNT;
}

#else

static inline bool dwt_start(void)
{
    return false;
}

static inline uint32_t dwt_cycles(void)
{
    return 0u;
}

#endif

#endif
