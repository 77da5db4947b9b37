// What batch normalisation wants to know of a convolution's result, while a warpgroup has it in registers: per slab of rows
// the moments of y, or the sums over a gradient. The second stages of batch_norm.cu merge the slabs.
//
//   forward          mean, sum of squared deviations from it
//   input gradient   sum of d, sum of d (x - mean), where d is dx where scale x + bias > 0, or all of dx
//
// All of it is of the rounded numbers that are stored, which are what later kernels read.
#pragma once
#include "convolution/sm90/epilogue_tile.cuh"

/// Of each column the sums over a warp's rows.
typedef float Scratch[4][Slab::SIDE];

/// Adds up what the threads of a warp have of the same columns.
__device__ inline void put_sums(Scratch& scratch, float (&values)[WIDE]) {
#pragma unroll
    for (u32 v = 0; v < WIDE; v++) {
        values[v] += shuffle_xor(values[v], 8);
        values[v] += shuffle_xor(values[v], 16);
    }
    if (member() % 32 >= 8) return;
#pragma unroll
    for (u32 v = 0; v < WIDE; v++) scratch[member() / 32][member() % 8 * WIDE + v] = values[v];
}
/// The sum over all rows of the slab.
__device__ inline float sum_at(const Scratch& scratch, u32 column) {
    return scratch[0][column] + scratch[1][column] + (scratch[2][column] + scratch[3][column]);
}

/// Of one column, over the rows of a tile that a warpgroup has: rows, mean and squared deviations; or two sums. The first 64
/// threads have a column each.
struct Partials {
    float rows = 0, first = 0, second = 0;
};

/// Merges the moments of a slab's `count` rows (Chan, Golub & LeVeque 1979). What lay in the slab is no longer needed.
__device__ inline void take_moments(Partials& partials, const OwnRows& own, u32 count, Slab& slab, u32 consumer) {
    Scratch* scratch = reinterpret_cast<Scratch*>(slab.values);
    const float share = 1.0f / float(count);
    float values[WIDE] = {}, means[WIDE];
#pragma unroll
    for (u32 i = 0; i < OWN_ROWS; i++) {
        if (!own.has(i)) continue;
#pragma unroll
        for (u32 v = 0; v < WIDE; v++) values[v] += own.value(i, v);
    }
    put_sums(scratch[0], values);
    warpgroup_sync(consumer);
#pragma unroll
    for (u32 v = 0; v < WIDE; v++) {
        means[v] = sum_at(scratch[0], member() % 8 * WIDE + v) * share;
        values[v] = 0;
    }
#pragma unroll
    for (u32 i = 0; i < OWN_ROWS; i++) {
        if (!own.has(i)) continue;
#pragma unroll
        for (u32 v = 0; v < WIDE; v++) {
            const float deviation = own.value(i, v) - means[v];
            values[v] += deviation * deviation;
        }
    }
    put_sums(scratch[1], values);
    warpgroup_sync(consumer);
    if (member() >= Slab::SIDE) return;
    const float mean = sum_at(scratch[0], member()) * share, deviations = sum_at(scratch[1], member());
    const float rows = partials.rows + float(count), weight = float(count) / rows, apart = mean - partials.first;
    partials.first += apart * weight;
    partials.second += deviations + apart * apart * partials.rows * weight;
    partials.rows = rows;
}

/// What a thread has added up of its own columns.
struct GradientSums {
    float d[WIDE] = {}, products[WIDE] = {};

    __device__ void add(const Arguments& p, const OwnRows& own) {
        if (own.column >= p.columns) return;
        Wide x[OWN_ROWS];
#pragma unroll
        for (u32 i = 0; i < OWN_ROWS; i++)
            if (own.has(i)) x[i] = load_pack<WIDE>(p.norm_x + own.at(p, i));
        float scale[WIDE], bias[WIDE], mean[WIDE];
        load_columns(p.norm_mean, own.column, mean);
        load_columns(p.norm_scale, own.column, scale);
        load_columns(p.norm_bias, own.column, bias);
#pragma unroll
        for (u32 i = 0; i < OWN_ROWS; i++) {
            if (!own.has(i)) continue;
#pragma unroll
            for (u32 v = 0; v < WIDE; v++) {
                const float input = to_float(x[i][v]);
                const bool passed = !p.norm_relu || fmaf(scale[v], input, bias[v]) > 0.0f;
                const float value = passed ? own.value(i, v) : 0.0f;
                d[v] += value;
                products[v] += value * (input - mean[v]);
            }
        }
    }
};

/// Adds the sums over a slab. What lay in it is no longer needed.
__device__ inline void take_gradient(Partials& partials, GradientSums& sums, Slab& slab, u32 consumer) {
    Scratch* scratch = reinterpret_cast<Scratch*>(slab.values);
    put_sums(scratch[0], sums.d);
    put_sums(scratch[1], sums.products);
    warpgroup_sync(consumer);
    if (member() >= Slab::SIDE) return;
    partials.first += sum_at(scratch[0], member());
    partials.second += sum_at(scratch[1], member());
}

/// Stores partials (2, slabs, columns) of the columns from first_column on.
__device__ inline void store_partials(const Arguments& p, const Partials& partials, u32 slab, u32 first_column) {
    const u32 column = first_column + member();
    if (member() >= Slab::SIDE || column >= p.columns) return;
    float* to = p.partial + i64(slab) * p.columns + column;
    store(to, partials.first);
    store(to + i64(p.slabs) * p.columns, partials.second);
}
