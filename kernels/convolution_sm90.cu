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
#include "convolution_finish_sm90.cuh"
#include "ring_sm90.cuh"

constexpr u32 STAGE_BYTES = (TILE_M + TILE_N) / 64 * BLOCK_BYTES;

struct Stage {
    u8 left[TILE_M / 64][BLOCK_BYTES];
    u8 right[TILE_N / 64][BLOCK_BYTES];
};

struct alignas(1024) Memory {
    Stage stages[STAGES];
    Slab slabs[CONSUMERS];
    RingBarriers<STAGES> ring;
    Turns turns;
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
    RingPlace place(STAGES);
    for (u32 item = blockIdx.x; item < p.items; item += gridDim.x) {
        const Work work = work_at(p, item);
        if constexpr (PASS == WEIGHT_GRADIENT) produce_down(p, work, memory, place);
        else produce_along(p, work, memory, place);
    }
}

// ---- the consumers ----

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
    if (!COOPERATE) memory.turns.pass_on(consumer);
    wgmma_wait<0>();
    if (steps > 0 && member() == 0) mbarrier_arrive(memory.ring.empty[last]);
}

/// A consumer's tiles, one after another.
__device__ inline void consume(const Arguments& p, Memory& memory, u32 consumer) {
    RingPlace place(STAGES);
    u32 count = 0;
    for (u32 item = blockIdx.x; item < p.items; item += gridDim.x, count++) {
        const Work work = work_at(p, item);
        if (!COOPERATE && count % CONSUMERS != consumer) {
            place.skip(work.steps);
            continue;
        }
        if (!COOPERATE) memory.turns.await(consumer, count / CONSUMERS);
        Sums sums = {};
        multiply(sums, memory, place, work.steps, consumer);
        finish(p, work, sums, memory.slabs[consumer], consumer);
    }
}

__device__ inline void convolve(const Arguments& p) {
    SHARED_DYNAMIC(Memory, memory);
    if (threadIdx.x == 0) {
        memory.ring.init(COOPERATE ? CONSUMERS : 1);
        memory.turns.init();
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
