/*
 * What the CUDA model has to refuse, a kernel each: test_cuda_model.py knows by which message.
 *
 * `program NAME` launches that kernel; `program calls` is a host that stops at the first error.
 */
#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>
#include <string>

#define FULL 0xFFFFFFFFu

struct run {
    unsigned *memory; /* 64 words */
};

static __noinline__ unsigned deep(volatile unsigned depth)
{
    volatile unsigned char frame[1000];
    frame[depth % 1000] = 1;
    return depth == 0 ? 0 : deep(depth - 1) + frame[depth % 1000];
}

static void fragments(run r)
{
    int c[4] = {};
    const unsigned a[4] = {r.memory[0]};
    mma_and(c, a, 0, 0);
}

/* Two stages of 64 + 64 rows; issues a product of the first. */
static void product(int (&d)[32], unsigned char *shared, bool fence = true)
{
    if (fence) {
        group_fence();
    }
    group_mma<64>(d, matrix_descriptor(shared, 128, 256), matrix_descriptor(shared + 2048, 128, 256), false);
    group_commit();
}

static void initialised(barrier_t *barrier, unsigned count, bool fence = true)
{
    if (threadIdx.x == 0) {
        barrier_init(barrier, count);
        if (fence) {
            barrier_fence();
        }
    }
    __syncthreads();
}

static const struct {
    const char *name;
    unsigned threads, shared;
    void (*kernel)(run);
} CASES[] = {
    /* --- meetings --- */
    {"deadlock", 128, 0,
     [](run) {
         if (threadIdx.x >= 64) {
             __syncthreads();
         } else if (threadIdx.x >= 32) {
             named_barrier(1, 128);
         }
     }},
    {"divergent", 32, 0,
     [](run) {
         if (threadIdx.x < 16) {
             __syncwarp();
         } else {
             __ballot_sync(FULL, 1);
         }
     }},
    {"two_lines", 64, 0,
     [](run r) {
         if (threadIdx.x % 2) {
             __syncthreads();
         } else {
             r.memory[0] = 1;
             __syncthreads();
         }
     }},
    {"part_of_a_warp", 32, 0, [](run) { __ballot_sync(0xFFFFu, 1); }},
    {"ended_lane", 32, 0,
     [](run r) {
         if (threadIdx.x != 7) {
             fragments(r);
         }
     }},
    {"small_warp", 16, 0, fragments},
    {"shuffle_from_ended", 32, 0,
     [](run r) {
         if (threadIdx.x != 7) {
             r.memory[threadIdx.x] = __shfl_sync(FULL, threadIdx.x, 7);
         }
     }},
    {"counts_differ", 128, 0, [](run) { named_barrier(2, threadIdx.x < 32 ? 64 : 128); }},
    {"count_of_lanes", 128, 0, [](run) { named_barrier(2, 16); }},

    /* --- memory --- */
    {"read_beyond", 32, 256, [](run r) {
         SHARED_MEMORY(shared);
         r.memory[0] = shared[256 + threadIdx.x];
     }},
    {"write_before", 32, 0x8000, [](run) {
         SHARED_MEMORY(shared);
         volatile unsigned char *byte = shared;
         byte[-1] = 0;
     }},
    {"no_shared", 32, 0, [](run r) {
         SHARED_MEMORY(shared);
         r.memory[0] = shared[0];
     }},
    {"null", 32, 0, [](run r) {
         volatile unsigned *nothing = r.memory;
         nothing = nullptr;
         r.memory[0] = *nothing;
     }},
    {"stack", 32, 0, [](run r) { r.memory[0] = deep(1000); }},
    {"matrix_beyond", 32, 256, [](run) {
         SHARED_MEMORY(shared);
         unsigned words[4];
         load_matrix(words, shared + threadIdx.x * 16);
     }},
    {"matrix_misaligned", 32, 1024, [](run) {
         SHARED_MEMORY(shared);
         unsigned words[4];
         load_matrix(words, shared + threadIdx.x * 8);
     }},
    {"copy_beyond", 32, 256, [](run r) {
         SHARED_MEMORY(shared);
         copy_async<16>(shared + 248 + 8, r.memory, true);
     }},
    {"copy_from_misaligned", 32, 256, [](run r) {
         SHARED_MEMORY(shared);
         copy_async<8>(shared, r.memory + 1, true);
     }},
    {"red_zone", 1, 0, [](run r) { r.memory[64] = 0; }},

    /* --- barriers in memory --- */
    {"uninitialised", 32, 64, [](run) {
         SHARED_MEMORY(shared);
         barrier_wait(reinterpret_cast<barrier_t *>(shared), 0);
     }},
    {"overwritten", 32, 64, [](run) {
         SHARED_MEMORY(shared);
         initialised(reinterpret_cast<barrier_t *>(shared), 1);
         shared[3] = 0;
         barrier_wait(reinterpret_cast<barrier_t *>(shared), 1);
     }},
    {"initialised_twice", 32, 64, [](run) {
         SHARED_MEMORY(shared);
         barrier_init(reinterpret_cast<barrier_t *>(shared), 1);
     }},
    {"arrivals", 32, 64, [](run) {
         SHARED_MEMORY(shared);
         barrier_t *barrier = reinterpret_cast<barrier_t *>(shared);
         initialised(barrier, 2);
         if (threadIdx.x < 2) {
             barrier_expect(barrier, 16);
         }
         __syncwarp();
         barrier_arrive(barrier);
     }},
    {"never_completes", 32, 64, [](run) {
         SHARED_MEMORY(shared);
         initialised(reinterpret_cast<barrier_t *>(shared), 1);
         barrier_wait(reinterpret_cast<barrier_t *>(shared), 0);
     }},
    {"bulk_size", 32, 64, [](run r) {
         SHARED_MEMORY(shared);
         initialised(reinterpret_cast<barrier_t *>(shared), 1);
         copy_bulk(shared + 16, r.memory, 24, reinterpret_cast<barrier_t *>(shared));
     }},
    {"bulk_unfenced", 32, 64, [](run r) {
         SHARED_MEMORY(shared);
         initialised(reinterpret_cast<barrier_t *>(shared), 1, false);
         copy_bulk(shared + 16, r.memory, 32, reinterpret_cast<barrier_t *>(shared));
     }},
    {"bulk_in_flight", 32, 64, [](run r) {
         SHARED_MEMORY(shared);
         initialised(reinterpret_cast<barrier_t *>(shared), 1);
         if (threadIdx.x == 0) {
             copy_bulk(shared + 16, r.memory, 32, reinterpret_cast<barrier_t *>(shared));
         }
     }},

    /* --- wgmma --- */
    {"group_unfenced", 128, 4096, [](run) {
         SHARED_MEMORY(shared);
         int d[32] = {};
         product(d, shared, false);
     }},
    {"group_released_early", 160, 4096, [](run r) {
         SHARED_MEMORY(shared);
         int d[32] = {};
         if (threadIdx.x < 128) {
             product(d, shared);
         }
         __syncthreads();
         if (threadIdx.x == 128) {
             copy_async<16>(shared + 4096 - 16, r.memory, true);
             copy_commit();
             copy_wait<0>();
         }
         __syncthreads();
         if (threadIdx.x < 128) {
             group_wait<0>();
         }
     }},
    {"group_sums_early", 128, 4096, [](run) {
         SHARED_MEMORY(shared);
         int d[32] = {};
         product(d, shared);
         d[31] = static_cast<int>(threadIdx.x);
         group_wait<0>();
     }},
    {"group_no_wait", 128, 4096, [](run) {
         SHARED_MEMORY(shared);
         int d[32] = {};
         product(d, shared);
     }},
    {"group_beyond", 128, 4096, [](run) {
         SHARED_MEMORY(shared);
         int d[32] = {};
         product(d, shared + 16);
     }},
    {"group_of_three", 96, 4096, [](run) {
         SHARED_MEMORY(shared);
         int d[32] = {};
         product(d, shared);
     }},
    {"group_differs", 128, 4096 + 256, [](run) {
         SHARED_MEMORY(shared);
         int d[32] = {};
         product(d, shared + (threadIdx.x < 96 ? 0 : 256));
         group_wait<0>();
     }},
    {"descriptor", 128, 4096, [](run) {
         SHARED_MEMORY(shared);
         matrix_descriptor(shared, 8, 256);
     }},

    /* --- blocks that wait for each other --- */
    {"alone", 32, 0, [](run r) { r.memory[1] = load_acquire(r.memory); }},
    {"together_for_ever", 64, 0, [](run r) {
         add_release(r.memory, 1);
         while (threadIdx.x == 33 && load_acquire(r.memory) != 3 * 64) {
         }
         __syncthreads();
     }},
    {"together_deadlock", 64, 0, [](run r) {
         add_release(r.memory, 1);
         if (blockIdx.x == 1 && threadIdx.x >= 32) {
             named_barrier(2, 64);
         }
         while (load_acquire(r.memory) != 2 * 64) {
         }
         __syncthreads();
     }},
};

static void stop(const char *call, cudaError_t error)
{
    if (error != cudaSuccess) {
        std::printf("%s: %s; %d; %zu\n", call, cudaGetErrorString(error), cudaGetLastError() == error,
                    cuda_model::allocations());
        std::exit(cudaGetLastError() != cudaSuccess);
    }
}

static void calls()
{
    run argument{nullptr};
    void *arguments[] = {&argument};
    unsigned *second = nullptr, words[64] = {};
    stop("first cudaMalloc", cudaMalloc(&argument.memory, sizeof words));
    stop("second cudaMalloc", cudaMalloc(&second, sizeof words));
    stop("cudaMemset", cudaMemset(second, 0, sizeof words));
    stop("first cudaMemcpy", cudaMemcpy(argument.memory, words, sizeof words, cudaMemcpyHostToDevice));
    stop("second cudaMemcpy", cudaMemcpy(second, argument.memory, sizeof words, cudaMemcpyDeviceToDevice));
    stop("cudaLaunchKernel", cudaLaunchKernel(fragments, 1, 32, arguments));
    stop("cudaStreamSynchronize", cudaStreamSynchronize(nullptr));
    cudaFree(argument.memory);
    cudaFree(second);
    std::printf("no call failed; %zu\n", cuda_model::allocations());
}

static void limits()
{
    run argument{nullptr};
    void *arguments[] = {&argument};
    int most = 0, major = 0, minor = 0, multiprocessors = 0;
    cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0);
    cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0);
    std::printf("%d %d.%d %d;", most, major, minor, multiprocessors);
    void (*const nothing)(run) = [](run) {};
    const auto launched = [&](dim3 grid, dim3 threads, int shared) {
        std::printf(" %d", cudaLaunchKernel(nothing, grid, threads, arguments, static_cast<std::size_t>(shared)));
    };
    launched(1, 1024, 48 << 10);
    launched(1, 1025, 0);
    launched(0, 32, 0);
    launched(dim3(1, 2), 32, 0);
    launched(1, 32, (48 << 10) + 1);
    std::printf(" %d", cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, most + 1));
    std::printf(" %d", cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
    launched(1, 32, most);
    std::printf(";");
    for (const int blocks : {multiprocessors, multiprocessors + 1}) {
        std::printf(" %d", cudaLaunchCooperativeKernel(nothing, static_cast<unsigned>(blocks), 32, arguments));
    }
    std::printf("\n");
}

int main(int count, char **arguments)
{
    const char *name = count == 2 ? arguments[1] : "";
    unsigned words[64] = {};
    if (std::strcmp(name, "calls") == 0) {
        calls();
        return 0;
    }
    if (std::strcmp(name, "limits") == 0) {
        limits();
        return 0;
    }
    if (std::strcmp(name, "copy_to_host_memory") == 0) {
        cudaMemcpy(words, words, sizeof words, cudaMemcpyHostToDevice);
    }
    if (std::strcmp(name, "free_of_host_memory") == 0) {
        cudaFree(words);
    }
    for (const auto &each : CASES) {
        if (std::strcmp(each.name, name) == 0) {
            run argument{nullptr};
            void *values[] = {&argument};
            cudaMalloc(&argument.memory, sizeof words);
            cudaMemset(argument.memory, 0, sizeof words);
            const bool together = std::string(each.name).rfind("together", 0) == 0;
            const auto launch = together ? cudaLaunchCooperativeKernel<run> : cudaLaunchKernel<run>;
            const cudaError_t error
                = launch(each.kernel, together ? 2 : 1, each.threads, values, each.shared, nullptr);
            cudaFree(argument.memory);
            std::printf("%s\n", cudaGetErrorString(error));
            return 0;
        }
    }
    return 2;
}
