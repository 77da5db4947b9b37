// The three products of a convolution of bf16 images on sm_90a, where a tile is copied by one instruction and multiplied by
// a warpgroup at once. Channels are multiples of eight.
//
// As many blocks as there are multiprocessors each do one piece of work after another (blockIdx.x, then gridDim.x further):
// a tile of TILE_M x TILE_N of the result. Of a block's three warpgroups the first has a ring of stages filled, 64 elements of
// the sum at a time; the other two multiply. Alone (COOPERATE 0), each takes every other tile, and stores it while the other
// multiplies; together (COOPERATE 1), each has half of a tile's rows. A matrix unit's product is 64 x N with N up to 256:
// where the result has few columns and many rows, its transpose is computed (SWAP 1).
//
// Constants: PASS, TILE_M, TILE_N, COOPERATE, SWAP, STAGES.
#include "ptx_sm90.cuh"
#include "convolution_sm90.cuh"
#include "convolution_epilogue_sm90.cuh"
#include "convolution_partials_sm90.cuh"
#include "ring_sm90.cuh"

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
constexpr u32 STAGE_BYTES = (TILE_M + TILE_N) / 64 * BLOCK_BYTES;

struct Stage {
    u8 left[TILE_M / 64][BLOCK_BYTES];
    u8 right[TILE_N / 64][BLOCK_BYTES];
};

struct alignas(1024) Memory {
    Stage stages[STAGES];
    Slab slabs[CONSUMERS];
    RingBarriers ring;
    Mbarrier turns[CONSUMERS];  // where consumers work alone: whose turn it is to multiply
};

// ---- the producer ----

/// Patches of TILE_M or 64 pixels from a base, for one tap and 64 channels.
__device__ inline void copy_patches(const Arguments& p, const Walk& walk, void* to, Mbarrier& barrier, u32 first_pixel,
                                    const Base& base, u32 chunk, u32 across, u32 down) {
    if (p.flat) {
        tensor_copy(to, walk.patches, barrier, chunk * STEP, first_pixel);
    } else {
        tensor_copy_im2col(to, walk.patches, barrier, chunk * STEP, base.column, base.row, base.image, across, down);
    }
}

/// The stages of a tile of forward or input gradient.
__device__ inline void produce_along(const Arguments& p, const Work& work, Memory& memory, RingPlace& place) {
    const Walk& walk = p.walks[work.walk];
    const Base base = Position(walk, work.first_row).base(p, walk);
    PatchWalk at;
#pragma unroll 1
    for (u32 step = 0; step < work.steps; step++) {
        Stage& stage = memory.stages[place.stage];
        Mbarrier& full = memory.ring.full[place.stage];
        mbarrier_wait(memory.ring.empty[place.stage], place.parity ^ 1);
        mbarrier_arrive_expect(full, STAGE_BYTES);
        copy_patches(p, walk, stage.left, full, work.first_row, base, at.chunk, at.across, at.down);
        const int tap = int(walk.first_tap) + int(at.down) * walk.tap_down + int(at.across) * walk.tap_across;
        if constexpr (PASS == FORWARD) {
            tensor_copy(stage.right, p.matrix, full, at.chunk * STEP, tap, work.first_column);
        } else {
#pragma unroll
            for (u32 i = 0; i < TILE_N / 64; i++)
                tensor_copy(stage.right[i], p.matrix, full, work.first_column + 64 * i, tap, at.chunk * STEP);
        }
        place.advance();
        at.advance(p.chunks, walk.taps_across);
    }
}

/// The stages of a tile of a weight gradient: 64 pixels each, of output channels and of (tap, channel).
__device__ inline void produce_down(const Arguments& p, const Work& work, Memory& memory, RingPlace& place) {
    const Walk& walk = p.walks[0];
    PatchWalk columns[TILE_N / 64];
#pragma unroll
    for (u32 i = 0; i < TILE_N / 64; i++) {
        const u32 block = work.first_column / 64 + i, tap = block / p.chunks;
        columns[i].chunk = block - tap * p.chunks;
        columns[i].down = tap / p.taps_across;
        columns[i].across = tap - columns[i].down * p.taps_across;
        // Behind the last tap there is no column; any patches do for a result that nobody stores.
        if (columns[i].down >= walk.taps_down) columns[i] = PatchWalk();
    }
    u32 pixel = work.first_step * STEP;
    Position position(walk, pixel);
    const Position further(walk, STEP);
#pragma unroll 1
    for (u32 step = 0; step < work.steps; step++) {
        Stage& stage = memory.stages[place.stage];
        Mbarrier& full = memory.ring.full[place.stage];
        mbarrier_wait(memory.ring.empty[place.stage], place.parity ^ 1);
        mbarrier_arrive_expect(full, STAGE_BYTES);
#pragma unroll
        for (u32 i = 0; i < TILE_M / 64; i++)
            tensor_copy(stage.left[i], p.matrix, full, work.first_row + 64 * i, pixel);
        const Base base = position.base(p, walk);
#pragma unroll
        for (u32 i = 0; i < TILE_N / 64; i++)
            copy_patches(p, walk, stage.right[i], full, pixel, base, columns[i].chunk, columns[i].across, columns[i].down);
        place.advance();
        position.advance(walk, further);
        pixel += STEP;
    }
}

/// One thread has everything copied that its block needs, as far ahead as the ring has room.
__device__ inline void produce(const Arguments& p, Memory& memory) {
    for (u32 i = 0; i < p.walk_count; i++) prefetch_tensor_map(p.walks[i].patches);
    prefetch_tensor_map(p.matrix);
    RingPlace place;
    for (u32 item = blockIdx.x; item < p.items; item += gridDim.x) {
        const Work work = work_at(p, item);
        if constexpr (PASS == WEIGHT_GRADIENT) produce_down(p, work, memory, place);
        else produce_along(p, work, memory, place);
    }
}

// ---- the consumers ----

/// The operand of 64 rows that lies `block` blocks into a tile, from its k-th element of the sum on.
template <bool DOWN>
__device__ inline u64 operand(const u8* tile, u32 block, u32 k) {
    return matrix_descriptor(tile + block * BLOCK_BYTES + k * (DOWN ? 128 : 2), DOWN ? BLOCK_BYTES : 16, 1024);
}

typedef float Sums[PRODUCTS][N / 2];

/// sums += the products of a tile's stages. A stage is let go one step later, when its products are known to be done; the last
/// one's products are still under way at the end.
__device__ inline void multiply(Sums& sums, Memory& memory, RingPlace& place, u32 steps, u32 consumer) {
    u32 last = 0;
    for (u32 step = 0; step < steps; step++) {
        const Stage& stage = memory.stages[place.stage];
        const u8* tall = SWAP ? stage.right[0] : stage.left[0];
        const u8* other = SWAP ? stage.left[0] : stage.right[0];
        mbarrier_wait(memory.ring.full[place.stage], place.parity);
        wgmma_fence();
#pragma unroll
        for (u32 k = 0; k < STEP; k += 16) {
#pragma unroll
            for (u32 i = 0; i < PRODUCTS; i++) {
                const u32 block = (COOPERATE ? consumer * PRODUCTS : 0) + i;
                wgmma<N, TALL_DOWN, N_DOWN>(sums[i], operand<TALL_DOWN>(tall, block, k), operand<N_DOWN>(other, 0, k), true);
            }
        }
        wgmma_commit();
        wgmma_wait<1>();
        if (step > 0 && member() == 0) mbarrier_arrive(memory.ring.empty[last]);
        last = place.stage;
        place.advance();
    }
    if (!COOPERATE) {
        // The other consumer's products can follow at once; but where there was no step, nothing has held this one's warps
        // together, and one that has not yet seen its turn would miss it.
        warpgroup_sync(consumer);
        if (member() == 0) mbarrier_arrive(memory.turns[1 - consumer]);
    }
    wgmma_wait<0>();
    if (steps > 0 && member() == 0) mbarrier_arrive(memory.ring.empty[last]);
}

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

/// A consumer's tiles, one after another.
__device__ inline void consume(const Arguments& p, Memory& memory, u32 consumer) {
    RingPlace place;
    u32 count = 0, turns = 0;
    for (u32 item = blockIdx.x; item < p.items; item += gridDim.x, count++) {
        const Work work = work_at(p, item);
        if (!COOPERATE && count % CONSUMERS != consumer) {
            place.skip(work.steps);
            continue;
        }
        // The first consumer's first turn needs no one to give it.
        if (!COOPERATE) mbarrier_wait(memory.turns[consumer], (turns++ & 1) ^ (consumer == 0));
        Sums sums = {};
        multiply(sums, memory, place, work.steps, consumer);
        finish(p, work, sums, memory.slabs[consumer], consumer);
    }
}

__device__ inline void convolve(const Arguments& p) {
    SHARED_DYNAMIC(Memory, memory);
    if (threadIdx.x == 0) {
        memory.ring.init(COOPERATE ? CONSUMERS : 1);
        for (u32 i = 0; i < CONSUMERS; i++) mbarrier_init(memory.turns[i], 1);
        mbarrier_init_fence();
    }
    block_sync();
    // The same for all lanes, and known to be.
    const u32 warpgroup = shuffle(threadIdx.x / WARPGROUP, 0);
    if (warpgroup == 0) {
        if (MOVES_REGISTERS) registers_give<40>();
        if (threadIdx.x == 0) produce(p, memory);
    } else {
        if (MOVES_REGISTERS) registers_take<232>();
        consume(p, memory, warpgroup - 1);
    }
}

#if PASS == FORWARD
KERNEL(THREADS, convolution_forward_sm90, Arguments) { convolve(p); }
#elif PASS == INPUT_GRADIENT
KERNEL(THREADS, convolution_input_gradient_sm90, Arguments) { convolve(p); }
#else
KERNEL(THREADS, convolution_weight_gradient_sm90, Arguments) { convolve(p); }
#endif
