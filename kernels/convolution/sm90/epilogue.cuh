// A consumer's part of a tile: which matrix units' products it is made of, and how their sums get to memory.
//
// Constants: PASS, TILE_M, TILE_N, COOPERATE (whether both consumers share a tile), SWAP (whether its transpose is computed).
#pragma once
#include "convolution/sm90/epilogue_tile.cuh"
#include "convolution/sm90/epilogue_bn.cuh"

constexpr u32 WARPGROUP = 128;
constexpr u32 CONSUMERS = 2;
constexpr u32 THREADS = WARPGROUP * (1 + CONSUMERS);

// Whether the sum runs down the columns of an operand's tile, as it lies in memory. Patches lie pixel by pixel.
constexpr bool LEFT_DOWN = PASS == WEIGHT_GRADIENT;
constexpr bool RIGHT_DOWN = PASS != FORWARD;

// What the matrix units see: an operand of 64 rows each time, and one of N.
constexpr u32 TALL = (SWAP ? TILE_N : TILE_M) / (COOPERATE ? CONSUMERS : 1);
constexpr u32 N = SWAP ? TILE_M : TILE_N;
constexpr u32 PRODUCTS = TALL / 64;
constexpr bool TALL_DOWN = SWAP ? RIGHT_DOWN : LEFT_DOWN;
constexpr bool N_DOWN = SWAP ? LEFT_DOWN : RIGHT_DOWN;
static_assert(TALL % 64 == 0 && !(SWAP && COOPERATE), "each consumer has whole products");

// A kernel whose sums are few has registers enough for all threads.
constexpr bool MOVES_REGISTERS = PRODUCTS * N > 128;

/// Bytes of 64 rows (or columns) of an operand in a stage.
constexpr u32 BLOCK_BYTES = 64 * STEP * sizeof(bf16);

/// The operand of 64 rows that lies `block` blocks into a tile, from its k-th element of the sum on.
template <bool DOWN>
__device__ inline u64 operand(const u8* tile, u32 block, u32 k) {
    return matrix_descriptor(tile + block * BLOCK_BYTES + k * (DOWN ? 128 : 2), DOWN ? BLOCK_BYTES : 16, 1024);
}

typedef float Sums[PRODUCTS][N / 2];

/// Where consumers work alone: whose turn it is to multiply.
struct Turns {
    Mbarrier barriers[CONSUMERS];

    __device__ void init() {
        for (u32 i = 0; i < CONSUMERS; i++) mbarrier_init(barriers[i], 1);
    }
    /// Waits for a consumer's turn; its first is the 0th, which nobody has to give to the first consumer.
    __device__ void await(u32 consumer, u32 turn) { mbarrier_wait(barriers[consumer], (turn & 1) ^ (consumer == 0)); }
    /// The other consumer's products can follow at once; but where there was none, nothing has held this one's warps together,
    /// and one that has not yet seen its turn would miss it.
    __device__ void pass_on(u32 consumer) {
        warpgroup_sync(consumer);
        if (member() == 0) mbarrier_arrive(barriers[1 - consumer]);
    }
};

/// Stores what a consumer has of a tile.
__device__ inline void finish(const Arguments& p, const Work& work, const Sums& sums, Slab& slab, u32 consumer) {
    const Walk& walk = p.walks[work.walk];
    constexpr u32 DOWN = (SWAP ? N : TALL) / 64, ACROSS = (SWAP ? TALL : N) / 64;
    const u32 first_row = work.first_row + (COOPERATE ? consumer * TALL : 0);
    Partials partials;
    // Once in the program for all blocks of 64 x 64: only what is read from registers is there for each.
#pragma unroll 1
    for (u32 block = 0; block < DOWN * ACROSS; block++) {
        const u32 down = block % DOWN, across = block / DOWN;
        warpgroup_sync(consumer);
#pragma unroll
        for (u32 i = 0; i < PRODUCTS; i++) {
#pragma unroll
            for (u32 j = 0; j < N / 64; j++)
                if (SWAP ? across == i && down == j : down == i && across == j) put_fragments(slab, sums[i], j);
        }
        warpgroup_sync(consumer);
        const u32 row = first_row + 64 * down;
        if constexpr (PASS == WEIGHT_GRADIENT) {
            store_filters(p, slab, work.split, row, work.first_column / 64 + across);
        } else {
            const u32 column = work.first_column + 64 * across, left = row < walk.pixels ? walk.pixels - row : 0;
            const bool counts = p.partial && left > 0;
            if (down == 0) partials = {};
            if constexpr (PASS == FORWARD) {
                const OwnRows own = finished_rows(p, walk, slab, row, column, 0);
                store_rows(p, own);
                if (!counts) continue;
                // What lies in the slab has been read.
                warpgroup_sync(consumer);
                take_moments(partials, own, left < 64 ? left : 64, slab, consumer);
            } else {
                GradientSums gradient;
#pragma unroll 1
                for (u32 round = 0; round < ROUNDS; round++) {
                    const OwnRows own = finished_rows(p, walk, slab, row, column, round);
                    store_rows(p, own);
                    if (counts) gradient.add(p, own);
                }
                if (!counts) continue;
                warpgroup_sync(consumer);
                take_gradient(partials, gradient, slab, consumer);
            }
            if (down + 1 == DOWN || left <= 64)
                store_partials(p, partials, walk.first_slab + first_row / (64 * DOWN), column);
        }
    }
}
