// One step of an optimizer over all parameters at once: they lie in one flat region, as do gradients and states (f32).
//
//   sgd    g = gradient + weight_decay p;  v = momentum v + g;  p -= lr (nesterov ? g + momentum v : v)
//          lr = hyper[0]. Without momentum the velocity is not touched.
//   adam   m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2;
//          p -= hyper[0] / hyper[1] * m / (sqrt(v) / hyper[2] + epsilon)
//          Weight decay is added to g, or, decoupled (AdamW), shrinks p by 1 - lr weight_decay first.
//
// Segments of the region have a weight decay and a row of `hyper` each. In bf16 training the convolutions read bf16 weights beside
// these f32 master weights, which are written in the same pass.
//
// A thread processes 16 bytes of each region; the last thread of the grid processes the remaining elements.
#include "intrinsics/ptx.cuh"
#include "common/vectorized.cuh"

/// Parameters that a thread updates: 16 bytes.
LAUNCHER_CONSTANT int VECTOR_SIZE = 4;

/// Elements of a row of `hyper`.
LAUNCHER_CONSTANT u32 HYPER_ROW = 4;

struct Segments {
    u64 ends[3];  // multiples of VECTOR_SIZE but for the last: a vector lies in one segment
    float weight_decays[3];
    u32 rows[3];

    __device__ u64 elements() const { return ends[2]; }
    /// The segment that an element lies in.
    __device__ u32 of(u64 at) const { return u32(at >= ends[0]) + u32(at >= ends[1]); }
};

struct Sgd {
    float* parameters;
    const float* gradients;
    float* velocity;
    const float* hyper;
    Real* bf16_weights;  // or null
    Segments segments;
    float momentum;
    u32 nesterov;
};

template <int N>
__device__ void sgd_step(const Sgd& s, u64 at) {
    const u32 segment = s.segments.of(at);
    const float learning_rate = load(s.hyper + s.segments.rows[segment] * HYPER_ROW);
    const float weight_decay = s.segments.weight_decays[segment];
    float p[N], g[N];
    load_floats(s.parameters + at, p);
    load_floats(s.gradients + at, g);
#pragma unroll
    for (int i = 0; i < N; ++i) g[i] += weight_decay * p[i];
    if (s.momentum != 0.0f) {
        float v[N];
        load_floats(s.velocity + at, v);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            v[i] = s.momentum * v[i] + g[i];
            g[i] = s.nesterov ? g[i] + s.momentum * v[i] : v[i];
        }
        store_floats(s.velocity + at, v);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) p[i] -= learning_rate * g[i];
    store_floats(s.parameters + at, p);
    if (s.bf16_weights) store_floats(s.bf16_weights + at, p);
}

KERNEL(THREADS, sgd, Sgd) {
    u64 at = thread_in_grid() * VECTOR_SIZE;
    if (at + VECTOR_SIZE <= p.segments.elements()) {
        sgd_step<VECTOR_SIZE>(p, at);
    } else {
#pragma unroll 1
        for (; at < p.segments.elements(); ++at) sgd_step<1>(p, at);
    }
}

struct Adam {
    float* parameters;
    const float* gradients;
    float* first;
    float* second;
    const float* hyper;
    Real* bf16_weights;  // or null
    Segments segments;
    float take1;  // 1 - beta1
    float beta2;
    float take2;  // 1 - beta2
    float epsilon;
    u32 decoupled;
    u32 unused;
};

/// Coefficients that change from step to step.
struct Step {
    float size;         // lr / (1 - beta1^t)
    float correction2;  // 1 / sqrt(1 - beta2^t)
    float shrinkage;    // of the parameters themselves
    float penalty;      // added to the gradient, times the parameter

    __device__ Step(const Adam& s, u32 segment) {
        const float* hyper = s.hyper + s.segments.rows[segment] * HYPER_ROW;
        const float learning_rate = load(hyper), weight_decay = s.segments.weight_decays[segment];
        size = learning_rate / load(hyper + 1);
        correction2 = 1.0f / load(hyper + 2);
        shrinkage = s.decoupled ? 1.0f - learning_rate * weight_decay : 1.0f;
        penalty = s.decoupled ? 0.0f : weight_decay;
    }
};

template <int N>
__device__ void adam_step(const Adam& s, u64 at) {
    const Step step(s, s.segments.of(at));
    float p[N], g[N], m[N], v[N];
    load_floats(s.parameters + at, p);
    load_floats(s.gradients + at, g);
    load_floats(s.first + at, m);
    load_floats(s.second + at, v);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        g[i] += step.penalty * p[i];
        m[i] += s.take1 * (g[i] - m[i]);
        v[i] = s.beta2 * v[i] + s.take2 * g[i] * g[i];
        p[i] = step.shrinkage * p[i] - step.size * m[i] / (sqrtf(v[i]) * step.correction2 + s.epsilon);
    }
    store_floats(s.parameters + at, p);
    store_floats(s.first + at, m);
    store_floats(s.second + at, v);
    if (s.bf16_weights) store_floats(s.bf16_weights + at, p);
}

KERNEL(THREADS, adam, Adam) {
    u64 at = thread_in_grid() * VECTOR_SIZE;
    if (at + VECTOR_SIZE <= p.segments.elements()) {
        adam_step<VECTOR_SIZE>(p, at);
    } else {
#pragma unroll 1
        for (; at < p.segments.elements(); ++at) adam_step<1>(p, at);
    }
}
