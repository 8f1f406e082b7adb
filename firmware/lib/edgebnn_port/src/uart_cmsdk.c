/* Arm's CMSDK APB UART of the Cortex-M System Design Kit (DDI 0479), as in FPGA images. */
#include "port_uart.h"

#if defined(PORT_UART_CMSDK)

#define UART(offset) (*(volatile uint32_t *)(0x40004000u + (offset)))
#define DATA UART(0x00u)
#define STATE UART(0x04u)
#define CTRL UART(0x08u)
#define BAUDDIV UART(0x10u)

#define TX_FULL 1u
#define RX_FULL 2u

void uart_start(void)
{
    BAUDDIV = PORT_CORTEX_M_HZ / 115200u;
    CTRL = 3u; /* transmitter and receiver on */
}

void port_put(uint8_t byte)
{
    while ((STATE & TX_FULL) != 0u) {
    }
    DATA = byte;
}

int uart_get(void)
{
    return (STATE & RX_FULL) != 0u ? (int)(DATA & 0xFFu) : -1;
}

#endif
