/* A computer: the serial line is standard input and output, which may be a socket. */
#if !defined(ARDUINO) && !defined(PORT_CORTEX_M_HZ) && !defined(PORT_RISCV_HZ) && !defined(__AVR__)
#define PORT_HOST
#define _POSIX_C_SOURCE 199309L /* clock_gettime() */
#endif

#include "edgebnn_port.h"

#if defined(PORT_HOST)

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define NANOSECONDS 1000000000u

void port_put(uint8_t byte)
{
    (void)putchar(byte);
}

uint32_t port_ticks(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)now.tv_sec * NANOSECONDS + (uint32_t)now.tv_nsec;
}

enum port_unit port_unit(void)
{
    return PORT_TIMER;
}

uint32_t port_hz(void)
{
    return NANOSECONDS;
}

void port_stop(int status)
{
    exit(status);
}

int main(void)
{
    int byte;

    app_start();
    (void)fflush(stdout);
    while ((byte = getchar()) != EOF) {
        app_receive((uint8_t)byte);
        (void)fflush(stdout);
    }
    return 0;
}

#endif
