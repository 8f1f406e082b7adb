/* The UART of Nordic's nRF51 (Series Reference Manual 3.0), on the pins of a micro:bit. */
#include "port_uart.h"

#if defined(PORT_UART_NRF51)

#define UART(offset) (*(volatile uint32_t *)(0x40002000u + (offset)))
#define STARTRX UART(0x000u)
#define STARTTX UART(0x008u)
#define RXDRDY UART(0x108u)
#define TXDRDY UART(0x11Cu)
#define ENABLE UART(0x500u)
#define PSELTXD UART(0x50Cu)
#define PSELRXD UART(0x514u)
#define RXD UART(0x518u)
#define TXD UART(0x51Cu)
#define BAUDRATE UART(0x524u)

void uart_start(void)
{
    PSELTXD = 24u;
    PSELRXD = 25u;
    BAUDRATE = 0x01D7E000u; /* 115200 */
    ENABLE = 4u;
    STARTTX = 1u;
    STARTRX = 1u;
}

void port_put(uint8_t byte)
{
    TXDRDY = 0u;
    TXD = byte;
    while (TXDRDY == 0u) {
    }
}

int uart_get(void)
{
    if (RXDRDY == 0u) {
        return -1;
    }
    RXDRDY = 0u; /* before the byte is taken: it rises again for the next one */
    return (int)(RXD & 0xFFu);
}

#endif
