/*
 * Each function of the CUDA model against plain arithmetic on random data: test_cuda_model.py runs it.
 *
 * `program NAME` prints "equal" or "different". A name that ends in "_unsynced" lacks what makes it right.
 */
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#define FULL 0xFFFFFFFFu

struct run {
    const unsigned *in;
    unsigned *out;
    unsigned count;
    bool synced;
};

typedef std::vector<unsigned> Words;
static std::mt19937 generator(2026);

static Words random_words(std::size_t count)
{
    Words words(count);
    std::generate(words.begin(), words.end(), std::ref(generator));
    return words;
}

struct Launch {
    void (*kernel)(run);
    unsigned grid, threads, shared;
    bool synced;
    bool together = false; /* a cooperative launch; the last word of what comes out is 0 before */
};

static Words launched(const Launch &launch, const Words &in, std::size_t out_words, unsigned count = 0)
{
    unsigned *memory, *result;
    Words out(out_words);
    if (cudaMalloc(&memory, in.size() * 4) != cudaSuccess || cudaMalloc(&result, out_words * 4) != cudaSuccess ||
        cudaMemcpy(memory, in.data(), in.size() * 4, cudaMemcpyHostToDevice) != cudaSuccess) {
        std::abort();
    }
    if (launch.together && cudaMemset(result + out_words - 1, 0, 4) != cudaSuccess) {
        std::abort();
    }
    const auto start = launch.together ? cudaLaunchCooperativeKernel<run> : cudaLaunchKernel<run>;
    run argument{memory, result, count, launch.synced};
    void *arguments[] = {&argument};
    if (cudaFuncSetAttribute(launch.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(launch.shared)) != cudaSuccess ||
        start(launch.kernel, launch.grid, launch.threads, arguments, launch.shared, nullptr) != cudaSuccess ||
        cudaMemcpyAsync(out.data(), result, out_words * 4, cudaMemcpyDeviceToHost, nullptr) != cudaSuccess) {
        std::abort();
    }
    cudaFree(memory);
    cudaFree(result);
    return out;
}

/* --- words ------------------------------------------------------------------------------------- */

static bool words()
{
    bool equal = min(3, 4u) == 3u && min(-1, 4u) == 4u && max(-1, 4) == 4 && max(-1, 4u) == FULL && min(2, 1) == 1;
    for (unsigned trial = 0; trial < 1000; trial++) {
        const Words w = random_words(4);
        unsigned ones = 0, reversed = 0;
        for (unsigned i = 0; i < 32; i++) {
            ones += w[0] >> i & 1u;
            reversed = reversed << 1 | (w[0] >> i & 1u);
        }
        const unsigned shift = w[3] % 32;
        const unsigned shifted = shift == 0 ? w[1] : w[1] << shift | w[0] >> (32 - shift);
        std::uint8_t x[4];
        std::int8_t weights[4];
        std::memcpy(x, &w[0], 4);
        std::memcpy(weights, &w[1], 4);
        int sum = static_cast<int>(w[2] >> 2);
        const int before = sum;
        for (unsigned i = 0; i < 4; i++) {
            sum += x[i] * weights[i];
        }
        int counter = before;
        equal = equal && __popc(w[0]) == static_cast<int>(ones) && __brev(w[0]) == reversed && __ldg(&w[2]) == w[2] &&
                __funnelshift_l(w[0], w[1], w[3]) == shifted && dot4(w[0], static_cast<int>(w[1]), before) == sum &&
                atomicAdd(&counter, -7) == before && counter == before - 7;
    }
    return equal;
}

/* --- warps ------------------------------------------------------------------------------------- */

__global__ void __launch_bounds__(96) shuffles(run r)
{
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32;
    const unsigned value = r.in[i];
    unsigned *out = r.out + 4 * i;
    out[0] = __ballot_sync(FULL, value & 1u);
    out[1] = __shfl_sync(FULL, value, static_cast<int>(value >> 8));
    out[2] = static_cast<unsigned>(__shfl_xor_sync(FULL, static_cast<int>(value), 5));
    __syncwarp();
    if (lane >= 20) {
        return;
    }
    out[3] = __ballot_sync(FULL, value & 2u); /* of the lanes that are left */
}

static bool shuffles_equal(bool)
{
    const unsigned grid = 3, threads = 96 - 8; /* the last warp has 24 lanes */
    Words in = random_words(grid * threads);
    for (unsigned &word : in) {
        word &= ~0x1800u; /* shuffles from the first 8 lanes: all have them */
    }
    const Words out = launched({shuffles, grid, threads, 0, true}, in, 4 * in.size());
    bool equal = true;
    for (unsigned i = 0; i < in.size(); i++) {
        const unsigned lane = i % threads % 32, first = i - lane, lanes = std::min(32u, threads - i % threads + lane);
        unsigned odd = 0, second = 0;
        for (unsigned l = 0; l < lanes; l++) {
            odd |= (in[first + l] & 1u) << l;
            second |= l < 20 ? (in[first + l] >> 1 & 1u) << l : 0;
        }
        equal = equal && out[4 * i] == odd && out[4 * i + 1] == in[first + (in[i] >> 8) % 32] &&
                out[4 * i + 2] == in[first + (lane ^ 5)] && (lane >= 20 || out[4 * i + 3] == second);
    }
    return equal;
}

/* 4 matrices of 8 rows, the rows in an order of their own: out has 4 words a lane. */
__global__ void matrices(run r)
{
    SHARED_MEMORY(shared);
    unsigned *rows = reinterpret_cast<unsigned *>(shared);
    for (unsigned i = 0; i < 4; i++) {
        rows[threadIdx.x * 4 + i] = r.in[threadIdx.x * 4 + i];
    }
    __syncwarp();
    unsigned words[4];
    load_matrix(words, rows + (threadIdx.x * 13 + 5) % 32 * 4);
    for (unsigned i = 0; i < 4; i++) {
        r.out[threadIdx.x * 4 + i] = words[i];
    }
}

static bool matrices_equal(bool)
{
    const Words in = random_words(128), out = launched({matrices, 1, 32, 512, true}, in, 128);
    bool equal = true;
    for (unsigned matrix = 0; matrix < 4; matrix++) {
        for (unsigned row = 0; row < 8; row++) {
            for (unsigned word = 0; word < 4; word++) {
                const unsigned from = ((matrix * 8 + row) * 13 + 5) % 32 * 4 + word;
                equal = equal && out[(row * 4 + word) * 4 + matrix] == in[from];
            }
        }
    }
    return equal;
}

/* --- mma: fragments element by element, as the tables of the manual have them ------------------- */

template <bool BITS> __global__ void mma(run r)
{
    const unsigned *in = r.in + (blockIdx.x * 32 + threadIdx.x) * 10;
    const unsigned a[4] = {in[0], in[1], in[2], in[3]};
    int c[4];
    std::memcpy(c, in + 6, sizeof c);
    if (BITS) {
        mma_and(c, a, in[4], in[5]);
    } else {
        mma_bytes(c, a, in[4], in[5]);
    }
    std::memcpy(r.out + (blockIdx.x * 32 + threadIdx.x) * 4, c, sizeof c);
}

/* Element i of a fragment: a bit, or a signed byte. */
template <bool BITS> static int element(const unsigned *words, unsigned i)
{
    return BITS ? static_cast<int>(words[i / 32] >> i % 32 & 1u)
                : static_cast<std::int8_t>(words[i / 4] >> i % 4 * 8);
}

template <bool BITS> static bool mma_equal(bool)
{
    const unsigned trials = 20, per = BITS ? 32 : 4, k = 8 * per; /* elements in a register, in a row */
    const Words in = random_words(trials * 320), out = launched({mma<BITS>, trials, 32, 0, true}, in, trials * 128);
    bool equal = true;
    for (unsigned trial = 0; trial < trials; trial++) {
        std::vector<int> a(16 * k), b(k * 8);
        for (unsigned lane = 0; lane < 32; lane++) {
            const unsigned *words = &in[(trial * 32 + lane) * 10];
            const unsigned group = lane / 4, in_group = lane % 4;
            for (unsigned i = 0; i < 4 * per; i++) {
                const bool upper = i < per || (2 * per <= i && i < 3 * per);
                const unsigned row = upper ? group : group + 8;
                const unsigned column = in_group * per + i % per + (i < 2 * per ? 0 : 4 * per);
                a[row * k + column] = element<BITS>(words, i);
            }
            for (unsigned i = 0; i < 2 * per; i++) {
                const unsigned row = in_group * per + i % per + (i < per ? 0 : 4 * per);
                b[row * 8 + group] = element<BITS>(words + 4, i);
            }
        }
        for (unsigned lane = 0; lane < 32; lane++) {
            for (unsigned i = 0; i < 4; i++) {
                const unsigned row = i < 2 ? lane / 4 : lane / 4 + 8, column = lane % 4 * 2 + (i & 1u);
                unsigned sum = in[(trial * 32 + lane) * 10 + 6 + i];
                for (unsigned j = 0; j < k; j++) {
                    sum += static_cast<unsigned>(a[row * k + j] * b[j * 8 + column]);
                }
                equal = equal && out[(trial * 32 + lane) * 4 + i] == sum;
            }
        }
    }
    return equal;
}

/* One word of a row of A, one of a column of B, and two sums a lane. */
__global__ void small_mma(run r)
{
    const unsigned *in = r.in + (blockIdx.x * 32 + threadIdx.x) * 4;
    int c[2];
    std::memcpy(c, in + 2, sizeof c);
    mma_xor(c[0], c[1], in[0], in[1]);
    std::memcpy(r.out + (blockIdx.x * 32 + threadIdx.x) * 2, c, sizeof c);
}

static bool small_mma_equal(bool)
{
    const unsigned trials = 20, k = 128;
    const Words in = random_words(trials * 128), out = launched({small_mma, trials, 32, 0, true}, in, trials * 64);
    bool equal = true;
    for (unsigned trial = 0; trial < trials; trial++) {
        std::vector<unsigned> a(8 * k), b(k * 8);
        for (unsigned lane = 0; lane < 32; lane++) {
            const unsigned *words = &in[(trial * 32 + lane) * 4];
            for (unsigned i = 0; i < 32; i++) {
                a[lane / 4 * k + lane % 4 * 32 + i] = words[0] >> i & 1u;
                b[(lane % 4 * 32 + i) * 8 + lane / 4] = words[1] >> i & 1u;
            }
        }
        for (unsigned lane = 0; lane < 32; lane++) {
            for (unsigned i = 0; i < 2; i++) {
                unsigned sum = in[(trial * 32 + lane) * 4 + 2 + i];
                for (unsigned j = 0; j < k; j++) {
                    sum += a[lane / 4 * k + j] ^ b[j * 8 + lane % 4 * 2 + i];
                }
                equal = equal && out[(trial * 32 + lane) * 2 + i] == sum;
            }
        }
    }
    return equal;
}

/* --- blocks ------------------------------------------------------------------------------------ */

/* Reverses pieces of 64 words; as many blocks as multiprocessors loop over all. */
__global__ void reverse(run r)
{
    SHARED_ARRAY(unsigned, piece, 64);
    for (unsigned i = blockIdx.x; i < r.count; i += gridDim.x) {
        piece[threadIdx.x] = r.in[i * 64 + threadIdx.x];
        __syncthreads();
        r.out[i * 64 + threadIdx.x] = piece[63 - threadIdx.x];
        if (r.synced) {
            __syncthreads();
        }
    }
}

static bool reverse_equal(bool synced)
{
    int device = 0, multiprocessors = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
    const unsigned count = 10;
    const Words in = random_words(count * 64);
    const Words out = launched({reverse, static_cast<unsigned>(multiprocessors), 64, 0, synced}, in, in.size(), count);
    Words expected = in;
    for (unsigned i = 0; i < count; i++) {
        std::reverse(expected.begin() + i * 64, expected.begin() + i * 64 + 64);
    }
    return out == expected;
}

/* What a block before has left is gone. */
__global__ void leftovers(run r)
{
    SHARED_MEMORY(shared);
    SHARED_ARRAY(unsigned, words, 32);
    unsigned *dynamic = reinterpret_cast<unsigned *>(shared);
    r.out[blockIdx.x * 64 + threadIdx.x] = words[threadIdx.x];
    r.out[blockIdx.x * 64 + 32 + threadIdx.x] = dynamic[threadIdx.x];
    words[threadIdx.x] = dynamic[threadIdx.x] = 0;
}

static bool leftovers_equal(bool)
{
    return launched({leftovers, 3, 32, 128, true}, {0}, 192) == Words(192, 0xA5A5A5A5u);
}

/* Two halves of a block, each with a barrier of its own and another number of steps. */
__global__ void halves(run r)
{
    SHARED_MEMORY(shared);
    const unsigned half = threadIdx.x / 64, i = threadIdx.x % 64;
    unsigned *words = reinterpret_cast<unsigned *>(shared) + half * 64;
    unsigned sum = r.in[threadIdx.x];
    for (unsigned step = 0; step <= half; step++) {
        words[i] = sum;
        named_barrier(1 + half, 64);
        sum += words[(i + 1) % 64];
        named_barrier(1 + half, 64);
    }
    r.out[threadIdx.x] = sum;
}

static bool halves_equal(bool)
{
    const Words in = random_words(128), out = launched({halves, 1, 128, 512, true}, in, 128);
    bool equal = true;
    for (unsigned i = 0; i < 64; i++) {
        const unsigned *second = &in[64];
        equal = equal && out[i] == in[i] + in[(i + 1) % 64] &&
                out[64 + i] == second[i] + 2 * second[(i + 1) % 64] + second[(i + 2) % 64];
    }
    return equal;
}

/* --- cp.async: a ring of 3 stages of a block's own rows; the last row is not valid --------------- */

template <int BYTES> __global__ void pipeline(run r)
{
    SHARED_MEMORY(shared);
    const unsigned row_bytes = 64 * BYTES, words = BYTES / 4;
    const unsigned char *in = reinterpret_cast<const unsigned char *>(r.in);
    const auto copy = [&](unsigned row) {
        if (row < r.count) {
            copy_async<BYTES>(shared + row % 3 * row_bytes + threadIdx.x * BYTES,
                              in + row * row_bytes + threadIdx.x * BYTES, row + 1 < r.count);
        }
        copy_commit();
    };
    copy(0);
    copy(1);
    for (unsigned row = 0; row < r.count; row++) {
        copy(row + 2);
        if (r.synced) {
            copy_wait<2>();
        } else {
            copy_wait<3>();
        }
        __syncthreads();
        const unsigned *stage = reinterpret_cast<const unsigned *>(shared + row % 3 * row_bytes);
        for (unsigned i = 0; i < words; i++) {
            r.out[(row * 64 + threadIdx.x) * words + i] = stage[(63 - threadIdx.x) * words + i];
        }
        __syncthreads();
    }
}

template <int BYTES> static bool pipeline_equal(bool synced)
{
    const unsigned rows = 7, words = BYTES / 4;
    const Words in = random_words(rows * 64 * words);
    const Words out = launched({pipeline<BYTES>, 1, 64, 3 * 64 * BYTES, synced}, in, in.size(), rows);
    bool equal = true;
    for (unsigned i = 0; i < in.size(); i++) {
        const unsigned row = i / words / 64, place = 63 - i / words % 64;
        equal = equal && out[i] == (row + 1 < rows ? in[(row * 64 + place) * words + i % words] : 0);
    }
    return equal;
}

/* --- mbarriers and cp.async.bulk: one warp brings rows of 256 bytes, two add up their words ------- */

__global__ void bulk(run r)
{
    SHARED_MEMORY(shared);
    SHARED_ARRAY(barrier_t, barriers, 4);
    barrier_t *full = barriers, *empty = barriers + 2;
    if (threadIdx.x == 0) {
        for (unsigned i = 0; i < 2; i++) {
            barrier_init(full + i, 1);
            barrier_init(empty + i, 2);
        }
        barrier_fence();
    }
    __syncthreads();
    if (threadIdx.x >= 64) {
        registers_less<40>();
        for (unsigned row = 0; row < r.count && threadIdx.x == 64; row++) {
            barrier_wait(empty + row % 2, (row / 2 + 1) % 2);
            barrier_expect(full + row % 2, 256);
            copy_bulk(shared + row % 2 * 256, r.in + row * 64, 128, full + row % 2);
            copy_bulk(shared + row % 2 * 256 + 128, r.in + row * 64 + 32, 128, full + row % 2);
        }
        return;
    }
    registers_more<232>();
    unsigned sum = 0;
    for (unsigned row = 0; row < r.count; row++) {
        if (r.synced) {
            barrier_wait(full + row % 2, row / 2 % 2);
        } else {
            named_barrier(1, 64);
        }
        const unsigned word = reinterpret_cast<unsigned *>(shared + row % 2 * 256)[63 - threadIdx.x];
        sum = sum * 3 + word;
        __syncwarp();
        if (threadIdx.x % 32 == 0) {
            barrier_arrive(empty + row % 2);
        }
    }
    if (!r.synced) {
        barrier_wait(full + 0, 0);
        barrier_wait(full + 1, 0);
    }
    r.out[threadIdx.x] = sum;
}

static bool bulk_equal(bool synced)
{
    const unsigned rows = synced ? 9 : 2;
    const Words in = random_words(rows * 64), out = launched({bulk, 2, 96, 512, synced}, in, 64, rows);
    Words expected(64);
    for (unsigned row = 0; row < rows; row++) {
        for (unsigned i = 0; i < 64; i++) {
            expected[i] = expected[i] * 3 + in[row * 64 + 63 - i];
        }
    }
    return out == expected;
}

/* --- wgmma: `count` steps of 256 bits; the next is issued before the last is waited for ----------- */

/* Where 16 bytes of a row lie: as the no-swizzle K-major form has it, groups of 8 rows 256 bytes apart. */
__device__ unsigned core_offset(unsigned row, unsigned half)
{
    return row / 8 * 256 + half * 128 + row % 8 * 16;
}

template <int N> __global__ void group(run r)
{
    SHARED_MEMORY(shared);
    const unsigned step_bytes = (64 + N) * 32;
    for (unsigned step = 0; step < r.count; step++) {
        for (unsigned row = threadIdx.x; row < 64 + N; row += blockDim.x) {
            for (unsigned half = 0; half < 2; half++) {
                unsigned char *to = shared + step * step_bytes;
                to += row < 64 ? core_offset(row, half) : 64 * 32 + core_offset(row - 64, half);
                std::memcpy(to, r.in + (step * (64 + N) + row) * 8 + half * 4, 16);
            }
        }
    }
    proxy_fence();
    __syncthreads();
    int d[N / 2];
    for (unsigned step = 0; step < r.count; step++) {
        const unsigned char *a = shared + step * step_bytes;
        if (step == 0) {
            group_fence();
        }
        group_mma<N>(d, matrix_descriptor(a, 128, 256), matrix_descriptor(a + 64 * 32, 128, 256), step > 0);
        group_commit();
        group_wait<1>();
    }
    if (r.synced) {
        group_wait<0>();
    }
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (unsigned j = 0; j < N / 8; j++) {
        for (unsigned i = 0; i < 4; i++) {
            const unsigned row = 16 * warp + lane / 4 + i / 2 * 8, column = 8 * j + lane % 4 * 2 + i % 2;
            r.out[row * N + column] = static_cast<unsigned>(d[4 * j + i]);
        }
    }
    group_wait<0>();
}

template <int N> static bool group_equal(bool synced)
{
    const unsigned steps = 3, rows = 64 + N;
    const Words in = random_words(steps * rows * 8);
    const Words out = launched({group<N>, 1, 128, steps * rows * 32, synced}, in, 64 * N, steps);
    Words expected(64 * N);
    for (unsigned step = 0; step < steps; step++) {
        for (unsigned row = 0; row < 64; row++) {
            for (unsigned column = 0; column < N; column++) {
                const unsigned *a = &in[(step * rows + row) * 8], *b = &in[(step * rows + 64 + column) * 8];
                for (unsigned word = 0; word < 8; word++) {
                    expected[row * N + column] += static_cast<unsigned>(__builtin_popcount(a[word] & b[word]));
                }
            }
        }
    }
    return out == expected;
}

/* --- blocks that run together ------------------------------------------------------------------ */

/* In each round a block has the words of the next block in the round before, and its own from shared memory. */
__global__ void around(run r)
{
    SHARED_ARRAY(unsigned, kept, 64);
    SHARED_MEMORY(dynamic);
    unsigned *const more = reinterpret_cast<unsigned *>(dynamic);
    const unsigned words = gridDim.x * 64, i = threadIdx.x, own = blockIdx.x * 64 + i;
    const unsigned other = (blockIdx.x + 1) % gridDim.x * 64 + i;
    unsigned *const arrivals = r.out + r.count * words;
    kept[i] = r.in[own];
    more[i] = r.in[words + own];
    r.out[own] = kept[i];
    for (unsigned round = 1; round < r.count; round++) {
        __syncthreads();
        if (r.synced) {
            if (i == 0) {
                add_release(arrivals, 1);
                while (load_acquire(arrivals) < round * gridDim.x) {
                }
            }
            __syncthreads();
        }
        r.out[round * words + own] = r.out[(round - 1) * words + other] ^ kept[63 - i] ^ more[i];
    }
}

static bool grid_equal(bool synced)
{
    const unsigned blocks = 3, words = blocks * 64, count = 5;
    const Words in = random_words(2 * words);
    const Words out = launched({around, blocks, 64, 256, synced, true}, in, count * words + 1, count);
    Words expected(in.begin(), in.begin() + words);
    for (unsigned round = 1; round < count; round++) {
        for (unsigned block = 0; block < blocks; block++) {
            for (unsigned i = 0; i < 64; i++) {
                const unsigned own = block * 64, other = (round - 1) * words + (block + 1) % blocks * 64 + i;
                expected.push_back(expected[other] ^ in[own + 63 - i] ^ in[words + own + i]);
            }
        }
    }
    expected.push_back(synced ? (count - 1) * blocks : 0);
    return out == expected;
}

static const struct {
    const char *name;
    bool (*equal)(bool synced);
} CASES[] = {
    {"grid", grid_equal},
    {"words", [](bool) { return words(); }},
    {"shuffles", shuffles_equal},
    {"matrices", matrices_equal},
    {"mma_and", mma_equal<true>},
    {"mma_bytes", mma_equal<false>},
    {"mma_xor", small_mma_equal},
    {"reverse", reverse_equal},
    {"leftovers", leftovers_equal},
    {"halves", halves_equal},
    {"copy_4", pipeline_equal<4>},
    {"copy_8", pipeline_equal<8>},
    {"copy_16", pipeline_equal<16>},
    {"bulk", bulk_equal},
    {"group_64", group_equal<64>},
    {"group_128", group_equal<128>},
    {"group_256", group_equal<256>},
};

int main(int count, char **arguments)
{
    for (const auto &each : CASES) {
        for (const bool synced : {true, false}) {
            if (count == 2 && std::string(each.name) + (synced ? "" : "_unsynced") == arguments[1]) {
                std::puts(each.equal(synced) ? "equal" : "different");
                return 0;
            }
        }
    }
    return 2;
}
