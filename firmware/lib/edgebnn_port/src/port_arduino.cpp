/* Any board with an Arduino core: the serial line is Serial. */
#include "edgebnn_port.h"

#if defined(ARDUINO)

#include <Arduino.h>

#include "port_dwt.h"

static bool dwt_counts;

void port_put(uint8_t byte)
{
    Serial.write(byte);
}

uint32_t port_ticks(void)
{
    return dwt_counts ? dwt_cycles() : (uint32_t)micros();
}

enum port_unit port_unit(void)
{
    return dwt_counts ? PORT_CYCLES : PORT_TIMER;
}

uint32_t port_hz(void)
{
    if (!dwt_counts) {
        return 1000000u;
    }
#if defined(ARDUINO_ARCH_STM32)
    return SystemCoreClock; /* F_CPU is what the board could run at */
#else
    return F_CPU;
#endif
}

void port_stop(int status)
{
    (void)status;
    Serial.flush();
    for (;;) {
        delay(1000); /* USB goes on in it */
    }
}

void setup(void)
{
    dwt_counts = dwt_start();
    Serial.begin(115200);
    while (!Serial) { /* where it is USB, until something on the other side opens it */
        delay(10);
    }
    app_start();
}

void loop(void)
{
    while (Serial.available() > 0) {
        app_receive((uint8_t)Serial.read());
    }
}

#endif
