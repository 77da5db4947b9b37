// Pooling over NHWC images: x (batch, height, width, channels), y (batch, out_height, out_width, channels).
//
//   max_pool           y = maximum over a window, argmax = h * width + w of the first maximum in row-major order; NaN wins.
//                      Pixels outside the image never do.
//   max_pool_gradient  dx gathers dy of the windows whose maximum was here: no two threads write one place, and sums have
//                      one order
//   global_average_pool            y (batch, channels) = mean over all pixels, in f32
//   global_average_pool_gradient   dx = dy / (height width)
//
// A thread holds a pack of neighbouring channels, 16 bytes of Real, or one channel where they do not divide into packs.
#include "ptx.cuh"
#include "reduce.cuh"

constexpr int WIDE = WIDEST<Real>;

struct Window {
    u32 height, width, out_height, out_width;
    u32 channels, window, stride, padding;
};

template <int N>
__device__ void store_integers(int* to, const int (&values)[N]) {
    constexpr int WIDTH = N < 4 ? N : 4;
#pragma unroll
    for (int first = 0; first < N; first += WIDTH) {
        Pack<int, WIDTH> pack;
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) pack[i] = values[first + i];
        store_pack<WIDTH>(to + first, pack);
    }
}

template <int N>
__device__ void load_integers(const int* from, int (&values)[N]) {
    constexpr int WIDTH = N < 4 ? N : 4;
#pragma unroll
    for (int first = 0; first < N; first += WIDTH) {
        const Pack<int, WIDTH> pack = load_pack<WIDTH>(from + first);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) values[first + i] = pack[i];
    }
}

/// Image, row, column and first channel of the pack that starts at an element.
struct Place {
    u64 image;
    u32 row, column, channel;

    __device__ Place(u64 element, u32 height, u32 width, u32 channels) {
        channel = u32(element % channels);
        u64 pixel = element / channels;
        column = u32(pixel % width);
        pixel /= width;
        row = u32(pixel % height);
        image = pixel / height;
    }
};

// ---- maximum ----

struct MaxPoolArguments {
    const Real* x;
    Real* y;
    int* argmax;
    u64 elements;  // of y
    Window window;
    u64 wide;
};

template <int N>
__device__ void max_pool_pack(const MaxPoolArguments& p) {
    const u64 element = thread_in_grid() * N;
    if (element >= p.elements) return;
    const Window& w = p.window;
    const Place place(element, w.out_height, w.out_width, w.channels);
    const u32 top = place.row * w.stride, left = place.column * w.stride;  // in the padded image
    const Real* image = p.x + place.image * w.height * w.width * w.channels + place.channel;
    float best[N];
    int argmax[N];
    bool first = true;
    for (u32 i = 0; i < w.window; ++i) {
        const u32 row = top + i - w.padding;  // wraps beyond every height where outside
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
    store_floats(p.y + element, best);
    store_integers(p.argmax + element, argmax);
}

KERNEL(256, max_pool, MaxPoolArguments) {
    if (p.wide) max_pool_pack<WIDE>(p);
    else max_pool_pack<1>(p);
}

struct MaxPoolGradientArguments {
    const Real* dy;
    const int* argmax;
    Real* dx;
    u64 elements;  // of dx
    Window window;
    u64 wide;
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
__device__ void max_pool_gradient_pack(const MaxPoolGradientArguments& p) {
    const u64 element = thread_in_grid() * N;
    if (element >= p.elements) return;
    const Window& w = p.window;
    const Place place(element, w.height, w.width, w.channels);
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
    store_floats(p.dx + element, sum);
}

KERNEL(256, max_pool_gradient, MaxPoolGradientArguments) {
    if (p.wide) max_pool_gradient_pack<WIDE>(p);
    else max_pool_gradient_pack<1>(p);
}

// ---- mean over all pixels ----

struct AverageArguments {
    const Real* x;
    float* y;
    u64 pixels;
    u32 channels;
    u32 column_blocks;  // blocks that an image's channels take
    u32 columns;        // threads side by side along channels, a power of two; the others are lanes along pixels
    u32 wide;
};

struct SharedSums {
    float values[WIDE][THREADS];
};

template <int N>
__device__ void average(const AverageArguments& p, SharedSums& shared) {
    const u64 image = blockIdx.x / p.column_blocks;
    const u32 channel = (blockIdx.x % p.column_blocks * p.columns + threadIdx.x % p.columns) * N;
    const bool inside = channel < p.channels;
    float sums[N] = {};
    if (inside) {
        const Real* x = p.x + image * p.pixels * p.channels + channel;
#pragma unroll 4
        for (u64 pixel = threadIdx.x / p.columns; pixel < p.pixels; pixel += THREADS / p.columns) {
            float values[N];
            load_floats(x + pixel * p.channels, values);
#pragma unroll
            for (int i = 0; i < N; ++i) sums[i] += values[i];
        }
    }
    sum_lanes(shared.values, sums, p.columns);
    if (inside && threadIdx.x < p.columns) {
#pragma unroll
        for (int i = 0; i < N; ++i) sums[i] /= float(p.pixels);
        store_floats(p.y + image * p.channels + channel, sums);
    }
}

KERNEL(256, global_average_pool, AverageArguments) {
    SHARED(SharedSums, shared);
    if (p.wide) average<WIDE>(p, shared);
    else average<1>(p, shared);
}

struct AverageGradientArguments {
    const float* dy;
    Real* dx;
    u64 elements;  // of dx
    u64 pixels;
    u32 channels;
    u32 wide;
};

template <int N>
__device__ void average_gradient(const AverageGradientArguments& p) {
    const u64 element = thread_in_grid() * N;
    if (element >= p.elements) return;
    const u64 image = element / (p.pixels * p.channels);
    const u32 channel = u32(element % p.channels);
    float values[N];
    load_floats(p.dy + image * p.channels + channel, values);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] /= float(p.pixels);
    store_floats(p.dx + element, values);
}

KERNEL(256, global_average_pool_gradient, AverageGradientArguments) {
    if (p.wide) average_gradient<WIDE>(p);
    else average_gradient<1>(p);
}
