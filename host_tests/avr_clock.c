/*
 * Reads the clock of port_avr.c twice, while the timer starts again after each number of cycles in
 * turn: also at each step within the second reading. Sends both readings, low bytes first.
 */
#include "port_avr.c"

#define MOST_CYCLES 64u

static void send(uint32_t number)
{
    for (uint8_t i = 0u; i < 4u; i++) {
        port_put((uint8_t)(number >> 8u * i));
    }
}

void app_start(void)
{
    for (uint16_t cycles = 0u; cycles < MOST_CYCLES; cycles++) {
        TCNT1 = (uint16_t)(0u - cycles);
        const uint32_t first = port_ticks();
        const uint32_t second = port_ticks();
        send(first);
        send(second);
    }
    port_stop(0);
}

void app_receive(uint8_t byte)
{
    (void)byte;
}
