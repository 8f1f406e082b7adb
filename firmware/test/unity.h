/*
 * As much of Unity's interface, and of what it prints, as the tests here need; the whole of it
 * would be a download.
 */
#ifndef UNITY_H
#define UNITY_H

#include "edgebnn_link.h"
#include "edgebnn_port.h"

#define UNITY_BEGIN() UNITY_WITH_TEXT(__FILE__, unity_begin(text))
#define UNITY_END() unity_end()
#define RUN_TEST(test) UNITY_WITH_TEXT(#test, unity_run(test, text, __LINE__))

#define TEST_ASSERT_EQUAL_HEX32(expected, actual) unity_equal((expected), (actual), __LINE__)
#define TEST_ASSERT_EQUAL_UINT(expected, actual) unity_equal((expected), (actual), __LINE__)

#define UNITY_SAY(literal) UNITY_WITH_TEXT(literal, unity_text(text))

/* Texts take no RAM. */
#define UNITY_WITH_TEXT(literal, call) \
    do { \
        static EDGEBNN_FLASH char text[] = literal; \
        call; \
    } while (0)

static struct {
    uint32_t tests;
    uint32_t failures;
    uint8_t failed; /* the test at hand */
    EDGEBNN_FLASH char *file;
    EDGEBNN_FLASH char *name;
} unity;

static inline void unity_text(EDGEBNN_FLASH char *text)
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
    UNITY_SAY("0x");
    for (uint8_t shift = 32u; shift > 0u; shift = (uint8_t)(shift - 4u)) {
        const uint8_t digit = (uint8_t)(number >> (shift - 4u)) & 15u;

        port_put((uint8_t)(digit + (digit < 10u ? '0' : 'A' - 10)));
    }
}

/* The beginning of a line of a result, to which a message may be added. */
static inline void unity_result(EDGEBNN_FLASH char *result, uint32_t line)
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
        UNITY_WITH_TEXT("FAIL: Expected ", unity_result(text, line));
        unity_hex(expected);
        UNITY_SAY(" Was ");
        unity_hex(actual);
        port_put('\n');
    }
}

static inline void unity_run(void (*test)(void), EDGEBNN_FLASH char *name, uint32_t line)
{
    unity.name = name;
    unity.failed = 0u;
    unity.tests++;
    test();
    unity.failures += unity.failed;
    if (!unity.failed) {
        UNITY_WITH_TEXT("PASS\n", unity_result(text, line));
    }
}

static inline void unity_begin(EDGEBNN_FLASH char *file)
{
    unity.file = file;
    unity.tests = 0u;
    unity.failures = 0u;
}

static inline int unity_end(void)
{
    UNITY_SAY("\n-----------------------\n");
    unity_number(unity.tests);
    UNITY_SAY(" Tests ");
    unity_number(unity.failures);
    UNITY_SAY(" Failures 0 Ignored\n");
    if (unity.failures == 0u) {
        UNITY_SAY("OK\n");
    } else {
        UNITY_SAY("FAIL\n");
    }
    return (int)unity.failures;
}

#endif
