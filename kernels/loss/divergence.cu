// The divergence of two softmaxes, forward and backward in one pass.
//
//   p = softmax(first / T), q = softmax(second / T), logits (batch, classes)
//   KL(p, q)       = sum over c of p (log p - log q)
//   dKL / dfirst   = p (log p - log q - KL) / T,  dKL / dsecond = (q - p) / T
//   JS(p, q)       = (KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2,  dJS / dfirst = p (log p - log m - KL(p, m)) / (2 T)
//
// Gradients are those of the mean over the batch. One warp per row, in f64: where p and q are close the loss is a
// difference of nearly equal numbers, and a row has only a few hundred of them.
#include "intrinsics/ptx.cuh"
#include "common/softmax.cuh"

struct Divergence {
    const float* first;
    const float* second;
    float* loss;
    float* dfirst;
    float* dsecond;
    u32 batch, classes;
    double inverse_temperature;
    double share_of_first;   // 1 / (batch T), or 0 on a detached side
    double share_of_second;
    u32 direction;           // 0: KL(p, q), 1: KL(q, p), 2: JS(p, q)
    u32 unused;
};

KERNEL(THREADS, kl_divergence, Divergence) {
    const u32 lane = threadIdx.x % 32;
    const u32 row = blockIdx.x * WARPS + threadIdx.x / 32;
    if (row < p.batch) {  // the same for all lanes of a warp
        const u64 begin = u64(row) * p.classes;
        const Softmax of_first = softmax_of(p.first + begin, p.classes, p.inverse_temperature);
        const Softmax of_second = softmax_of(p.second + begin, p.classes, p.inverse_temperature);
        auto log_first = [&](u32 c) {
            return load(p.first + begin + c) * p.inverse_temperature - of_first.largest - of_first.log_sum;
        };
        auto log_second = [&](u32 c) {
            return load(p.second + begin + c) * p.inverse_temperature - of_second.largest - of_second.log_sum;
        };
        // log((p + q) / 2)
        auto log_middle = [&](double a, double b) {
            return (a > b ? a + log1p(exp(b - a)) : b + log1p(exp(a - b))) - 0.69314718055994530942;
        };

        const bool both = p.direction == 2;
        double from_first = 0.0, from_second = 0.0;
        for (u32 c = lane; c < p.classes; c += 32) {
            const double a = log_first(c), b = log_second(c);
            const double middle = both ? log_middle(a, b) : 0.0;
            if (p.direction != 1) from_first += exp(a) * (a - (both ? middle : b));
            if (p.direction != 0) from_second += exp(b) * (b - (both ? middle : a));
        }
        from_first = warp_sum(from_first);
        from_second = warp_sum(from_second);

        for (u32 c = lane; c < p.classes; c += 32) {
            const double a = log_first(c), b = log_second(c), first = exp(a), second = exp(b);
            double to_first, to_second;
            if (both) {
                const double middle = log_middle(a, b);
                to_first = 0.5 * first * (a - middle - from_first);
                to_second = 0.5 * second * (b - middle - from_second);
            } else if (p.direction == 0) {
                to_first = first * (a - b - from_first);
                to_second = second - first;
            } else {
                to_first = first - second;
                to_second = second * (b - a - from_second);
            }
            store(p.dfirst + begin + c, float(p.share_of_first * to_first));
            store(p.dsecond + begin + c, float(p.share_of_second * to_second));
        }
        if (lane == 0) store(p.loss + row, float(both ? 0.5 * (from_first + from_second) : from_first + from_second));
    }
}
