// Convolutions as products of matrices that exist only as addresses.
//
//   FORWARD          y[pixel, k]    = sum over (r, s, c)    of x[pixel's patch](r, s, c) * weight[k](r, s, c)
//   INPUT_GRADIENT   dx[pixel, c]   = sum over (tap, k)     of dy[pixel's patch](tap, k) * weight[k](tap, c)
//   WEIGHT_GRADIENT  dweight[k, rsc] = sum over pixels      of dy[pixel, k] * x[pixel's patch](r, s, c)
//
// In all three one matrix has a row per pixel and a column per (tap, channel): the patch of an image that a filter sees
// from that pixel, its image NHWC. A pixel gives an address and a tap an offset, and their sum is where the element
// lies; an element whose image row or column is outside is zero. This file knows those addresses and nothing of tiles.
//
// An input gradient with a stride is one product per residue of (row mod stride, column mod stride): those pixels see
// the same taps, and the taps they do not see are not multiplied. Each such product is a `Walk`; forward and weight
// gradient have one.
#pragma once
#include "common/fast_divmod.cuh"

#define FORWARD 0
#define INPUT_GRADIENT 1
#define WEIGHT_GRADIENT 2

/// Which pixels are walked over, and which taps they see.
struct Walk {
    Divider width, height;        // columns and rows of pixels in an image
    Divider taps_across;          // taps in a row of taps
    u32 pixels;                   // in all images
    u32 patch;                    // elements of a patch: taps * channels
    int first_row, first_column;  // where in the image the first tap of pixel (0, 0) lies
    u32 filter_row, filter_column;  // which element of the filter the first tap is
    u32 out_row, out_column;      // which element of the output image pixel (0, 0) is
};

struct Arguments {
    const Real* image;   // x; in the input gradient dy
    const Real* matrix;  // weight (KRSC); in the weight gradient dy
    void* out;           // Real; in the weight gradient f32: the sums of each split, one behind the other
    const float* bias;   // per column, or null
    const Real* addend;  // of the shape of out, or null; out itself to accumulate
    i64 image_elements;  // of one image
    int image_height, image_width;
    Divider channels;    // of the image
    int pixel_step;      // rows (columns) of the image between neighbouring pixels
    int tap_step;        // rows (columns) of the image between neighbouring taps
    u32 filter_step;     // the same in the filter
    u32 filter_width, filter_taps;
    u32 out_step, out_height, out_width;
    u32 rows, columns;   // of the product; in forward and input gradient the rows are the walk's pixels instead
    u32 tiles_across;    // tiles in a row of tiles
    u32 splits;          // parts the sum over pixels is cut into
    u32 wide_out;        // whether rows of out are a multiple of 16 bytes
    u32 relu;
    u32 unused;
    Walk walks[4];
};

/// Far outside every image, and still when two are added.
constexpr int OUTSIDE = -(1 << 29);

/// Where a pixel's first tap lies: elements from the first image's first, and row and column in its own image. That may be
/// outside; whether the sum with a tap is not, `inside` knows.
struct alignas(16) Pixel {
    i64 offset;
    int row, column;
};

/// What one column of the patches adds to a pixel's address.
struct Tap {
    int offset, row, column;
};

__device__ inline Pixel pixel_at(const Arguments& p, const Walk& walk, u32 index) {
    const u32 line = divide(index, walk.width);
    const u32 image = divide(line, walk.height);
    const int row = int(line - image * walk.height.divisor) * p.pixel_step + walk.first_row;
    const int column = int(index - line * walk.width.divisor) * p.pixel_step + walk.first_column;
    const i64 offset = image * p.image_elements + i64(row * p.image_width + column) * p.channels.divisor;
    return {offset, index < walk.pixels ? row : OUTSIDE, column};
}

__device__ inline Tap tap_at(const Arguments& p, const Walk& walk, u32 element) {
    const u32 tap = divide(element, p.channels);
    const u32 down = divide(tap, walk.taps_across);
    const int row = int(down) * p.tap_step;
    const int column = int(tap - down * walk.taps_across.divisor) * p.tap_step;
    const int channel = int(element - tap * p.channels.divisor);
    const int offset = (row * p.image_width + column) * int(p.channels.divisor) + channel;
    return {offset, element < walk.patch ? row : OUTSIDE, column};
}

/// An element that may not be there; then it is zero and not read.
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

/// No element of weight.
constexpr u32 NOWHERE = ~0u;

/// Offset of weight[k](tap, first channel) for element (tap, k) of an input gradient's patch.
__device__ inline u32 filter_at(const Arguments& p, const Walk& walk, u32 element) {
    const u32 tap = divide(element, p.channels);
    const u32 down = divide(tap, walk.taps_across);
    const u32 across = tap - down * walk.taps_across.divisor;
    const u32 k = element - tap * p.channels.divisor;
    const u32 row = walk.filter_row + down * p.filter_step, column = walk.filter_column + across * p.filter_step;
    return element < walk.patch ? (k * p.filter_taps + row * p.filter_width + column) * p.columns : NOWHERE;
}

/// Row of the output matrix where a pixel's result belongs.
__device__ inline u32 out_row_of(const Arguments& p, const Walk& walk, u32 index) {
    const u32 line = divide(index, walk.width);
    const u32 image = divide(line, walk.height);
    const u32 row = (line - image * walk.height.divisor) * p.out_step + walk.out_row;
    const u32 column = (index - line * walk.width.divisor) * p.out_step + walk.out_column;
    return (image * p.out_height + row) * p.out_width + column;
}
