/*
 * As much of Unity's interface, and of what it prints, as the tests here need; the whole of it
 * would be a download.
 */
#ifndef UNITY_H
#define UNITY_H

#include "edgebnn_port.h"

#define UNITY_BEGIN() unity_begin(__FILE__)
#define UNITY_END() unity_end()
#define RUN_TEST(test) unity_run(test, #test, __LINE__)

#define TEST_ASSERT_EQUAL_HEX32(expected, actual) unity_equal((expected), (actual), __LINE__)
#define TEST_ASSERT_EQUAL_UINT(expected, actual) unity_equal((expected), (actual), __LINE__)

static struct {
    uint32_t tests;
    uint32_t failures;
    uint8_t failed; /* the test at hand */
    const char *file;
    const char *name;
} unity;

static inline void unity_text(const char *text)
{
    while (*text != '\0') {
        port_put((uint8_t)*text++);
    }
}

static inline void unity_number(uint32_t number)
{
    if (number >= 10u) {
        unity_number(number / 10u);
    }
    port_put((uint8_t)('0' + number % 10u));
}

static inline void unity_hex(uint32_t number)
{
    unity_text("0x");
    for (uint8_t shift = 32u; shift > 0u; shift = (uint8_t)(shift - 4u)) {
        port_put((uint8_t)"0123456789ABCDEF"[(number >> (shift - 4u)) & 15u]);
    }
}

/* The beginning of a line of a result, to which a message may be added. */
static inline void unity_result(const char *result, uint32_t line)
{
    port_put('\n');
    unity_text(unity.file);
    port_put(':');
    unity_number(line);
    port_put(':');
    unity_text(unity.name);
    port_put(':');
    unity_text(result);
}

static inline void unity_equal(uint32_t expected, uint32_t actual, uint32_t line)
{
    if (expected != actual && !unity.failed) {
        unity.failed = 1u;
        unity_result("FAIL: Expected ", line);
        unity_hex(expected);
        unity_text(" Was ");
        unity_hex(actual);
        port_put('\n');
    }
}

static inline void unity_run(void (*test)(void), const char *name, uint32_t line)
{
    unity.name = name;
    unity.failed = 0u;
    unity.tests++;
    test();
    unity.failures += unity.failed;
    if (!unity.failed) {
        unity_result("PASS\n", line);
    }
}

static inline void unity_begin(const char *file)
{
    unity.file = file;
    unity.tests = 0u;
    unity.failures = 0u;
}

static inline int unity_end(void)
{
    unity_text("\n-----------------------\n");
    unity_number(unity.tests);
    unity_text(" Tests ");
    unity_number(unity.failures);
    unity_text(" Failures 0 Ignored\n");
    unity_text(unity.failures == 0u ? "OK\n" : "FAIL\n");
    return (int)unity.failures;
}

#endif
