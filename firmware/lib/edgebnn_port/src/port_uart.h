/*
 * The serial line of a board without a framework; one uart_*.c for each kind of UART, which also
 * has port_put().
 */
#ifndef PORT_UART_H
#define PORT_UART_H

#include "edgebnn_port.h"

/** 115200 baud, 8N1. */
void uart_start(void);

/** The next byte that has come in, or -1. */
int uart_get(void);

#endif
