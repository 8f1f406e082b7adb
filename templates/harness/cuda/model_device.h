/*
 * A block: its shared memory, its warps, and what its threads do together.
 *
 * What is asynchronous on a GPU happens here as late as it may: copies become visible in the wait for
 * them, and until then their target holds garbage; sums of wgmma appear in group_wait(). So a wait that
 * is missing gives wrong results, and what the manual leaves undefined aborts with a message where it
 * can be seen. Names in quotes are sections of NVIDIA's "PTX ISA" manual.
 */
#pragma once

#include "model_fibers.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <unistd.h>

typedef unsigned long long barrier_t;

namespace cuda_model {

constexpr unsigned WARP_SIZE = 32, MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / WARP_SIZE;
constexpr unsigned MAX_BARRIERS = 16, ALL_LANES = 0xFFFFFFFFu;
constexpr unsigned char GARBAGE = 0xA5;

inline unsigned from_environment(const char *name, unsigned otherwise)
{
    const char *text = std::getenv(name);
    return text != nullptr ? static_cast<unsigned>(std::strtoul(text, nullptr, 10)) : otherwise;
}

/* What a test may set, here or in the environment before the program starts. */
struct Settings {
    /* Few, so that persistent kernels loop. */
    unsigned multiprocessors = from_environment("EDGEBNN_CUDA_MULTIPROCESSORS", 3);
    unsigned capability = from_environment("EDGEBNN_CUDA_CAPABILITY", 90); /* 10 * major + minor */
    unsigned cooperative = from_environment("EDGEBNN_CUDA_COOPERATIVE", 1); /* launches, or none */
    /* Not 0: threads and bulk copies take turns at random. */
    unsigned seed = from_environment("EDGEBNN_CUDA_SEED", 0);
    /* The n-th call of this function from now on fails, once; "any" counts all that can fail; 0: none. */
    const char *fail = std::getenv("EDGEBNN_CUDA_FAIL");
    unsigned fail_at = from_environment("EDGEBNN_CUDA_FAIL_AT", 0);
};

inline Settings settings;

inline void need(unsigned capability, const char *what, Here where)
{
    if (settings.capability < capability) {
        fail(where, "%s needs compute capability %u, this device has %u", what, capability,
             settings.capability);
    }
}

/* --- the block --------------------------------------------------------------------------------- */

struct Bits256 {
    std::uint64_t words[4];
};

/* A wgmma.mma_async that a warp has issued: 16 rows of the result. */
struct Product {
    Here where;
    unsigned group; /* the commit that it belongs to */
    unsigned columns;
    bool accumulate;
    const int *lane0; /* names the accumulator */
    unsigned long long a, b;
    std::vector<Bits256> a_rows, b_rows; /* as they were when it was issued */
};

/* Registers of a warp in use by wgmma: its real values; the threads see garbage. */
struct Accumulator {
    int *d[WARP_SIZE];
    unsigned products;
    std::vector<int> values[WARP_SIZE];
};

struct Warp {
    unsigned number;
    unsigned alive; /* masks of lanes */

    /* The meeting of its lanes: each brings an operand, the last one completes. */
    const char *what;
    Here where;
    unsigned arrived;
    bool all; /* 32 lanes are needed */
    void *operands[WARP_SIZE];
    void (*complete)(Warp &);

    /* wgmma */
    bool fenced;
    unsigned groups; /* committed so far */
    std::vector<Product> products;
    std::vector<Accumulator> accumulators;
    std::vector<unsigned long long> issued;
};

struct NamedBarrier {
    unsigned warps; /* to wait for; 0: all that live */
    std::vector<Warp *> arrived;
};

/* "mbarrier": a phase completes when no arrival and no byte is pending. */
struct Barrier {
    unsigned count;
    unsigned pending;
    long long bytes;
    unsigned phase;
    bool fenced;
    std::vector<Fiber *> waiting;
};

struct Copy {
    void *to;
    unsigned bytes;
    unsigned group;
    unsigned char data[16];
};

struct Thread {
    unsigned groups; /* committed so far */
    std::vector<Copy> copies;
};

struct BulkCopy {
    Here where;
    void *to;
    barrier_t *barrier;
    std::vector<unsigned char> data;
};

struct StaticArray {
    void *begin;
    std::size_t bytes;
};

struct Block {
    unsigned threads_count = 0;
    unsigned warps_alive = 0;
    unsigned char *shared = nullptr;
    std::size_t shared_bytes = 0;
    Warp warps[MAX_WARPS] = {};
    Thread threads[MAX_THREADS] = {};
    NamedBarrier named[MAX_BARRIERS] = {};
    std::map<const barrier_t *, Barrier> barriers;
    std::vector<BulkCopy> bulk; /* in flight */
    std::vector<Fiber *> polling; /* for what another block does */
    std::vector<StaticArray> statics;
    std::function<void()> kernel;
};

inline Block block;

inline Thread &this_thread()
{
    return block.threads[scheduler.current->number];
}

inline Warp &this_warp()
{
    return block.warps[scheduler.current->number / WARP_SIZE];
}

inline unsigned this_lane()
{
    return scheduler.current->number % WARP_SIZE;
}

inline void wake_lanes(Warp &warp)
{
    for (unsigned lane = 0; lane < WARP_SIZE; lane++) {
        if (warp.alive >> lane & 1u) {
            wake(*scheduler.fibers[warp.number * WARP_SIZE + lane]);
        }
    }
}

/* --- shared memory ----------------------------------------------------------------------------- */

constexpr std::size_t GUARD_BYTES = 1 << 20, MOST_SHARED_BYTES = 256 << 10;

/* The pages of dynamic shared memory, between guards that nobody can touch. */
inline unsigned char *shared_pages()
{
    static unsigned char *const pages = [] {
        const std::size_t bytes = 2 * GUARD_BYTES + MOST_SHARED_BYTES;
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void *mapped = mmap(nullptr, bytes, PROT_NONE, flags, -1, 0);
        if (mapped == MAP_FAILED) {
            fail({}, "no address space for shared memory");
        }
        return static_cast<unsigned char *>(mapped);
    }();
    return pages;
}

/* A launch's dynamic shared memory ends where the upper guard begins (but for 16-byte alignment). */
inline void place_shared(std::size_t bytes)
{
    unsigned char *const begin = shared_pages() + GUARD_BYTES;
    unsigned char *const end = begin + MOST_SHARED_BYTES;
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t rounded = (bytes + page - 1) / page * page;
    mprotect(begin, MOST_SHARED_BYTES, PROT_NONE);
    mprotect(end - rounded, rounded, PROT_READ | PROT_WRITE);
    block.shared = end - (bytes + 15) / 16 * 16;
    block.shared_bytes = bytes;
}

inline bool inside(const void *address, std::size_t bytes, const void *begin, std::size_t size)
{
    const std::size_t offset =
        reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(begin);
    return offset <= size && bytes <= size - offset;
}

inline void check_aligned(const void *address, unsigned bytes, const char *what, Here where)
{
    if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0) {
        fail(where, "%s: address %p is not a multiple of %u", what, address, bytes);
    }
}

inline void check_shared(const void *address, std::size_t bytes, const char *what, Here where)
{
    bool found = inside(address, bytes, block.shared, block.shared_bytes);
    for (const StaticArray &array : block.statics) {
        found = found || inside(address, bytes, array.begin, array.bytes);
    }
    if (!found) {
        fail(where, "%s: %zu bytes at offset %td are not in the %zu bytes of shared memory", what, bytes,
             static_cast<const unsigned char *>(address) - block.shared, block.shared_bytes);
    }
}

/* One block at a time has it: what other blocks of a cooperative launch have there is kept elsewhere. */
template <class T> struct StaticShared {
    static_assert(sizeof(T) <= 48 << 10, "static shared memory has at most 48 KiB");
    alignas(16) T array;
    StaticShared()
    {
        block.statics.push_back({&array, sizeof array});
        std::memset(static_cast<void *>(&array), GARBAGE, sizeof array);
    }
};

/* --- meetings of the lanes of a warp ----------------------------------------------------------- */

inline void complete_meeting(Warp &warp)
{
    if (warp.all && warp.arrived != ALL_LANES) {
        fail(warp.where, "%s needs 32 lanes, of warp %u only 0x%08x are left", warp.what, warp.number,
             warp.arrived);
    }
    warp.arrived = 0;
    warp.complete(warp);
}

/* Bring an operand; all lanes that live have to come to this line. complete(warp) wakes them. */
inline void meet(const char *what, Here where, void *operand, void (*complete)(Warp &), bool all = true)
{
    Warp &warp = this_warp();
    if (warp.arrived == 0) {
        warp.what = what;
        warp.where = where;
        warp.complete = complete;
        warp.all = all;
    } else if (std::strcmp(warp.what, what) != 0 || std::strcmp(warp.where.file, where.file) != 0 ||
               warp.where.line != where.line) {
        fail(where, "%s, but other lanes of warp %u are in %s at %s:%d", what, warp.number, warp.what,
             warp.where.file, warp.where.line);
    }
    will_wait(what, where);
    warp.arrived |= 1u << this_lane();
    warp.operands[this_lane()] = operand;
    if (warp.arrived == warp.alive) {
        complete_meeting(warp);
    }
    wait();
}

template <class Operand> Operand &operand(Warp &warp, unsigned lane)
{
    return *static_cast<Operand *>(warp.operands[lane]);
}

/* --- barriers of the block --------------------------------------------------------------------- */

struct Rendezvous {
    unsigned id, warps;
    Here where;
};

inline void open_if_complete(NamedBarrier &barrier)
{
    const unsigned expected = barrier.warps != 0 ? barrier.warps : block.warps_alive;
    if (!barrier.arrived.empty() && barrier.arrived.size() == expected) {
        for (Warp *warp : std::exchange(barrier.arrived, {})) {
            wake_lanes(*warp);
        }
    }
}

/* "bar.sync" counts warps: a warp arrives when all its lanes have. */
inline void arrive_as_warp(Warp &warp)
{
    const unsigned first = static_cast<unsigned>(__builtin_ctz(warp.alive));
    const Rendezvous meant = operand<Rendezvous>(warp, first);
    for (unsigned lane = first; lane < WARP_SIZE; lane++) {
        if (warp.alive >> lane & 1u && (operand<Rendezvous>(warp, lane).id != meant.id ||
                                        operand<Rendezvous>(warp, lane).warps != meant.warps)) {
            fail(meant.where, "lanes of warp %u are at different barriers", warp.number);
        }
    }
    NamedBarrier &barrier = block.named[meant.id];
    if (barrier.arrived.empty()) {
        barrier.warps = meant.warps;
    } else if (barrier.warps != meant.warps) {
        fail(meant.where, "barrier %u: warp %u waits for %u threads, others for %u (0: all)", meant.id,
             warp.number, meant.warps * WARP_SIZE, barrier.warps * WARP_SIZE);
    }
    barrier.arrived.push_back(&warp);
    open_if_complete(barrier);
}

/* --- mbarriers --------------------------------------------------------------------------------- */

constexpr barrier_t SEAL = 0x6D62617272696572ull; /* what an initialised one holds, plus its address */
constexpr long long MOST_BYTES = (1 << 20) - 1;   /* of the transaction count */

inline barrier_t seal(const barrier_t *address)
{
    return SEAL + reinterpret_cast<std::uintptr_t>(address);
}

inline Barrier &find_barrier(const barrier_t *address, const char *what, Here where)
{
    check_aligned(address, 8, what, where);
    check_shared(address, 8, what, where);
    const auto found = block.barriers.find(address);
    if (found == block.barriers.end()) {
        fail(where, "%s: the barrier is not initialised", what);
    }
    if (*address != seal(address)) {
        fail(where, "%s: the barrier was overwritten", what);
    }
    return found->second;
}

inline void complete_phase(Barrier &barrier)
{
    if (barrier.pending == 0 && barrier.bytes == 0) {
        barrier.phase++;
        barrier.pending = barrier.count;
        for (Fiber *fiber : std::exchange(barrier.waiting, {})) {
            wake(*fiber);
        }
    }
}

inline void arrive_at(Barrier &barrier, unsigned bytes, const char *what, Here where)
{
    if (barrier.pending == 0) {
        fail(where, "%s: more arrivals in a phase than the %u expected", what, barrier.count);
    }
    barrier.bytes += bytes;
    if (barrier.bytes > MOST_BYTES) {
        fail(where, "%s: a phase of more than %lld bytes", what, MOST_BYTES);
    }
    barrier.pending--;
    complete_phase(barrier);
}

inline void deliver(const BulkCopy &copy)
{
    Barrier &barrier = find_barrier(copy.barrier, "copy_bulk", copy.where);
    std::memcpy(copy.to, copy.data.data(), copy.data.size());
    barrier.bytes -= static_cast<long long>(copy.data.size());
    if (barrier.bytes < -MOST_BYTES) {
        fail(copy.where, "copy_bulk: more than %lld bytes that no barrier_expect announced", MOST_BYTES);
    }
    complete_phase(barrier);
}

/* --- wgmma ------------------------------------------------------------------------------------- */

struct Issue {
    int *d;
    unsigned long long a, b;
    bool accumulate;
    unsigned columns;
    Here where;
};

/*
 * Row r of an operand, 32 bytes in two halves ("Matrix Descriptor Format", no swizzling, K-major): 8 rows
 * of a half are 128 bytes in a row; then `leading` leads to the other half, `stride` to the next 8 rows.
 */
inline Bits256 descriptor_row(unsigned long long descriptor, unsigned row, Here where)
{
    const unsigned start = static_cast<unsigned>(descriptor & 0x3FFF) << 4;
    const unsigned leading = static_cast<unsigned>(descriptor >> 16 & 0x3FFF) << 4;
    const unsigned stride = static_cast<unsigned>(descriptor >> 32 & 0x3FFF) << 4;
    Bits256 bits;
    for (unsigned half = 0; half < 2; half++) {
        const unsigned char *from = block.shared + start + half * leading + row / 8 * stride + row % 8 * 16;
        check_shared(from, 16, "group_mma", where);
        std::memcpy(&bits.words[2 * half], from, 16);
    }
    return bits;
}

inline std::vector<Bits256> descriptor_rows(unsigned long long descriptor, unsigned first, unsigned count,
                                            Here where)
{
    std::vector<Bits256> rows(count);
    for (unsigned i = 0; i < count; i++) {
        rows[i] = descriptor_row(descriptor, first + i, where);
    }
    return rows;
}

inline bool same(const std::vector<Bits256> &a, const std::vector<Bits256> &b)
{
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(Bits256)) == 0;
}

/* popcount(a & b): bytes are counted in place, so that it needs no instruction for it. */
inline int and_popcount(const std::uint64_t *a, const std::uint64_t *b)
{
    std::uint64_t bytes = 0;
    for (unsigned i = 0; i < 4; i++) {
        std::uint64_t x = a[i] & b[i];
        x -= x >> 1 & 0x5555555555555555u;
        x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
        bytes += (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0Fu;
    }
    bytes = (bytes & 0x00FF00FF00FF00FFu) + (bytes >> 8 & 0x00FF00FF00FF00FFu);
    return static_cast<int>(bytes * 0x0001000100010001u >> 48);
}

inline unsigned first_row(const Warp &warp)
{
    return warp.number % 4 * 16;
}

inline auto find_accumulator(Warp &warp, const int *lane0)
{
    std::vector<Accumulator> &all = warp.accumulators;
    return std::find_if(all.begin(), all.end(), [&](const Accumulator &each) { return each.d[0] == lane0; });
}

inline void fill_with_garbage(Accumulator &accumulator, unsigned count)
{
    for (int *d : accumulator.d) {
        std::memset(d, GARBAGE, count * sizeof *d);
    }
}

inline void issue(Warp &warp)
{
    const Issue &first = operand<Issue>(warp, 0);
    const Here where = first.where;
    if (warp.number / 4 * 4 + 4 > block.threads_count / WARP_SIZE) {
        fail(where, "group_mma: warp %u is in no warpgroup of 128 threads", warp.number);
    }
    const unsigned count = first.columns / 2;
    auto accumulator = find_accumulator(warp, first.d);
    if (accumulator == warp.accumulators.end()) {
        if (!warp.fenced) {
            fail(where, "group_mma: no group_fence() between a use of the sums and this");
        }
        accumulator = warp.accumulators.emplace(accumulator);
        accumulator->products = 0;
        for (unsigned lane = 0; lane < WARP_SIZE; lane++) {
            int *d = operand<Issue>(warp, lane).d;
            accumulator->d[lane] = d;
            accumulator->values[lane].assign(d, d + count);
        }
        fill_with_garbage(*accumulator, count);
    }
    for (unsigned lane = 0; lane < WARP_SIZE; lane++) {
        const Issue &each = operand<Issue>(warp, lane);
        if (each.a != first.a || each.b != first.b || each.accumulate != first.accumulate ||
            each.d != accumulator->d[lane] || count != accumulator->values[lane].size()) {
            fail(where, "group_mma: lane %u of warp %u has other operands than lane 0", lane, warp.number);
        }
    }
    accumulator->products++;
    warp.products.push_back({where, warp.groups, first.columns, first.accumulate, first.d, first.a, first.b,
                             descriptor_rows(first.a, first_row(warp), 16, where),
                             descriptor_rows(first.b, 0, first.columns, where)});
    warp.issued.insert(warp.issued.end(), {first.a, first.b, first.accumulate, first.columns});
    wake_lanes(warp);
}

/* "Register Fragments and Shared Memory Matrix Layouts" of wgmma: of D, in m64nNk256. */
inline void finish(Warp &warp, const Product &product)
{
    if (!same(product.a_rows, descriptor_rows(product.a, first_row(warp), 16, product.where)) ||
        !same(product.b_rows, descriptor_rows(product.b, 0, product.columns, product.where))) {
        fail(product.where, "group_mma: its shared memory changed before group_wait() of warp %u",
             warp.number);
    }
    const auto accumulator = find_accumulator(warp, product.lane0);
    for (unsigned lane = 0; lane < WARP_SIZE; lane++) {
        for (unsigned i = 0; i < product.columns / 2; i++) {
            const unsigned row = lane / 4 + i / 2 % 2 * 8;
            const unsigned column = i / 4 * 8 + lane % 4 * 2 + i % 2;
            int &value = accumulator->values[lane][i];
            value = (product.accumulate ? value : 0) +
                    and_popcount(product.a_rows[row].words, product.b_rows[column].words);
        }
    }
    if (--accumulator->products > 0) {
        return;
    }
    for (unsigned lane = 0; lane < WARP_SIZE; lane++) {
        int *d = accumulator->d[lane];
        for (unsigned i = 0; i < product.columns / 2; i++) {
            int garbage;
            std::memset(&garbage, GARBAGE, sizeof garbage);
            if (d[i] != garbage) {
                fail(product.where, "group_mma: its sums were written before group_wait() of warp %u",
                     warp.number);
            }
            d[i] = accumulator->values[lane][i];
        }
    }
    warp.accumulators.erase(accumulator);
}

inline void finish_groups(Warp &warp)
{
    const unsigned pending = operand<unsigned>(warp, 0);
    std::size_t done = 0;
    while (done < warp.products.size() && warp.products[done].group + pending < warp.groups) {
        finish(warp, warp.products[done]);
        done++;
    }
    warp.products.erase(warp.products.begin(), warp.products.begin() + static_cast<std::ptrdiff_t>(done));
    warp.fenced = false;
    wake_lanes(warp);
}

/* --- running a block --------------------------------------------------------------------------- */

/* All threads wait: let the oldest bulk copy arrive (with a seed, any), or give up. */
inline void idle()
{
    if (!block.bulk.empty()) {
        const std::size_t which = turn(block.bulk.size());
        const BulkCopy copy = std::move(block.bulk[which]);
        block.bulk.erase(block.bulk.begin() + static_cast<std::ptrdiff_t>(which));
        deliver(copy);
        return;
    }
    std::fprintf(stderr, "cuda model: deadlock in block %u: every thread waits\n", blockIdx.x);
    for (unsigned first = 0, next; first < block.threads_count; first = next) {
        const Fiber &fiber = *scheduler.fibers[first];
        const auto alike = [&](const Fiber &other) {
            return other.what == fiber.what && other.where.line == fiber.where.line;
        };
        for (next = first + 1; next < block.threads_count && alike(*scheduler.fibers[next]);) {
            next++;
        }
        if (fiber.what == nullptr) {
            std::fprintf(stderr, "  threads %u to %u have ended\n", first, next - 1);
        } else {
            std::fprintf(stderr, "  threads %u to %u are in %s at %s:%d\n", first, next - 1, fiber.what,
                         fiber.where.file, fiber.where.line);
        }
    }
    std::abort();
}

/* What a thread does: the kernel, and leaving its warp to the others. */
inline void run_thread()
{
    block.kernel();
    Warp &warp = this_warp();
    if (!warp.products.empty()) {
        fail(warp.products.back().where, "group_mma: the kernel ends without a group_wait() for it");
    }
    warp.alive &= ~(1u << this_lane());
    if (warp.arrived != 0 && warp.arrived == warp.alive) {
        complete_meeting(warp);
    }
    if (warp.alive == 0) {
        block.warps_alive--;
        for (NamedBarrier &barrier : block.named) {
            open_if_complete(barrier);
        }
    }
}

/* Gives a block garbage for shared memory, and lets its warps live. */
inline void begin_block()
{
    std::memset(block.shared, GARBAGE, block.shared_bytes);
    for (const StaticArray &array : block.statics) {
        std::memset(array.begin, GARBAGE, array.bytes);
    }
    const unsigned warps = (block.threads_count + WARP_SIZE - 1) / WARP_SIZE;
    block.warps_alive = warps;
    block.barriers.clear();
    for (unsigned i = 0; i < warps; i++) {
        const unsigned lanes = std::min(WARP_SIZE, block.threads_count - i * WARP_SIZE);
        block.warps[i] = {};
        block.warps[i].number = i;
        block.warps[i].alive = ALL_LANES >> (WARP_SIZE - lanes);
    }
    for (unsigned i = 0; i < block.threads_count; i++) {
        block.threads[i] = {};
    }
}

/* What a block may not leave behind. */
inline void end_block()
{
    if (!block.bulk.empty()) {
        fail(block.bulk[0].where, "copy_bulk: block %u ended before it arrived", blockIdx.x);
    }
    for (unsigned i = 0; i < (block.threads_count + WARP_SIZE - 1) / WARP_SIZE; i++) {
        if (block.warps[i].issued != block.warps[i / 4 * 4].issued) {
            fail({}, "group_mma: warps %u and %u issued different ones", i / 4 * 4, i);
        }
    }
}

/* What all blocks of a launch have in common. */
inline void begin_launch(unsigned grid, unsigned threads, std::size_t shared_bytes, std::function<void()> kernel)
{
    if (scheduler.current != &scheduler.main) {
        fail({}, "a kernel launches a kernel");
    }
    scheduler.seed = settings.seed;
    block.threads_count = threads;
    block.kernel = std::move(kernel);
    gridDim = {grid};
    blockDim = {threads};
    place_shared(shared_bytes);
}

inline void launch(unsigned grid, unsigned threads, std::size_t shared_bytes, std::function<void()> kernel)
{
    begin_launch(grid, threads, shared_bytes, std::move(kernel));
    for (unsigned i = 0; i < grid; i++) {
        blockIdx = {i, 0, 0};
        begin_block();
        run(threads, run_thread, idle);
        end_block();
    }
    block.kernel = nullptr;
}

/* --- blocks that run together ------------------------------------------------------------------ */

/*
 * A block of a cooperative launch, while another has the place of the one that runs. Blocks change places
 * when all threads of one wait and some of them poll, for what only another block can do.
 */
struct Resident {
    Block block;
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::deque<Fiber *> ready;
    unsigned unfinished = 0; /* threads */
    std::vector<std::vector<unsigned char>> shared; /* its arrays of shared memory, the dynamic one first */
};

struct Together {
    std::vector<std::unique_ptr<Resident>> residents; /* kept from launch to launch */
    unsigned count = 0;     /* of this launch; 0: it is none */
    unsigned unfinished = 0; /* blocks */
    unsigned fruitless = 0; /* changes of place since some block went on */
};

inline Together together;

/* Have this block's shared memory, or what is kept of it, the other way round; unknown arrays are garbage. */
inline void exchange_shared(Resident &one)
{
    std::size_t which = 0;
    const auto exchange = [&](void *begin, std::size_t bytes) {
        if (one.shared.size() <= which) {
            one.shared.emplace_back(bytes, GARBAGE);
        }
        unsigned char *const memory = static_cast<unsigned char *>(begin);
        std::swap_ranges(memory, memory + bytes, one.shared[which].begin());
        which++;
    };
    exchange(block.shared, block.shared_bytes);
    for (const StaticArray &array : block.statics) {
        exchange(array.begin, array.bytes);
    }
}

/* Puts a block that waits into the place of the one that runs, or takes it out again. */
inline void exchange(unsigned number)
{
    Resident &one = *together.residents[number];
    exchange_shared(one);
    std::swap(block, one.block);
    std::swap(block.statics, one.block.statics); /* where they lie is the same for all */
    std::swap(scheduler.fibers, one.fibers);
    std::swap(scheduler.ready, one.ready);
    std::swap(scheduler.unfinished, one.unfinished);
    blockIdx = {number, 0, 0};
}

/* After this block the next one that has not ended; its polling threads look again. */
inline void next_block()
{
    unsigned next = blockIdx.x;
    std::size_t further = 1 + turn(together.count);
    exchange(next);
    while (further > 0) {
        next = (next + 1) % together.count;
        further -= together.residents[next]->unfinished != 0;
    }
    exchange(next);
    if (!scheduler.ready.empty()) {
        together.fruitless = 0;
    }
    for (Fiber *fiber : std::exchange(block.polling, {})) {
        wake(*fiber);
    }
}

/* All threads of a block wait: for a copy, or for another block, or for ever. */
inline void idle_together()
{
    if (!block.bulk.empty() || block.polling.empty()) {
        idle();
    } else if (together.fruitless++ > 100 * together.count) {
        fail(block.polling[0]->where, "deadlock: every block waits for another, this one in %s",
             block.polling[0]->what);
    } else {
        next_block();
    }
}

/* As launch(), with all blocks there from the beginning to the end. */
inline void launch_together(unsigned grid, unsigned threads, std::size_t shared_bytes,
                            std::function<void()> kernel)
{
    begin_launch(grid, threads, shared_bytes, std::move(kernel));
    while (together.residents.size() < grid) {
        together.residents.push_back(std::make_unique<Resident>());
    }
    together.count = together.unfinished = grid;
    together.fruitless = 0;
    for (unsigned i = 0; i < grid; i++) {
        Resident &one = *together.residents[i];
        one.shared.clear();
        one.block.threads_count = threads;
        one.block.kernel = block.kernel;
        one.block.shared = block.shared;
        one.block.shared_bytes = shared_bytes;
        exchange(i);
        begin_block();
        prepare(threads, run_thread, idle_together);
        exchange(i);
    }
    blockIdx = {0, 0, 0};
    exchange(0);
    for (;;) {
        jump(scheduler.main, next_ready());
        end_block(); /* of the one that runs now */
        together.fruitless = 0;
        if (--together.unfinished == 0) {
            break;
        }
        next_block();
    }
    exchange(blockIdx.x);
    together.count = 0;
    block.kernel = nullptr;
}

inline void check_mask(unsigned mask, const char *what, Here where)
{
    if (mask != ALL_LANES) {
        fail(where, "%s: the model knows the mask 0xFFFFFFFF only, not 0x%08x", what, mask);
    }
}

template <class T> struct Shuffle {
    T value;
    unsigned from;
    Here where;
};

/* Every lane gets the value of lane `from`, as it was before. */
template <class T> void shuffle(Warp &warp)
{
    T values[WARP_SIZE] = {};
    for (unsigned lane = 0; lane < WARP_SIZE; lane++) {
        if (warp.alive >> lane & 1u) {
            values[lane] = operand<Shuffle<T>>(warp, lane).value;
        }
    }
    for (unsigned lane = 0; lane < WARP_SIZE; lane++) {
        if (warp.alive >> lane & 1u) {
            Shuffle<T> &mine = operand<Shuffle<T>>(warp, lane);
            if ((warp.alive >> mine.from & 1u) == 0) {
                fail(mine.where, "lane %u shuffles from lane %u, which has ended", lane, mine.from);
            }
            mine.value = values[mine.from];
        }
    }
    wake_lanes(warp);
}

/* Of a warp's mma: a pointer to what each lane brought. */
struct Fragments {
    int *c;
    const unsigned *a;
    unsigned b[2];
};

/*
 * "Matrix Fragments for mma.m16n8k256" and, with bytes for bits, of mma.m16n8k32: a row of A and a column of
 * B are 8 words. Lane 4g + t has words t and t + 4 of rows g and g + 8 and of column g, and of rows g and
 * g + 8 of the result columns 2t and 2t + 1.
 */
template <class Dot> void multiply(Warp &warp, Dot dot)
{
    unsigned a[16][8], b[8][8];
    for (unsigned lane = 0; lane < WARP_SIZE; lane++) {
        const Fragments &each = operand<Fragments>(warp, lane);
        const unsigned g = lane / 4, t = lane % 4;
        a[g][t] = each.a[0];
        a[g + 8][t] = each.a[1];
        a[g][t + 4] = each.a[2];
        a[g + 8][t + 4] = each.a[3];
        b[g][t] = each.b[0];
        b[g][t + 4] = each.b[1];
    }
    for (unsigned lane = 0; lane < WARP_SIZE; lane++) {
        int *c = operand<Fragments>(warp, lane).c;
        for (unsigned i = 0; i < 4; i++) {
            const unsigned sum = dot(a[lane / 4 + i / 2 * 8], b[lane % 4 * 2 + i % 2]);
            c[i] = static_cast<int>(static_cast<unsigned>(c[i]) + sum);
        }
    }
    wake_lanes(warp);
}

inline void multiply_bits(Warp &warp)
{
    multiply(warp, [](const unsigned *a, const unsigned *b) {
        std::uint64_t rows[2][4];
        std::memcpy(rows[0], a, sizeof rows[0]);
        std::memcpy(rows[1], b, sizeof rows[1]);
        return static_cast<unsigned>(and_popcount(rows[0], rows[1]));
    });
}

inline void multiply_bytes(Warp &warp)
{
    multiply(warp, [](const unsigned *a, const unsigned *b) {
        std::int8_t rows[2][32];
        std::memcpy(rows[0], a, sizeof rows[0]);
        std::memcpy(rows[1], b, sizeof rows[1]);
        int sum = 0;
        for (unsigned i = 0; i < 32; i++) {
            sum += rows[0][i] * rows[1][i];
        }
        return static_cast<unsigned>(sum);
    });
}

/* Of a warp's mma on one word of a row and of a column each. */
struct SmallFragments {
    int *c[2];
    unsigned a, b;
};

/*
 * "Matrix Fragments for mma.m8n8k128": a row of A and a column of B are 4 words. Lane 4g + t has word t of row
 * g and of column g, and of row g of the result columns 2t and 2t + 1.
 */
inline void multiply_differing(Warp &warp)
{
    unsigned a[8][4], b[8][4];
    for (unsigned lane = 0; lane < WARP_SIZE; lane++) {
        const SmallFragments &each = operand<SmallFragments>(warp, lane);
        a[lane / 4][lane % 4] = each.a;
        b[lane / 4][lane % 4] = each.b;
    }
    for (unsigned lane = 0; lane < WARP_SIZE; lane++) {
        for (unsigned i = 0; i < 2; i++) {
            int &c = *operand<SmallFragments>(warp, lane).c[i];
            unsigned sum = static_cast<unsigned>(c);
            for (unsigned word = 0; word < 4; word++) {
                const unsigned both = a[lane / 4][word] ^ b[lane % 4 * 2 + i][word];
                sum += static_cast<unsigned>(__builtin_popcount(both));
            }
            c = static_cast<int>(sum);
        }
    }
    wake_lanes(warp);
}

struct Rows {
    const void *row;
    unsigned *words;
};

/* "ldmatrix": lane l names row l % 8 of matrix l / 8, and gets word l % 4 of row l / 4 of each matrix. */
inline void load_matrices(Warp &warp)
{
    for (unsigned lane = 0; lane < WARP_SIZE; lane++) {
        for (unsigned matrix = 0; matrix < 4; matrix++) {
            const Rows &from = operand<Rows>(warp, matrix * 8 + lane / 4);
            const Rows &to = operand<Rows>(warp, lane);
            std::memcpy(&to.words[matrix], static_cast<const char *>(from.row) + lane % 4 * 4, 4);
        }
    }
    wake_lanes(warp);
}

}  // namespace cuda_model

/* --- what kernels call ------------------------------------------------------------------------- */

#define SHARED_MEMORY(name) unsigned char *const name = cuda_model::block.shared
#define SHARED_ARRAY(type, name, count)                         \
    static cuda_model::StaticShared<type[count]> name##_shared; \
    type(&name)[count] = name##_shared.array

inline void named_barrier(unsigned id, unsigned threads, cuda_model::Here here = cuda_model::Here::now())
{
    if (id >= cuda_model::MAX_BARRIERS || threads == 0 || threads % cuda_model::WARP_SIZE != 0) {
        cuda_model::fail(here, "named_barrier(%u, %u): 16 barriers, of multiples of 32 threads", id, threads);
    }
    cuda_model::Rendezvous meant{id, threads / cuda_model::WARP_SIZE, here};
    cuda_model::meet("named_barrier", here, &meant, cuda_model::arrive_as_warp, false);
}

inline void __syncthreads(cuda_model::Here here = cuda_model::Here::now())
{
    cuda_model::Rendezvous meant{0, 0, here};
    cuda_model::meet("__syncthreads", here, &meant, cuda_model::arrive_as_warp, false);
}

inline void __syncwarp(cuda_model::Here here = cuda_model::Here::now())
{
    cuda_model::meet("__syncwarp", here, nullptr, cuda_model::wake_lanes, false);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, cuda_model::Here here = cuda_model::Here::now())
{
    using namespace cuda_model;
    check_mask(mask, "__ballot_sync", here);
    unsigned bits = predicate != 0;
    meet("__ballot_sync", here, &bits, [](Warp &warp) {
        unsigned all = 0;
        for (unsigned lane = 0; lane < WARP_SIZE; lane++) {
            if (warp.alive >> lane & 1u) {
                all |= operand<unsigned>(warp, lane) << lane;
            }
        }
        for (unsigned lane = 0; lane < WARP_SIZE; lane++) {
            if (warp.alive >> lane & 1u) {
                operand<unsigned>(warp, lane) = all;
            }
        }
        wake_lanes(warp);
    }, false);
    return bits;
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, cuda_model::Here here = cuda_model::Here::now())
{
    using namespace cuda_model;
    check_mask(mask, "__shfl_sync", here);
    Shuffle<T> mine{value, static_cast<unsigned>(lane) % WARP_SIZE, here};
    meet("__shfl_sync", here, &mine, shuffle<T>, false);
    return mine.value;
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int flipped, cuda_model::Here here = cuda_model::Here::now())
{
    using namespace cuda_model;
    check_mask(mask, "__shfl_xor_sync", here);
    Shuffle<T> mine{value, (this_lane() ^ static_cast<unsigned>(flipped)) % WARP_SIZE, here};
    meet("__shfl_xor_sync", here, &mine, shuffle<T>, false);
    return mine.value;
}

inline void load_matrix(unsigned (&r)[4], const void *row, cuda_model::Here here = cuda_model::Here::now())
{
    using namespace cuda_model;
    need(75, "load_matrix", here);
    check_aligned(row, 16, "load_matrix", here);
    check_shared(row, 16, "load_matrix", here);
    Rows mine{row, r};
    meet("load_matrix", here, &mine, load_matrices);
}

inline void mma_and(int (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                    cuda_model::Here here = cuda_model::Here::now())
{
    cuda_model::need(80, "mma_and", here);
    cuda_model::Fragments mine{c, a, {b0, b1}};
    cuda_model::meet("mma_and", here, &mine, cuda_model::multiply_bits);
}

inline void mma_xor(int &c0, int &c1, unsigned a, unsigned b, cuda_model::Here here = cuda_model::Here::now())
{
    cuda_model::need(75, "mma_xor", here);
    cuda_model::SmallFragments mine{{&c0, &c1}, a, b};
    cuda_model::meet("mma_xor", here, &mine, cuda_model::multiply_differing);
}

inline void mma_bytes(int (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                      cuda_model::Here here = cuda_model::Here::now())
{
    cuda_model::need(80, "mma_bytes", here);
    cuda_model::Fragments mine{c, a, {b0, b1}};
    cuda_model::meet("mma_bytes", here, &mine, cuda_model::multiply_bytes);
}

/* "atom.add.release": adds, and gives what was there before. */
inline unsigned add_release(unsigned *at, unsigned value)
{
    cuda_model::together.fruitless = 0;
    return atomicAdd(at, value);
}

/* "ld.acquire" of what another block changes: the model lets the others run before it looks. */
inline unsigned load_acquire(const unsigned *at, cuda_model::Here here = cuda_model::Here::now())
{
    using namespace cuda_model;
    if (together.count == 0) {
        fail(here, "load_acquire: that other blocks run as well is sure in a cooperative launch alone");
    }
    will_wait("load_acquire", here);
    block.polling.push_back(scheduler.current);
    wait();
    return *at;
}

/* "ld.global.nc", not to be moved by a compiler. */
inline uint4 load_early(const uint4 *at)
{
    return *at;
}

/* "cp.async": reads now (nothing if not valid), writes in copy_wait(). */
template <int BYTES>
void copy_async(void *shared, const void *global, bool valid, cuda_model::Here here = cuda_model::Here::now())
{
    using namespace cuda_model;
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16);
    check_aligned(shared, BYTES, "copy_async", here);
    check_aligned(global, BYTES, "copy_async", here);
    check_shared(shared, BYTES, "copy_async", here);
    Copy copy{shared, BYTES, this_thread().groups, {}};
    if (valid) {
        std::memcpy(copy.data, global, BYTES);
    }
    if (settings.capability < 80) { /* which has none: there it is a load and a store */
        std::memcpy(shared, copy.data, BYTES);
        return;
    }
    this_thread().copies.push_back(copy);
    std::memset(shared, GARBAGE, BYTES);
}

inline void copy_commit()
{
    cuda_model::this_thread().groups++;
}

/* Until no more than the last N commits of this thread are pending. */
template <int N> void copy_wait()
{
    using namespace cuda_model;
    static_assert(N >= 0);
    Thread &thread = this_thread();
    auto copy = thread.copies.begin();
    for (; copy != thread.copies.end() && copy->group + N < thread.groups; ++copy) {
        std::memcpy(copy->to, copy->data, copy->bytes);
    }
    thread.copies.erase(thread.copies.begin(), copy);
}

inline void barrier_init(barrier_t *barrier, unsigned count, cuda_model::Here here = cuda_model::Here::now())
{
    using namespace cuda_model;
    need(80, "barrier_init", here);
    check_aligned(barrier, 8, "barrier_init", here);
    check_shared(barrier, 8, "barrier_init", here);
    if (count < 1 || count >= 1u << 20) {
        fail(here, "barrier_init: a count of %u is not in 1 to 2^20 - 1", count);
    }
    if (!block.barriers.insert({barrier, {count, count, 0, 0, false, {}}}).second) {
        fail(here, "barrier_init: the barrier is initialised already");
    }
    *barrier = seal(barrier);
}

/* What has been initialised is seen by bulk copies from now on. */
inline void barrier_fence()
{
    for (auto &each : cuda_model::block.barriers) {
        each.second.fenced = true;
    }
}

inline void barrier_expect(barrier_t *barrier, unsigned bytes,
                           cuda_model::Here here = cuda_model::Here::now())
{
    using namespace cuda_model;
    arrive_at(find_barrier(barrier, "barrier_expect", here), bytes, "barrier_expect", here);
}

inline void barrier_arrive(barrier_t *barrier, cuda_model::Here here = cuda_model::Here::now())
{
    using namespace cuda_model;
    arrive_at(find_barrier(barrier, "barrier_arrive", here), 0, "barrier_arrive", here);
}

/* "mbarrier.try_wait.parity": until the phase of this parity has completed, the current or the last one. */
inline void barrier_wait(barrier_t *barrier, unsigned parity, cuda_model::Here here = cuda_model::Here::now())
{
    using namespace cuda_model;
    if (parity > 1) {
        fail(here, "barrier_wait: a parity is 0 or 1, not %u", parity);
    }
    Barrier &found = find_barrier(barrier, "barrier_wait", here);
    while (found.phase % 2 == parity) {
        found.waiting.push_back(scheduler.current);
        will_wait("barrier_wait", here);
        wait();
    }
}

/* "cp.async.bulk": reads now, writes when all threads wait. */
inline void copy_bulk(void *shared, const void *global, unsigned bytes, barrier_t *barrier,
                      cuda_model::Here here = cuda_model::Here::now())
{
    using namespace cuda_model;
    need(90, "copy_bulk", here);
    check_aligned(shared, 16, "copy_bulk", here);
    check_aligned(global, 16, "copy_bulk", here);
    check_shared(shared, bytes, "copy_bulk", here);
    if (bytes == 0 || bytes % 16 != 0) {
        fail(here, "copy_bulk: %u bytes are not a multiple of 16", bytes);
    }
    if (!find_barrier(barrier, "copy_bulk", here).fenced) {
        fail(here, "copy_bulk: no barrier_fence() since barrier_init()");
    }
    const unsigned char *from = static_cast<const unsigned char *>(global);
    block.bulk.push_back({here, shared, barrier, std::vector<unsigned char>(from, from + bytes)});
    std::memset(shared, GARBAGE, bytes);
}

inline void proxy_fence()
{
}

/* In the model an address is an offset in dynamic shared memory. */
inline unsigned long long matrix_descriptor(const void *shared, unsigned leading_bytes, unsigned stride_bytes,
                                            cuda_model::Here here = cuda_model::Here::now())
{
    using namespace cuda_model;
    check_aligned(shared, 16, "matrix_descriptor", here);
    if (!inside(shared, 16, block.shared, block.shared_bytes)) {
        fail(here, "matrix_descriptor: %p is not in dynamic shared memory", shared);
    }
    if ((leading_bytes | stride_bytes) % 16 != 0 || (leading_bytes | stride_bytes) >> 18 != 0) {
        fail(here, "matrix_descriptor: leading %u and stride %u have to be multiples of 16 below 2^18",
             leading_bytes, stride_bytes);
    }
    const std::ptrdiff_t offset = static_cast<const unsigned char *>(shared) - block.shared;
    const unsigned long long start = static_cast<unsigned long long>(offset);
    return start >> 4 | static_cast<unsigned long long>(leading_bytes >> 4) << 16 |
           static_cast<unsigned long long>(stride_bytes >> 4) << 32;
}

/*
 * "wgmma.mma_async", a warp at a time: each computes 16 rows. The four of a warpgroup may drift apart, as on
 * a GPU; that all issue the same is checked when the block ends.
 */
template <int N>
void group_mma(int (&d)[N / 2], unsigned long long a, unsigned long long b, bool accumulate,
               cuda_model::Here here = cuda_model::Here::now())
{
    using namespace cuda_model;
    static_assert(N == 64 || N == 128 || N == 256);
    need(90, "group_mma", here);
    if (settings.capability != 90) {
        fail(here, "group_mma: only compute capability 9.0 has it");
    }
    Issue mine{d, a, b, accumulate, N, here};
    meet("group_mma", here, &mine, issue);
}

/* Needed before the first group_mma() and between any use of its sums and the next one. */
inline void group_fence(cuda_model::Here here = cuda_model::Here::now())
{
    cuda_model::meet("group_fence", here, nullptr, [](cuda_model::Warp &warp) {
        warp.fenced = true;
        cuda_model::wake_lanes(warp);
    });
}

inline void double_here(int &sum)
{
    sum *= 2;
}

inline void group_commit(cuda_model::Here here = cuda_model::Here::now())
{
    cuda_model::meet("group_commit", here, nullptr, [](cuda_model::Warp &warp) {
        warp.groups++;
        cuda_model::wake_lanes(warp);
    });
}

/* Until no more than the last N commits of the warp are pending. */
template <int N> void group_wait(cuda_model::Here here = cuda_model::Here::now())
{
    static_assert(0 <= N && N <= 7);
    unsigned pending = N;
    cuda_model::meet("group_wait", here, &pending, cuda_model::finish_groups);
}

template <int N> void registers_more()
{
    static_assert(24 <= N && N <= 256 && N % 8 == 0);
}

template <int N> void registers_less()
{
    static_assert(24 <= N && N <= 256 && N % 8 == 0);
}
