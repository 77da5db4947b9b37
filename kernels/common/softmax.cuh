// The softmax of one row by one warp, in f64.
#pragma once
#include "common/pairwise_tile.cuh"

/// Largest logit over T, and the logarithm of the sum of exponentials relative to it: log softmax = logit / T - largest -
/// log_sum, and largest + log_sum is the logarithm of the sum of exp(logit / T).
struct Softmax {
    double largest, log_sum;
};

/// The largest of the lanes' values, in every lane; all must call.
__device__ inline float warp_largest(float value) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) value = fmaxf(value, shuffle_xor(value, mask));
    return value;
}

/// The softmax of a row; all lanes must call.
__device__ inline Softmax softmax_of(const float* logits, u32 classes, double inverse_temperature) {
    const u32 lane = threadIdx.x % 32;
    float largest = -INFINITY_F32;
    for (u32 c = lane; c < classes; c += 32) largest = fmaxf(largest, load(logits + c));
    const double shift = warp_largest(largest) * inverse_temperature;
    double sum = 0.0;
    for (u32 c = lane; c < classes; c += 32) sum += exp(load(logits + c) * inverse_temperature - shift);
    return Softmax{shift, log(warp_sum(sum))};
}
