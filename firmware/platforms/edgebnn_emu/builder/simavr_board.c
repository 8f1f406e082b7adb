/*
 * An AVR in simavr, its USART0 on a TCP socket; a virtual board, as board_process.py runs it.
 *
 * arguments  the microcontroller, its frequency, the program (ELF), and the number of an open file:
 *            a socket that listens
 * end        status 0 when the program sleeps for good; else one line on the standard error
 *
 * The machine starts with the first connection, and runs on when one ends: what it sends to nobody
 * is lost, as on a wire. While it only waits for a byte its time stands still.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>
#include <simavr/sim_irq.h>

#define CHUNK 32        /* bytes; simavr's own queue holds 64 */
#define IDLE_POLLS 2000 /* looks at an empty queue after which the program only waits */
#define PATIENCE 50     /* milliseconds */

static struct {
    int listener;
    int connection; /* -1: there is none */
    avr_irq_t *input;
    unsigned idle;
} line;

static void fail(const char *what, const char *which)
{
    fprintf(stderr, "%s %s\n", what, which);
    exit(1);
}

static void be_silent(avr_t *avr, const int level, const char *format, va_list values)
{
    (void)avr, (void)level, (void)format, (void)values;
}

static void hang_up(void)
{
    close(line.connection);
    line.connection = -1;
}

/* What has come in, at most CHUNK bytes; how many. */
static ssize_t take(uint8_t *bytes)
{
    if (line.connection < 0) {
        line.connection = accept(line.listener, NULL, NULL);
    }
    if (line.connection < 0) {
        return 0;
    }
    const ssize_t size = recv(line.connection, bytes, CHUNK, MSG_DONTWAIT);
    if (size == 0 || (size < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        hang_up();
    }
    return size > 0 ? size : 0;
}

/* The program has looked for a byte, and simavr's queue of them is empty. */
static void give_input(avr_irq_t *irq, uint32_t value, void *unused)
{
    uint8_t bytes[CHUNK];

    (void)irq, (void)value, (void)unused;
    if (line.idle >= IDLE_POLLS) {
        struct pollfd next = {.fd = line.connection < 0 ? line.listener : line.connection};
        next.events = POLLIN;
        (void)poll(&next, 1, PATIENCE);
    }
    const ssize_t size = take(bytes);
    line.idle = size > 0 ? 0u : line.idle + 1u;
    for (ssize_t i = 0; i < size; i++) {
        avr_raise_irq(line.input, bytes[i]);
    }
}

static void take_output(avr_irq_t *irq, uint32_t value, void *unused)
{
    const uint8_t byte = (uint8_t)value;

    (void)irq, (void)unused;
    line.idle = 0u;
    if (line.connection >= 0 && send(line.connection, &byte, 1, MSG_NOSIGNAL) < 0) {
        hang_up();
    }
}

static void connect_uart(avr_t *avr)
{
    uint32_t flags = 0u; /* neither simavr's own sleep, nor lines on standard output */

    avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
    line.input = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_INPUT);
    avr_irq_t *const output = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT);
    avr_irq_t *const room = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUT_XON);
    avr_irq_register_notify(output, take_output, NULL);
    avr_irq_register_notify(room, give_input, NULL);
}

int main(int argc, char **argv)
{
    elf_firmware_t firmware = {.frequency = 0};

    if (argc != 5) {
        fail("usage: simavr_board MCU HZ PROGRAM", "SOCKET");
    }
    avr_global_logger_set(be_silent);
    avr_t *const avr = avr_make_mcu_by_name(argv[1]);
    if (avr == NULL) {
        fail("simavr has no", argv[1]);
    }
    avr_init(avr);
    if (elf_read_firmware(argv[3], &firmware) != 0) {
        fail("this is no program for an AVR:", argv[3]);
    }
    firmware.frequency = (uint32_t)strtoul(argv[2], NULL, 10);
    avr_load_firmware(avr, &firmware);
    connect_uart(avr);

    line.listener = atoi(argv[4]);
    line.connection = accept(line.listener, NULL, NULL);
    if (line.connection < 0) {
        fail("nobody can connect to socket", argv[4]);
    }
    (void)fcntl(line.listener, F_SETFL, O_NONBLOCK);
    for (;;) {
        const int state = avr_run(avr);

        if (state == cpu_Done) {
            return 0;
        }
        if (state == cpu_Crashed) {
            fail("the CPU stopped in", argv[3]);
        }
    }
}
