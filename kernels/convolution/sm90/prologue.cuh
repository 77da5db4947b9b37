// Prologue of fprop and wgrad: patches are an affine transform of the image in memory, with or without a ReLU. So a batch
// normalisation is applied where the next convolution reads, and its result is never stored. TMA loads bring x; before the
// mainloop multiplies a stage, the consumers rewrite it in shared memory to the values that a separate pass would have stored.
// Pointwise convolutions only: a tap outside the image is zero after the transform, not before it.
//
// TMA writes zeros behind the end of the tensor. Channels behind the last get scale and bias zero, and stay zero. Pixels behind
// the last become the transform of zero; fprop stores no such row, and in wgrad they are multiplied by zeros of dy. (A bias that
// is not finite spoils all of its channel, with or without such pixels.)
//
// Constants: PASS, TILE_M, TILE_N, COOPERATIVE.
#pragma once
#include "convolution/sm90/epilogue_tile.cuh"
#include "convolution/sm90/tile_scheduler.cuh"

/// The largest power of two that is not above `number`.
__device__ constexpr u32 power_of_two(u32 number) { return number < 2 ? 1 : 2 * power_of_two(number / 2); }

/// A thread's part of the prologue: eight channels, 16 bytes, of some rows of a stage. Eight neighbouring threads have a row of
/// 128 bytes.
struct Prologue {
    typedef Vector<u32, VECTOR_SIZE / 2> Pairs;
    // In wgrad patches are operand B: the rows of all its panels are pixels, and both consumers read all of them.
    static constexpr bool OF_PANELS = PASS == WGRAD, BOTH_CONSUMERS = OF_PANELS && COOPERATIVE;
    static constexpr u32 MEMBERS = BOTH_CONSUMERS ? CONSUMERS * WARPGROUP : WARPGROUP;
    static constexpr u32 PANELS = OF_PANELS ? TILE_N / 64 : 1;
    static constexpr u32 ROWS = OF_PANELS ? BLOCK_K : TILE_M / (COOPERATIVE ? CONSUMERS : 1);
    static constexpr u32 CHUNKS = BLOCK_K / VECTOR_SIZE;
    /// Rows that the threads rewrite at a time. Threads beyond have none of them.
    static constexpr u32 ROW_STRIDE = power_of_two(MEMBERS / (PANELS * CHUNKS));
    static_assert(ROWS % ROW_STRIDE == 0, "all threads have the same number of rows");

    u32 chunk, panel, row;
    float scale[VECTOR_SIZE] = {}, bias[VECTOR_SIZE] = {};

    __device__ explicit Prologue(u32 consumer) {
        const u32 number = warpgroup_thread() + (BOTH_CONSUMERS ? consumer * WARPGROUP : 0);
        chunk = number % CHUNKS;
        panel = number / CHUNKS % PANELS;
        row = number / (CHUNKS * PANELS);
    }

    /// Loads the transform of a K block's channels; those of a wgrad tile are the same in all K blocks.
    __device__ void load(const Arguments& p, const OutputTile& tile, u32 k_block) {
        if (OF_PANELS && k_block > 0) return;
        const u32 channel = (OF_PANELS ? tile.first_column + panel * BLOCK_K : k_block * BLOCK_K) + chunk * VECTOR_SIZE;
#pragma unroll
        for (u32 v = 0; v < VECTOR_SIZE; v++) scale[v] = bias[v] = 0;
        if (channel >= p.channels) return;
        load_columns(p.prologue_scale, channel, scale);
        load_columns(p.prologue_bias, channel, bias);
    }

    /// Rewrites the thread's rows of patches.
    template <bool RELU>
    __device__ void transform_rows(u8* patches) const {
#pragma unroll 4
        for (u32 i = row; i < ROWS; i += ROW_STRIDE) {
            // At the swizzled address.
            Pairs& at = *reinterpret_cast<Pairs*>(patches + i * 128 + (chunk ^ i % 8) * 16);
            Pairs pairs = at;
#pragma unroll
            for (u32 v = 0; v < VECTOR_SIZE; v += 2) {
                const u32 pair = pairs[v / 2];
                const float first = fmaf(scale[v], to_float(bf16{u16(pair)}), bias[v]);
                const float second = fmaf(scale[v + 1], to_float(bf16{u16(pair >> 16)}), bias[v + 1]);
                pairs[v / 2] = bf16_pair<RELU>(first, second);
            }
            at = pairs;
        }
    }

    /// Rewrites the patches of a full stage, for all threads whose WGMMA instructions read them.
    __device__ void transform(const Arguments& p, u8* patches, u32 consumer) const {
        u8* first = patches + (OF_PANELS ? panel * PANEL_BYTES : COOPERATIVE ? consumer * ROWS * 128 : 0);
        if (row < ROW_STRIDE) {
            if (p.prologue_relu) transform_rows<true>(first);
            else transform_rows<false>(first);
        }
        fence_proxy_async();
        if constexpr (BOTH_CONSUMERS) named_barrier_sync(1 + CONSUMERS, MEMBERS);
        else warpgroup_sync(consumer);
    }
};
