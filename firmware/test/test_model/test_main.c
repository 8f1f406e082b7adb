/* Computes the model's golden vectors on the board, and tries the link's own arithmetic there. */
#include <unity.h>

#include "edgebnn_link.h"
#include "edgebnn_model.h"
#include "edgebnn_port.h"

static uint8_t buffer[EDGEBNN_LINK_BUFFER_BYTES(EDGEBNN_INPUT_BYTES, EDGEBNN_NUM_CLASSES)];
static int32_t scores[EDGEBNN_NUM_CLASSES];
static struct edgebnn_link link;

/* A request for info with id 7, as it comes over the wire (docs/protocol.md). */
static uint8_t request[] = {
    0x00, 0x04, 0x01, 0x01, 0x07, 0x05, 0x89, 0x44, 0x7B, 0xD7, 0x00,
};

static void test_crc(void)
{
    static const uint8_t digits[] = {'1', '2', '3', '4', '5', '6', '7', '8', '9'};

    TEST_ASSERT_EQUAL_HEX32(0xCBF43926u, edgebnn_crc32(0u, digits, sizeof digits));
}

static void test_weights(void)
{
    TEST_ASSERT_EQUAL_UINT(1u, edgebnn_this_model.intact == 0 || edgebnn_this_model.intact());
}

static void test_golden_vectors(void)
{
    TEST_ASSERT_EQUAL_UINT(0u, edgebnn_self_test(&edgebnn_this_model, buffer, scores));
}

/* Long enough for SysTick to start again while it is read, which is when it could go wrong. */
static void test_clock_does_not_go_back(void)
{
    const uint32_t start = port_ticks();
    uint32_t before = start;
    uint32_t backwards = 0u;

    for (uint32_t i = 0u; i < 2000000u; i++) {
        const uint32_t now = port_ticks();

        backwards += now - before > UINT32_MAX / 2u;
        before = now;
    }
    TEST_ASSERT_EQUAL_UINT(0u, backwards);
    TEST_ASSERT_EQUAL_UINT(port_unit() != PORT_NO_CLOCK, before != start);
}

/* Send the request to the link; its answer, decoded, is then in the buffer. */
static void ask(void)
{
    edgebnn_link_start(&link, &edgebnn_this_model, buffer, sizeof buffer, scores);
    for (uint32_t i = 0u; i < sizeof request; i++) {
        edgebnn_link_receive(&link, request[i]);
    }
}

static void test_info_is_answered(void)
{
    ask();
    TEST_ASSERT_EQUAL_HEX32(0x81u, buffer[1]); /* its kind, of an answer */
    TEST_ASSERT_EQUAL_UINT(7u, buffer[2]);     /* its id */
    TEST_ASSERT_EQUAL_UINT(0u, buffer[4]);     /* its status: well */
}

static void test_broken_request_is_refused(void)
{
    request[6] ^= 1u;
    ask();
    request[6] ^= 1u;
    TEST_ASSERT_EQUAL_HEX32(0xFFu, buffer[1]);
    TEST_ASSERT_EQUAL_UINT(0u, buffer[2]);
    TEST_ASSERT_EQUAL_UINT(1u, buffer[4]); /* the CRC is wrong */
}

/* A board starts to run before "pio test" listens, but a virtual one. */
static void wait_for_listener(void)
{
#if !defined(PORT_VIRTUAL)
    const uint32_t start = port_ticks();

    while (port_ticks() - start < 2u * port_hz()) {
    }
#endif
}

void app_start(void)
{
    wait_for_listener();
    UNITY_BEGIN();
    RUN_TEST(test_crc);
    RUN_TEST(test_weights);
    RUN_TEST(test_golden_vectors);
    RUN_TEST(test_clock_does_not_go_back);
    RUN_TEST(test_info_is_answered);
    RUN_TEST(test_broken_request_is_refused);
    port_stop(UNITY_END());
}

void app_receive(uint8_t byte)
{
    (void)byte;
}
