/*
 * An ATmega328P without a framework; what runs before main() is avr-libc's.
 *
 * Flags say what the board has: -D F_CPU=16000000, at how many Hz it runs; -D PORT_VIRTUAL if it
 * is simulated. The serial line is USART0, on the pins 0 and 1 of an Arduino Uno.
 */
#include "edgebnn_port.h"

#if defined(__AVR__) && !defined(ARDUINO)

#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>

/* 115200 baud at 8 clocks a bit, which at 16 MHz is 2 % nearer than at 16. */
#define DIVISOR ((F_CPU / 8u + 115200u / 2u) / 115200u - 1u)

static volatile uint16_t overflows; /* of the timer's 16 bits */

ISR(TIMER1_OVF_vect)
{
    overflows++;
}

void port_put(uint8_t byte)
{
    while ((UCSR0A & (1u << UDRE0)) == 0u) {
    }
    UCSR0A = 1u << U2X0 | 1u << TXC0; /* a one clears TXC0 */
    UDR0 = byte;
}

uint32_t port_ticks(void)
{
    const uint8_t status = SREG;

    cli();
    const uint16_t low = TCNT1;
    uint16_t high = overflows;
    if ((TIFR1 & (1u << TOV1)) != 0u && low < 0x8000u) {
        high++; /* its interrupt waits for this function */
    }
    SREG = status;
    return (uint32_t)high << 16 | low;
}

enum port_unit port_unit(void)
{
#if defined(PORT_VIRTUAL)
    return PORT_SIMULATED;
#else
    return PORT_CYCLES;
#endif
}

uint32_t port_hz(void)
{
    return F_CPU;
}

void port_stop(int status)
{
    (void)status;
    while ((UCSR0A & (1u << TXC0)) == 0u) {
    }
    cli();
    for (;;) {
        sleep_mode(); /* where nothing can wake it: the end, also for a simulator */
    }
}

int main(void)
{
    UCSR0A = 1u << U2X0;
    UBRR0 = DIVISOR;
    UCSR0B = 1u << RXEN0 | 1u << TXEN0;
    TCCR1B = 1u << CS10; /* counts cycles */
    TIMSK1 = 1u << TOIE1;
    sei();
    app_start();
    for (;;) {
        if ((UCSR0A & (1u << RXC0)) != 0u) {
            app_receive(UDR0);
        }
    }
}

#endif
