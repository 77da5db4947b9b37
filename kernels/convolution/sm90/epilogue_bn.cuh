// Reduction epilogues for batch normalisation: partial sums over the rows of a convolution's result, taken while a warpgroup has
// it in registers. The second stages of normalization/batch_norm.cu merge them.
//
//   fprop   mean, sum of squared deviations from it
//   dgrad   sum of d, sum of d (x - mean), where d is dx where scale x + bias > 0 (ReLU backward), or all of dx
//
// They are taken of the rounded values that are stored, which are what later kernels read.
#pragma once
#include "convolution/sm90/epilogue_tile.cuh"

/// Sums of each column over the rows of each warp.
typedef float WarpSums[4][EpilogueTile::SIDE];

/// Adds up the values that the threads of a warp have of the same columns.
__device__ inline void store_warp_sums(WarpSums& warp_sums, float (&values)[VECTOR_SIZE]) {
#pragma unroll
    for (u32 v = 0; v < VECTOR_SIZE; v++) {
        values[v] += shuffle_xor(values[v], 8);
        values[v] += shuffle_xor(values[v], 16);
    }
    if (warpgroup_thread() % 32 >= 8) return;
#pragma unroll
    for (u32 v = 0; v < VECTOR_SIZE; v++) warp_sums[warpgroup_thread() / 32][warpgroup_thread() % 8 * VECTOR_SIZE + v] = values[v];
}
/// The sum of a column over all rows of the epilogue tile.
__device__ inline float column_sum(const WarpSums& warp_sums, u32 column) {
    return warp_sums[0][column] + warp_sums[1][column] + (warp_sums[2][column] + warp_sums[3][column]);
}

/// Partial sums of one column over the rows of a warpgroup's part of a tile: rows, mean and squared deviations; or two sums. The
/// first 64 threads of the warpgroup have a column each.
struct PartialSums {
    float rows = 0, first = 0, second = 0;
};

/// Merges the moments of `count` rows of an epilogue tile (Chan, Golub & LeVeque 1979). The tile itself is overwritten.
__device__ inline void merge_moments(PartialSums& partial, const ThreadRow (&own)[ROWS_AHEAD], u32 count, EpilogueTile& tile,
                                     u32 consumer) {
    WarpSums* warp_sums = reinterpret_cast<WarpSums*>(tile.values);
    const float share = 1.0f / float(count);
    float values[VECTOR_SIZE] = {}, means[VECTOR_SIZE];
#pragma unroll
    for (u32 i = 0; i < ROWS_AHEAD; i++) {
        if (!own[i].exists()) continue;
#pragma unroll
        for (u32 v = 0; v < VECTOR_SIZE; v++) values[v] += own[i].value(v);
    }
    store_warp_sums(warp_sums[0], values);
    warpgroup_sync(consumer);
#pragma unroll
    for (u32 v = 0; v < VECTOR_SIZE; v++) {
        means[v] = column_sum(warp_sums[0], warpgroup_thread() % 8 * VECTOR_SIZE + v) * share;
        values[v] = 0;
    }
#pragma unroll
    for (u32 i = 0; i < ROWS_AHEAD; i++) {
        if (!own[i].exists()) continue;
#pragma unroll
        for (u32 v = 0; v < VECTOR_SIZE; v++) {
            const float deviation = own[i].value(v) - means[v];
            values[v] += deviation * deviation;
        }
    }
    store_warp_sums(warp_sums[1], values);
    warpgroup_sync(consumer);
    if (warpgroup_thread() >= EpilogueTile::SIDE) return;
    const float mean = column_sum(warp_sums[0], warpgroup_thread()) * share;
    const float deviations = column_sum(warp_sums[1], warpgroup_thread());
    const float rows = partial.rows + float(count), weight = float(count) / rows, difference = mean - partial.first;
    partial.first += difference * weight;
    partial.second += deviations + difference * difference * partial.rows * weight;
    partial.rows = rows;
}

/// A thread's sums over its own rows, of its own columns.
struct GradientSums {
    float d[VECTOR_SIZE] = {}, products[VECTOR_SIZE] = {};

    /// Adds a row. The batch normalisation's numbers per channel are loaded anew for each: registers are scarcer than loads that hit L1.
    __device__ void add(const Arguments& p, const ThreadRow& own, u32 column) {
#pragma unroll
        for (u32 v = 0; v < VECTOR_SIZE; v += 4) {
            const Vector<float, 4> mean = load_vector<4>(p.bn_mean + column + v);
            const Vector<float, 4> scale = load_vector<4>(p.bn_scale + column + v);
            const Vector<float, 4> bias = load_vector<4>(p.bn_bias + column + v);
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                const float input = to_float(own.bn_x[v + j]);
                const bool passed = !p.bn_relu || fmaf(scale[j], input, bias[j]) > 0.0f;
                const float value = passed ? own.value(v + j) : 0.0f;
                d[v + j] += value;
                products[v + j] += value * (input - mean[j]);
            }
        }
    }
};

/// Adds the sums over the rows of an epilogue tile. The tile itself is overwritten.
__device__ inline void add_gradient_sums(PartialSums& partial, GradientSums& sums, EpilogueTile& tile, u32 consumer) {
    WarpSums* warp_sums = reinterpret_cast<WarpSums*>(tile.values);
    store_warp_sums(warp_sums[0], sums.d);
    store_warp_sums(warp_sums[1], sums.products);
    warpgroup_sync(consumer);
    if (warpgroup_thread() >= EpilogueTile::SIDE) return;
    partial.first += column_sum(warp_sums[0], warpgroup_thread());
    partial.second += column_sum(warp_sums[1], warpgroup_thread());
}

/// Stores the partial sums with number `index` of the columns from first_column on.
__device__ inline void store_partial_sums(const Arguments& p, const PartialSums& partial, u32 index, u32 first_column) {
    const u32 column = first_column + warpgroup_thread();
    if (warpgroup_thread() >= EpilogueTile::SIDE || column >= p.gemm_n) return;
    float* to = p.bn_partial + i64(index) * p.gemm_n + column;
    store(to, partial.first);
    store(to + i64(p.bn_partials) * p.gemm_n, partial.second);
}
