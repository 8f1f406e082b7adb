/*
 * Runs the image of harness/avr/main.c on a simulated AVR, and measures it.
 *
 * arguments  the microcontroller, its frequency, a file with the contents of its flash, a limit of
 *            cycles for a record, the size of a record, the number of classes, and addresses of the
 *            image: ready, <name>_scores, <name>_predict, record, scores, result, the lowest one of
 *            the stack, and then of each layer; addresses of code are in bytes
 * input      records, end to end
 * output     a line a record: class, scores, the cycles of the call of <name>_predict, and those of
 *            each layer in it; in the end the bytes of stack that the calls took
 * end        status 0; else one line on the standard error says why
 *
 * Cycles are simavr's. The stack is as deep as the lowest stack pointer says, which an interrupt
 * could write to as well.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <simavr/sim_avr.h>

#define MAX_LAYERS 200
#define OUT_MASK 0xf800u
#define OUT 0xb800u
#define SPL 0x3du
#define SPH 0x3eu

/* A function that is running: it has returned when its caller goes on with its own stack. */
struct call {
    uint32_t back;
    uint32_t stack;
    avr_cycle_count_t start;
    uint8_t kept[18];
};

static avr_t *avr;
static avr_cycle_count_t most_cycles;
static uint32_t lowest = UINT32_MAX; /* the stack pointer at its lowest since it was set to the caller's */
static uint32_t stack_limit;
static bool half_written; /* a stack pointer takes two instructions to set, the high byte first */

static void fail(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    exit(1);
}

static void be_silent(avr_t *which, const int level, const char *format, va_list values)
{
    (void)which, (void)level, (void)format, (void)values;
}

static uint32_t number(const char *text)
{
    return (uint32_t)strtoul(text, NULL, 0);
}

static uint32_t stack(void)
{
    return avr->data[R_SPL] | (uint32_t)avr->data[R_SPH] << 8;
}

/* The registers that a function leaves as they are: r2 to r17, r28 and r29. */
static void save_kept(uint8_t kept[18])
{
    memcpy(kept, &avr->data[2], 16);
    memcpy(&kept[16], &avr->data[28], 2);
}

/* One instruction. */
static void step(void)
{
    const uint32_t pc = avr->pc;
    const uint32_t opcode = avr->flash[pc] | (uint32_t)avr->flash[pc + 1u] << 8;
    const int state = avr_run(avr);

    if (state == cpu_Done || state == cpu_Crashed) {
        fail("the CPU stopped at pc 0x%05x", pc);
    }
    if ((opcode & OUT_MASK) == OUT) {
        const uint32_t port = (opcode & 0x0fu) | ((opcode >> 5) & 0x30u);
        if (port == SPH || port == SPL) {
            half_written = port == SPH;
        }
    }
    if (!half_written && stack() < lowest) {
        lowest = stack();
        if (lowest + 1u < stack_limit) {
            fail("the stack overflows at pc 0x%05x", pc);
        }
    }
    if (avr->cycle > most_cycles) {
        fail("no end within the limit of cycles; stopped at pc 0x%05x", pc);
    }
}

static void run_to(uint32_t address)
{
    while (avr->pc != address) {
        step();
    }
}

/* At the first instruction of a function. */
static struct call enter(void)
{
    struct call call = {.back = 0u, .stack = stack(), .start = avr->cycle};

    for (uint32_t i = 1u; i <= avr->address_size; i++) {
        call.back = call.back << 8 | avr->data[call.stack + i];
    }
    call.back *= 2u;
    save_kept(call.kept);
    return call;
}

static bool has_returned(const struct call *call)
{
    return avr->pc == call->back && stack() == call->stack + avr->address_size;
}

static void check_callee(const struct call *call, const char *what)
{
    uint8_t kept[18];

    save_kept(kept);
    if (memcmp(kept, call->kept, sizeof kept) != 0 || avr->data[1] != 0u) {
        fail("%s did not leave the registers of its caller as they were", what);
    }
}

int main(int argc, char **argv)
{
    static uint8_t flash[256u << 10];
    static uint32_t layers[MAX_LAYERS];
    static avr_cycle_count_t spent[MAX_LAYERS];

    if (argc < 14 || argc > 14 + MAX_LAYERS) {
        fail("%d arguments are too few or too many", argc);
    }
    const uint32_t limit = number(argv[4]), size = number(argv[5]), classes = number(argv[6]);
    const uint32_t ready = number(argv[7]), run_scores = number(argv[8]), predict = number(argv[9]);
    const uint32_t record = number(argv[10]), scores = number(argv[11]), result = number(argv[12]);
    const int layer_count = argc - 14;
    stack_limit = number(argv[13]);
    for (int i = 0; i < layer_count; i++) {
        layers[i] = number(argv[14 + i]);
    }

    FILE *const image = fopen(argv[3], "rb");
    if (image == NULL) {
        fail("%s cannot be read", argv[3]);
    }
    const size_t loaded = fread(flash, 1, sizeof flash, image);
    fclose(image);

    avr_global_logger_set(be_silent);
    avr = avr_make_mcu_by_name(argv[1]);
    if (avr == NULL) {
        fail("simavr has no %s", argv[1]);
    }
    avr_init(avr);
    avr->frequency = number(argv[2]);
    if (loaded > avr->flashend + 1u) {
        fail("%s is larger than the flash of %s", argv[3], argv[1]);
    }
    avr_loadcode(avr, flash, (uint32_t)loaded, 0);
    avr->codeend = avr->flashend;

    uint32_t depth = 0u;
    most_cycles = limit;
    run_to(ready);
    while (fread(&avr->data[record], 1, size, stdin) == size) {
        most_cycles = avr->cycle + limit;
        run_to(run_scores);
        const struct call scoring = enter();
        while (!has_returned(&scoring)) {
            step();
        }
        check_callee(&scoring, "scores");
        run_to(predict);
        const struct call predicting = enter();
        struct call layer = {0};
        int running = -1;
        memset(spent, 0, sizeof spent);
        lowest = predicting.stack;
        while (!has_returned(&predicting)) {
            if (running >= 0 && has_returned(&layer)) {
                spent[running] += avr->cycle - layer.start;
                running = -1;
            }
            for (int i = 0; running < 0 && i < layer_count; i++) {
                if (avr->pc == layers[i]) {
                    layer = enter();
                    running = i;
                }
            }
            step();
        }
        const avr_cycle_count_t cycles = avr->cycle - predicting.start;
        if (running >= 0) { /* predict has jumped to its end */
            spent[running] += avr->cycle - layer.start;
        }
        check_callee(&predicting, "predict");
        if (predicting.stack + avr->address_size - lowest > depth) {
            depth = predicting.stack + avr->address_size - lowest;
        }
        run_to(ready);

        printf("%d", (int16_t)(avr->data[result] | avr->data[result + 1u] << 8));
        for (uint32_t i = 0u; i < classes; i++) {
            const uint8_t *const bytes = &avr->data[scores + 4u * i];
            const uint32_t low = bytes[0] | (uint32_t)bytes[1] << 8;
            const uint32_t high = bytes[2] | (uint32_t)bytes[3] << 8;
            printf(" %d", (int32_t)(high << 16 | low));
        }
        printf(" %llu", (unsigned long long)cycles);
        for (int i = 0; i < layer_count; i++) {
            printf(" %llu", (unsigned long long)spent[i]);
        }
        printf("\n");
    }
    printf("%u\n", depth);
    return 0;
}
