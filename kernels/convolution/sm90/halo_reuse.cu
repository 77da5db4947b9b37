// Forward and input gradient of a convolution of bf16 images without stride, on sm_90a, where rows of the result are multiples of
// eight pixels (`Layout::of` in sm90_rows.rs tells all that must hold). Channels are multiples of eight.
//
// convolution_sm90.cu has every tap's patches copied, nine times the image where filters are 3 x 3, and waits for the
// second-level cache. Here a tile is whole rows of pixels, and a copy brings the rows that it needs for one column of taps: those
// of the tile and the few below and above. Taps that lie below each other read the same copy, a row of pixels further each
// time. Rows are multiples of 1024 bytes, the swizzle's period, so each tap's patches are a matrix where they lie.
//
// Where both consumers work on one tile (COOPERATE 1), filters come through a ring of their own, tap by tap. Where each has its
// own (SWAP 1, COOPERATE 0), all filters stay in shared memory once they have come: there is one column of tiles.
//
// Constants: PASS, TILE_M, TILE_N, COOPERATE, SWAP, PATCH_BYTES (room for patches), FILTERS (places for a tap's filters).
#include "intrinsics/ptx_sm90.cuh"
#include "convolution/sm90/epilogue.cuh"
#include "convolution/sm90/pipeline.cuh"

static_assert(PASS != WEIGHT_GRADIENT, "convolution_stream_sm90.cu does it");

constexpr bool FILTERS_STAY = !COOPERATE;
constexpr u32 FILTER_BYTES = TILE_N / 64 * BLOCK_BYTES;
/// More copies of patches than this are never there at once.
constexpr u32 MOST_PATCHES = 4;

struct alignas(1024) Memory {
    u8 patches[PATCH_BYTES];  // p.resident.stages copies
    u8 filters[FILTERS][TILE_N / 64][BLOCK_BYTES];
    Slab slabs[CONSUMERS];
    RingBarriers<MOST_PATCHES> patch_ring;
    RingBarriers<FILTERS> filter_ring;
    Turns turns;
};

// ---- the producer ----

/// A tap's filters, 64 channels of the sum.
__device__ inline void copy_filters(const Arguments& p, u8 (&to)[TILE_N / 64][BLOCK_BYTES], Mbarrier& full, u32 chunk, int tap,
                                    u32 first_column) {
    mbarrier_arrive_expect(full, FILTER_BYTES);
    if constexpr (PASS == FORWARD) {
        tensor_copy(to, p.matrix, full, chunk * STEP, tap, first_column);
    } else {
#pragma unroll
        for (u32 i = 0; i < TILE_N / 64; i++) tensor_copy(to[i], p.matrix, full, first_column + 64 * i, tap, chunk * STEP);
    }
}

/// One thread has everything copied that its block needs, as far ahead as the rings have room.
__device__ inline void produce(const Arguments& p, Memory& memory) {
    const Walk& walk = p.walks[0];
    RingPlace patches(p.resident.stages), filters(FILTERS);
    for (u32 item = blockIdx.x; item < p.items; item += gridDim.x) {
        const Work work = work_at(p, item);
        const Base base = Position(walk, work.first_row).base(p, walk);
        for (u32 chunk = 0; chunk < p.chunks; chunk++) {
            for (u32 across = 0; across < walk.taps_across; across++) {
                Mbarrier& full = memory.patch_ring.full[patches.stage];
                mbarrier_wait(memory.patch_ring.empty[patches.stage], patches.parity ^ 1);
                mbarrier_arrive_expect(full, p.resident.stage_bytes);
                tensor_copy(memory.patches + patches.stage * p.resident.stage_bytes, walk.patches, full, chunk * STEP,
                            base.column + int(across), base.row, base.image);
                patches.advance();
                if (FILTERS_STAY && item != blockIdx.x) continue;
                for (u32 down = 0; down < walk.taps_down; down++) {
                    const int tap = int(walk.first_tap) + int(down) * walk.tap_down + int(across) * walk.tap_across;
                    if (!FILTERS_STAY) mbarrier_wait(memory.filter_ring.empty[filters.stage], filters.parity ^ 1);
                    copy_filters(p, memory.filters[filters.stage], memory.filter_ring.full[filters.stage], chunk, tap,
                                 work.first_column);
                    filters.advance();
                }
            }
        }
    }
}

// ---- the consumers ----

/// Where a consumer's blocks of 64 pixels begin in a copy of patches.
struct PatchBlocks {
    u32 bytes[PRODUCTS];

    __device__ PatchBlocks(const Arguments& p, u32 consumer) {
#pragma unroll
        for (u32 i = 0; i < PRODUCTS; i++) {
            const u32 block = consumer * PRODUCTS + i, image = block / p.resident.image_blocks;
            bytes[i] = image * p.resident.image_bytes + (block - image * p.resident.image_blocks) * BLOCK_BYTES;
        }
    }
};

/// sums += the products of one tap, 64 channels of each pixel, as far as they are begun here.
__device__ inline void multiply_tap(Sums& sums, const u8* patches, const PatchBlocks& blocks, const u8* filters) {
    wgmma_fence();
#pragma unroll
    for (u32 k = 0; k < STEP; k += 16) {
#pragma unroll
        for (u32 i = 0; i < PRODUCTS; i++) {
            const u64 pixels = operand<false>(patches + (SWAP ? 0 : blocks.bytes[i]), 0, k);
            const u64 channels = operand<RIGHT_DOWN>(filters, SWAP ? i : 0, k);
            wgmma<N, TALL_DOWN, N_DOWN>(sums[i], SWAP ? channels : pixels, SWAP ? pixels : channels, true);
        }
    }
    wgmma_commit();
}

/// The products of a tile. What was read is let go one tap later, when its products are known to be done.
__device__ inline void multiply(Sums& sums, const Arguments& p, Memory& memory, const PatchBlocks& blocks, RingPlace& patches,
                                RingPlace& filters, u32 consumer) {
    const u32 steps = p.chunks * p.walks[0].taps_across, taps_down = p.walks[0].taps_down;
    u32 last_patches = 0, last_filters = 0;
    for (u32 step = 0; step < steps; step++) {
        mbarrier_wait(memory.patch_ring.full[patches.stage], patches.parity);
        const u8* rows = memory.patches + patches.stage * p.resident.stage_bytes;
        for (u32 down = 0; down < taps_down; down++) {
            mbarrier_wait(memory.filter_ring.full[filters.stage], FILTERS_STAY ? 0 : filters.parity);
            multiply_tap(sums, rows, blocks, memory.filters[filters.stage][0]);
            rows += p.resident.row_bytes;
            wgmma_wait<1>();
            if (member() == 0) {
                if (!FILTERS_STAY && step + down > 0) mbarrier_arrive(memory.filter_ring.empty[last_filters]);
                if (step > 0 && down == 0) mbarrier_arrive(memory.patch_ring.empty[last_patches]);
            }
            last_filters = filters.stage;
            filters.advance();
        }
        last_patches = patches.stage;
        patches.advance();
    }
    if (!COOPERATE) memory.turns.pass_on(consumer);
    wgmma_wait<0>();
    if (member() == 0) {
        if (!FILTERS_STAY) mbarrier_arrive(memory.filter_ring.empty[last_filters]);
        mbarrier_arrive(memory.patch_ring.empty[last_patches]);
    }
}

/// A consumer's tiles, one after another.
__device__ inline void consume(const Arguments& p, Memory& memory, u32 consumer) {
    const PatchBlocks blocks(p, COOPERATE ? consumer : 0);
    RingPlace patches(p.resident.stages), filters(FILTERS);
    u32 count = 0;
    for (u32 item = blockIdx.x; item < p.items; item += gridDim.x, count++) {
        const Work work = work_at(p, item);
        if (!COOPERATE && count % CONSUMERS != consumer) {
            patches.skip(p.chunks * p.walks[0].taps_across);
            continue;
        }
        if (!COOPERATE) memory.turns.await(consumer, count / CONSUMERS);
        if (FILTERS_STAY) filters.stage = 0;
        Sums sums = {};
        multiply(sums, p, memory, blocks, patches, filters, consumer);
        finish(p, work, sums, memory.slabs[consumer], consumer);
    }
}

/// All that can be done before earlier kernels have ended.
__device__ inline void prepare(const Arguments& p) {
    SHARED_DYNAMIC(Memory, memory);
    if (threadIdx.x == 0) {
        prefetch_tensor_map(p.walks[0].patches);
        prefetch_tensor_map(p.matrix);
        memory.patch_ring.init(COOPERATE ? CONSUMERS : 1);
        memory.filter_ring.init(CONSUMERS);
        memory.turns.init();
        mbarrier_init_fence();
    }
    block_sync();
}

__device__ inline void convolve(const Arguments& p) {
    SHARED_DYNAMIC(Memory, memory);
    // The same for all lanes, and known to be.
    const u32 warpgroup = shuffle(threadIdx.x / WARPGROUP, 0);
    if (warpgroup == 0) {
        registers_give<40>();
        if (threadIdx.x == 0) produce(p, memory);
    } else {
        registers_take<232>();
        consume(p, memory, warpgroup - 1);
    }
}

#if PASS == FORWARD
KERNEL_PREPARED(THREADS, convolution_forward_rows_sm90, Arguments, prepare) { convolve(p); }
#else
KERNEL_PREPARED(THREADS, convolution_input_gradient_rows_sm90, Arguments, prepare) { convolve(p); }
#endif
