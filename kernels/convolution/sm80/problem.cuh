// Convolutions as implicit GEMMs: products of matrices that exist only as addresses.
//
//   FPROP   y[pixel, k]      = sum over (r, s, c)  of x[pixel's patch](r, s, c) * weight[k](r, s, c)
//   DGRAD   dx[pixel, c]     = sum over (tap, k)   of dy[pixel's patch](tap, k) * weight[k](tap, c)
//   WGRAD   dweight[k, rsc]  = sum over pixels     of dy[pixel, k] * x[pixel's patch](r, s, c)
//
// dgrad and wgrad are the gradients with respect to the input and the weights. In all three one matrix has a row per pixel and a
// column per (filter tap, channel): the patch of an NHWC image that a filter sees from that pixel. A pixel gives an address and a
// tap an offset, and their sum is the address of the element; an element whose image row or column is outside is zero. This file
// computes those addresses and knows nothing of tiles.
//
// A dgrad with a stride is one GEMM per residue of (row mod stride, column mod stride), a `Phase`: the pixels of a phase see
// the same taps, and the taps they do not see are not multiplied. fprop and wgrad have one phase.
#pragma once
#include "common/fast_divmod.cuh"

#define FPROP 0
#define DGRAD 1
#define WGRAD 2

/// Phases of one launch at most: all of a dgrad with stride 2.
LAUNCHER_CONSTANT u32 MAX_PHASES = 4;

/// The pixels of one GEMM, and the filter taps that contribute to them.
struct Phase {
    FastDivmod width, height;     // columns and rows of pixels in an image
    FastDivmod taps_w;            // taps in a row of taps
    u32 pixels;                   // in all images
    u32 patch;                    // elements of a patch: taps * channels
    int first_row, first_column;  // position in the image of the first tap of pixel (0, 0)
    u32 filter_row, filter_column;  // the element of the filter that the first tap is
    u32 out_row, out_column;      // the element of the output image that pixel (0, 0) is
};

struct Arguments {
    const Real* image;   // x; in dgrad dy
    const Real* matrix;  // weight (KRSC); in wgrad dy
    void* out;           // Real; in wgrad f32, one result behind the other for each split-K slice
    const float* bias;   // per column, or null
    const Real* addend;  // of the shape of out, or null; out itself to accumulate
    i64 image_elements;  // of one image
    int image_height, image_width;
    FastDivmod channels;  // of the image
    int pixel_step;      // rows (columns) of the image between neighbouring pixels
    int tap_step;        // rows (columns) of the image between neighbouring taps
    u32 filter_step;     // rows (columns) of the filter between neighbouring taps
    u32 filter_width, filter_taps;
    u32 out_step, out_height, out_width;
    u32 gemm_m, gemm_n;  // in fprop and dgrad the phase's pixels take the place of gemm_m
    u32 tiles_n;         // tiles along GEMM N
    u32 split_k;         // slices that GEMM K of wgrad, the pixels, is cut into
    u32 vectorized_out;  // whether rows of out are a multiple of 16 bytes
    u32 relu;
    u32 unused;
    Phase phases[MAX_PHASES];
};

/// Far outside every image, and still so when two are added.
constexpr int OUTSIDE = -(1 << 29);

/// Position of a pixel's first tap: elements from the start of the first image, and row and column in its own image. It may be
/// outside; `inside` decides whether its sum with a tap is.
struct alignas(16) Pixel {
    i64 offset;
    int row, column;
};

/// Offsets that one column of the patches adds to a pixel's position.
struct Tap {
    int offset, row, column;
};

__device__ inline Pixel pixel_at(const Arguments& p, const Phase& phase, u32 index) {
    const u32 line = fast_divide(index, phase.width);
    const u32 image = fast_divide(line, phase.height);
    const int row = int(line - image * phase.height.divisor) * p.pixel_step + phase.first_row;
    const int column = int(index - line * phase.width.divisor) * p.pixel_step + phase.first_column;
    const i64 offset = image * p.image_elements + i64(row * p.image_width + column) * p.channels.divisor;
    return {offset, index < phase.pixels ? row : OUTSIDE, column};
}

__device__ inline Tap tap_at(const Arguments& p, const Phase& phase, u32 element) {
    const u32 tap = fast_divide(element, p.channels);
    const u32 tap_h = fast_divide(tap, phase.taps_w);
    const int row = int(tap_h) * p.tap_step;
    const int column = int(tap - tap_h * phase.taps_w.divisor) * p.tap_step;
    const int channel = int(element - tap * p.channels.divisor);
    const int offset = (row * p.image_width + column) * int(p.channels.divisor) + channel;
    return {offset, element < phase.patch ? row : OUTSIDE, column};
}

/// The address of an element, and whether it exists; if not, it is zero and not read.
struct Source {
    const Real* from;
    bool exists;
};

__device__ inline bool inside(const Arguments& p, const Pixel& pixel, const Tap& tap) {
    return u32(pixel.row + tap.row) < u32(p.image_height) && u32(pixel.column + tap.column) < u32(p.image_width);
}

__device__ inline Source patch_at(const Arguments& p, const Pixel& pixel, const Tap& tap) {
    return {p.image + (pixel.offset + tap.offset), inside(p, pixel, tap)};
}

/// Offset that is no element of weight.
constexpr u32 NONE = ~0u;

/// Offset of weight[k](tap, first channel) for element (tap, k) of a dgrad patch.
__device__ inline u32 filter_at(const Arguments& p, const Phase& phase, u32 element) {
    const u32 tap = fast_divide(element, p.channels);
    const u32 tap_h = fast_divide(tap, phase.taps_w);
    const u32 tap_w = tap - tap_h * phase.taps_w.divisor;
    const u32 k = element - tap * p.channels.divisor;
    const u32 row = phase.filter_row + tap_h * p.filter_step, column = phase.filter_column + tap_w * p.filter_step;
    return element < phase.patch ? (k * p.filter_taps + row * p.filter_width + column) * p.gemm_n : NONE;
}

/// Row of the output matrix that holds a pixel's result.
__device__ inline u32 out_row_of(const Arguments& p, const Phase& phase, u32 index) {
    const u32 line = fast_divide(index, phase.width);
    const u32 image = fast_divide(line, phase.height);
    const u32 row = (line - image * phase.height.divisor) * p.out_step + phase.out_row;
    const u32 column = (index - line * phase.width.divisor) * p.out_step + phase.out_column;
    return (image * p.out_height + row) * p.out_width + column;
}
