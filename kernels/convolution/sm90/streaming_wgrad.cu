// wgrad of 3 x 3 convolutions of bf16 images without stride on sm_90a, where rows of dy are 8, 16, 32 or 64 pixels, and images
// multiples of 64. Channels are multiples of eight.
//
// An output tile is 64 output channels by all nine filter taps of 64 input channels, so that every row of an image in shared
// memory serves every tap. Images stream through shared memory row by row, with the rows of zeros above and below, in three row
// buffers: one for each column of taps, its rows shifted by a pixel. Each of three consumers has a row of taps: its WGMMA
// instructions for a row of dy read all three buffers at the image row that its taps see. Nothing is loaded twice but for the
// three columns of taps.
//
// Constants: PASS (WGRAD), TILE_M (64), TILE_N (576).
#include "intrinsics/ptx_sm90.cuh"
#include "convolution/sm90/tile_scheduler.cuh"
#include "convolution/sm90/pipeline.cuh"

constexpr u32 WARPGROUP = 128;
/// Rows and columns of filter taps; there is a consumer for each row.
LAUNCHER_CONSTANT u32 TAPS = 3;
/// Threads of a thread block.
LAUNCHER_CONSTANT u32 THREADS = WARPGROUP * (1 + TAPS);

/// Bytes of a row buffer, which holds rows of images, 64 channels of each pixel.
LAUNCHER_CONSTANT u32 ROW_BUFFER_BYTES = 60 << 10;
/// Stages of a row buffer at most.
LAUNCHER_CONSTANT u32 MAX_ROW_STAGES = 8;
/// Stages of dy: 64 pixels, a K block, of 64 channels.
LAUNCHER_CONSTANT u32 DY_STAGES = 5;
constexpr u32 DY_STAGE_BYTES = BLOCK_K * BLOCK_K * sizeof(bf16);

struct alignas(1024) SharedStorage {
    u8 rows[TAPS][ROW_BUFFER_BYTES];
    u8 dy[DY_STAGES][DY_STAGE_BYTES];
    PipelineBarriers<MAX_ROW_STAGES> row_pipeline;
    PipelineBarriers<DY_STAGES> dy_pipeline;
};

/// An output tile of this kernel: 64 output channels, 64 input channels; a split-K slice is some of the images.
struct StreamedTile {
    u32 first_row, chunk, split, first_image, end_image;

    __device__ StreamedTile(const Arguments& p, u32 index) {
        const OutputTile tile = tile_at(p, index);
        const Phase& phase = p.phases[0];
        const u64 images = phase.pixels / (phase.width.divisor * phase.height.divisor);
        first_row = tile.first_row;
        chunk = tile.first_column / TILE_N;
        split = tile.split;
        first_image = u32(images * split / p.split_k);
        end_image = u32(images * (split + 1) / p.split_k);
    }
};

struct Extents {
    u32 image_rows;      // rows of an image in the stream
    u32 k_block_rows;    // rows of pixels in a K block
    u32 image_k_blocks;  // K blocks in an image

    __device__ explicit Extents(const Arguments& p)
        : image_rows(p.phases[0].height.divisor + TAPS - 1),
          k_block_rows(BLOCK_K / p.phases[0].width.divisor),
          image_k_blocks(p.phases[0].height.divisor / k_block_rows) {}
};

// ---- the producer ----

/// One thread loads the rows of images, and behind the rows that a K block needs its part of dy.
__device__ inline void producer(const Arguments& p, SharedStorage& shared) {
    const Phase& phase = p.phases[0];
    const Extents extents(p);
    PipelineState rows(p.row_layout.stages), dy(DY_STAGES);
    for (u32 index = blockIdx.x; index < p.tile_count; index += gridDim.x) {
        const StreamedTile tile(p, index);
        for (u32 image = tile.first_image; image < tile.end_image; image++) {
            u32 loaded = 0, pixel = image * extents.image_k_blocks * BLOCK_K;
            for (u32 k_block = 0; k_block < extents.image_k_blocks; k_block++, pixel += BLOCK_K) {
                for (; loaded < (k_block + 1) * extents.k_block_rows + TAPS - 1; loaded += p.row_layout.stage_rows) {
                    Mbarrier& full = shared.row_pipeline.full[rows.stage];
                    mbarrier_wait(shared.row_pipeline.empty[rows.stage], rows.parity ^ 1);
                    mbarrier_arrive_expect_tx(full, TAPS * p.row_layout.stage_bytes);
#pragma unroll
                    for (u32 tap_w = 0; tap_w < TAPS; tap_w++)
                        tma_load(shared.rows[tap_w] + rows.stage * p.row_layout.stage_bytes, phase.patches, full,
                                 tile.chunk * BLOCK_K, phase.first_column + int(tap_w), phase.first_row + int(loaded), image);
                    rows.advance();
                }
                Mbarrier& full = shared.dy_pipeline.full[dy.stage];
                mbarrier_wait(shared.dy_pipeline.empty[dy.stage], dy.parity ^ 1);
                mbarrier_arrive_expect_tx(full, DY_STAGE_BYTES);
                tma_load(shared.dy[dy.stage], p.matrix, full, tile.first_row, pixel);
                dy.advance();
            }
        }
    }
}

// ---- the consumers ----

/// Of a row of taps: 64 output channels by 64 input channels of each of its taps.
typedef float Accumulators[TAPS * BLOCK_K / 2];

/// A consumer's position in the stream of rows, counted from the first image on, and the rows that are full and released.
struct StreamState {
    PipelineState full, released;
    u32 buffer_rows, row = 0, buffer_row = 0;  // where the next K block begins, in the stream and in the row buffers
    u32 full_rows = 0, released_rows = 0;

    __device__ explicit StreamState(const Arguments& p)
        : full(p.row_layout.stages), released(p.row_layout.stages), buffer_rows(p.row_layout.stages * p.row_layout.stage_rows) {}

    /// Waits for `rows` rows from the next K block's first on.
    __device__ void wait(const Arguments& p, SharedStorage& shared, u32 rows) {
        for (; full_rows < row + rows; full_rows += p.row_layout.stage_rows) {
            mbarrier_wait(shared.row_pipeline.full[full.stage], full.parity);
            full.advance();
        }
    }
    /// Releases the stages whose rows all lie before the next K block's first.
    __device__ void release(const Arguments& p, SharedStorage& shared) {
        for (; released_rows + p.row_layout.stage_rows <= row; released_rows += p.row_layout.stage_rows) {
            if (threadIdx.x % WARPGROUP == 0) mbarrier_arrive(shared.row_pipeline.empty[released.stage]);
            released.advance();
        }
    }
    __device__ void advance(u32 rows) {
        row += rows;
        buffer_row += rows;
        if (buffer_row >= buffer_rows) buffer_row -= buffer_rows;
    }
};

/// Issues the WGMMA group of a K block: 64 pixels of dy and the rows that a row of taps sees.
__device__ inline void wgmma_k_block(Accumulators& accumulators, const Arguments& p, const SharedStorage& shared, const u8* dy,
                                     u32 buffer_row, u32 buffer_rows, u32 tap_h) {
    const u32 width = p.phases[0].width.divisor;
    wgmma_fence();
#pragma unroll
    for (u32 pixel = 0; pixel < BLOCK_K; pixel += 16) {
        const u32 pixel_row = pixel / width;
        u32 row = buffer_row + pixel_row + tap_h;
        if (row >= buffer_rows) row -= buffer_rows;
        const u8* patches = shared.rows[0] + row * p.row_layout.row_bytes + (pixel - pixel_row * width) * 128;
        wgmma<TAPS * BLOCK_K, true, true>(accumulators, matrix_descriptor(dy + pixel * 128, DY_STAGE_BYTES, 1024),
                                          matrix_descriptor(patches, ROW_BUFFER_BYTES, 1024), true);
    }
    wgmma_commit();
}

/// The epilogue: stores a row of taps. Four threads lie along 32 bytes of a row.
__device__ inline void epilogue(const Arguments& p, const Accumulators& accumulators, const StreamedTile& tile, u32 tap_h) {
    const u32 thread = threadIdx.x % WARPGROUP;
    const u32 row = tile.first_row + thread / 32 * 16 + thread % 32 / 4;
    float* out = static_cast<float*>(p.out) + i64(tile.split) * p.gemm_m * p.gemm_n;
#pragma unroll
    for (u32 j = 0; j < TAPS * BLOCK_K / 8; j++) {
        const u32 tap_w = j / 8, channel = tile.chunk * BLOCK_K + j % 8 * 8 + thread % 4 * 2;
        if (channel >= p.channels) continue;
        float* to = out + (tap_h * TAPS + tap_w) * p.channels + channel;
#pragma unroll
        for (u32 lower = 0; lower < 2; lower++)
            if (row + 8 * lower < p.gemm_m)
                store_vector<2>(to + i64(row + 8 * lower) * p.gemm_n,
                                Vector<float, 2>{accumulators[4 * j + 2 * lower], accumulators[4 * j + 2 * lower + 1]});
    }
}

__device__ inline void consumer_warpgroup(const Arguments& p, SharedStorage& shared, u32 tap_h) {
    const Extents extents(p);
    const bool elected = threadIdx.x % WARPGROUP == 0;
    StreamState rows(p);
    PipelineState dy(DY_STAGES);
    for (u32 index = blockIdx.x; index < p.tile_count; index += gridDim.x) {
        const StreamedTile tile(p, index);
        Accumulators accumulators = {};
        u32 last = 0;
        bool begun = false;
        for (u32 image = tile.first_image; image < tile.end_image; image++) {
            for (u32 k_block = 0; k_block < extents.image_k_blocks; k_block++) {
                rows.wait(p, shared, extents.k_block_rows + TAPS - 1);
                mbarrier_wait(shared.dy_pipeline.full[dy.stage], dy.parity);
                wgmma_k_block(accumulators, p, shared, shared.dy[dy.stage], rows.buffer_row, rows.buffer_rows, tap_h);
                // The WGMMA group of the K block before is complete, so its stages can be released.
                wgmma_wait<1>();
                rows.release(p, shared);
                if (begun && elected) mbarrier_arrive(shared.dy_pipeline.empty[last]);
                begun = true;
                last = dy.stage;
                dy.advance();
                rows.advance(extents.k_block_rows);
            }
            // The last two rows of an image belong to no K block.
            rows.advance(TAPS - 1);
        }
        wgmma_wait<0>();
        rows.release(p, shared);
        if (begun && elected) mbarrier_arrive(shared.dy_pipeline.empty[last]);
        epilogue(p, accumulators, tile, tap_h);
    }
}

/// The part of the kernel that overlaps with earlier kernels.
__device__ inline void preamble(const Arguments& p) {
    SHARED_DYNAMIC(SharedStorage, shared);
    if (threadIdx.x == 0) {
        prefetch_tensor_map(p.phases[0].patches);
        prefetch_tensor_map(p.matrix);
        shared.row_pipeline.init(TAPS);
        shared.dy_pipeline.init(TAPS);
        mbarrier_init_fence();
    }
    block_sync();
}

KERNEL_WITH_PREAMBLE(THREADS, conv2d_wgrad_streaming_sm90, Arguments, preamble) {
    SHARED_DYNAMIC(SharedStorage, shared);
    // The shuffle tells the compiler that all lanes have the same value.
    const u32 warpgroup = shuffle(threadIdx.x / WARPGROUP, 0);
    if (warpgroup == 0) {
        setmaxnreg_dec<32>();
        if (threadIdx.x == 0) producer(p, shared);
    } else {
        setmaxnreg_inc<160>();
        consumer_warpgroup(p, shared, warpgroup - 1);
    }
}
