/*
 * A stand-in for CUDA's header: with it g++ and clang++ compile a .cu file as C++17, and its kernels run on
 * the CPU, thread by thread and block by block.
 *
 *     g++ -std=c++17 -U_FORTIFY_SOURCE -I templates/harness/cuda -x c++ kernels.cu main.cpp
 *
 * model_words.h has what a thread computes alone, model_fibers.h lets threads take turns, model_device.h has
 * what the threads of a block do together; here is what a host calls. A program that a GPU would run wrongly
 * aborts with a message where the model can see it. One host thread at a time may launch.
 */
#pragma once

#ifndef EDGEBNN_CUDA_MODEL
#define EDGEBNN_CUDA_MODEL 1
#endif

#include "model_device.h"

#include <csignal>
#include <tuple>

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidDevice = 101,
    cudaErrorCooperativeLaunchTooLarge = 720,
};

enum cudaMemcpyKind {
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3,
};

enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrCooperativeLaunch = 95,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};

enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
};

typedef struct CUstream_st *cudaStream_t;

namespace cuda_model {

constexpr std::size_t RED_ZONE = 256; /* bytes before and after what cudaMalloc gives */

struct Host {
    cudaError_t last = cudaSuccess;
    std::map<unsigned char *, std::size_t> memory; /* what is allocated */
    std::map<const void *, int> shared_limits;     /* of kernels, where cudaFuncSetAttribute set one */
};

inline Host host;

/* How many cudaMalloc have no cudaFree yet. */
inline std::size_t allocations()
{
    return host.memory.size();
}

inline cudaError_t result(cudaError_t error)
{
    if (error != cudaSuccess) {
        host.last = error;
    }
    return error;
}

/* Is this the call that a test wants to fail? */
inline bool fails(const char *function)
{
    const char *wanted = settings.fail;
    if (wanted == nullptr || settings.fail_at == 0) {
        return false;
    }
    const bool meant = std::strcmp(wanted, "any") == 0 || std::strcmp(wanted, function) == 0;
    return meant && --settings.fail_at == 0;
}

/* Of a function whose only error is the one that a test wants. */
inline cudaError_t result_of(const char *function)
{
    return result(fails(function) ? cudaErrorInvalidValue : cudaSuccess);
}

/* What cudaFuncSetAttribute may allow a block: "Compute Capabilities" of the CUDA programming guide. */
inline int most_shared_bytes()
{
    switch (settings.capability) {
    case 75:
        return 64 << 10;
    case 80:
    case 87:
        return 163 << 10;
    case 90:
    case 100:
    case 103:
        return 227 << 10;
    default:
        return 99 << 10;
    }
}

inline bool is_device(const void *address, std::size_t bytes)
{
    for (const auto &[begin, size] : host.memory) {
        if (inside(address, bytes, begin, size)) {
            return true;
        }
    }
    return false;
}

inline void check_red_zone(const unsigned char *zone, const unsigned char *memory)
{
    for (std::size_t i = 0; i < RED_ZONE; i++) {
        if (zone[i] != GARBAGE) {
            fail({}, "cudaFree: byte %td of an allocation of %zu was written", zone + i - memory,
                 host.memory.at(const_cast<unsigned char *>(memory)));
        }
    }
}

/* Says which thread touched what it may not, where the address is in a guard or near null. */
inline void on_segmentation_fault(int, siginfo_t *info, void *)
{
    std::signal(SIGSEGV, SIG_DFL);
    if (inside(info->si_addr, 1, shared_pages(), 2 * GUARD_BYTES + MOST_SHARED_BYTES)) {
        fail({}, "access at offset %td of %zu bytes of shared memory",
             static_cast<const unsigned char *>(info->si_addr) - block.shared, block.shared_bytes);
    }
    const char *stack = static_cast<const char *>(scheduler.current->stack);
    if (scheduler.current != &scheduler.main && inside(info->si_addr, 1, stack - PAGE_BYTES, PAGE_BYTES)) {
        fail({}, "more than %zu bytes of stack", STACK_BYTES);
    }
    fail({}, "segmentation fault at %p", info->si_addr);
}

/* While a kernel runs; AddressSanitizer has a handler of its own. */
struct SegmentationFaults {
#if !CUDA_MODEL_ASAN
    struct sigaction before;
    stack_t stack_before;
    SegmentationFaults()
    {
        static char memory[64 << 10];
        stack_t stack = {};
        stack.ss_sp = memory;
        stack.ss_size = sizeof memory;
        sigaltstack(&stack, &stack_before);
        struct sigaction action = {};
        action.sa_sigaction = on_segmentation_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &action, &before);
    }
    ~SegmentationFaults()
    {
        sigaction(SIGSEGV, &before, nullptr);
        sigaltstack(&stack_before, nullptr);
    }
#endif
};

}  // namespace cuda_model

/* --- memory ------------------------------------------------------------------------------------ */

template <class T> cudaError_t cudaMalloc(T **memory, std::size_t bytes)
{
    using namespace cuda_model;
    if (fails("cudaMalloc")) {
        return result(cudaErrorMemoryAllocation);
    }
    *memory = nullptr;
    if (bytes == 0) {
        return cudaSuccess;
    }
    const std::size_t all = (bytes + 3 * RED_ZONE - 1) / RED_ZONE * RED_ZONE;
    unsigned char *allocated = static_cast<unsigned char *>(std::aligned_alloc(RED_ZONE, all));
    if (allocated == nullptr) {
        return result(cudaErrorMemoryAllocation);
    }
    std::memset(allocated, GARBAGE, all);
    unsigned char *begin = allocated + RED_ZONE;
#if CUDA_MODEL_ASAN
    ASAN_POISON_MEMORY_REGION(allocated, all);
    ASAN_UNPOISON_MEMORY_REGION(begin, bytes);
#endif
    host.memory[begin] = bytes;
    *memory = reinterpret_cast<T *>(begin);
    return cudaSuccess;
}

inline cudaError_t cudaFree(void *memory)
{
    using namespace cuda_model;
    if (memory == nullptr) {
        return cudaSuccess;
    }
    const auto found = host.memory.find(static_cast<unsigned char *>(memory));
    if (found == host.memory.end()) {
        fail({}, "cudaFree: %p is not from cudaMalloc, or was freed before", memory);
    }
    unsigned char *allocated = found->first - RED_ZONE;
#if CUDA_MODEL_ASAN
    ASAN_UNPOISON_MEMORY_REGION(allocated, found->second + 2 * RED_ZONE);
#endif
    check_red_zone(allocated, found->first);
    check_red_zone(found->first + found->second, found->first);
    host.memory.erase(found);
    std::free(allocated);
    return cudaSuccess;
}

inline cudaError_t cudaMemcpy(void *to, const void *from, std::size_t bytes, cudaMemcpyKind kind)
{
    using namespace cuda_model;
    if (fails("cudaMemcpy")) {
        return result(cudaErrorInvalidValue);
    }
    if (is_device(to, bytes) != (kind != cudaMemcpyDeviceToHost) ||
        is_device(from, bytes) != (kind != cudaMemcpyHostToDevice)) {
        fail({}, "cudaMemcpy: %zu bytes from %p to %p do not lie where the kind %d says", bytes, from,
             to, kind);
    }
    std::memmove(to, from, bytes);
    return cudaSuccess;
}

inline cudaError_t cudaMemcpyAsync(void *to, const void *from, std::size_t bytes, cudaMemcpyKind kind,
                                   cudaStream_t = nullptr)
{
    return cudaMemcpy(to, from, bytes, kind);
}

inline cudaError_t cudaMemset(void *memory, int value, std::size_t bytes)
{
    using namespace cuda_model;
    if (fails("cudaMemset")) {
        return result(cudaErrorInvalidValue);
    }
    if (!is_device(memory, bytes)) {
        fail({}, "cudaMemset: %zu bytes at %p are not from cudaMalloc", bytes, memory);
    }
    std::memset(memory, value, bytes);
    return cudaSuccess;
}

/* --- device and errors ------------------------------------------------------------------------- */

inline cudaError_t cudaGetDevice(int *device)
{
    *device = 0;
    return cuda_model::result_of("cudaGetDevice");
}

inline cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device)
{
    using namespace cuda_model;
    if (fails("cudaDeviceGetAttribute") || device != 0) {
        return result(cudaErrorInvalidValue);
    }
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
        *value = static_cast<int>(settings.multiprocessors);
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
        *value = static_cast<int>(settings.capability / 10);
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *value = static_cast<int>(settings.capability % 10);
        return cudaSuccess;
    case cudaDevAttrCooperativeLaunch:
        *value = static_cast<int>(settings.cooperative);
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = most_shared_bytes();
        return cudaSuccess;
    }
    return result(cudaErrorInvalidValue);
}

inline const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorCooperativeLaunchTooLarge:
        return "too many blocks in cooperative launch";
    }
    return "unrecognized error code";
}

inline cudaError_t cudaGetLastError()
{
    return std::exchange(cuda_model::host.last, cudaSuccess);
}

inline cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    return cuda_model::result_of("cudaStreamSynchronize");
}

inline cudaError_t cudaDeviceSynchronize()
{
    return cuda_model::result_of("cudaDeviceSynchronize");
}

/* --- kernels ----------------------------------------------------------------------------------- */

template <class... A>
cudaError_t cudaFuncSetAttribute(void (*kernel)(A...), cudaFuncAttribute attribute, int value)
{
    using namespace cuda_model;
    const bool known = attribute == cudaFuncAttributeMaxDynamicSharedMemorySize;
    if (fails("cudaFuncSetAttribute") || !known || value < 0 || value > most_shared_bytes()) {
        return result(cudaErrorInvalidValue);
    }
    host.shared_limits[reinterpret_cast<const void *>(kernel)] = value;
    return cudaSuccess;
}

namespace cuda_model {

/* Runs the kernel to its end, by launch() or launch_together(). */
template <class... A>
cudaError_t launch_kernel(const char *function, decltype(launch) &by, void (*kernel)(A...), dim3 grid,
                          dim3 threads, void **arguments, std::size_t shared)
{
    static_assert((std::is_trivially_copyable_v<A> && ...));
    const auto limit = host.shared_limits.find(reinterpret_cast<const void *>(kernel));
    const int most = limit != host.shared_limits.end() ? limit->second : 48 << 10;
    if (fails(function) || shared > static_cast<std::size_t>(most)) {
        return result(cudaErrorInvalidValue);
    }
    if (grid.x < 1 || grid.x > 0x7FFFFFFFu || threads.x < 1 || threads.x > MAX_THREADS ||
        grid.y * grid.z * threads.y * threads.z != 1) {
        return result(cudaErrorInvalidConfiguration);
    }
    const std::tuple<std::remove_cv_t<A>...> copies = [&] {
        void **next = arguments;
        return std::tuple<std::remove_cv_t<A>...>{*static_cast<std::remove_cv_t<A> *>(*next++)...};
    }();
    [[maybe_unused]] const SegmentationFaults faults;
    by(grid.x, threads.x, shared, [&] { std::apply(kernel, copies); });
    return cudaSuccess;
}

}  // namespace cuda_model

/*
 * As in CUDA, a launch that asks for too much is an error, and nothing runs. The kernel's own type is needed: a
 * `const void *` does not say how its argument is passed.
 */
template <class... A>
cudaError_t cudaLaunchKernel(void (*kernel)(A...), dim3 grid, dim3 threads, void **arguments,
                             std::size_t shared = 0, cudaStream_t = nullptr)
{
    using namespace cuda_model;
    return launch_kernel("cudaLaunchKernel", launch, kernel, grid, threads, arguments, shared);
}

/* All blocks are there at once. The model has room for one on a multiprocessor. */
template <class... A>
cudaError_t cudaLaunchCooperativeKernel(void (*kernel)(A...), dim3 grid, dim3 threads, void **arguments,
                                        std::size_t shared = 0, cudaStream_t = nullptr)
{
    using namespace cuda_model;
    if (settings.cooperative == 0 || grid.x > settings.multiprocessors) {
        return result(cudaErrorCooperativeLaunchTooLarge);
    }
    return launch_kernel("cudaLaunchCooperativeKernel", launch_together, kernel, grid, threads, arguments,
                         shared);
}
