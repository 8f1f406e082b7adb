// As much of an Arduino core as the firmware uses, on this computer.
#ifndef ARDUINO_H
#define ARDUINO_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define F_CPU 1000000

#if defined(ARDUINO_ARCH_STM32)
extern "C" uint32_t SystemCoreClock;
#endif

void setup();
void loop();

static inline unsigned long micros()
{
    return static_cast<unsigned long>(clock()) * (1000000 / CLOCKS_PER_SEC);
}

static inline void delay(unsigned long)
{
}

struct Line {
    int next = EOF;

    void begin(unsigned long) {}
    explicit operator bool() const { return true; }
    int available()
    {
        fflush(stdout);
        next = next == EOF ? getchar() : next;
        if (next == EOF) {
            exit(0);
        }
        return 1;
    }
    int read()
    {
        const int byte = next;
        next = EOF;
        return byte;
    }
    size_t write(uint8_t byte) { return putchar(byte) == EOF ? 0 : 1; }
    void flush() { fflush(stdout); }
};

static Line Serial;

#endif
