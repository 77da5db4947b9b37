// Energy margin loss of samples and outliers, forward and backward in one pass.
//
//   E[n]          = -log(sum over c of exp(logits[n, c]))
//   loss[n]       = max(0, E[n] - inside)^2, or max(0, outside - E[n])^2 where outlier[n] is not 0
//   dlogits[n, c] = -dloss/dE softmax(logits[n])[c] / batch
//
// logits (batch, classes). One warp per row, in f64: the hinge is a difference of nearly equal numbers. NaN stays NaN.
#include "intrinsics/ptx.cuh"
#include "common/softmax.cuh"

struct Margin {
    const float* logits;
    const int* outlier;
    float* loss;
    float* dlogits;
    double inside, outside;
    double share;  // 1 / batch
    u32 batch, classes;
};

KERNEL(THREADS, energy_margin, Margin) {
    const u32 lane = threadIdx.x % 32;
    const u32 row = blockIdx.x * WARPS + threadIdx.x / 32;
    if (row < p.batch) {  // the same for all lanes of a warp
        const u64 begin = u64(row) * p.classes;
        const Softmax softmax = softmax_of(p.logits + begin, p.classes, 1.0);
        const double energy = -(softmax.largest + softmax.log_sum);
        const bool outlier = load(p.outlier + row) != 0;
        const double distance = outlier ? p.outside - energy : energy - p.inside;
        const double excess = distance <= 0.0 ? 0.0 : distance;
        const double slope = (outlier ? 2.0 : -2.0) * excess * p.share;
        for (u32 c = lane; c < p.classes; c += 32) {
            const double probability = exp(load(p.logits + begin + c) - softmax.largest - softmax.log_sum);
            store(p.dlogits + begin + c, float(slope * probability));
        }
        if (lane == 0) store(p.loss + row, float(excess * excess));
    }
}
