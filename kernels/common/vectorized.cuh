// Vectorized accesses: runs of neighbouring elements, loaded as floats and stored rounded.
#pragma once
#include "intrinsics/ptx.cuh"

/// Threads of a thread block, in every kernel that includes this file.
LAUNCHER_CONSTANT u32 THREADS = 256;
/// Warps of a thread block.
LAUNCHER_CONSTANT u32 WARPS = THREADS / 32;

/// Loads N neighbours in vectors of at most 16 bytes; `from` is aligned to a vector.
template <int N, class T>
__device__ void load_floats(const T* from, float (&values)[N]) {
    constexpr int WIDTH = N < MAX_VECTOR_SIZE<T> ? N : MAX_VECTOR_SIZE<T>;
#pragma unroll
    for (int first = 0; first < N; first += WIDTH) {
        const Vector<T, WIDTH> vector = load_vector<WIDTH>(from + first);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) values[first + i] = to_float(vector[i]);
    }
}

/// Stores N neighbours, rounded to T, in vectors of at most 16 bytes.
template <int N, class T>
__device__ void store_floats(T* to, const float (&values)[N]) {
    constexpr int WIDTH = N < MAX_VECTOR_SIZE<T> ? N : MAX_VECTOR_SIZE<T>;
#pragma unroll
    for (int first = 0; first < N; first += WIDTH) {
        Vector<T, WIDTH> vector;
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) vector[i] = from_float<T>(values[first + i]);
        store_vector<WIDTH>(to + first, vector);
    }
}

/// max(x, 0); NaN stays NaN.
__device__ inline float rectified(float x) { return x > 0.0f || x != x ? x : 0.0f; }

/// The number of this thread in the grid, which has one dimension.
__device__ inline u64 thread_in_grid() { return u64(blockIdx.x) * THREADS + threadIdx.x; }

/// The number of this thread in a grid that the launcher limits to 2^31 threads: for kernels that divide by extents, which takes
/// far longer in 64 bits.
__device__ inline u32 thread_in_small_grid() { return blockIdx.x * THREADS + threadIdx.x; }
