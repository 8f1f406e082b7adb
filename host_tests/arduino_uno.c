/*
 * An Arduino UNO, simulated, with a computer on its serial line.
 *
 * arguments  a file with the contents of its flash, and the most cycles that it runs
 * input      what the computer says: frames, each with a zero before and behind it
 * output     what the board says
 *
 * The computer begins when the board has said something that ends in a zero, and sends the next
 * frame when it has said so again. The board is switched off after the answer to the last one.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_io.h>

#define CYCLES_PER_BYTE 1389u /* ten bits at 115 200 baud */

static bool computer_waits = true;

static void be_silent(avr_t *avr, const int level, const char *format, va_list values)
{
    (void)avr, (void)level, (void)format, (void)values;
}

/* The board says a byte; the zero before a frame ends nothing. */
static void hear(struct avr_irq_t *line, uint32_t byte, void *unused)
{
    static uint32_t before = 0u;

    (void)line, (void)unused;
    putchar((int)byte);
    if (byte == 0u && before != 0u) {
        computer_waits = false;
    }
    before = byte;
}

int main(int argc, char **argv)
{
    static uint8_t flash[32u << 10];
    FILE *const image = argc == 3 ? fopen(argv[1], "rb") : NULL;

    if (image == NULL) {
        fprintf(stderr, "arguments: a file with the contents of the flash, a number of cycles\n");
        return 1;
    }
    const size_t size = fread(flash, 1, sizeof flash, image);
    const avr_cycle_count_t last = strtoull(argv[2], NULL, 10);
    fclose(image);

    avr_global_logger_set(be_silent);
    avr_t *const avr = avr_make_mcu_by_name("atmega328p");
    avr_init(avr);
    avr->frequency = 16000000u;
    avr_loadcode(avr, flash, (uint32_t)size, 0);
    avr->codeend = avr->flashend;
    uint32_t no_pauses = 0u;
    avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &no_pauses);
    avr_irq_t *const line = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), 0);
    avr_irq_register_notify(line + UART_IRQ_OUTPUT, hear, NULL);

    avr_cycle_count_t free_at = 0u;
    int before = 0;
    while (avr->cycle < last) {
        const int state = avr_run(avr);

        if (state == cpu_Done || state == cpu_Crashed) {
            fprintf(stderr, "the CPU stopped at pc 0x%05x\n", (unsigned)avr->pc);
            return 1;
        }
        if (!computer_waits && avr->cycle >= free_at) {
            const int byte = getchar();

            if (byte == EOF) {
                break;
            }
            avr_raise_irq(line + UART_IRQ_INPUT, (uint32_t)byte);
            free_at = avr->cycle + CYCLES_PER_BYTE;
            computer_waits = byte == 0 && before != 0;
            before = byte;
        }
    }
    return 0;
}
