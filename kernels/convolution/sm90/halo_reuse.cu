// fprop and dgrad of bf16 images without stride on sm_90a, where rows of the result are multiples of eight pixels (`HaloReuse::layout`
// in halo_reuse.rs has all conditions). Channels are multiples of eight.
//
// implicit_gemm.cu loads the patches of every filter tap, nine times the image where filters are 3 x 3, and is bound by L2. Here
// a tile is whole rows of pixels, and one TMA load brings the rows that it needs for one column of filter taps: those of the
// tile, and its halo above and below. The taps of a column read the same stage, each a row of pixels further on. Rows are
// multiples of 1024 bytes, the period of the swizzle, so each tap's patches are a WGMMA operand where they lie.
//
// Cooperative (COOPERATIVE 1): both consumers share a tile, and filters come through a pipeline of their own, tap by tap. Ping-pong
// (COOPERATIVE 0, SWAP_AB 1): each has its own tile, and all filters stay resident in shared memory: there is one column of tiles.
//
// Constants: PASS, TILE_M, TILE_N, COOPERATIVE, SWAP_AB, PATCH_BYTES (of the stages of patches), FILTER_STAGES (of one tap's
// filters).
#include "intrinsics/ptx_sm90.cuh"
#include "convolution/sm90/epilogue.cuh"
#include "convolution/sm90/pipeline.cuh"

static_assert(PASS != WGRAD, "streaming_wgrad.cu does it");

constexpr bool FILTERS_RESIDENT = !COOPERATIVE;
constexpr u32 FILTER_BYTES = TILE_N / 64 * PANEL_BYTES;
/// Stages of patches, at most.
LAUNCHER_CONSTANT u32 MAX_PATCH_STAGES = 4;

struct alignas(1024) SharedStorage {
    u8 patches[PATCH_BYTES];  // p.row_layout.stages stages
    u8 filters[FILTER_STAGES][TILE_N / 64][PANEL_BYTES];
    EpilogueTile epilogue_tiles[CONSUMERS];
    PipelineBarriers<MAX_PATCH_STAGES> patch_pipeline;
    PipelineBarriers<FILTER_STAGES> filter_pipeline;
    OrderBarrier order;
};

// ---- the producer ----

/// Loads a tap's filters, 64 channels of GEMM K.
__device__ inline void tma_load_filters(const Arguments& p, u8 (&to)[TILE_N / 64][PANEL_BYTES], Mbarrier& full, u32 chunk, int tap,
                                        u32 first_column) {
    mbarrier_arrive_expect_tx(full, FILTER_BYTES);
    if constexpr (PASS == FPROP) {
        tma_load(to, p.matrix, full, chunk * BLOCK_K, tap, first_column);
    } else {
#pragma unroll
        for (u32 i = 0; i < TILE_N / 64; i++) tma_load(to[i], p.matrix, full, first_column + 64 * i, tap, chunk * BLOCK_K);
    }
}

/// One thread issues all loads of its thread block, as far ahead as the pipelines have empty stages.
__device__ inline void producer(const Arguments& p, SharedStorage& shared) {
    const Phase& phase = p.phases[0];
    PipelineState patches(p.row_layout.stages), filters(FILTER_STAGES);
    for (u32 index = blockIdx.x; index < p.tile_count; index += gridDim.x) {
        const OutputTile tile = tile_at(p, index);
        const BasePixel base = PixelPosition(phase, tile.first_row).base(p, phase);
        for (u32 chunk = 0; chunk < p.chunks; chunk++) {
            for (u32 tap_w = 0; tap_w < phase.taps_w; tap_w++) {
                Mbarrier& full = shared.patch_pipeline.full[patches.stage];
                mbarrier_wait(shared.patch_pipeline.empty[patches.stage], patches.parity ^ 1);
                mbarrier_arrive_expect_tx(full, p.row_layout.stage_bytes);
                tma_load(shared.patches + patches.stage * p.row_layout.stage_bytes, phase.patches, full, chunk * BLOCK_K,
                         base.column + int(tap_w), base.row, base.image);
                patches.advance();
                if (FILTERS_RESIDENT && index != blockIdx.x) continue;
                for (u32 tap_h = 0; tap_h < phase.taps_h; tap_h++) {
                    const int tap = int(phase.first_tap) + int(tap_h) * phase.tap_step_h + int(tap_w) * phase.tap_step_w;
                    if (!FILTERS_RESIDENT) mbarrier_wait(shared.filter_pipeline.empty[filters.stage], filters.parity ^ 1);
                    tma_load_filters(p, shared.filters[filters.stage], shared.filter_pipeline.full[filters.stage], chunk, tap,
                                     tile.first_column);
                    filters.advance();
                }
            }
        }
    }
}

// ---- the consumers ----

/// Offsets of a consumer's panels of 64 pixels in a stage of patches.
struct PanelOffsets {
    u32 bytes[WGMMAS];

    __device__ PanelOffsets(const Arguments& p, u32 consumer) {
#pragma unroll
        for (u32 i = 0; i < WGMMAS; i++) {
            const u32 panel = consumer * WGMMAS + i, image = panel / p.row_layout.image_panels;
            bytes[i] = image * p.row_layout.image_bytes + (panel - image * p.row_layout.image_panels) * PANEL_BYTES;
        }
    }
};

/// Issues the WGMMA group of one tap, 64 channels of each pixel.
__device__ inline void wgmma_tap(Accumulators& accumulators, const u8* patches, const PanelOffsets& panels, const u8* filters) {
    wgmma_fence();
#pragma unroll
    for (u32 k = 0; k < BLOCK_K; k += 16) {
#pragma unroll
        for (u32 i = 0; i < WGMMAS; i++) {
            const u64 a = operand_descriptor<false>(patches + (SWAP_AB ? 0 : panels.bytes[i]), 0, k);
            const u64 b = operand_descriptor<B_MN_MAJOR>(filters, SWAP_AB ? i : 0, k);
            wgmma<WGMMA_N, WGMMA_A_MN_MAJOR, WGMMA_B_MN_MAJOR>(accumulators[i], SWAP_AB ? b : a, SWAP_AB ? a : b, true);
        }
    }
    wgmma_commit();
}

/// The K loop of a tile. Stages are released one tap later, when the WGMMA group that read them is known to be complete.
__device__ inline void mainloop(Accumulators& accumulators, const Arguments& p, SharedStorage& shared, const PanelOffsets& panels,
                                PipelineState& patches, PipelineState& filters, u32 consumer) {
    const u32 stages = p.chunks * p.phases[0].taps_w, taps_h = p.phases[0].taps_h;
    u32 last_patches = 0, last_filters = 0;
    for (u32 stage = 0; stage < stages; stage++) {
        mbarrier_wait(shared.patch_pipeline.full[patches.stage], patches.parity);
        const u8* rows = shared.patches + patches.stage * p.row_layout.stage_bytes;
        for (u32 tap_h = 0; tap_h < taps_h; tap_h++) {
            mbarrier_wait(shared.filter_pipeline.full[filters.stage], FILTERS_RESIDENT ? 0 : filters.parity);
            wgmma_tap(accumulators, rows, panels, shared.filters[filters.stage][0]);
            rows += p.row_layout.row_bytes;
            wgmma_wait<1>();
            if (warpgroup_thread() == 0) {
                if (!FILTERS_RESIDENT && stage + tap_h > 0) mbarrier_arrive(shared.filter_pipeline.empty[last_filters]);
                if (stage > 0 && tap_h == 0) mbarrier_arrive(shared.patch_pipeline.empty[last_patches]);
            }
            last_filters = filters.stage;
            filters.advance();
        }
        last_patches = patches.stage;
        patches.advance();
    }
    if (!COOPERATIVE) shared.order.arrive(consumer);
    wgmma_wait<0>();
    if (warpgroup_thread() == 0) {
        if (!FILTERS_RESIDENT) mbarrier_arrive(shared.filter_pipeline.empty[last_filters]);
        mbarrier_arrive(shared.patch_pipeline.empty[last_patches]);
    }
}

/// Computes a consumer's tiles, one after another.
__device__ inline void consumer_warpgroup(const Arguments& p, SharedStorage& shared, u32 consumer) {
    const PanelOffsets panels(p, COOPERATIVE ? consumer : 0);
    PipelineState patches(p.row_layout.stages), filters(FILTER_STAGES);
    u32 count = 0;
    for (u32 index = blockIdx.x; index < p.tile_count; index += gridDim.x, count++) {
        const OutputTile tile = tile_at(p, index);
        if (!COOPERATIVE && count % CONSUMERS != consumer) {
            patches.skip(p.chunks * p.phases[0].taps_w);
            continue;
        }
        prefetch_epilogue_operands(p, tile, consumer);
        if (!COOPERATIVE) shared.order.wait(consumer, count / CONSUMERS);
        if (FILTERS_RESIDENT) filters.stage = 0;
        Accumulators accumulators = {};
        mainloop(accumulators, p, shared, panels, patches, filters, consumer);
        epilogue(p, tile, accumulators, shared.epilogue_tiles[consumer], consumer);
    }
}

/// The part of the kernel that overlaps with earlier kernels.
__device__ inline void preamble(const Arguments& p) {
    SHARED_DYNAMIC(SharedStorage, shared);
    if (threadIdx.x == 0) {
        prefetch_tensor_map(p.phases[0].patches);
        prefetch_tensor_map(p.matrix);
        shared.patch_pipeline.init(COOPERATIVE ? CONSUMERS : 1);
        shared.filter_pipeline.init(CONSUMERS);
        shared.order.init();
        mbarrier_init_fence();
    }
    block_sync();
}

__device__ inline void conv2d(const Arguments& p) {
    SHARED_DYNAMIC(SharedStorage, shared);
    // The shuffle tells the compiler that all lanes have the same value.
    const u32 warpgroup = shuffle(threadIdx.x / WARPGROUP, 0);
    if (warpgroup == 0) {
        setmaxnreg_dec<40>();
        if (threadIdx.x == 0) producer(p, shared);
    } else {
        setmaxnreg_inc<232>();
        consumer_warpgroup(p, shared, warpgroup - 1);
    }
}

#if PASS == FPROP
KERNEL_WITH_PREAMBLE(THREADS, conv2d_fprop_halo_reuse_sm90, Arguments, preamble) { conv2d(p); }
#else
KERNEL_WITH_PREAMBLE(THREADS, conv2d_dgrad_halo_reuse_sm90, Arguments, preamble) { conv2d(p); }
#endif
