// Arguments of the convolution kernels for sm_90a. The three implicit GEMMs are those of sm80/problem.cuh, but no thread computes
// addresses: tensor maps describe where the patches lie, and TMA walks along the pixels of a tile (im2col mode) and writes
// zeros for taps outside an image.
//
// One TMA load brings a tile of patches for one filter tap and 64 channels. Its coordinates are the first pixel's base (the tap
// highest and leftmost in the image) and the tap's offset from it, which cannot be negative.
#pragma once
#include "common/fast_divmod.cuh"
#include "intrinsics/ptx_sm90.cuh"

#define FPROP 0
#define DGRAD 1
#define WGRAD 2

/// Elements of GEMM K in a pipeline stage, and channels in a TMA box: 128 bytes.
LAUNCHER_CONSTANT u32 BLOCK_K = 64;
/// Phases of one launch at most: all of a dgrad with stride 2.
LAUNCHER_CONSTANT u32 MAX_PHASES = 4;

/// The pixels that are rows of the GEMM, and the filter taps that contribute to them. A strided dgrad has a phase for each
/// residue of row and column by the stride, as in sm80/problem.cuh; the other passes have one.
struct Phase {
    TensorMap patches;           // of the image; of a matrix (pixels, channels) if `pointwise`
    FastDivmod width, height;    // columns and rows of pixels in an image
    u32 pixels;                  // in all images: GEMM M
    u32 taps_h, taps_w;          // rows and columns of filter taps, counted by offset
    u32 first_tap;               // the filter's element at offset (0, 0)
    int tap_step_h, tap_step_w;  // elements of the filter between neighbouring offsets
    int first_row, first_column;  // the base of pixel (0, 0) in the image
    u32 out_row, out_column;     // the element of the output image that pixel (0, 0) is
    u32 first_tile;              // output tiles of the phases before
    u32 first_partial;           // BN partial sums of the phases before
    u32 unused[14];
};

/// Layout of image rows in shared memory, 64 channels of each pixel, for halo_reuse.cu and streaming_wgrad.cu.
struct RowLayout {
    u32 row_bytes;     // of a row of pixels
    u32 stage_bytes;   // of one TMA load: a pipeline stage
    u32 stages;        // that fit into shared memory
    u32 stage_rows;    // rows in a stage of streaming_wgrad.cu
    u32 image_panels;  // panels of 64 pixels of a tile that lie in one image
    u32 image_bytes;   // from one image of a tile to the next
    u32 unused[2];
};

struct Arguments {
    Phase phases[MAX_PHASES];
    TensorMap matrix;      // weights (KRSC); in wgrad dy (pixels, channels)
    void* out;             // bf16; in wgrad f32, one result behind the other for each split-K slice
    const float* bias;     // per column, or null
    const bf16* addend;    // of the shape of out, or null; out itself to accumulate
    float* bn_partial;     // (2, bn_partials, gemm_n): sums for batch normalisation; or null
    const bf16* relu_y;    // of the shape of out: the gradient passes where it is above zero; or null
    const bf16* bn_x;      // input of the batch normalisation that dx is the gradient of, of the shape of out
    const float* bn_scale;
    const float* bn_bias;
    const float* bn_mean;
    u32 bn_relu;           // whether that batch normalisation is followed by a ReLU
    u32 bn_partials;
    u32 phase_count;
    u32 tile_count;        // output tiles of all phases and splits
    u32 pointwise;         // whether a pixel's patch is the pixel itself
    u32 pixel_step;        // rows (columns) of the image between neighbouring pixels
    u32 chunks;            // of 64 channels of the image, in a tap
    u32 channels;          // of the image
    u32 gemm_m, gemm_n;    // in fprop and dgrad the phase's pixels take the place of gemm_m
    FastDivmod tiles_n;    // tiles along GEMM N
    FastDivmod tiles_per_split;
    u32 split_k;           // slices that GEMM K of wgrad, the pixels, is cut into
    u32 filter_w;          // columns of the filter
    u32 out_step, out_height, out_width;
    u32 relu;
    RowLayout row_layout;
    const float* prologue_scale;  // per channel of the image, where patches are scale * x + bias; or null
    const float* prologue_bias;
    u32 prologue_relu;            // whether a ReLU follows
    u32 unused[11];
};
