/* What boards without a framework have in common: memory at the start, and the main loop. */
#ifndef PORT_BARE_H
#define PORT_BARE_H

#include "edgebnn_port.h"
#include "port_uart.h"

/** The status with which an emulated board ends after a fault. */
#define FAULT_STATUS 70

/* From the linker script. */
extern uint32_t port_data_load[], port_data_start[], port_data_end[];
extern uint32_t port_bss_start[], port_bss_end[], port_stack_top[];

/** Set up variables; nothing may look at one before. */
static inline void bare_start(void)
{
    /* volatile: or compilers make these loops calls of memcpy and memset, which nobody has. */
    const volatile uint32_t *from = port_data_load;

    for (volatile uint32_t *to = port_data_start; to < port_data_end; to++) {
        *to = *from;
        from++;
    }
    for (volatile uint32_t *to = port_bss_start; to < port_bss_end; to++) {
        *to = 0u;
    }
}

/** The program: never returns. */
static inline void bare_run(void)
{
    app_start();
    for (;;) {
        const int byte = uart_get();

        if (byte >= 0) {
            app_receive((uint8_t)byte);
        }
    }
}

#endif
