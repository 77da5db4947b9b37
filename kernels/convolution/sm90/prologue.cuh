// Patches that are an affine map of what lies in memory, rectified or not: a batch normalisation applied where the next
// convolution reads, so that nobody stores its result. Copies bring x; before they multiply, consumers rewrite it where it lies in
// a stage, to the very numbers that a pass of its own would have stored. Only where a patch is a pixel: a tap that lies
// outside the image is zero behind the map, not before it.
//
// Zeros that copies put where the tensor ends: channels behind the last get scale and bias zero and stay zero. Pixels behind the last
// become what the map makes of zero; forward stores no such row, and in a weight gradient they meet zeros of dy. (A bias that is
// not finite spoils all of its channel, there or not.)
//
// Constants: PASS, TILE_M, TILE_N, COOPERATE.
#pragma once
#include "convolution/sm90/epilogue.cuh"

/// The largest power of two that is not above `number`.
__device__ constexpr u32 power_of_two(u32 number) { return number < 2 ? 1 : 2 * power_of_two(number / 2); }

/// A thread's part in it: eight channels, 16 bytes, of some rows of a stage. Eight threads side by side have a row of 128 bytes.
struct Prologue {
    typedef Pack<u32, WIDE / 2> Pairs;
    // The rows of a weight gradient's right operand are pixels for all blocks of 64 channels, and both consumers read them all.
    static constexpr bool BY_BLOCKS = PASS == WEIGHT_GRADIENT, TOGETHER = BY_BLOCKS && COOPERATE;
    static constexpr u32 MEMBERS = TOGETHER ? CONSUMERS * WARPGROUP : WARPGROUP;
    static constexpr u32 BLOCKS = BY_BLOCKS ? TILE_N / 64 : 1;
    static constexpr u32 ROWS = BY_BLOCKS ? STEP : TILE_M / (COOPERATE ? CONSUMERS : 1);
    static constexpr u32 CHUNKS = STEP / WIDE;
    /// Rows that are rewritten at once. Threads beyond have none of them.
    static constexpr u32 AT_ONCE = power_of_two(MEMBERS / (BLOCKS * CHUNKS));
    static_assert(ROWS % AT_ONCE == 0, "all threads have as many rows");

    u32 chunk, block, row;
    float scale[WIDE] = {}, bias[WIDE] = {};

    __device__ explicit Prologue(u32 consumer) {
        const u32 number = member() + (TOGETHER ? consumer * WARPGROUP : 0);
        chunk = number % CHUNKS;
        block = number / CHUNKS % BLOCKS;
        row = number / (CHUNKS * BLOCKS);
    }

    /// The map of a step's channels; those of a weight gradient's tile stay.
    __device__ void load(const Arguments& p, const Work& work, u32 step) {
        if (BY_BLOCKS && step > 0) return;
        const u32 channel = (BY_BLOCKS ? work.first_column + block * STEP : step * STEP) + chunk * WIDE;
#pragma unroll
        for (u32 v = 0; v < WIDE; v++) scale[v] = bias[v] = 0;
        if (channel >= p.channels) return;
        load_columns(p.patch_scale, channel, scale);
        load_columns(p.patch_bias, channel, bias);
    }

    /// The thread's rows of patches.
    template <bool RELU>
    __device__ void rewrite_rows(u8* patches) const {
#pragma unroll 4
        for (u32 i = row; i < ROWS; i += AT_ONCE) {
            // As the copy engine swizzles them.
            Pairs& place = *reinterpret_cast<Pairs*>(patches + i * 128 + (chunk ^ i % 8) * 16);
            Pairs pairs = place;
#pragma unroll
            for (u32 v = 0; v < WIDE; v += 2) {
                const u32 pair = pairs[v / 2];
                const float first = fmaf(scale[v], to_float(bf16{u16(pair)}), bias[v]);
                const float second = fmaf(scale[v + 1], to_float(bf16{u16(pair >> 16)}), bias[v + 1]);
                pairs[v / 2] = bf16_pair<RELU>(first, second);
            }
            place = pairs;
        }
    }

    /// Rewrites patches that have come, for all who multiply them.
    __device__ void rewrite(const Arguments& p, u8* patches, u32 consumer) const {
        u8* first = patches + (BY_BLOCKS ? block * BLOCK_BYTES : COOPERATE ? consumer * ROWS * 128 : 0);
        if (row < AT_ONCE) {
            if (p.patch_relu) rewrite_rows<true>(first);
            else rewrite_rows<false>(first);
        }
        fence_async_shared();
        if constexpr (TOGETHER) named_barrier_sync(1 + CONSUMERS, MEMBERS);
        else warpgroup_sync(consumer);
    }
};
