// The mean over an image's pixels, by the threads of one block, in an order that depends on nothing but the image's extents: a
// mean has the same bits in whichever kernel it is taken.
#pragma once
#include "common/reduce.cuh"

/// N neighbouring channels from `channel` on, of an image that begins at x; lane 0 of a column ([`sum_lanes`]) has their means.
/// All threads of the block must call, those beyond the channels too; before the next call they meet.
template <int N>
__device__ void average_pixels(const Real* x, u32 channel, u32 pixels, u32 channels, u32 columns,
                               float (*shared)[THREADS], float (&means)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) means[i] = 0.0f;
    if (channel < channels) {
#pragma unroll 4
        for (u32 pixel = threadIdx.x / columns; pixel < pixels; pixel += THREADS / columns) {
            float values[N];
            load_floats(x + u64(pixel) * channels + channel, values);
#pragma unroll
            for (int i = 0; i < N; ++i) means[i] += values[i];
        }
    }
    sum_lanes(shared, means, columns);
#pragma unroll
    for (int i = 0; i < N; ++i) means[i] /= float(pixels);
}
