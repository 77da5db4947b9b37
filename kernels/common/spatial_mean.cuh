// Global average pooling: the mean over an image's pixels, by one thread block, in an order that depends only on the image's
// extents, so that a mean has the same bits in every kernel.
#pragma once
#include "common/reduce.cuh"

/// Means of N neighbouring channels from `channel` on, of an image that begins at x; lane 0 of a column ([`sum_lanes`]) has them.
/// All threads of the thread block must call, also those beyond the channels, and synchronise before the next call.
template <int N>
__device__ void spatial_mean(const Real* x, u32 channel, u32 pixels, u32 channels, u32 columns,
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
