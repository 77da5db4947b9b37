// A consumer warpgroup's part of an output tile: the WGMMA instructions that it is made of, their operands in shared memory, and
// the order in which ping-pong consumers take turns.
//
// Constants: PASS, TILE_M, TILE_N, COOPERATIVE (1: both consumers share a tile; 0, ping-pong: each has every other tile), SWAP_AB
// (whether the transpose of the tile is computed, with A and B swapped).
#pragma once
#include "convolution/sm90/arguments.cuh"

constexpr u32 WARPGROUP = 128;
/// Consumer warpgroups of a thread block.
LAUNCHER_CONSTANT u32 CONSUMERS = 2;
/// Threads of a thread block: those of the producer and of the consumers.
LAUNCHER_CONSTANT u32 THREADS = WARPGROUP * (1 + CONSUMERS);

// Whether an operand's tile is MN-major in shared memory (GEMM K runs down its columns) or K-major. Patches lie pixel by pixel.
constexpr bool A_MN_MAJOR = PASS == WGRAD;
constexpr bool B_MN_MAJOR = PASS != FPROP;

// The shape of a consumer's WGMMA instructions, 64 x WGMMA_N: WGMMAS of them cover the WARPGROUP_M rows that are its part of the
// tile.
constexpr u32 WARPGROUP_M = (SWAP_AB ? TILE_N : TILE_M) / (COOPERATIVE ? CONSUMERS : 1);
constexpr u32 WGMMA_N = SWAP_AB ? TILE_M : TILE_N;
constexpr u32 WGMMAS = WARPGROUP_M / 64;
constexpr bool WGMMA_A_MN_MAJOR = SWAP_AB ? B_MN_MAJOR : A_MN_MAJOR;
constexpr bool WGMMA_B_MN_MAJOR = SWAP_AB ? A_MN_MAJOR : B_MN_MAJOR;
static_assert(WARPGROUP_M % 64 == 0 && !(SWAP_AB && COOPERATIVE), "each consumer has whole WGMMA instructions");

// Whether registers move from the producer to the consumers (setmaxnreg). A kernel with few accumulators has enough for all
// threads.
constexpr bool REALLOCATES_REGISTERS = WGMMAS * WGMMA_N > 128;

/// Bytes of a panel: 64 rows (or columns) of an operand by BLOCK_K.
constexpr u32 PANEL_BYTES = 64 * BLOCK_K * sizeof(bf16);

/// The matrix descriptor of an operand from panel `panel` of a tile and element k of its GEMM K on.
template <bool MN_MAJOR>
__device__ inline u64 operand_descriptor(const u8* tile, u32 panel, u32 k) {
    return matrix_descriptor(tile + panel * PANEL_BYTES + k * (MN_MAJOR ? 128 : 2), MN_MAJOR ? PANEL_BYTES : 16, 1024);
}

typedef float Accumulators[WGMMAS][WGMMA_N / 2];

/// A thread's number in its warpgroup.
__device__ inline u32 warpgroup_thread() { return threadIdx.x % 128; }

/// Waits for all threads of a consumer warpgroup.
__device__ inline void warpgroup_sync(u32 consumer) { named_barrier_sync(1 + consumer, 128); }

/// Order barrier of ping-pong consumers: one runs its mainloop while the other runs its epilogue.
struct OrderBarrier {
    Mbarrier barriers[CONSUMERS];

    __device__ void init() {
        for (u32 i = 0; i < CONSUMERS; i++) mbarrier_init(barriers[i], 1);
    }
    /// Waits for a consumer's turn, counted from 0. The first consumer need not wait for turn 0.
    __device__ void wait(u32 consumer, u32 turn) { mbarrier_wait(barriers[consumer], (turn & 1) ^ (consumer == 0)); }
    /// Lets the other consumer's mainloop begin. The warps are synchronised first: in a tile without WGMMA instructions nothing
    /// has, and a warp that has not yet seen its turn would miss it.
    __device__ void arrive(u32 consumer) {
        warpgroup_sync(consumer);
        if (warpgroup_thread() == 0) mbarrier_arrive(barriers[1 - consumer]);
    }
};
