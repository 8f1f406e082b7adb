/*
 * USART2 of an STM32F4 on the pins PA2 and PA3 (RM0390, 7 and 25): on a Nucleo board they lead to
 * the ST-LINK, which is a serial port of the computer.
 */
#include "port_uart.h"

#if defined(PORT_UART_STM32F4)

#define RCC_AHB1ENR (*(volatile uint32_t *)0x40023830u)
#define RCC_APB1ENR (*(volatile uint32_t *)0x40023840u)
#define GPIOA_MODER (*(volatile uint32_t *)0x40020000u)
#define GPIOA_PUPDR (*(volatile uint32_t *)0x4002000Cu)
#define GPIOA_AFRL (*(volatile uint32_t *)0x40020020u)
#define USART2_SR (*(volatile uint32_t *)0x40004400u)
#define USART2_DR (*(volatile uint32_t *)0x40004404u)
#define USART2_BRR (*(volatile uint32_t *)0x40004408u)
#define USART2_CR1 (*(volatile uint32_t *)0x4000440Cu)

#define SR_ORE (1u << 3)
#define SR_RXNE (1u << 5)
#define SR_TXE (1u << 7)

void uart_start(void)
{
    RCC_AHB1ENR |= 1u;       /* GPIOA */
    RCC_APB1ENR |= 1u << 17; /* USART2 */
    (void)RCC_APB1ENR;       /* errata: a clock needs a moment after it is enabled */

    /* Both pins: alternate function 7; the input is pulled up, so that an open line is idle. */
    GPIOA_AFRL = (GPIOA_AFRL & ~(0xFFu << 8)) | 0x77u << 8;
    GPIOA_PUPDR = (GPIOA_PUPDR & ~(0xFu << 4)) | 0x4u << 4;
    GPIOA_MODER = (GPIOA_MODER & ~(0xFu << 4)) | 0xAu << 4;

    USART2_BRR = (PORT_CORTEX_M_HZ + 115200u / 2u) / 115200u;
    USART2_CR1 = 1u << 13 | 1u << 3 | 1u << 2; /* UE, TE, RE */
}

void port_put(uint8_t byte)
{
    while ((USART2_SR & SR_TXE) == 0u) {
    }
    USART2_DR = byte;
}

int uart_get(void)
{
    /* Reading SR, then DR also ends an overrun, until which nothing more would come in. */
    return (USART2_SR & (SR_RXNE | SR_ORE)) != 0u ? (int)(USART2_DR & 0xFFu) : -1;
}

#endif
