// The epilogue of a consumer warpgroup: accumulators to the result in global memory, and to partial sums for batch normalisation.
//
// Constants: PASS, TILE_M, TILE_N, COOPERATIVE, SWAP_AB (see mainloop.cuh).
#pragma once
#include "convolution/sm90/epilogue_bn.cuh"
#include "convolution/sm90/epilogue_tile.cuh"
#include "convolution/sm90/tile_scheduler.cuh"

// Epilogue tiles of a consumer's part of an output tile.
constexpr u32 PANELS_M = (SWAP_AB ? WGMMA_N : WARPGROUP_M) / 64, PANELS_N = (SWAP_AB ? WARPGROUP_M : WGMMA_N) / 64;

/// The first row of a consumer's part of an output tile.
__device__ inline u32 first_row_of(const OutputTile& output, u32 consumer) {
    return output.first_row + (COOPERATIVE ? consumer * WARPGROUP_M : 0);
}

/// Lets L2 fetch what the epilogue will read, while the mainloop runs: a row of an epilogue tile is 128 bytes of each operand.
__device__ inline void prefetch_epilogue_operands(const Arguments& p, const OutputTile& output, u32 consumer) {
    const bf16* const operands[] = {p.addend, PASS == DGRAD ? p.relu_y : nullptr, PASS == DGRAD ? p.bn_x : nullptr};
    const Phase& phase = p.phases[output.phase];
    const u32 rows = operands[0] || operands[1] || operands[2] ? 64 * PANELS_M : 0;
#pragma unroll 1
    for (u32 i = warpgroup_thread(); i < rows; i += WARPGROUP) {
        const u32 pixel = first_row_of(output, consumer) + i;
        if (pixel >= phase.pixels) return;
        const i64 at = i64(result_row(p, phase, pixel)) * p.gemm_n + output.first_column;
#pragma unroll
        for (const bf16* operand : operands) {
            if (!operand) continue;
#pragma unroll
            for (u32 n = 0; n < PANELS_N; n++)
                if (output.first_column + 64 * n < p.gemm_n) prefetch_l2(operand + at + 64 * n);
        }
    }
}

/// Stores the accumulators of epilogue tile (m, n) of a consumer's part to shared memory, for all threads of its warpgroup.
__device__ inline void share_accumulators(EpilogueTile& tile, const Accumulators& accumulators, u32 m, u32 n, u32 consumer) {
    warpgroup_sync(consumer);
    // Only the reads of registers, whose numbers are fixed, are unrolled.
#pragma unroll
    for (u32 i = 0; i < WGMMAS; i++) {
#pragma unroll
        for (u32 j = 0; j < WGMMA_N / 64; j++)
            if (SWAP_AB ? n == i && m == j : m == i && n == j) store_accumulators(tile, accumulators[i], j);
    }
    warpgroup_sync(consumer);
}

/// Stores a consumer's part of an output tile.
__device__ inline void epilogue(const Arguments& p, const OutputTile& output, const Accumulators& accumulators, EpilogueTile& tile,
                                u32 consumer) {
    const Phase& phase = p.phases[output.phase];
    const u32 first_row = first_row_of(output, consumer);
    PartialSums partial;
    // One loop body for all epilogue tiles.
#pragma unroll 1
    for (u32 index = 0; index < PANELS_M * PANELS_N; index++) {
        const u32 m = index % PANELS_M, n = index / PANELS_M, row = first_row + 64 * m;
        if constexpr (PASS == WGRAD) {
            share_accumulators(tile, accumulators, m, n, consumer);
            store_wgrad(p, tile, output.split, row, output.first_column / 64 + n);
        } else {
            const u32 first_column = output.first_column + 64 * n, column = first_column + tile_column();
            const bool reduces = p.bn_partial && row < phase.pixels;
            // In flight while the accumulators pass through shared memory.
            ThreadRow own[ROWS_AHEAD];
#pragma unroll
            for (u32 i = 0; i < ROWS_AHEAD; i++) own[i].load(p, phase, row + tile_row(i), column);
            float bias[VECTOR_SIZE] = {};
            if (PASS == FPROP && p.bias && column < p.gemm_n) load_columns(p.bias, column, bias);
            share_accumulators(tile, accumulators, m, n, consumer);
            GradientSums gradient;
#pragma unroll
            for (u32 i = 0; i < THREAD_ROWS; i++) {
                ThreadRow& current = own[i % ROWS_AHEAD];
                if (current.exists()) {
                    current.finish(p, tile, i, bias);
                    current.store(p, column);
                    if (PASS == DGRAD && reduces) gradient.add(p, current, column);
                }
                if (i + ROWS_AHEAD < THREAD_ROWS) current.load(p, phase, row + tile_row(i + ROWS_AHEAD), column);
            }
            if (m == 0) partial = {};
            if (!reduces) continue;
            // All threads have read the epilogue tile.
            warpgroup_sync(consumer);
            const u32 rows_left = phase.pixels - row;
            if constexpr (PASS == FPROP) merge_moments(partial, own, rows_left < 64 ? rows_left : 64, tile, consumer);
            else add_gradient_sums(partial, gradient, tile, consumer);
            if (m + 1 == PANELS_M || rows_left <= 64)
                store_partial_sums(p, partial, phase.first_partial + first_row / (64 * PANELS_M), first_column);
        }
    }
}
