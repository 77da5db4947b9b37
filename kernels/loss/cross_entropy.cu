// Softmax cross-entropy, forward and backward in one pass; scaling of rows by sample weights; the totals of a step.
//
//   loss[n] = - sum over c of t[c] log softmax(logits[n])[c],  t = (1 - smoothing) onehot(label) + smoothing / classes
//   dlogits[n, c] = (softmax(logits[n])[c] - t[c]) / batch,  prediction[n] = first largest logit
//
// logits (batch, classes) and labels (batch). One warp per row: the largest logit, then the sum of exponentials, then the
// gradient; the row stays in L1 in between. A label outside the classes gives a NaN loss and NaN gradients.
#include "intrinsics/ptx.cuh"
#include "common/vectorized.cuh"

struct CrossEntropy {
    const float* logits;
    const int* labels;
    float* loss;
    int* prediction;
    float* dlogits;
    u32 batch, classes;
    float hot;     // 1 - smoothing + smoothing / classes
    float spread;  // smoothing / classes
    float share;   // 1 / batch
    u32 unused;
};

__device__ inline float warp_sum(float value) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
}

KERNEL(THREADS, softmax_cross_entropy, CrossEntropy) {
    const u32 lane = threadIdx.x % 32;
    const u32 row = blockIdx.x * WARPS + threadIdx.x / 32;
    if (row < p.batch) {  // the same for all lanes of a warp
        const float* logits = p.logits + u64(row) * p.classes;
        float* dlogits = p.dlogits + u64(row) * p.classes;
        const int label = load(p.labels + row);

        float largest = -INFINITY_F32;
        u32 first = 0;
        for (u32 c = lane; c < p.classes; c += 32) {
            const float logit = load(logits + c);
            if (logit > largest) {
                largest = logit;
                first = c;
            }
        }
#pragma unroll
        for (int mask = 16; mask > 0; mask /= 2) {
            const float other = shuffle_xor(largest, mask);
            const u32 other_first = shuffle_xor(first, mask);
            if (other > largest || (other == largest && other_first < first)) {
                largest = other;
                first = other_first;
            }
        }

        // The largest logit's own term is exactly 1; without it log1p keeps a loss far below 1e-7.
        float others = 0.0f;
        for (u32 c = lane; c < p.classes; c += 32) {
            if (c != first) others += expf(load(logits + c) - largest);
        }
        others = warp_sum(others);
        const float log_sum = log1pf(others), inverse_sum = 1.0f / (1.0f + others);

        const bool known = label >= 0 && u32(label) < p.classes;
        const float nan = INFINITY_F32 - INFINITY_F32;
        float loss = 0.0f;
        for (u32 c = lane; c < p.classes; c += 32) {
            const float shifted = load(logits + c) - largest;
            const float target = int(c) == label ? p.hot : p.spread;
            // A class without target adds nothing, even where its probability has underflowed to 0.
            if (target != 0.0f) loss -= target * (shifted - log_sum);
            const float gradient = (expf(shifted) * inverse_sum - target) * p.share;
            store(dlogits + c, known ? gradient : nan);
        }
        loss = warp_sum(loss);
        if (lane == 0) {
            store(p.loss + row, known ? loss : nan);
            store(p.prediction + row, int(first));
        }
    }
}

struct ScaleRows {
    const float* weights;  // (elements / channels)
    float* x;              // rows of `channels`
    u32 elements;
    u32 channels;
};

/// x[n, c] *= weights[n]; a thread for each element.
KERNEL(THREADS, scale_rows, ScaleRows) {
    const u32 at = thread_in_small_grid();
    if (at < p.elements) store(p.x + at, load(p.x + at) * load(p.weights + at / p.channels));
}

struct StepTotals {
    const float* loss;
    const int* prediction;
    const int* labels;
    const float* hyper;
    float* totals;  // (slots, columns, 2)
    u32 batch;
    u32 slots;
    u32 columns;
    u32 column;
};

struct SharedTotals {
    double loss[THREADS];
    u32 hits[THREADS];
};

/// totals[slot, column] = (sum of losses, number of hits), slot = hyper[3]; one thread block, so that sums have one order, in
/// f64. A slot outside the table is dropped.
KERNEL(THREADS, step_totals, StepTotals) {
    SHARED(SharedTotals, shared);
    const u32 thread = threadIdx.x;
    double loss = 0.0;
    u32 hits = 0;
    for (u32 row = thread; row < p.batch; row += THREADS) {
        loss += load(p.loss + row);
        hits += load(p.prediction + row) == load(p.labels + row);
    }
    shared.loss[thread] = loss;
    shared.hits[thread] = hits;
    for (u32 half = THREADS / 2; half > 0; half /= 2) {
        block_sync();
        if (thread < half) {
            shared.loss[thread] += shared.loss[thread + half];
            shared.hits[thread] += shared.hits[thread + half];
        }
    }
    if (thread == 0) {
        const float slot = load(p.hyper + 3);
        if (slot >= 0.0f && slot < float(p.slots)) {
            const Vector<float, 2> totals = {{float(shared.loss[0]), float(shared.hits[0])}};
            store_vector<2>(p.totals + 2 * (u64(slot) * p.columns + p.column), totals);
        }
    }
}
