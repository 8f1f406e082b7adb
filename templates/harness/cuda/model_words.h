/*
 * CUDA's keywords, vector types and integer functions as C++17: all that needs no other thread.
 */
#pragma once

#include <cstdint>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __noinline__ /* empty: libstdc++ writes __attribute__((__noinline__)) */
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

struct uint3 {
    unsigned x, y, z;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline uint3 threadIdx, blockIdx; /* set at every switch of fibers, and before every block */
inline dim3 blockDim, gridDim;

constexpr uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}

constexpr int4 make_int4(int x, int y, int z, int w)
{
    return {x, y, z, w};
}

/* As CUDA has them: of an int and an unsigned the result is unsigned. */
template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b)
{
    using Both = std::common_type_t<A, B>;
    return static_cast<Both>(a) < static_cast<Both>(b) ? static_cast<Both>(a) : static_cast<Both>(b);
}

template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b)
{
    using Both = std::common_type_t<A, B>;
    return static_cast<Both>(a) < static_cast<Both>(b) ? static_cast<Both>(b) : static_cast<Both>(a);
}

constexpr int __popc(unsigned x)
{
    return __builtin_popcount(x);
}

constexpr unsigned __brev(unsigned x)
{
    unsigned reversed = 0;
    for (unsigned i = 0; i < 32; i++) {
        reversed |= (x >> i & 1u) << (31 - i);
    }
    return reversed;
}

/* The upper word of high:low, shifted left by the low five bits of shift. */
constexpr unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift)
{
    return static_cast<unsigned>(((std::uint64_t(high) << 32 | low) << (shift & 31u)) >> 32);
}

template <class T> T __ldg(const T *address)
{
    return *address;
}

/* No fiber is interrupted, so every read-modify-write is atomic. Sums wrap, as they do in CUDA. */
template <class T> T atomicAdd(T *address, std::common_type_t<T> value)
{
    static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>);
    const T old = *address;
    *address = static_cast<T>(static_cast<unsigned>(old) + static_cast<unsigned>(value));
    return old;
}

/* dp4a.u32.s32: four unsigned bytes of x times four signed bytes of w, added to c. */
inline int dot4(unsigned x, int w, int c)
{
    unsigned sum = static_cast<unsigned>(c);
    for (unsigned i = 0; i < 32; i += 8) {
        const int weight = static_cast<std::int8_t>(static_cast<unsigned>(w) >> i);
        sum += static_cast<unsigned>(static_cast<int>(x >> i & 255u) * weight);
    }
    return static_cast<int>(sum);
}
