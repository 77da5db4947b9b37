// The static tile scheduler of the persistent kernels: thread block b computes output tiles b, b + gridDim.x, ...
#pragma once
#include "convolution/sm90/arguments.cuh"

/// One tile of the result, or of a split-K slice of it.
struct OutputTile {
    u32 phase;
    u32 first_row, first_column;
    u32 split;
    u32 first_k_block, k_blocks;  // of BLOCK_K elements of GEMM K
};

/// The output tile with this index, where tiles have `tile_rows` rows and `tile_columns` columns.
__device__ inline OutputTile tile_at(const Arguments& p, u32 index, u32 tile_rows = TILE_M, u32 tile_columns = TILE_N) {
    u32 phase = 0, split = 0;
    if constexpr (PASS == DGRAD) {
        while (phase + 1 < p.phase_count && index >= p.phases[phase + 1].first_tile) phase++;
        index -= p.phases[phase].first_tile;
    }
    if constexpr (PASS == WGRAD) {
        split = fast_divide(index, p.tiles_per_split);
        index -= split * p.tiles_per_split.divisor;
    }
    const u32 m = fast_divide(index, p.tiles_n), n = index - m * p.tiles_n.divisor;
    u32 first_k_block = 0, end_k_block = p.phases[phase].taps_h * p.phases[phase].taps_w * p.chunks;
    if constexpr (PASS == WGRAD) {
        const u64 all = (p.phases[0].pixels + BLOCK_K - 1) / BLOCK_K;
        first_k_block = u32(all * split / p.split_k);
        end_k_block = u32(all * (split + 1) / p.split_k);
    }
    return {phase, m * tile_rows, n * tile_columns, split, first_k_block, end_k_block - first_k_block};
}
