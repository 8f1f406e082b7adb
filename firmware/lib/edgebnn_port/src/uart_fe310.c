/*
 * UART0 of SiFive's FE310-G002 (manual v1p4, chapters 6, 17 and 18) on the pins 16 and 17: on a
 * HiFive1 they lead to the USB socket.
 */
#include "port_uart.h"

#if defined(PORT_UART_FE310)

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define PRCI_HFROSCCFG REGISTER(0x10008000u)
#define PRCI_HFXOSCCFG REGISTER(0x10008004u)
#define PRCI_PLLCFG REGISTER(0x10008008u)
#define PRCI_PLLOUTDIV REGISTER(0x1000800Cu)
#define GPIO_IOF_EN REGISTER(0x10012038u)
#define GPIO_IOF_SEL REGISTER(0x1001203Cu)
#define UART_TXDATA REGISTER(0x10013000u)
#define UART_RXDATA REGISTER(0x10013004u)
#define UART_TXCTRL REGISTER(0x10013008u)
#define UART_RXCTRL REGISTER(0x1001300Cu)
#define UART_DIV REGISTER(0x10013018u)

#define OSCILLATOR_ON (1u << 30)
#define OSCILLATOR_READY (1u << 31)
#define PLL_SELECTED (1u << 16)
#define PLL_REFERENCE_CRYSTAL (1u << 17)
#define PLL_BYPASSED (1u << 18)
#define PLL_NOT_DIVIDED (1u << 8)
#define UART_PINS (3u << 16)
#define NOT_NOW (1u << 31) /* of both data registers: there is no room, or no byte */

/* The ring oscillator that the core starts with is too inexact for a serial line. */
static void run_from_crystal(void)
{
    PRCI_HFXOSCCFG = OSCILLATOR_ON;
    while ((PRCI_HFXOSCCFG & OSCILLATOR_READY) == 0u) {
    }
    PRCI_PLLOUTDIV = PLL_NOT_DIVIDED;
    PRCI_PLLCFG = PLL_BYPASSED | PLL_REFERENCE_CRYSTAL;
    PRCI_PLLCFG = PLL_BYPASSED | PLL_REFERENCE_CRYSTAL | PLL_SELECTED;
    PRCI_HFROSCCFG &= ~OSCILLATOR_ON;
}

void uart_start(void)
{
    run_from_crystal();
    GPIO_IOF_SEL &= ~UART_PINS;
    GPIO_IOF_EN |= UART_PINS;
    UART_DIV = PORT_RISCV_HZ / 115200u - 1u;
    UART_TXCTRL = 1u;
    UART_RXCTRL = 1u;
}

void port_put(uint8_t byte)
{
    while ((UART_TXDATA & NOT_NOW) != 0u) {
    }
    UART_TXDATA = byte;
}

int uart_get(void)
{
    const uint32_t data = UART_RXDATA;

    return (data & NOT_NOW) != 0u ? -1 : (int)(data & 0xFFu);
}

#endif
