// Runs of neighbouring numbers as floats: what the passes over activations and parameters load, compute on and store.
#pragma once
#include "intrinsics/ptx.cuh"

/// Threads of a block, in every kernel that includes this file.
constexpr u32 THREADS = 256;

/// Loads N neighbours in accesses of at most 16 bytes; `from` is aligned to the smaller of these and all N.
template <int N, class T>
__device__ void load_floats(const T* from, float (&values)[N]) {
    constexpr int WIDTH = N < WIDEST<T> ? N : WIDEST<T>;
#pragma unroll
    for (int first = 0; first < N; first += WIDTH) {
        const Pack<T, WIDTH> pack = load_pack<WIDTH>(from + first);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) values[first + i] = to_float(pack[i]);
    }
}

/// Stores N neighbours, rounded to T, in accesses of at most 16 bytes.
template <int N, class T>
__device__ void store_floats(T* to, const float (&values)[N]) {
    constexpr int WIDTH = N < WIDEST<T> ? N : WIDEST<T>;
#pragma unroll
    for (int first = 0; first < N; first += WIDTH) {
        Pack<T, WIDTH> pack;
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) pack[i] = from_float<T>(values[first + i]);
        store_pack<WIDTH>(to + first, pack);
    }
}

/// max(x, 0); NaN stays NaN.
__device__ inline float rectified(float x) { return x > 0.0f || x != x ? x : 0.0f; }

/// The number of this thread in the grid, which has one dimension.
__device__ inline u64 thread_in_grid() { return u64(blockIdx.x) * THREADS + threadIdx.x; }

/// The same in a grid that the launcher holds below 2^31 threads: for kernels that divide by extents, which takes far longer in
/// 64 bits.
__device__ inline u32 thread_in_small_grid() { return blockIdx.x * THREADS + threadIdx.x; }
