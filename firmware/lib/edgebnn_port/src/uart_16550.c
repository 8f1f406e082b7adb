/* The 16550 of QEMU's machine "virt"; registers of a byte each. */
#include "port_uart.h"

#if defined(PORT_UART_16550)

#define UART(offset) (*(volatile uint8_t *)(0x10000000u + (offset)))
#define DATA UART(0u)
#define LSR UART(5u)

#define LSR_READY 0x01u
#define LSR_EMPTY 0x20u

void uart_start(void)
{
}

void port_put(uint8_t byte)
{
    while ((LSR & LSR_EMPTY) == 0u) {
    }
    DATA = byte;
}

int uart_get(void)
{
    return (LSR & LSR_READY) != 0u ? (int)DATA : -1;
}

#endif
