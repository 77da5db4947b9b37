// Pooling over NHWC images: x (batch, height, width, channels), y (batch, out_height, out_width, channels).
//
//   max_pool           y = maximum over a window, argmax = h * width + w of the first maximum in row-major order. NaN counts as
//                      the maximum; pixels outside the image never do.
//   max_pool_gradient  dx gathers dy of the windows whose maximum is at this pixel: no two threads write one address, and sums
//                      have one order
//   global_average_pool            y (batch, channels) = mean over all pixels, in f32
//   global_average_pool_gradient   dx = dy / (height width)
//
// A thread processes a vector of neighbouring channels, 16 bytes of Real, or one channel where they are not whole vectors.
#include "intrinsics/ptx.cuh"
#include "common/spatial_mean.cuh"

constexpr int VECTOR_SIZE = MAX_VECTOR_SIZE<Real>;

struct Window {
    u32 height, width, out_height, out_width;
    u32 channels, window, stride, padding;
};

template <int N>
__device__ void store_integers(int* to, const int (&values)[N]) {
    constexpr int WIDTH = N < 4 ? N : 4;
#pragma unroll
    for (int first = 0; first < N; first += WIDTH) {
        Vector<int, WIDTH> vector;
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) vector[i] = values[first + i];
        store_vector<WIDTH>(to + first, vector);
    }
}

template <int N>
__device__ void load_integers(const int* from, int (&values)[N]) {
    constexpr int WIDTH = N < 4 ? N : 4;
#pragma unroll
    for (int first = 0; first < N; first += WIDTH) {
        const Vector<int, WIDTH> vector = load_vector<WIDTH>(from + first);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) values[first + i] = vector[i];
    }
}

/// Image, row, column and first channel of this thread's vector of a tensor, and its first element.
template <int N>
struct Place {
    u64 element, image;
    u32 row, column, channel;

    __device__ Place(u32 height, u32 width, u32 channels) {
        const u32 vector = thread_in_small_grid(), groups = channels / N;
        const u32 pixel = vector / groups, line = pixel / width;
        element = u64(vector) * N;
        channel = vector % groups * N;
        column = pixel % width;
        row = line % height;
        image = line / height;
    }
};

// ---- maximum ----

struct MaxPoolArguments {
    const Real* x;
    Real* y;
    int* argmax;
    u64 elements;  // of y
    Window window;
    u64 vectorized;
};

template <int N>
__device__ void max_pool_vector(const MaxPoolArguments& p) {
    const Window& w = p.window;
    const Place<N> place(w.out_height, w.out_width, w.channels);
    if (place.element >= p.elements) return;
    const u32 top = place.row * w.stride, left = place.column * w.stride;  // in the padded image
    const Real* image = p.x + place.image * w.height * w.width * w.channels + place.channel;
    float best[N];
    int argmax[N];
    bool first = true;
    for (u32 i = 0; i < w.window; ++i) {
        const u32 row = top + i - w.padding;  // wraps around beyond every height if outside
        if (row >= w.height) continue;
        for (u32 j = 0; j < w.window; ++j) {
            const u32 column = left + j - w.padding;
            if (column >= w.width) continue;
            const u32 position = row * w.width + column;
            float x[N];
            load_floats(image + u64(position) * w.channels, x);
#pragma unroll
            for (int c = 0; c < N; ++c) {
                const bool wins = first || x[c] > best[c] || (x[c] != x[c] && best[c] == best[c]);
                best[c] = wins ? x[c] : best[c];
                argmax[c] = wins ? int(position) : argmax[c];
            }
            first = false;
        }
    }
    store_floats(p.y + place.element, best);
    store_integers(p.argmax + place.element, argmax);
}

KERNEL(THREADS, max_pool, MaxPoolArguments) {
    if (p.vectorized) max_pool_vector<VECTOR_SIZE>(p);
    else max_pool_vector<1>(p);
}

struct MaxPoolGradientArguments {
    const Real* dy;
    const int* argmax;
    Real* dx;
    u64 elements;  // of dx
    Window window;
    u64 vectorized;
};

/// The windows first .. last - 1 that see a row or column, along one axis of `outputs` windows.
struct Windows {
    u32 first, last;

    __device__ Windows(u32 position, u32 outputs, const Window& w) {
        const u32 padded = position + w.padding;
        first = padded < w.window ? 0 : (padded - w.window) / w.stride + 1;
        last = padded / w.stride + 1;
        if (last > outputs) last = outputs;
    }
};

template <int N>
__device__ void max_pool_gradient_vector(const MaxPoolGradientArguments& p) {
    const Window& w = p.window;
    const Place<N> place(w.height, w.width, w.channels);
    if (place.element >= p.elements) return;
    const int position = int(place.row * w.width + place.column);
    const Windows rows(place.row, w.out_height, w), columns(place.column, w.out_width, w);
    float sum[N] = {};
    for (u32 row = rows.first; row < rows.last; ++row) {
        for (u32 column = columns.first; column < columns.last; ++column) {
            const u64 at = ((place.image * w.out_height + row) * w.out_width + column) * w.channels + place.channel;
            float dy[N];
            int argmax[N];
            load_floats(p.dy + at, dy);
            load_integers(p.argmax + at, argmax);
#pragma unroll
            for (int c = 0; c < N; ++c) sum[c] += argmax[c] == position ? dy[c] : 0.0f;
        }
    }
    store_floats(p.dx + place.element, sum);
}

KERNEL(THREADS, max_pool_gradient, MaxPoolGradientArguments) {
    if (p.vectorized) max_pool_gradient_vector<VECTOR_SIZE>(p);
    else max_pool_gradient_vector<1>(p);
}

// ---- global average pooling ----

struct AverageArguments {
    const Real* x;
    float* y;
    u32 pixels;
    u32 channels;
    u32 column_blocks;  // thread blocks for an image's channels
    u32 columns;        // threads side by side along channels, a power of two; the others are lanes along pixels
    u32 vectorized;
    u32 unused;
};

struct SharedSums {
    float values[VECTOR_SIZE][THREADS];
};

template <int N>
__device__ void global_average(const AverageArguments& p, SharedSums& shared) {
    const u32 image = blockIdx.x / p.column_blocks;
    const u32 channel = (blockIdx.x % p.column_blocks * p.columns + threadIdx.x % p.columns) * N;
    float means[N];
    spatial_mean(p.x + u64(image) * p.pixels * p.channels, channel, p.pixels, p.channels, p.columns, shared.values,
                   means);
    if (channel < p.channels && threadIdx.x < p.columns) {
        store_floats(p.y + u64(image) * p.channels + channel, means);
    }
}

KERNEL(THREADS, global_average_pool, AverageArguments) {
    SHARED(SharedSums, shared);
    if (p.vectorized) global_average<VECTOR_SIZE>(p, shared);
    else global_average<1>(p, shared);
}

struct AverageGradientArguments {
    const float* dy;
    Real* dx;
    u64 elements;  // of dx
    u32 pixels;
    u32 channels;
    u32 vectorized;
    u32 unused;
};

template <int N>
__device__ void global_average_gradient(const AverageGradientArguments& p) {
    const Place<N> place(1, p.pixels, p.channels);
    if (place.element >= p.elements) return;
    float values[N];
    load_floats(p.dy + place.image * p.channels + place.channel, values);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] /= float(p.pixels);
    store_floats(p.dx + place.element, values);
}

KERNEL(THREADS, global_average_pool_gradient, AverageGradientArguments) {
    if (p.vectorized) global_average_gradient<VECTOR_SIZE>(p);
    else global_average_gradient<1>(p);
}
