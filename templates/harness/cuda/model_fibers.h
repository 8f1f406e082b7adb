/*
 * Fibers: the threads of a block, each on a stack of its own, one running at a time.
 *
 * A fiber runs until it waits or ends; then the one that became ready first goes on, or any of them
 * where EDGEBNN_CUDA_SEED is set. setcontext() starts a fiber; from then on _setjmp and _longjmp
 * switch, which make no system call. Their checked versions refuse to jump between stacks, hence
 * -U_FORTIFY_SOURCE. AddressSanitizer is told of every switch.
 */
#pragma once

#include "model_words.h"

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <sys/mman.h>
#include <ucontext.h>
#include <utility>
#include <vector>

#if defined(_FORTIFY_SOURCE) && _FORTIFY_SOURCE > 0
#error "the CUDA model jumps between stacks: compile with -U_FORTIFY_SOURCE"
#endif

#if defined(__SANITIZE_ADDRESS__)
#define CUDA_MODEL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CUDA_MODEL_ASAN 1
#endif
#endif
#ifndef CUDA_MODEL_ASAN
#define CUDA_MODEL_ASAN 0
#endif
#if CUDA_MODEL_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_model {

/* The line of a call, where a function has `Here here = Here::now()` as its last argument; or nowhere. */
struct Here {
    const char *file = nullptr;
    int line = 0;
    static constexpr Here now(const char *file = __builtin_FILE(), int line = __builtin_LINE())
    {
        return {file, line};
    }
};

constexpr std::size_t STACK_BYTES = 512 << 10; /* address space: only touched pages take memory */
constexpr std::size_t PAGE_BYTES = 64 << 10;   /* the largest page of aarch64 */

struct Fiber {
    unsigned number = 0;
    bool waiting = false;
    const char *what = nullptr; /* it waits in, at where; null: it has ended */
    Here where = {};
    jmp_buf context;
    const void *stack = nullptr;
    std::size_t stack_bytes = 0;
    void *fake_stack = nullptr; /* of AddressSanitizer */
};

struct Scheduler {
    Fiber main;
    std::vector<std::unique_ptr<Fiber>> fibers; /* kept from block to block */
    std::deque<Fiber *> ready;
    Fiber *current = &main;
    Fiber *previous = nullptr;
    void (*body)() = nullptr; /* what every fiber runs, once a run() */
    void (*idle)() = nullptr; /* called when all wait: wakes one, or aborts */
    unsigned unfinished = 0;
    unsigned seed = 0;
};

inline Scheduler scheduler;

[[noreturn]] __attribute__((format(printf, 2, 3))) inline void fail(Here where, const char *format, ...)
{
    std::fflush(stdout);
    std::fputs("cuda model: ", stderr);
    if (where.file != nullptr) {
        std::fprintf(stderr, "%s:%d: ", where.file, where.line);
    }
    if (scheduler.current != &scheduler.main) {
        std::fprintf(stderr, "thread %u of block %u: ", scheduler.current->number, blockIdx.x);
    }
    va_list arguments;
    va_start(arguments, format);
    std::vfprintf(stderr, format, arguments);
    va_end(arguments);
    std::fputc('\n', stderr);
    std::abort();
}

/* --- switching --------------------------------------------------------------------------------- */

inline void leave([[maybe_unused]] Fiber &from, [[maybe_unused]] Fiber &to)
{
    scheduler.previous = &from;
    scheduler.current = &to;
#if CUDA_MODEL_ASAN
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
#endif
}

inline void arrive()
{
    Fiber &self = *scheduler.current;
    threadIdx = {self.number, 0, 0};
#if CUDA_MODEL_ASAN
    Fiber &previous = *scheduler.previous; /* the main stack's bounds are found here */
    __sanitizer_finish_switch_fiber(self.fake_stack, &previous.stack, &previous.stack_bytes);
#endif
}

/* Not inline, so that no variable is live in registers over a _setjmp. */
__attribute__((noinline)) inline void jump(Fiber &from, Fiber &to)
{
    leave(from, to);
    if (_setjmp(from.context) == 0) {
        _longjmp(to.context, 1);
    }
    arrive();
}

__attribute__((noinline)) inline void start(Fiber &fiber, const ucontext_t &context)
{
    leave(scheduler.main, fiber);
    if (_setjmp(scheduler.main.context) == 0) {
        setcontext(&context); /* not swapcontext: AddressSanitizer warns of it */
    }
    arrive();
}

/* --- waiting ----------------------------------------------------------------------------------- */

/* What the fiber is about to wait for; wait() returns when wake() was called since. */
inline void will_wait(const char *what, Here where)
{
    Fiber &self = *scheduler.current;
    self.waiting = true;
    self.what = what;
    self.where = where;
}

inline void wake(Fiber &fiber)
{
    fiber.waiting = false;
    if (&fiber != scheduler.current) {
        scheduler.ready.push_back(&fiber);
    }
}

/* 0 without a seed; with one, any number below count. */
inline std::size_t turn(std::size_t count)
{
    if (scheduler.seed == 0) {
        return 0;
    }
    scheduler.seed = scheduler.seed * 1664525u + 1013904223u; /* of Numerical Recipes */
    return (scheduler.seed >> 8) % count;
}

inline Fiber &next_ready()
{
    std::deque<Fiber *> &ready = scheduler.ready;
    std::swap(ready.front(), ready[turn(ready.size())]);
    Fiber &next = *ready.front();
    ready.pop_front();
    return next;
}

inline void wait()
{
    Fiber &self = *scheduler.current;
    while (self.waiting) {
        if (scheduler.ready.empty()) {
            scheduler.idle();
        } else {
            jump(self, next_ready());
        }
    }
}

/* --- running ----------------------------------------------------------------------------------- */

inline void live()
{
    arrive();
    Fiber &self = *scheduler.current;
    jump(self, scheduler.main);
    for (;;) {
        scheduler.body();
        will_wait(nullptr, {});
        if (--scheduler.unfinished == 0) {
            jump(self, scheduler.main);
        } else {
            wait();
        }
    }
}

inline void add_fiber()
{
    scheduler.fibers.push_back(std::make_unique<Fiber>());
    Fiber &fiber = *scheduler.fibers.back();
    fiber.number = static_cast<unsigned>(scheduler.fibers.size() - 1);
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *pages = mmap(nullptr, PAGE_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages, PAGE_BYTES, PROT_NONE) != 0) {
        fail({}, "no memory for the stack of thread %u", fiber.number);
    }
    void *stack = static_cast<char *>(pages) + PAGE_BYTES;
    fiber.stack = stack;
    fiber.stack_bytes = STACK_BYTES;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = STACK_BYTES;
    context.uc_link = nullptr;
    makecontext(&context, live, 0);
    start(fiber, context);
}

/* Have `count` fibers ready to run body. */
inline void prepare(unsigned count, void (*body)(), void (*idle)())
{
    while (scheduler.fibers.size() < count) {
        add_fiber();
    }
    scheduler.body = body;
    scheduler.idle = idle;
    scheduler.unfinished = count;
    for (unsigned i = 0; i < count; i++) {
        wake(*scheduler.fibers[i]);
    }
}

/* Run body in `count` fibers until all have ended. */
inline void run(unsigned count, void (*body)(), void (*idle)())
{
    prepare(count, body, idle);
    jump(scheduler.main, next_ready());
}

}  // namespace cuda_model
