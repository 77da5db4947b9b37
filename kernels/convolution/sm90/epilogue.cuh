// The epilogue of a consumer warpgroup: accumulators to the result in global memory, and to partial sums for batch normalisation.
//
// Constants: PASS, TILE_M, TILE_N, COOPERATIVE, SWAP_AB (see mainloop.cuh).
#pragma once
#include "convolution/sm90/epilogue_bn.cuh"
#include "convolution/sm90/epilogue_tile.cuh"
#include "convolution/sm90/tile_scheduler.cuh"

/// Stores a consumer's part of an output tile.
__device__ inline void epilogue(const Arguments& p, const OutputTile& output, const Accumulators& accumulators, EpilogueTile& tile,
                                u32 consumer) {
    const Phase& phase = p.phases[output.phase];
    constexpr u32 PANELS_M = (SWAP_AB ? WGMMA_N : WARPGROUP_M) / 64, PANELS_N = (SWAP_AB ? WARPGROUP_M : WGMMA_N) / 64;
    const u32 first_row = output.first_row + (COOPERATIVE ? consumer * WARPGROUP_M : 0);
    PartialSums partial;
    // One loop body for all epilogue tiles: only the reads of registers, whose numbers are fixed, are unrolled.
#pragma unroll 1
    for (u32 index = 0; index < PANELS_M * PANELS_N; index++) {
        const u32 m = index % PANELS_M, n = index / PANELS_M;
        warpgroup_sync(consumer);
#pragma unroll
        for (u32 i = 0; i < WGMMAS; i++) {
#pragma unroll
            for (u32 j = 0; j < WGMMA_N / 64; j++)
                if (SWAP_AB ? n == i && m == j : m == i && n == j) store_accumulators(tile, accumulators[i], j);
        }
        warpgroup_sync(consumer);
        const u32 row = first_row + 64 * m;
        if constexpr (PASS == WGRAD) {
            store_wgrad(p, tile, output.split, row, output.first_column / 64 + n);
        } else {
            const u32 column = output.first_column + 64 * n, rows_left = row < phase.pixels ? phase.pixels - row : 0;
            const bool reduces = p.bn_partial && rows_left > 0;
            if (m == 0) partial = {};
            if constexpr (PASS == FPROP) {
                const ThreadRows own = epilogue_rows(p, phase, tile, row, column, 0);
                store_rows(p, own);
                if (!reduces) continue;
                // All threads have read the epilogue tile.
                warpgroup_sync(consumer);
                merge_moments(partial, own, rows_left < 64 ? rows_left : 64, tile, consumer);
            } else {
                GradientSums gradient;
#pragma unroll 1
                for (u32 round = 0; round < ROUNDS; round++) {
                    const ThreadRows own = epilogue_rows(p, phase, tile, row, column, round);
                    store_rows(p, own);
                    if (reduces) gradient.add(p, own);
                }
                if (!reduces) continue;
                warpgroup_sync(consumer);
                add_gradient_sums(partial, gradient, tile, consumer);
            }
            if (m + 1 == PANELS_M || rows_left <= 64)
                store_partial_sums(p, partial, phase.first_partial + first_row / (64 * PANELS_M), column);
        }
    }
}
