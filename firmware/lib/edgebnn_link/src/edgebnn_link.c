#include "edgebnn_link.h"

#include "edgebnn_port.h"

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define COMPILER "gcc " __VERSION__
#else
#define COMPILER "unknown compiler"
#endif

/* Of a frame, decoded: version, kind, id (2), then the body, then the CRC (4). */
#define AT_VERSION 0u
#define AT_KIND 1u
#define AT_ID 2u
#define AT_BODY 4u
#define CRC_BYTES 4u
#define EMPTY_FRAME (AT_BODY + CRC_BYTES)

/* An answer has the kind of its request, and this bit. */
#define ANSWER 0x80u

enum kind { KIND_INFO = 1, KIND_SELF_TEST = 2, KIND_CLASSIFY = 3, KIND_SCORES = 4, KIND_NONE = 0x7F };

enum status {
    STATUS_OK = 0,
    STATUS_BAD_FRAME = 1,
    STATUS_TOO_LONG = 2,
    STATUS_VERSION = 3,
    STATUS_KIND = 4,
    STATUS_SIZE = 5,
    STATUS_INPUT = 6,
    STATUS_DAMAGED = 7,
};

uint32_t edgebnn_crc32(uint32_t crc, const uint8_t *bytes, uint32_t size)
{
    /* Entry i: what four more bits of value i do to the remainder. */
    static EDGEBNN_FLASH uint32_t table[16] = {
        0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u, 0x4DB26158u,
        0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu, 0x9B64C2B0u, 0x86D3D2D4u,
        0xA00AE278u, 0xBDBDF21Cu,
    };

    crc = ~crc;
    for (uint32_t i = 0u; i < size; i++) {
        crc ^= bytes[i];
        crc = (crc >> 4) ^ table[crc & 15u];
        crc = (crc >> 4) ^ table[crc & 15u];
    }
    return ~crc;
}

static uint32_t get32(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
           (uint32_t)from[3] << 24;
}

/* Write the `size` low bytes of `value`, least significant first; returns what is behind them. */
static uint8_t *put(uint8_t *to, uint32_t value, uint8_t size)
{
    while (size > 0u) {
        *to++ = (uint8_t)value;
        value >>= 8;
        size--;
    }
    return to;
}

/* A length byte and the text, cut off where only `reserved` bytes would be left before `end`. */
static uint8_t *put_text(
    uint8_t *to, EDGEBNN_FLASH char *text, const uint8_t *end, uint32_t reserved)
{
    uint8_t *const length = to++;

    while (*text != '\0' && to + reserved < end && to - length <= 255) {
        *to++ = (uint8_t)*text++;
    }
    *length = (uint8_t)(to - length - 1);
    return to;
}

/* Close the frame that ends before `end` with its CRC and send it in COBS, between two zeros. */
static void send(struct edgebnn_link *link, uint8_t *end)
{
    const uint8_t *at = link->buffer;
    const uint32_t crc = edgebnn_crc32(0u, at, (uint32_t)(end - at));
    int more = 1;

    end = put(end, crc, CRC_BYTES);
    port_put(0u);
    while (more) {
        uint8_t run = 0u;

        while (run < 254u && at + run < end && at[run] != 0u) {
            run++;
        }
        port_put((uint8_t)(run + 1u));
        for (uint8_t i = 0u; i < run; i++) {
            port_put(at[i]);
        }
        at += run;
        more = at < end;
        at += more && run < 254u; /* a block that is not full stands for the zero behind it, too */
    }
    port_put(0u);
}

/* Begin an answer; `id` and the room behind it are still those of the request. */
static uint8_t *answer(struct edgebnn_link *link, uint8_t kind, enum status status)
{
    link->buffer[AT_VERSION] = EDGEBNN_LINK_VERSION;
    link->buffer[AT_KIND] = kind | ANSWER;
    link->buffer[AT_BODY] = (uint8_t)status;
    return link->buffer + AT_BODY + 1u;
}

static void refuse(struct edgebnn_link *link, uint8_t kind, enum status status, uint32_t detail)
{
    send(link, put(answer(link, kind, status), detail, 4u));
}

static void info(struct edgebnn_link *link)
{
    static EDGEBNN_FLASH char compiler[] = COMPILER;
    EDGEBNN_FLASH struct edgebnn_model *model = link->model;
    const uint8_t *end = link->buffer + link->room - CRC_BYTES;
    uint8_t *to = answer(link, KIND_INFO, STATUS_OK);

    to = put(to, (uint32_t)port_unit(), 1u);
    to = put(to, port_hz(), 4u);
    to = put(to, model->input_bytes, 4u);
    to = put(to, model->arena_bytes, 4u);
    to = put(to, model->num_classes, 2u);
    to = put(to, model->input_max, 1u);
    to = put(to, (uint32_t)model->fraction_bits, 1u);
    to = put_text(to, model->sha256, end, 3u);
    to = put_text(to, model->target, end, 2u);
    to = put_text(to, model->name, end, 1u);
    to = put_text(to, compiler, end, 0u);
    send(link, to);
}

/* Check the weights; those of a model without intact() pass for good ones. */
static void check_weights(struct edgebnn_link *link)
{
    link->damaged = link->model->intact != 0 && !link->model->intact();
}

static void self_test(struct edgebnn_link *link)
{
    EDGEBNN_FLASH struct edgebnn_model *model = link->model;

    check_weights(link);
    if (link->damaged) {
        refuse(link, KIND_SELF_TEST, STATUS_DAMAGED, 0u);
        return;
    }
    /* The golden inputs are made in the body; the id before it stays. */
    const uint8_t failed = edgebnn_self_test(model, link->buffer + AT_BODY, link->scores);
    uint8_t *to = answer(link, KIND_SELF_TEST, STATUS_OK);

    to = put(to, model->golden_count, 1u);
    send(link, put(to, failed, 1u));
}

static void classify(struct edgebnn_link *link, uint8_t kind)
{
    EDGEBNN_FLASH struct edgebnn_model *model = link->model;
    const uint8_t *input = link->buffer + AT_BODY;
    uint8_t *to;

    for (uint32_t i = 0u; i < model->input_bytes; i++) {
        if (input[i] > model->input_max) {
            refuse(link, kind, STATUS_INPUT, i);
            return;
        }
    }
    const uint32_t before = port_ticks();
    model->scores(input, link->scores);
    const int best = model->best(link->scores);
    const uint32_t ticks = port_ticks() - before;

    to = answer(link, kind, STATUS_OK);
    to = put(to, ticks, 4u);
    to = put(to, (uint32_t)best, 2u);
    if (kind == KIND_SCORES) {
        for (uint16_t i = 0u; i < model->num_classes; i++) {
            to = put(to, (uint32_t)link->scores[i], 4u);
        }
    }
    send(link, to);
}

/* Answer the frame in the buffer. */
static void handle(struct edgebnn_link *link, uint32_t size)
{
    const uint8_t *frame = link->buffer;
    const uint8_t kind = frame[AT_KIND];
    const uint32_t body = size - EMPTY_FRAME;
    const uint32_t wanted =
        kind == KIND_CLASSIFY || kind == KIND_SCORES ? link->model->input_bytes : 0u;

    if ((kind & ANSWER) != 0u) {
        return; /* our own, sent back: who answers answers never ends */
    }
    if (frame[AT_VERSION] != EDGEBNN_LINK_VERSION) {
        refuse(link, KIND_NONE, STATUS_VERSION, EDGEBNN_LINK_VERSION);
    } else if (kind < KIND_INFO || kind > KIND_SCORES) {
        refuse(link, KIND_NONE, STATUS_KIND, kind);
    } else if (body != wanted) {
        refuse(link, kind, STATUS_SIZE, wanted);
    } else if (kind == KIND_INFO) {
        info(link);
    } else if (kind == KIND_SELF_TEST) {
        self_test(link);
    } else if (link->damaged) {
        refuse(link, kind, STATUS_DAMAGED, 0u);
    } else {
        classify(link, kind);
    }
}

static void reset(struct edgebnn_link *link)
{
    link->size = 0u;
    link->code = 0xFFu; /* no zero before the first block */
    link->left = 0u;
    link->overrun = 0u;
}

static void store(struct edgebnn_link *link, uint8_t byte)
{
    if (link->size < link->room) {
        link->buffer[link->size++] = byte;
    } else {
        link->overrun = 1u;
    }
}

/* A zero has come: whatever lies in the buffer is all there is of a frame. */
static void end_of_frame(struct edgebnn_link *link)
{
    const uint32_t size = link->size;
    const uint8_t overrun = link->overrun;
    const uint8_t broken = link->left != 0u || size < EMPTY_FRAME;
    const uint8_t empty = link->code == 0xFFu && size == 0u && link->left == 0u;

    reset(link);
    if (empty) {
        return;
    }
    if (overrun) {
        (void)put(link->buffer + AT_ID, 0u, 2u);
        refuse(link, KIND_NONE, STATUS_TOO_LONG, link->room);
    } else if (broken || edgebnn_crc32(0u, link->buffer, size - CRC_BYTES) !=
                             get32(link->buffer + size - CRC_BYTES)) {
        (void)put(link->buffer + AT_ID, 0u, 2u);
        refuse(link, KIND_NONE, STATUS_BAD_FRAME, 0u);
    } else {
        handle(link, size);
    }
}

void edgebnn_link_receive(struct edgebnn_link *link, uint8_t byte)
{
    if (byte == 0u) {
        end_of_frame(link);
    } else if (link->left > 0u) {
        store(link, byte);
        link->left--;
    } else {
        if (link->code != 0xFFu) {
            store(link, 0u);
        }
        link->code = byte;
        link->left = (uint8_t)(byte - 1u);
    }
}

void edgebnn_link_start(struct edgebnn_link *link, EDGEBNN_FLASH struct edgebnn_model *model,
    uint8_t *buffer, uint32_t room, int32_t *scores)
{
    link->model = model;
    link->scores = scores;
    link->buffer = buffer;
    link->room = room;
    check_weights(link);
    reset(link);
}

static void say(EDGEBNN_FLASH char *text)
{
    while (*text != '\0') {
        port_put((uint8_t)*text++);
    }
}

void edgebnn_link_greet(const struct edgebnn_link *link)
{
    static EDGEBNN_FLASH char before[] = "\r\nedgebnn: this board runs ";
    static EDGEBNN_FLASH char use[] =
        "; close this monitor and run: edgebnn check MODEL --port PORT\r\n";
    static EDGEBNN_FLASH char mend[] =
        ", but its weights in flash are damaged; flash it again: pio run -t upload\r\n";

    say(before);
    say(link->model->name);
    say(link->damaged ? mend : use);
    port_put(0u);
}

uint8_t edgebnn_self_test(
    EDGEBNN_FLASH struct edgebnn_model *model, uint8_t *input, int32_t *scores)
{
    uint32_t state = 0x9E3779B9u;
    uint8_t failed = 0u;

    for (uint8_t vector = 0u; vector < model->golden_count; vector++) {
        uint32_t crc = 0u;

        for (uint32_t i = 0u; i < model->input_bytes; i++) {
            state ^= state << 13; /* xorshift32: Marsaglia, J. Stat. Soft. 8 (14), 2003 */
            state ^= state >> 17;
            state ^= state << 5;
            input[i] = (uint8_t)(state >> 24) & model->input_max;
        }
        model->scores(input, scores);
        for (uint16_t i = 0u; i < model->num_classes; i++) {
            uint8_t bytes[4];

            (void)put(bytes, (uint32_t)scores[i], 4u);
            crc = edgebnn_crc32(crc, bytes, 4u);
        }
        failed = (uint8_t)(failed + (crc != model->golden[vector]));
    }
    return failed;
}
