/*
 * What the firmware needs of a board: bytes in, bytes out, a clock.
 *
 * A port_*.c(pp) for each kind of board defines these; it also owns the entry of the program, and
 * calls app_start() once and then app_receive() with each byte that comes in.
 */
#ifndef EDGEBNN_PORT_H
#define EDGEBNN_PORT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What a tick of the clock is. */
enum port_unit {
    PORT_NO_CLOCK = 0,
    PORT_CYCLES = 1,       /* of the CPU, by its own cycle counter */
    PORT_TIMER = 2,        /* of a timer that runs at port_hz() */
    PORT_INSTRUCTIONS = 3, /* that an emulator has executed */
    PORT_SIMULATED = 4     /* cycles of the CPU, as an emulator times them */
};

/** Send a byte; waits until there is room for it. */
void port_put(uint8_t byte);

/** The clock, which counts up and starts again after its 32 bits. */
uint32_t port_ticks(void);

/** What port_ticks() counts, and how often in a second; 0 where that has no meaning. */
enum port_unit port_unit(void);
uint32_t port_hz(void);

/** End the program with a status where something waits for it; a board stays here for good. */
void port_stop(int status);

/* The application gives the port these two. */
void app_start(void);
void app_receive(uint8_t byte);

#ifdef __cplusplus
}
#endif

#endif
