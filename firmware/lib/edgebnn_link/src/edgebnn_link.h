/*
 * The device's end of the wire: answers framed requests about one model (docs/protocol.md).
 *
 * Bytes go in one at a time, so that it runs in a main loop or in Arduino's loop(); an answer
 * leaves through port_put() before the call returns. There is no state that a sender of wrong
 * bytes can leave it in: a zero byte always begins a new frame.
 */
#ifndef EDGEBNN_LINK_H
#define EDGEBNN_LINK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Qualifies a constant. On an AVR that keeps it in flash, where only C can reach it by name. */
#if defined(__AVR__) && !defined(__cplusplus)
#define EDGEBNN_FLASH const __flash
#else
#define EDGEBNN_FLASH const
#endif

/** Version of the protocol; the first byte of every frame. */
#define EDGEBNN_LINK_VERSION 1u

/** Bytes of the buffer for a model: the longest request, and room for the longest answer. */
#define EDGEBNN_LINK_BUFFER_BYTES(input_bytes, num_classes) \
    EDGEBNN_LINK_MAX(EDGEBNN_LINK_MAX((input_bytes), 4u * (num_classes) + 7u) + 8u, 256u)
#define EDGEBNN_LINK_MAX(a, b) ((a) > (b) ? (a) : (b))

/** One model, as the link needs to know it. */
struct edgebnn_model {
    EDGEBNN_FLASH char *name;
    EDGEBNN_FLASH char *sha256; /* of the network that the code computes, in hexadecimal */
    EDGEBNN_FLASH char *target;
    uint32_t input_bytes;
    uint32_t arena_bytes;
    uint16_t num_classes;
    uint8_t input_max; /* the largest value of an input */
    int8_t fraction_bits;
    void (*scores)(const uint8_t *input, int32_t *scores);
    int (*best)(const int32_t *scores);
    int (*intact)(void); /* 0 if the weights in memory are damaged; NULL where nobody can tell */
    EDGEBNN_FLASH uint32_t *golden; /* CRC-32 of the scores of each golden input, as sent */
    uint8_t golden_count;
};

/** One end of one wire. */
struct edgebnn_link {
    EDGEBNN_FLASH struct edgebnn_model *model;
    int32_t *scores;
    uint8_t *buffer; /* the frame that comes in, decoded, then the answer */
    uint32_t room;
    uint32_t size;
    uint8_t code; /* COBS: the code byte of the block at hand, and what is left of the block */
    uint8_t left;
    uint8_t overrun;
    uint8_t damaged; /* the weights were, when they were looked at last */
};

/**
 * Set up a link, and check the weights: a link of damaged ones answers no request for scores.
 *
 * @param buffer  EDGEBNN_LINK_BUFFER_BYTES() of the model
 * @param room    its size
 * @param scores  room for the scores of all classes
 */
void edgebnn_link_start(struct edgebnn_link *link, EDGEBNN_FLASH struct edgebnn_model *model,
    uint8_t *buffer, uint32_t room, int32_t *scores);

/** Take the next byte of the wire, and answer if it ends a frame. */
void edgebnn_link_receive(struct edgebnn_link *link, uint8_t byte);

/** Say in plain text, for a person at a serial monitor, what this is; frames ignore it. */
void edgebnn_link_greet(const struct edgebnn_link *link);

/**
 * Compute the golden inputs and compare the scores with those of the model in Python.
 *
 * @param input  room for an input
 * @return       how many of model->golden_count differ
 */
uint8_t edgebnn_self_test(
    EDGEBNN_FLASH struct edgebnn_model *model, uint8_t *input, int32_t *scores);

/** CRC-32 as in zlib; begin with crc = 0. */
uint32_t edgebnn_crc32(uint32_t crc, const uint8_t *bytes, uint32_t size);

#ifdef __cplusplus
}
#endif

#endif
