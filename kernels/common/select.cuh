// The k-th smallest of many numbers, for a thread block.
#pragma once
#include "common/reduce.cuh"

/// Bits of a number that one pass examines.
constexpr u32 DIGIT_BITS = 4;
constexpr u32 DIGITS = 1 << DIGIT_BITS;

struct DigitCounts {
    u32 of_thread[DIGITS][THREADS];
    u32 total[DIGITS];
};

/// Finds the k-th smallest of `columns` unsigned numbers `key(i)` digit by digit, the highest first: among the numbers that begin with the
/// digits found so far, it counts how many have each next digit. Each thread counts by itself, so no atomics are needed. All threads of
/// the thread block must call, and have the result.
template <class Key>
__device__ u64 kth_smallest(DigitCounts& counts, u32 columns, u32 k, const Key& key) {
    const u32 thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    u64 found = 0;  // the digits found so far; lower ones zero
    for (int shift = 64 - int(DIGIT_BITS); shift >= 0; shift -= DIGIT_BITS) {
#pragma unroll
        for (u32 digit = 0; digit < DIGITS; ++digit) counts.of_thread[digit][thread] = 0;
        for (u32 i = thread; i < columns; i += THREADS) {
            const u64 difference = key(i) ^ found;
            // Digits above this one agree. The shift is split into two, since a shift by 64 is undefined.
            if (difference >> shift >> DIGIT_BITS == 0) counts.of_thread[difference >> shift & (DIGITS - 1)][thread] += 1;
        }
        block_sync();
        for (u32 digit = warp; digit < DIGITS; digit += WARPS) {
            u32 total = 0;
            for (u32 i = lane; i < THREADS; i += 32) total += counts.of_thread[digit][i];
            total = warp_sum(total);
            if (lane == 0) counts.total[digit] = total;
        }
        block_sync();
        u32 digit = 0;
        while (digit + 1 < DIGITS && k > counts.total[digit]) k -= counts.total[digit++];
        found |= u64(digit) << shift;
    }
    return found;
}

/// The sum of a value over the threads of a thread block, warp after warp; in every thread. All must call.
template <class Number>
__device__ Number block_sum(Number (&shared)[WARPS], Number value) {
    value = warp_sum(value);
    block_sync();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    block_sync();
    Number sum = 0;
    for (u32 warp = 0; warp < WARPS; ++warp) sum += shared[warp];
    return sum;
}
