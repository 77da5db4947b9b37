// Reductions over the threads of a thread block, in an order that depends only on the thread block's shape.
//
// A thread block of THREADS threads is seen as `columns` (a power of two) columns of lanes: thread t is lane t / columns of column
// t % columns. Lanes of a column are reduced as a tree: lane l adds lane l + half, for half = lanes / 2, .., 2, 1.
#pragma once
#include "common/vectorized.cuh"

/// Sums `values` over the lanes of each column; lane 0 has the sums. All threads of the thread block must call.
template <int N>
__device__ void sum_lanes(float (*shared)[THREADS], float (&values)[N], u32 columns) {
    const u32 thread = threadIdx.x;
#pragma unroll
    for (int i = 0; i < N; ++i) shared[i][thread] = values[i];
    for (u32 half = THREADS / 2; half >= columns; half /= 2) {
        block_sync();
        if (thread < half) {
#pragma unroll
            for (int i = 0; i < N; ++i) {
                values[i] += shared[i][thread + half];
                shared[i][thread] = values[i];
            }
        }
    }
}

/// The sum of a value over the 32 lanes of a warp, in every lane; all must call.
template <class Number>
__device__ Number warp_sum(Number value) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
}

/// Chunks: consecutive rows of a matrix, over which one thread block takes partial sums.
struct Cut {
    u64 rows;
    u64 rows_per_chunk;
    u32 channels;
    u32 chunks;

    /// Rows of a chunk: the last may have fewer.
    __device__ float rows_of(u32 chunk) const {
        const u64 left = rows - chunk * rows_per_chunk;
        return float(left < rows_per_chunk ? left : rows_per_chunk);
    }
};

/// Count, mean and sum of squared deviations of some numbers, in each of N channels.
template <int N>
struct Moments {
    float count;
    float mean[N];
    float deviations[N];

    __device__ Moments() : count(0.0f) {
#pragma unroll
        for (int i = 0; i < N; ++i) mean[i] = deviations[i] = 0.0f;
    }

    /// Merges the moments of more numbers, by Chan, Golub & LeVeque's formula (1979); no difference of large sums is taken.
    __device__ void merge(float other_count, const float (&other_mean)[N], const float (&other_deviations)[N]) {
        const float total = count + other_count;
        const float share = total > 0.0f ? other_count / total : 0.0f;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const float difference = other_mean[i] - mean[i];
            mean[i] += difference * share;
            deviations[i] += other_deviations[i] + difference * difference * (count * share);
        }
        count = total;
    }

    /// Adds ROWS numbers of each channel: their mean first, then the deviations from it.
    template <int ROWS>
    __device__ void take(const float (&x)[ROWS][N]) {
        float sum[N], square[N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            sum[i] = square[i] = 0.0f;
#pragma unroll
            for (int row = 0; row < ROWS; ++row) sum[i] += x[row][i];
            sum[i] *= 1.0f / ROWS;
#pragma unroll
            for (int row = 0; row < ROWS; ++row) {
                const float deviation = x[row][i] - sum[i];
                square[i] += deviation * deviation;
            }
        }
        merge(ROWS, sum, square);
    }
};

/// Shared memory for the moments of all threads of a thread block.
template <int N>
struct SharedMoments {
    float count[THREADS];
    float mean[N][THREADS];
    float deviations[N][THREADS];
};

/// Merges the moments of the lanes of each column; lane 0 has the result. All threads of the thread block must call.
template <int N, int ROOM>
__device__ void merge_lanes(SharedMoments<ROOM>& shared, Moments<N>& moments, u32 columns) {
    const u32 thread = threadIdx.x;
    auto publish = [&] {
        shared.count[thread] = moments.count;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            shared.mean[i][thread] = moments.mean[i];
            shared.deviations[i][thread] = moments.deviations[i];
        }
    };
    publish();
    for (u32 half = THREADS / 2; half >= columns; half /= 2) {
        block_sync();
        if (thread < half) {
            float mean[N], deviations[N];
#pragma unroll
            for (int i = 0; i < N; ++i) {
                mean[i] = shared.mean[i][thread + half];
                deviations[i] = shared.deviations[i][thread + half];
            }
            moments.merge(shared.count[thread + half], mean, deviations);
            publish();
        }
    }
}
