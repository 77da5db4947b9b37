// fprop, dgrad and wgrad of bf16 images as implicit GEMMs on sm_90a: TMA loads and WGMMA. Channels are multiples of eight.
//
// Persistent and warp-specialised. There is a thread block per SM (or fewer); each computes one output tile of TILE_M x TILE_N
// after another (see tile_scheduler.cuh). Of its three warpgroups the first is the producer, which keeps a pipeline of stages
// filled, BLOCK_K elements of GEMM K each; the other two are consumers. Ping-pong (COOPERATIVE 0): each consumer computes every
// other tile, and one's epilogue overlaps with the other's mainloop. Cooperative (COOPERATIVE 1): each computes half of the rows
// of every tile. A WGMMA is 64 x N with N up to 256: where the result has few columns and many rows, its transpose is computed
// (SWAP_AB 1).
//
// The thread blocks of a cluster compute neighbouring tiles at the same time, CLUSTER_M x CLUSTER_N of them, and multicast the
// loads that several need. Their tiles outside the result are computed and not stored.
//
// Constants: PASS, TILE_M, TILE_N, COOPERATIVE, SWAP_AB, STAGES, CLUSTER_M, CLUSTER_N.
#include "convolution/sm90/cluster.cuh"
#include "intrinsics/ptx_sm90.cuh"
#include "convolution/sm90/epilogue.cuh"
#include "convolution/sm90/prologue.cuh"
#include "convolution/sm90/pipeline.cuh"

constexpr u32 STAGE_BYTES = (TILE_M + TILE_N) / 64 * PANEL_BYTES;

struct Stage {
    u8 a[TILE_M / 64][PANEL_BYTES];
    u8 b[TILE_N / 64][PANEL_BYTES];
};

struct alignas(1024) SharedStorage {
    Stage stages[STAGES];
    EpilogueTile epilogue_tiles[CONSUMERS];
    PipelineBarriers<STAGES> pipeline;
    OrderBarrier order;
};

/// The thread block's tile of its cluster's output tile.
__device__ inline OutputTile own_tile(const Arguments& p, const ClusterPosition& position, u32 index) {
    OutputTile tile = tile_at(p, index, CLUSTER_M * TILE_M, CLUSTER_N * TILE_N);
    tile.first_row += position.m * TILE_M;
    tile.first_column += position.n * TILE_N;
    return tile;
}

/// Releases a stage that a consumer has read: all thread blocks that load into it may fill it again.
__device__ inline void consumer_release(SharedStorage& shared, const ClusterPosition& position, u32 stage) {
    if constexpr (CLUSTER == 1) {
        if (warpgroup_thread() == 0) mbarrier_arrive(shared.pipeline.empty[stage]);
    } else {
        if (warpgroup_thread() < MULTICAST_PEERS)
            mbarrier_arrive_remote(shared.pipeline.empty[stage], position.peer(warpgroup_thread()));
    }
}

// ---- the producer ----

/// Loads the patches of pixels from `base` on, for one tap and 64 channels, for the thread blocks of `mask`, BLOCKS in number.
template <u32 BLOCKS>
__device__ inline void tma_load_patches(const Arguments& p, const Phase& phase, u16 mask, void* to, Mbarrier& barrier,
                                        u32 first_pixel, const BasePixel& base, u32 chunk, u32 tap_w, u32 tap_h) {
    const int channel = chunk * BLOCK_K;
    if (p.pointwise) {
        tma_load_for<BLOCKS>(mask, to, phase.patches, barrier, channel, first_pixel);
    } else if constexpr (BLOCKS == 1) {
        tma_load_im2col(to, phase.patches, barrier, channel, base.column, base.row, base.image, tap_w, tap_h);
    } else {
        tma_load_multicast_im2col(to, phase.patches, barrier, mask, channel, base.column, base.row, base.image, tap_w, tap_h);
    }
}

/// Fills the stages of a tile of fprop or dgrad.
__device__ inline void load_fprop_dgrad(const Arguments& p, const OutputTile& tile, const ClusterPosition& position,
                                        SharedStorage& shared, PipelineState& state) {
    // The part of the rows, and of the filters, that this thread block loads.
    constexpr u32 ROWS = TILE_M / CLUSTER_N, FILTERS = TILE_N / CLUSTER_M;
    static_assert(ROWS % 8 == 0 && FILTERS % (PASS == FPROP ? 8 : 64) == 0, "parts are whole periods of the swizzle");
    const u32 first_row = position.n * ROWS, first_filter = position.m * FILTERS;
    const Phase& phase = p.phases[tile.phase];
    const BasePixel base = PixelPosition(phase, tile.first_row + first_row).base(p, phase);
    TapIterator at;
#pragma unroll 1
    for (u32 k_block = 0; k_block < tile.k_blocks; k_block++) {
        Stage& stage = shared.stages[state.stage];
        Mbarrier& full = shared.pipeline.full[state.stage];
        mbarrier_wait(shared.pipeline.empty[state.stage], state.parity ^ 1);
        mbarrier_arrive_expect_tx(full, STAGE_BYTES);
        tma_load_patches<CLUSTER_N>(p, phase, position.a_mask(), stage.a[0] + first_row * 128, full, tile.first_row + first_row,
                                    base, at.chunk, at.tap_w, at.tap_h);
        const int tap = int(phase.first_tap) + int(at.tap_h) * phase.tap_step_h + int(at.tap_w) * phase.tap_step_w;
        if constexpr (PASS == FPROP) {
            tma_load_for<CLUSTER_M>(position.b_mask(), stage.b[0] + first_filter * 128, p.matrix, full, at.chunk * BLOCK_K, tap,
                                    tile.first_column + first_filter);
        } else {
#pragma unroll
            for (u32 i = 0; i < FILTERS; i += 64)
                tma_load_for<CLUSTER_M>(position.b_mask(), stage.b[(first_filter + i) / 64], p.matrix, full,
                                        tile.first_column + first_filter + i, tap, at.chunk * BLOCK_K);
        }
        state.advance();
        at.advance(p.chunks, phase.taps_w);
    }
}

/// Fills the stages of a tile of wgrad: 64 pixels of dy, and of the patches (tap, channel).
__device__ inline void load_wgrad(const Arguments& p, const OutputTile& tile, const ClusterPosition& position,
                                  SharedStorage& shared, PipelineState& state) {
    // The part of both operands that this thread block loads, in panels of 64 channels.
    constexpr u32 PANELS_A = (TILE_M / CLUSTER_N + 63) / 64, PANELS_B = (TILE_N / CLUSTER_M + 63) / 64;
    constexpr bool WHOLE = PANELS_A * CLUSTER_N * 64 == TILE_M && PANELS_B * CLUSTER_M * 64 == TILE_N;
    static_assert(WHOLE || PASS != WGRAD, "parts are whole panels");
    const u32 first_a = position.n * PANELS_A, first_b = position.m * PANELS_B;
    const Phase& phase = p.phases[0];
    TapIterator columns[PANELS_B];
#pragma unroll
    for (u32 i = 0; i < PANELS_B; i++) {
        const u32 panel = tile.first_column / 64 + first_b + i, tap = panel / p.chunks;
        columns[i].chunk = panel - tap * p.chunks;
        columns[i].tap_h = tap / p.filter_w;
        columns[i].tap_w = tap - columns[i].tap_h * p.filter_w;
        // No column exists behind the last tap; its result is not stored, so any patches do.
        if (columns[i].tap_h >= phase.taps_h) columns[i] = TapIterator();
    }
    u32 pixel = tile.first_k_block * BLOCK_K;
    PixelPosition at(phase, pixel);
    const PixelPosition distance(phase, BLOCK_K);
#pragma unroll 1
    for (u32 k_block = 0; k_block < tile.k_blocks; k_block++) {
        Stage& stage = shared.stages[state.stage];
        Mbarrier& full = shared.pipeline.full[state.stage];
        mbarrier_wait(shared.pipeline.empty[state.stage], state.parity ^ 1);
        mbarrier_arrive_expect_tx(full, STAGE_BYTES);
#pragma unroll
        for (u32 i = 0; i < PANELS_A; i++)
            tma_load_for<CLUSTER_N>(position.a_mask(), stage.a[first_a + i], p.matrix, full, tile.first_row + 64 * (first_a + i),
                                    pixel);
        const BasePixel base = at.base(p, phase);
#pragma unroll
        for (u32 i = 0; i < PANELS_B; i++)
            tma_load_patches<CLUSTER_M>(p, phase, position.b_mask(), stage.b[first_b + i], full, pixel, base, columns[i].chunk,
                                        columns[i].tap_w, columns[i].tap_h);
        state.advance();
        at.advance(phase, distance);
        pixel += BLOCK_K;
    }
}

/// One thread issues the loads of its thread block, as far ahead as the pipelines of all their destinations have empty stages.
__device__ inline void producer(const Arguments& p, const ClusterPosition& position, SharedStorage& shared) {
    PipelineState state(STAGES);
    for (u32 index = position.cluster(); index < p.tile_count; index += gridDim.x / CLUSTER) {
        const OutputTile tile = own_tile(p, position, index);
        if constexpr (PASS == WGRAD) load_wgrad(p, tile, position, shared, state);
        else load_fprop_dgrad(p, tile, position, shared, state);
    }
    if constexpr (CLUSTER > 1) {
        // The thread block may end once all arrivals of other thread blocks at its barriers have come.
        for (u32 i = 0; i < STAGES; i++) {
            mbarrier_wait(shared.pipeline.empty[state.stage], state.parity ^ 1);
            state.advance();
        }
    }
}

// ---- the consumers ----

/// The K loop of a tile. A stage is released one K block later, when its WGMMA group is known to be complete.
__device__ inline void mainloop(const Arguments& p, const OutputTile& tile, Accumulators& accumulators, SharedStorage& shared,
                                const ClusterPosition& position, PipelineState& state, u32 consumer) {
    u32 last = 0;
    Prologue prologue(consumer);
    for (u32 k_block = 0; k_block < tile.k_blocks; k_block++) {
        Stage& stage = shared.stages[state.stage];
        if (PASS != DGRAD && p.prologue_scale) prologue.load(p, tile, k_block);
        const u8* wgmma_a = SWAP_AB ? stage.b[0] : stage.a[0];
        const u8* wgmma_b = SWAP_AB ? stage.a[0] : stage.b[0];
        mbarrier_wait(shared.pipeline.full[state.stage], state.parity);
        if (PASS != DGRAD && p.prologue_scale) prologue.transform(p, PASS == FPROP ? stage.a[0] : stage.b[0], consumer);
        wgmma_fence();
#pragma unroll
        for (u32 k = 0; k < BLOCK_K; k += 16) {
#pragma unroll
            for (u32 i = 0; i < WGMMAS; i++) {
                const u32 panel = (COOPERATIVE ? consumer * WGMMAS : 0) + i;
                wgmma<WGMMA_N, WGMMA_A_MN_MAJOR, WGMMA_B_MN_MAJOR>(accumulators[i],
                                                                   operand_descriptor<WGMMA_A_MN_MAJOR>(wgmma_a, panel, k),
                                                                   operand_descriptor<WGMMA_B_MN_MAJOR>(wgmma_b, 0, k), true);
            }
        }
        wgmma_commit();
        wgmma_wait<1>();
        if (k_block > 0) consumer_release(shared, position, last);
        last = state.stage;
        state.advance();
    }
    if (!COOPERATIVE) shared.order.arrive(consumer);
    wgmma_wait<0>();
    if (tile.k_blocks > 0) consumer_release(shared, position, last);
}

/// Computes a consumer's tiles, one after another.
__device__ inline void consumer_warpgroup(const Arguments& p, const ClusterPosition& position, SharedStorage& shared,
                                          u32 consumer) {
    PipelineState state(STAGES);
    u32 count = 0;
    for (u32 index = position.cluster(); index < p.tile_count; index += gridDim.x / CLUSTER, count++) {
        const OutputTile tile = own_tile(p, position, index);
        if (!COOPERATIVE && count % CONSUMERS != consumer) {
            state.skip(tile.k_blocks);
            continue;
        }
        if (PASS != WGRAD) prefetch_epilogue_operands(p, tile, consumer);
        if (!COOPERATIVE) shared.order.wait(consumer, count / CONSUMERS);
        Accumulators accumulators = {};
        mainloop(p, tile, accumulators, shared, position, state, consumer);
        epilogue(p, tile, accumulators, shared.epilogue_tiles[consumer], consumer);
    }
}

/// The part of the kernel that overlaps with earlier kernels.
__device__ inline void preamble(const Arguments& p) {
    SHARED_DYNAMIC(SharedStorage, shared);
    if (threadIdx.x == 0) {
        for (u32 i = 0; i < p.phase_count; i++) prefetch_tensor_map(p.phases[i].patches);
        prefetch_tensor_map(p.matrix);
        shared.pipeline.init((COOPERATIVE ? CONSUMERS : 1) * MULTICAST_PEERS);
        shared.order.init();
        mbarrier_init_fence();
    }
    cluster_or_block_sync();
}

__device__ inline void conv2d(const Arguments& p) {
    SHARED_DYNAMIC(SharedStorage, shared);
    const ClusterPosition position;
    // The shuffle tells the compiler that all lanes have the same value.
    const u32 warpgroup = shuffle(threadIdx.x / WARPGROUP, 0);
    if (warpgroup == 0) {
        if (REALLOCATES_REGISTERS) setmaxnreg_dec<40>();
        if (threadIdx.x == 0) producer(p, position, shared);
    } else {
        if (REALLOCATES_REGISTERS) setmaxnreg_inc<232>();
        consumer_warpgroup(p, position, shared, warpgroup - 1);
    }
    if constexpr (CLUSTER > 1) {
        // No thread block ends while others may still arrive at its barriers or multicast into its stages.
        warp_sync();
        cluster_sync();
    }
}

#if PASS == FPROP
KERNEL_WITH_PREAMBLE(THREADS, conv2d_fprop_sm90, Arguments, preamble) { conv2d(p); }
#elif PASS == DGRAD
KERNEL_WITH_PREAMBLE(THREADS, conv2d_dgrad_sm90, Arguments, preamble) { conv2d(p); }
#else
KERNEL_WITH_PREAMBLE(THREADS, conv2d_wgrad_sm90, Arguments, preamble) { conv2d(p); }
#endif
