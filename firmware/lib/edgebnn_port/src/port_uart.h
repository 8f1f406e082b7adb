/* The serial line of a board without a framework; one uart_*.c for each kind of UART. */
#ifndef PORT_UART_H
#define PORT_UART_H

#include <stdint.h>

/** 115200 baud, 8N1. */
void uart_start(void);

/** Send a byte when there is room for it. */
void uart_put(uint8_t byte);

/** The next byte that has come in, or -1. */
int uart_get(void);

#endif
