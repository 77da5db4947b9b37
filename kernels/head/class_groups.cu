// Logits of superclasses (class groups) from those of their subclasses.
//
//   y[n, g]  = T log(sum over c with group_of[c] = g of exp(x[n, c] / T))
//   dx[n, c] = dy[n, g] exp((x[n, c] - y[n, g]) / T),  g = group_of[c]
//
// x (batch, classes), y (batch, groups). A class whose group is not among 0..groups contributes nowhere and has no gradient; a
// group without classes has y = -inf. Exponentials and sums in f64: a number close to y may be subtracted from it.
#include "intrinsics/ptx.cuh"
#include "common/softmax.cuh"

struct LogSum {
    const float* x;
    const int* group_of;
    float* y;
    double temperature;
    u32 batch, classes, groups;
    u32 unused;
};

/// A warp for each sum.
KERNEL(THREADS, log_sum_groups, LogSum) {
    const u32 lane = threadIdx.x % 32;
    const u32 sum = blockIdx.x * WARPS + threadIdx.x / 32;
    if (sum < p.batch * p.groups) {  // the same for all lanes of a warp
        const int group = int(sum % p.groups);
        const float* x = p.x + u64(sum / p.groups) * p.classes;
        float largest = -INFINITY_F32;
        for (u32 c = lane; c < p.classes; c += 32) {
            if (load(p.group_of + c) == group) largest = fmaxf(largest, load(x + c));
        }
        largest = warp_largest(largest);
        double exponentials = 0.0;
        for (u32 c = lane; c < p.classes; c += 32) {
            if (load(p.group_of + c) == group) exponentials += exp((double(load(x + c)) - largest) / p.temperature);
        }
        exponentials = warp_sum(exponentials);
        if (lane == 0) store(p.y + sum, float(largest + p.temperature * log(exponentials)));
    }
}

struct Gradient {
    const float* x;
    const int* group_of;
    const float* y;
    const float* dy;
    float* dx;
    double inverse_temperature;
    u32 elements, classes, groups;
    u32 unused;
};

/// A thread for each element of dx.
KERNEL(THREADS, log_sum_groups_gradient, Gradient) {
    const u32 at = thread_in_small_grid();
    if (at < p.elements) {
        const int group = load(p.group_of + at % p.classes);
        double gradient = 0.0;
        if (group >= 0 && u32(group) < p.groups) {
            const u64 place = u64(at / p.classes) * p.groups + u32(group);
            const double below = double(load(p.x + at)) - load(p.y + place);
            gradient = load(p.dy + place) * exp(below * p.inverse_temperature);
        }
        store(p.dx + at, float(gradient));
    }
}
