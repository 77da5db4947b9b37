// The head of a network in one launch: global average pooling, and the linear layer on it.
//
//   pool_head  features[n, c] = mean over the pixels of x[n, ., c], in f32;
//              logits[n, o] = sum over c of features[n, c] weight[o, c], + bias[o]
//
// x (batch, pixels, channels) Real; weight (outputs, channels), bias (outputs), features (batch, channels), logits (batch,
// outputs) f32. A thread block computes a few images, whose features stay in shared memory while each warp goes through rows of the
// weight: every thread block reads every row, so the matrix must be small.
#include "common/spatial_mean.cuh"

constexpr int VECTOR_SIZE = MAX_VECTOR_SIZE<Real>;
/// Images of a thread block, at most.
LAUNCHER_CONSTANT u32 IMAGES = 4;
/// Channels of an image, at most.
LAUNCHER_CONSTANT u32 MOST_CHANNELS = 2048;

struct Arguments {
    const Real* x;
    const float* weight;
    const float* bias;
    float* features;
    float* logits;
    u32 batch;
    u32 pixels;
    u32 channels;
    u32 outputs;
    u32 images;           // of a thread block
    u32 column_blocks;    // iterations of a thread block's columns over the channels
    u32 columns;          // threads side by side along channels, a power of two; the others are lanes along pixels
    u32 vectorized;       // whether channels are whole vectors of Real
    u32 vectorized_rows;  // whether channels are whole vectors of four floats
    u32 unused;
};

struct alignas(16) Shared {
    float rows[IMAGES][MOST_CHANNELS];
    float sums[VECTOR_SIZE][THREADS];
};

template <int N>
__device__ void pool(const Arguments& p, u32 first, u32 images, Shared& shared) {
    for (u32 i = 0; i < images; ++i) {
        const u64 image = first + i;
        for (u32 block = 0; block < p.column_blocks; ++block) {
            const u32 channel = (block * p.columns + threadIdx.x % p.columns) * N;
            float means[N];
            spatial_mean(p.x + image * p.pixels * p.channels, channel, p.pixels, p.channels, p.columns, shared.sums,
                           means);
            if (channel < p.channels && threadIdx.x < p.columns) {
#pragma unroll
                for (int c = 0; c < N; ++c) shared.rows[i][channel + c] = means[c];
                store_floats(p.features + image * p.channels + channel, means);
            }
            block_sync();
        }
    }
}

template <int N>
__device__ void head(const Arguments& p, u32 first, u32 images, const Shared& shared) {
    const u32 lane = threadIdx.x % 32;
    for (u32 output = threadIdx.x / 32; output < p.outputs; output += WARPS) {
        const float* row = p.weight + u64(output) * p.channels;
        float sums[IMAGES] = {};
#pragma unroll 4
        for (u32 c = lane * N; c < p.channels; c += 32 * N) {
            float weight[N];
            load_floats(row + c, weight);
#pragma unroll
            for (u32 i = 0; i < IMAGES; ++i) {
                if (i >= images) continue;
#pragma unroll
                for (int k = 0; k < N; ++k) sums[i] = fmaf(weight[k], shared.rows[i][c + k], sums[i]);
            }
        }
#pragma unroll
        for (u32 i = 0; i < IMAGES; ++i) sums[i] = warp_sum(sums[i]);
        if (lane == 0) {
            const float bias = load(p.bias + output);
#pragma unroll
            for (u32 i = 0; i < IMAGES; ++i) {
                if (i < images) store(p.logits + u64(first + i) * p.outputs + output, sums[i] + bias);
            }
        }
    }
}

KERNEL(THREADS, pool_head, Arguments) {
    SHARED(Shared, shared);
    const u32 first = blockIdx.x * p.images;
    const u32 images = first + p.images <= p.batch ? p.images : p.batch - first;
    if (p.vectorized) pool<VECTOR_SIZE>(p, first, images, shared);
    else pool<1>(p, first, images, shared);
    if (p.vectorized_rows) head<4>(p, first, images, shared);
    else head<1>(p, first, images, shared);
}
