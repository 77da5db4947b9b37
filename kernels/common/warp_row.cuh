// Rows of a matrix, one for each warp: reductions over a row, and the k-th largest of its values.
#pragma once
#include "common/reduce.cuh"

/// The row of this warp; the same for all of its lanes.
__device__ inline u32 warp_row() { return blockIdx.x * WARPS + threadIdx.x / 32; }

/// The largest of a value over the lanes of a warp, in every lane; all must call.
__device__ inline double warp_largest(double value) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) {
        const double other = shuffle_xor(value, mask);
        if (other > value) value = other;
    }
    return value;
}

/// The largest of a row of f64, for all lanes of its warp.
__device__ inline double row_largest_value(const double* values, u32 columns) {
    double largest = load(values);
    for (u32 i = threadIdx.x % 32; i < columns; i += 32) {
        const double value = load(values + i);
        if (value > largest) largest = value;
    }
    return warp_largest(largest);
}

/// Unsigned numbers in the order of floating-point numbers; 0 and -0 are one.
__device__ inline u32 ordered(float value) {
    const u32 bits = __float_as_uint(value + 0.0f);
    return bits >> 31 ? ~bits : bits | 1u << 31;
}
__device__ inline u64 ordered(double value) {
    const u64 bits = u64(__double_as_longlong(value + 0.0));
    return bits >> 63 ? ~bits : bits | u64(1) << 63;
}

/// The number that has a place in that order.
__device__ inline double value_of(u64 place) {
    return __longlong_as_double(i64(place >> 63 ? place & ~(u64(1) << 63) : ~place));
}
__device__ inline float value_of(u32 place) { return __uint_as_float(place >> 31 ? place & ~(1u << 31) : ~place); }

/// The k-th largest of a row in that order, bit by bit, for all lanes of its warp: the largest number that at least k values reach.
template <class Key, class Value>
__device__ Key warp_kth_largest(const Value* values, u32 columns, u32 k) {
    Key found = 0;
    for (int bit = int(8 * sizeof(Key)) - 1; bit >= 0; --bit) {
        const Key candidate = found | Key(1) << bit;
        u32 count = 0;
        for (u32 i = threadIdx.x % 32; i < columns; i += 32) count += ordered(load(values + i)) >= candidate;
        if (warp_sum(count) >= k) found = candidate;
    }
    return found;
}
