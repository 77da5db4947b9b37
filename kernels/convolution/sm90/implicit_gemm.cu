// The three products of a convolution of bf16 images on sm_90a, where a tile is copied by one instruction and multiplied by
// a warpgroup at once. Channels are multiples of eight.
//
// As many blocks as there are multiprocessors each do one piece of work after another (blockIdx.x, then gridDim.x further):
// a tile of TILE_M x TILE_N of the result. Of a block's three warpgroups the first has a ring of stages filled, 64 elements of
// the sum at a time; the other two multiply. Alone (COOPERATE 0), each takes every other tile, and stores it while the other
// multiplies; together (COOPERATE 1), each has half of a tile's rows. A matrix unit's product is 64 x N with N up to 256:
// where the result has few columns and many rows, its transpose is computed (SWAP 1).
//
// Blocks of a cluster work on neighbouring tiles at the same time, CLUSTER_DOWN x CLUSTER_ACROSS of them, and copy what several
// need for all of them. Tiles that lie outside the result for it are computed, and stored nowhere.
//
// Constants: PASS, TILE_M, TILE_N, COOPERATE, SWAP, STAGES, CLUSTER_DOWN, CLUSTER_ACROSS.
#include "convolution/sm90/cluster.cuh"
#include "intrinsics/ptx_sm90.cuh"
#include "convolution/sm90/epilogue.cuh"
#include "convolution/sm90/prologue.cuh"
#include "convolution/sm90/pipeline.cuh"

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

/// The block's tile of its cluster's piece of work.
__device__ inline Work own_work(const Arguments& p, const ClusterPlace& place, u32 item) {
    Work work = work_at(p, item, CLUSTER_DOWN * TILE_M, CLUSTER_ACROSS * TILE_N);
    work.first_row += place.down * TILE_M;
    work.first_column += place.across * TILE_N;
    return work;
}

/// A stage that a consumer has read: all who send to this block may fill it again.
__device__ inline void let_go(Memory& memory, const ClusterPlace& place, u32 stage) {
    if constexpr (CLUSTER == 1) {
        if (member() == 0) mbarrier_arrive(memory.ring.empty[stage]);
    } else {
        if (member() < SHARERS) mbarrier_arrive_remote(memory.ring.empty[stage], place.sharer(member()));
    }
}

// ---- the producer ----

/// For so many blocks, patches of pixels from a base, for one tap and 64 channels.
template <u32 BLOCKS>
__device__ inline void copy_patches(const Arguments& p, const Walk& walk, u16 ranks, void* to, Mbarrier& barrier, u32 first_pixel,
                                    const Base& base, u32 chunk, u32 across, u32 down) {
    const int channel = chunk * STEP;
    if (p.flat) {
        share_copy<BLOCKS>(ranks, to, walk.patches, barrier, channel, first_pixel);
    } else if constexpr (BLOCKS == 1) {
        tensor_copy_im2col(to, walk.patches, barrier, channel, base.column, base.row, base.image, across, down);
    } else {
        tensor_multicast_im2col(to, walk.patches, barrier, ranks, channel, base.column, base.row, base.image, across, down);
    }
}

/// The stages of a tile of forward or input gradient.
__device__ inline void produce_along(const Arguments& p, const Work& work, const ClusterPlace& own, Memory& memory,
                                     RingPlace& place) {
    // The block's share of rows, and of filters.
    constexpr u32 ROWS = TILE_M / CLUSTER_ACROSS, FILTERS = TILE_N / CLUSTER_DOWN;
    static_assert(ROWS % 8 == 0 && (PASS == FORWARD ? FILTERS % 8 == 0 : FILTERS % 64 == 0), "shares are whole groups of rows");
    const u32 first_row = own.across * ROWS, first_filter = own.down * FILTERS;
    const Walk& walk = p.walks[work.walk];
    const Base base = Position(walk, work.first_row + first_row).base(p, walk);
    PatchWalk at;
#pragma unroll 1
    for (u32 step = 0; step < work.steps; step++) {
        Stage& stage = memory.stages[place.stage];
        Mbarrier& full = memory.ring.full[place.stage];
        mbarrier_wait(memory.ring.empty[place.stage], place.parity ^ 1);
        mbarrier_arrive_expect(full, STAGE_BYTES);
        copy_patches<CLUSTER_ACROSS>(p, walk, own.left(), stage.left[0] + first_row * 128, full, work.first_row + first_row,
                                     base, at.chunk, at.across, at.down);
        const int tap = int(walk.first_tap) + int(at.down) * walk.tap_down + int(at.across) * walk.tap_across;
        if constexpr (PASS == FORWARD) {
            share_copy<CLUSTER_DOWN>(own.right(), stage.right[0] + first_filter * 128, p.matrix, full, at.chunk * STEP, tap,
                                     work.first_column + first_filter);
        } else {
#pragma unroll
            for (u32 i = 0; i < FILTERS; i += 64)
                share_copy<CLUSTER_DOWN>(own.right(), stage.right[(first_filter + i) / 64], p.matrix, full,
                                         work.first_column + first_filter + i, tap, at.chunk * STEP);
        }
        place.advance();
        at.advance(p.chunks, walk.taps_across);
    }
}

/// The stages of a tile of a weight gradient: 64 pixels each, of output channels and of (tap, channel).
__device__ inline void produce_down(const Arguments& p, const Work& work, const ClusterPlace& own, Memory& memory,
                                    RingPlace& place) {
    // The block's share of both operands, in blocks of 64 channels.
    constexpr u32 LEFT = (TILE_M / CLUSTER_ACROSS + 63) / 64, RIGHT = (TILE_N / CLUSTER_DOWN + 63) / 64;
    constexpr bool WHOLE = LEFT * CLUSTER_ACROSS * 64 == TILE_M && RIGHT * CLUSTER_DOWN * 64 == TILE_N;
    static_assert(WHOLE || PASS != WEIGHT_GRADIENT, "shares are whole blocks");
    const u32 first_left = own.across * LEFT, first_right = own.down * RIGHT;
    const Walk& walk = p.walks[0];
    PatchWalk columns[RIGHT];
#pragma unroll
    for (u32 i = 0; i < RIGHT; i++) {
        const u32 block = work.first_column / 64 + first_right + i, tap = block / p.chunks;
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
        for (u32 i = 0; i < LEFT; i++)
            share_copy<CLUSTER_ACROSS>(own.left(), stage.left[first_left + i], p.matrix, full,
                                       work.first_row + 64 * (first_left + i), pixel);
        const Base base = position.base(p, walk);
#pragma unroll
        for (u32 i = 0; i < RIGHT; i++)
            copy_patches<CLUSTER_DOWN>(p, walk, own.right(), stage.right[first_right + i], full, pixel, base, columns[i].chunk,
                                       columns[i].across, columns[i].down);
        place.advance();
        position.advance(walk, further);
        pixel += STEP;
    }
}

/// One thread has its block's share copied, as far ahead as the rings of all blocks that it goes to have room.
__device__ inline void produce(const Arguments& p, const ClusterPlace& own, Memory& memory) {
    RingPlace place(STAGES);
    for (u32 item = own.number(); item < p.items; item += gridDim.x / CLUSTER) {
        const Work work = own_work(p, own, item);
        if constexpr (PASS == WEIGHT_GRADIENT) produce_down(p, work, own, memory, place);
        else produce_along(p, work, own, memory, place);
    }
    if constexpr (CLUSTER > 1) {
        // The block may leave when all that others let go here has arrived.
        for (u32 i = 0; i < STAGES; i++) {
            mbarrier_wait(memory.ring.empty[place.stage], place.parity ^ 1);
            place.advance();
        }
    }
}

// ---- the consumers ----

/// sums += the products of a tile's stages. A stage is let go one step later, when its products are known to be done; the last
/// one's products are still under way at the end.
__device__ inline void multiply(const Arguments& p, const Work& work, Sums& sums, Memory& memory, const ClusterPlace& own,
                                RingPlace& place, u32 consumer) {
    u32 last = 0;
    Prologue prologue(consumer);
    for (u32 step = 0; step < work.steps; step++) {
        Stage& stage = memory.stages[place.stage];
        if (PASS != INPUT_GRADIENT && p.patch_scale) prologue.load(p, work, step);
        const u8* tall = SWAP ? stage.right[0] : stage.left[0];
        const u8* other = SWAP ? stage.left[0] : stage.right[0];
        mbarrier_wait(memory.ring.full[place.stage], place.parity);
        if (PASS != INPUT_GRADIENT && p.patch_scale)
            prologue.rewrite(p, PASS == FORWARD ? stage.left[0] : stage.right[0], consumer);
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
        if (step > 0) let_go(memory, own, last);
        last = place.stage;
        place.advance();
    }
    if (!COOPERATE) memory.turns.pass_on(consumer);
    wgmma_wait<0>();
    if (work.steps > 0) let_go(memory, own, last);
}

/// A consumer's tiles, one after another.
__device__ inline void consume(const Arguments& p, const ClusterPlace& own, Memory& memory, u32 consumer) {
    RingPlace place(STAGES);
    u32 count = 0;
    for (u32 item = own.number(); item < p.items; item += gridDim.x / CLUSTER, count++) {
        const Work work = own_work(p, own, item);
        if (!COOPERATE && count % CONSUMERS != consumer) {
            place.skip(work.steps);
            continue;
        }
        if (!COOPERATE) memory.turns.await(consumer, count / CONSUMERS);
        Sums sums = {};
        multiply(p, work, sums, memory, own, place, consumer);
        finish(p, work, sums, memory.slabs[consumer], consumer);
    }
}

/// All that can be done before earlier kernels have ended.
__device__ inline void prepare(const Arguments& p) {
    SHARED_DYNAMIC(Memory, memory);
    if (threadIdx.x == 0) {
        for (u32 i = 0; i < p.walk_count; i++) prefetch_tensor_map(p.walks[i].patches);
        prefetch_tensor_map(p.matrix);
        memory.ring.init((COOPERATE ? CONSUMERS : 1) * SHARERS);
        memory.turns.init();
        mbarrier_init_fence();
    }
    everyone_sync();
}

__device__ inline void convolve(const Arguments& p) {
    SHARED_DYNAMIC(Memory, memory);
    const ClusterPlace own;
    // The same for all lanes, and known to be.
    const u32 warpgroup = shuffle(threadIdx.x / WARPGROUP, 0);
    if (warpgroup == 0) {
        if (MOVES_REGISTERS) registers_give<40>();
        if (threadIdx.x == 0) produce(p, own, memory);
    } else {
        if (MOVES_REGISTERS) registers_take<232>();
        consume(p, own, memory, warpgroup - 1);
    }
    if constexpr (CLUSTER > 1) {
        // Nobody leaves while others may still send to it or let it fill their stages.
        warp_sync();
        cluster_sync();
    }
}

#if PASS == FORWARD
KERNEL_PREPARED(THREADS, convolution_forward_sm90, Arguments, prepare) { convolve(p); }
#elif PASS == INPUT_GRADIENT
KERNEL_PREPARED(THREADS, convolution_input_gradient_sm90, Arguments, prepare) { convolve(p); }
#else
KERNEL_PREPARED(THREADS, convolution_weight_gradient_sm90, Arguments, prepare) { convolve(p); }
#endif
