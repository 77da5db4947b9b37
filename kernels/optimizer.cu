// One step of an optimizer over all parameters at once: they lie in one flat region, as do gradients and states (f32).
//
//   sgd    g = gradient + weight_decay p;  v = momentum v + g;  p -= lr (nesterov ? g + momentum v : v)
//          lr = hyper[0]. Without momentum the velocity is not touched.
//   adam   m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g^2;
//          p -= hyper[0] / hyper[1] * m / (sqrt(v) / hyper[2] + epsilon)
//          Weight decay joins g, or, decoupled (AdamW), shrinks p by 1 - lr weight_decay first.
//
// A thread moves 16 bytes of each region; the last thread of the grid takes what is left.
#include "ptx.cuh"
#include "packs.cuh"

constexpr int WIDE = WIDEST<float>;

struct Sgd {
    float* parameters;
    const float* gradients;
    float* velocity;
    const float* hyper;
    u64 elements;
    float momentum;
    float weight_decay;
    u32 nesterov;
    u32 unused;
};

template <int N>
__device__ void sgd_step(const Sgd& s, u64 at, float learning_rate) {
    float p[N], g[N];
    load_floats(s.parameters + at, p);
    load_floats(s.gradients + at, g);
#pragma unroll
    for (int i = 0; i < N; ++i) g[i] += s.weight_decay * p[i];
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
}

KERNEL(256, sgd, Sgd) {
    const float learning_rate = load(p.hyper);
    u64 at = thread_in_grid() * WIDE;
    if (at + WIDE <= p.elements) {
        sgd_step<WIDE>(p, at, learning_rate);
    } else {
#pragma unroll 1
        for (; at < p.elements; ++at) sgd_step<1>(p, at, learning_rate);
    }
}

struct Adam {
    float* parameters;
    const float* gradients;
    float* first;
    float* second;
    const float* hyper;
    u64 elements;
    float take1;  // 1 - beta1
    float beta2;
    float take2;  // 1 - beta2
    float epsilon;
    float weight_decay;
    u32 decoupled;
};

/// The numbers that change from step to step.
struct Step {
    float size;         // lr / (1 - beta1^t)
    float correction2;  // 1 / sqrt(1 - beta2^t)
    float shrinkage;    // of the parameters themselves
    float penalty;      // added to the gradient, times the parameter
};

template <int N>
__device__ void adam_step(const Adam& s, u64 at, const Step& step) {
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
}

KERNEL(256, adam, Adam) {
    const float learning_rate = load(p.hyper);
    const Step step = {learning_rate / load(p.hyper + 1), 1.0f / load(p.hyper + 2),
                       p.decoupled ? 1.0f - learning_rate * p.weight_decay : 1.0f, p.decoupled ? 0.0f : p.weight_decay};
    u64 at = thread_in_grid() * WIDE;
    if (at + WIDE <= p.elements) {
        adam_step<WIDE>(p, at, step);
    } else {
#pragma unroll 1
        for (; at < p.elements; ++at) adam_step<1>(p, at, step);
    }
}
