// What the convolution of sm_90a is told, and how it is cut into pieces of work. The three products are those of
// convolution.cuh, but nothing here is an address: tensor maps know where the pixels' patches lie, the copy engine walks along
// the pixels of a tile by itself and writes zeros for what lies outside an image.
//
// A patch is gathered tap by tap: for one tap and 64 channels a tile of patches is one copy. Its place is the first pixel's
// base (the tap that lies highest and leftmost), moved by the tap's offset, which cannot be negative.
#pragma once
#include "common/fast_divmod.cuh"
#include "intrinsics/ptx_sm90.cuh"

#define FORWARD 0
#define INPUT_GRADIENT 1
#define WEIGHT_GRADIENT 2

/// Elements of the sum in a stage, and channels in a box: 128 bytes.
constexpr u32 STEP = 64;

/// Which pixels are walked over, and which taps they see: as in convolution.cuh, one for each residue by the stride in an input
/// gradient.
struct Walk {
    TensorMap patches;           // of the image; where `flat`, a matrix of (pixels, channels)
    Divider width, height;       // columns and rows of pixels in an image
    u32 pixels;                  // in all images
    u32 taps_down, taps_across;  // by offset
    u32 first_tap;               // the filter's element at offset (0, 0)
    int tap_down, tap_across;    // what the next row and the next column of offsets add to it
    int first_row, first_column;  // the base of pixel (0, 0) in the image
    u32 out_row, out_column;     // which element of the output image pixel (0, 0) is
    u32 first_item;              // pieces of work in the walks before
    u32 first_slab;              // slabs in the walks before
    u32 unused[14];
};

/// How kernels that keep rows of images have them in shared memory, 64 channels of each pixel.
struct Resident {
    u32 row_bytes;     // of a row of pixels
    u32 stage_bytes;   // that one copy moves
    u32 stages;        // copies that there is room for
    u32 stage_rows;    // rows that a copy to a ring moves
    u32 image_blocks;  // blocks of 64 pixels of a tile that lie in one image
    u32 image_bytes;   // from one image of a tile to the next
    u32 unused[2];
};

struct Arguments {
    Walk walks[4];
    TensorMap matrix;      // weights (KRSC); in the weight gradient dy (pixels, channels)
    void* out;             // bf16; in the weight gradient f32: the sums of each split, one behind the other
    const float* bias;     // per column, or null
    const bf16* addend;    // of the shape of out, or null; out itself to accumulate
    float* partial;        // (2, slabs, columns), what batch normalisation wants to know; or null
    const bf16* mask;      // of the shape of out: the gradient goes where it is above zero; or null
    const bf16* norm_x;    // what the normalisation behind dx has read, of the shape of out
    const float* norm_scale;
    const float* norm_bias;
    const float* norm_mean;
    u32 norm_relu;         // whether it has a rectifier
    u32 slabs;
    u32 walk_count;
    u32 items;             // pieces of work in all
    u32 flat;              // whether a pixel's patch is the pixel
    u32 pixel_step;        // rows (columns) of the image between neighbouring pixels
    u32 chunks;            // of 64 channels of the image, in a tap
    u32 channels;          // of the image
    u32 rows, columns;     // of the product; in forward and input gradient the rows are the walk's pixels instead
    Divider tiles_across;  // tiles in a row of tiles
    Divider tiles;         // in a split of a weight gradient
    u32 splits;            // parts the sum over pixels is cut into
    u32 taps_across;       // of the filter
    u32 out_step, out_height, out_width;
    u32 relu;
    Resident resident;
    const float* patch_scale;  // per channel of the image, where patches are scale * x + bias; or null
    const float* patch_bias;
    u32 patch_relu;            // whether a rectifier comes behind
    u32 unused[11];
};

/// One tile of the result, or of a split.
struct Work {
    u32 walk;
    u32 first_row, first_column;
    u32 split;
    u32 first_step, steps;  // of the sum
};

/// A piece of work whose tile has so many rows and columns.
__device__ inline Work work_at(const Arguments& p, u32 item, u32 tile_rows = TILE_M, u32 tile_columns = TILE_N) {
    u32 walk = 0, split = 0;
    if constexpr (PASS == INPUT_GRADIENT) {
        while (walk + 1 < p.walk_count && item >= p.walks[walk + 1].first_item) walk++;
        item -= p.walks[walk].first_item;
    }
    if constexpr (PASS == WEIGHT_GRADIENT) {
        split = divide(item, p.tiles);
        item -= split * p.tiles.divisor;
    }
    const u32 down = divide(item, p.tiles_across), across = item - down * p.tiles_across.divisor;
    u32 first_step = 0, end_step = p.walks[walk].taps_down * p.walks[walk].taps_across * p.chunks;
    if constexpr (PASS == WEIGHT_GRADIENT) {
        const u64 all = (p.walks[0].pixels + STEP - 1) / STEP;
        first_step = u32(all * split / p.splits);
        end_step = u32(all * (split + 1) / p.splits);
    }
    return {walk, down * tile_rows, across * tile_columns, split, first_step, end_step - first_step};
}

/// The base of a pixel: where its patch begins.
struct Base {
    int column, row, image;
};

/// A pixel by its place in its image, and the steps to another.
struct Position {
    u32 column, row, image;

    __device__ Position(const Walk& walk, u32 pixel) {
        const u32 line = divide(pixel, walk.width);
        image = divide(line, walk.height);
        row = line - image * walk.height.divisor;
        column = pixel - line * walk.width.divisor;
    }

    /// As many pixels further as `step` is from the first.
    __device__ void advance(const Walk& walk, const Position& step) {
        column += step.column;
        row += step.row;
        image += step.image;
        if (column >= walk.width.divisor) column -= walk.width.divisor, row++;
        if (row >= walk.height.divisor) row -= walk.height.divisor, image++;
    }

    __device__ Base base(const Arguments& p, const Walk& walk) const {
        return {int(column * p.pixel_step) + walk.first_column, int(row * p.pixel_step) + walk.first_row, int(image)};
    }
};

/// Row of the output matrix where a pixel's result belongs.
__device__ inline u32 out_row_of(const Arguments& p, const Walk& walk, u32 pixel) {
    const Position at(walk, pixel);
    return (at.image * p.out_height + at.row * p.out_step + walk.out_row) * p.out_width + at.column * p.out_step +
           walk.out_column;
}

/// Taps and channels of a patch, 64 channels at a time.
struct PatchWalk {
    u32 chunk = 0, across = 0, down = 0;

    __device__ void advance(u32 chunks, u32 taps_across) {
        if (++chunk < chunks) return;
        chunk = 0;
        if (++across < taps_across) return;
        across = 0;
        down++;
    }
};
