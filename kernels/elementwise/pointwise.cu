// Elementwise passes: each reads and writes every element once.
//
//   relu               y = max(x, 0)                  NaN stays NaN
//   relu_gradient      dx = dy where y > 0, else 0
//   add                y = a + b
//   copy               y = x
//   cast               y = x, from f32 to Real
//   accumulate         y += x
//   shortcut_a         y[n, p, q, shift + c] = x[n, p stride, q stride, c], other channels zero (NHWC)
//   shortcut_a_gradient    its transpose
//
// A thread processes one vector of 16 bytes; the last thread of the grid processes the remaining elements one by one. The
// shortcuts process single elements where the channels are not whole vectors.
#include "intrinsics/ptx.cuh"
#include "common/vectorized.cuh"

constexpr int VECTOR_SIZE = MAX_VECTOR_SIZE<Real>;

/// Runs a pass over this thread's elements: once over a whole vector, or over each of the remaining elements.
template <class Pass>
__device__ void for_own_elements(u64 elements, Pass pass) {
    u64 first = thread_in_grid() * VECTOR_SIZE;
    if (first + VECTOR_SIZE <= elements) {
        pass.template run<VECTOR_SIZE>(first);
    } else {
#pragma unroll 1
        for (; first < elements; ++first) pass.template run<1>(first);
    }
}

// y = f(x)

template <class X>
struct Unary {
    const X* x;
    Real* y;
    u64 elements;
};

template <class X, class F>
struct UnaryPass {
    const X* x;
    Real* y;
    F f;
    template <int N>
    __device__ void run(u64 at) const {
        float values[N];
        load_floats(x + at, values);
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] = f(values[i]);
        store_floats(y + at, values);
    }
};

template <class X, class F>
__device__ void unary(const Unary<X>& p, F f) {
    for_own_elements(p.elements, UnaryPass<X, F>{p.x, p.y, f});
}

KERNEL(THREADS, relu, Unary<Real>) {
    unary(p, [](float x) { return rectified(x); });
}

KERNEL(THREADS, copy, Unary<Real>) {
    unary(p, [](float x) { return x; });
}

KERNEL(THREADS, cast, Unary<float>) {
    unary(p, [](float x) { return x; });
}

// y = f(a, b); `y` may be `a` or `b`

struct Binary {
    const Real* a;
    const Real* b;
    Real* y;
    u64 elements;
};

template <class F>
struct BinaryPass {
    Binary p;
    F f;
    template <int N>
    __device__ void run(u64 at) const {
        float a[N], b[N];
        load_floats(p.a + at, a);
        load_floats(p.b + at, b);
#pragma unroll
        for (int i = 0; i < N; ++i) a[i] = f(a[i], b[i]);
        store_floats(p.y + at, a);
    }
};

template <class F>
__device__ void binary(const Binary& p, F f) {
    for_own_elements(p.elements, BinaryPass<F>{p, f});
}

KERNEL(THREADS, add, Binary) {
    binary(p, [](float a, float b) { return a + b; });
}

KERNEL(THREADS, relu_gradient, Binary) {
    binary(p, [](float y, float dy) { return y > 0.0f ? dy : 0.0f; });
}

// Option A shortcut

struct Shortcut {
    const Real* from;
    Real* to;
    u64 elements;  // of `to`
    u32 height, width, in_channels;         // of x
    u32 out_height, out_width, out_channels;  // of y
    u32 stride, shift;
    u32 vectorized;  // whether all channel counts and the shift are whole vectors
    u32 unused;
};

/// One vector of y: copied, or zero.
template <int N>
__device__ void shortcut_forward(const Shortcut& p) {
    const u32 vector = thread_in_small_grid(), groups = p.out_channels / N;
    const u64 at = u64(vector) * N;
    if (at >= p.elements) return;
    const u32 channel = vector % groups * N, pixel = vector / groups;
    const u32 q = pixel % p.out_width, line = pixel / p.out_width;
    const u32 row = line % p.out_height;
    const u64 image = line / p.out_height;
    float values[N] = {};
    if (channel >= p.shift && channel < p.shift + p.in_channels) {
        const u64 position = (image * p.height + row * p.stride) * p.width + q * p.stride;
        load_floats(p.from + position * p.in_channels + (channel - p.shift), values);
    }
    store_floats(p.to + at, values);
}

/// One vector of dx: the gradient of the pixel that was kept, or zero.
template <int N>
__device__ void shortcut_backward(const Shortcut& p) {
    const u32 vector = thread_in_small_grid(), groups = p.in_channels / N;
    const u64 at = u64(vector) * N;
    if (at >= p.elements) return;
    const u32 channel = vector % groups * N, pixel = vector / groups;
    const u32 column = pixel % p.width, line = pixel / p.width;
    const u32 row = line % p.height;
    const u64 image = line / p.height;
    float values[N] = {};
    if (row % p.stride == 0 && column % p.stride == 0) {
        const u64 position = (image * p.out_height + row / p.stride) * p.out_width + column / p.stride;
        load_floats(p.from + position * p.out_channels + p.shift + channel, values);
    }
    store_floats(p.to + at, values);
}

KERNEL(THREADS, shortcut_a, Shortcut) {
    if (p.vectorized) shortcut_forward<VECTOR_SIZE>(p);
    else shortcut_forward<1>(p);
}

KERNEL(THREADS, shortcut_a_gradient, Shortcut) {
    if (p.vectorized) shortcut_backward<VECTOR_SIZE>(p);
    else shortcut_backward<1>(p);
}
