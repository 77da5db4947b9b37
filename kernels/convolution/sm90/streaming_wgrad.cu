// The weight gradient of a 3 x 3 convolution of bf16 images without stride, on sm_90a, where rows of dy are 8, 16, 32 or 64
// pixels, and images multiples of 64. Channels are multiples of eight.
//
// A tile is 64 output channels by all nine taps of 64 input channels, so that what a block has of an image serves every tap.
// Images stream through shared memory, row by row with the rows of zeros above and below: three rings at once, one for each column
// of taps, whose rows are moved by a pixel. Each of three consumers has a row of taps: its products of a row of dy read all
// three rings at the place where the image's row lies that its taps see. Nothing is copied twice but for the three columns.
//
// Constants: PASS (WEIGHT_GRADIENT), TILE_M (64), TILE_N (576).
#include "intrinsics/ptx_sm90.cuh"
#include "convolution/sm90/problem.cuh"
#include "convolution/sm90/pipeline.cuh"

constexpr u32 WARPGROUP = 128;
/// Rows and columns of taps; there is a consumer for each row.
constexpr u32 TAPS = 3;
constexpr u32 THREADS = WARPGROUP * (1 + TAPS);

/// Room for rows of an image, 64 channels of each pixel, in one ring; and most places in it.
constexpr u32 RING_BYTES = 60 << 10, MOST_PLACES = 8;
/// Places for 64 pixels of 64 channels of dy, which a step of the sum takes.
constexpr u32 DY_PLACES = 5;
constexpr u32 STEP_BYTES = STEP * STEP * sizeof(bf16);

struct alignas(1024) Memory {
    u8 rows[TAPS][RING_BYTES];
    u8 dy[DY_PLACES][STEP_BYTES];
    RingBarriers<MOST_PLACES> row_ring;
    RingBarriers<DY_PLACES> dy_ring;
};

/// What a block has to do: 64 output channels, 64 input channels, some images.
struct Share {
    u32 first_row, chunk, split, first_image, end_image;

    __device__ Share(const Arguments& p, u32 item) {
        const Work work = work_at(p, item);
        const Walk& walk = p.walks[0];
        const u64 images = walk.pixels / (walk.width.divisor * walk.height.divisor);
        first_row = work.first_row;
        chunk = work.first_column / TILE_N;
        split = work.split;
        first_image = u32(images * split / p.splits);
        end_image = u32(images * (split + 1) / p.splits);
    }
};

/// Rows of an image in the stream, of pixels in a step, and steps in an image.
struct Extents {
    u32 image_rows, step_rows, image_steps;

    __device__ explicit Extents(const Arguments& p)
        : image_rows(p.walks[0].height.divisor + TAPS - 1),
          step_rows(STEP / p.walks[0].width.divisor),
          image_steps(p.walks[0].height.divisor / step_rows) {}
};

// ---- the producer ----

/// One thread has rows of images copied, and behind those that a step of dy needs the step.
__device__ inline void produce(const Arguments& p, Memory& memory) {
    const Walk& walk = p.walks[0];
    const Extents extents(p);
    RingPlace rows(p.resident.stages), dy(DY_PLACES);
    for (u32 item = blockIdx.x; item < p.items; item += gridDim.x) {
        const Share share(p, item);
        for (u32 image = share.first_image; image < share.end_image; image++) {
            u32 there = 0, pixel = image * extents.image_steps * STEP;
            for (u32 step = 0; step < extents.image_steps; step++, pixel += STEP) {
                for (; there < (step + 1) * extents.step_rows + TAPS - 1; there += p.resident.stage_rows) {
                    Mbarrier& full = memory.row_ring.full[rows.stage];
                    mbarrier_wait(memory.row_ring.empty[rows.stage], rows.parity ^ 1);
                    mbarrier_arrive_expect(full, TAPS * p.resident.stage_bytes);
#pragma unroll
                    for (u32 across = 0; across < TAPS; across++)
                        tensor_copy(memory.rows[across] + rows.stage * p.resident.stage_bytes, walk.patches, full,
                                    share.chunk * STEP, walk.first_column + int(across), walk.first_row + int(there), image);
                    rows.advance();
                }
                Mbarrier& full = memory.dy_ring.full[dy.stage];
                mbarrier_wait(memory.dy_ring.empty[dy.stage], dy.parity ^ 1);
                mbarrier_arrive_expect(full, STEP_BYTES);
                tensor_copy(memory.dy[dy.stage], p.matrix, full, share.first_row, pixel);
                dy.advance();
            }
        }
    }
}

// ---- the consumers ----

/// Of a row of taps: 64 output channels by 64 input channels of each of its taps.
typedef float Sums[TAPS * STEP / 2];

/// A consumer's place in the stream of rows, counted in rows from the first image on, and how many have come and been let go.
struct StreamPlace {
    RingPlace come, gone;
    u32 ring_rows, row = 0, ring_row = 0;  // where the next step begins, in the stream and in the ring
    u32 come_rows = 0, gone_rows = 0;

    __device__ explicit StreamPlace(const Arguments& p)
        : come(p.resident.stages), gone(p.resident.stages), ring_rows(p.resident.stages * p.resident.stage_rows) {}

    /// Waits for so many rows from the next step's first on.
    __device__ void await(const Arguments& p, Memory& memory, u32 rows) {
        for (; come_rows < row + rows; come_rows += p.resident.stage_rows) {
            mbarrier_wait(memory.row_ring.full[come.stage], come.parity);
            come.advance();
        }
    }
    /// Lets the rows go that lie before the next step's first.
    __device__ void let_go(const Arguments& p, Memory& memory) {
        for (; gone_rows + p.resident.stage_rows <= row; gone_rows += p.resident.stage_rows) {
            if (threadIdx.x % WARPGROUP == 0) mbarrier_arrive(memory.row_ring.empty[gone.stage]);
            gone.advance();
        }
    }
    __device__ void advance(u32 rows) {
        row += rows;
        ring_row += rows;
        if (ring_row >= ring_rows) ring_row -= ring_rows;
    }
};

/// sums += the products of 64 pixels of dy and the rows that a row of taps sees, as far as they are begun here.
__device__ inline void multiply_step(Sums& sums, const Arguments& p, const Memory& memory, const u8* step, u32 ring_row,
                                     u32 ring_rows, u32 taps_row) {
    const u32 width = p.walks[0].width.divisor;
    wgmma_fence();
#pragma unroll
    for (u32 pixel = 0; pixel < STEP; pixel += 16) {
        const u32 down = pixel / width;
        u32 row = ring_row + down + taps_row;
        if (row >= ring_rows) row -= ring_rows;
        const u8* patches = memory.rows[0] + row * p.resident.row_bytes + (pixel - down * width) * 128;
        wgmma<TAPS * STEP, true, true>(sums, matrix_descriptor(step + pixel * 128, STEP_BYTES, 1024),
                                       matrix_descriptor(patches, RING_BYTES, 1024), true);
    }
    wgmma_commit();
}

/// Stores a row of taps. Four threads lie along 32 bytes of a row.
__device__ inline void store_taps(const Arguments& p, const Sums& sums, const Share& share, u32 taps_row) {
    const u32 member = threadIdx.x % WARPGROUP;
    const u32 row = share.first_row + member / 32 * 16 + member % 32 / 4;
    float* out = static_cast<float*>(p.out) + i64(share.split) * p.rows * p.columns;
#pragma unroll
    for (u32 j = 0; j < TAPS * STEP / 8; j++) {
        const u32 across = j / 8, channel = share.chunk * STEP + j % 8 * 8 + member % 4 * 2;
        if (channel >= p.channels) continue;
        float* to = out + (taps_row * TAPS + across) * p.channels + channel;
#pragma unroll
        for (u32 lower = 0; lower < 2; lower++)
            if (row + 8 * lower < p.rows)
                store_pack<2>(to + i64(row + 8 * lower) * p.columns, Pack<float, 2>{sums[4 * j + 2 * lower], sums[4 * j + 2 * lower + 1]});
    }
}

__device__ inline void consume(const Arguments& p, Memory& memory, u32 taps_row) {
    const Extents extents(p);
    const bool speaks = threadIdx.x % WARPGROUP == 0;
    StreamPlace place(p);
    RingPlace dy(DY_PLACES);
    for (u32 item = blockIdx.x; item < p.items; item += gridDim.x) {
        const Share share(p, item);
        Sums sums = {};
        u32 last = 0;
        bool begun = false;
        for (u32 image = share.first_image; image < share.end_image; image++) {
            for (u32 step = 0; step < extents.image_steps; step++) {
                place.await(p, memory, extents.step_rows + TAPS - 1);
                mbarrier_wait(memory.dy_ring.full[dy.stage], dy.parity);
                multiply_step(sums, p, memory, memory.dy[dy.stage], place.ring_row, place.ring_rows, taps_row);
                // What the step before has read is done with.
                wgmma_wait<1>();
                place.let_go(p, memory);
                if (begun && speaks) mbarrier_arrive(memory.dy_ring.empty[last]);
                begun = true;
                last = dy.stage;
                dy.advance();
                place.advance(extents.step_rows);
            }
            // The last two rows belong to no step.
            place.advance(TAPS - 1);
        }
        wgmma_wait<0>();
        place.let_go(p, memory);
        if (begun && speaks) mbarrier_arrive(memory.dy_ring.empty[last]);
        store_taps(p, sums, share, taps_row);
    }
}

/// All that can be done before earlier kernels have ended.
__device__ inline void prepare(const Arguments& p) {
    SHARED_DYNAMIC(Memory, memory);
    if (threadIdx.x == 0) {
        prefetch_tensor_map(p.walks[0].patches);
        prefetch_tensor_map(p.matrix);
        memory.row_ring.init(TAPS);
        memory.dy_ring.init(TAPS);
        mbarrier_init_fence();
    }
    block_sync();
}

KERNEL_PREPARED(THREADS, convolution_weight_gradient_stream_sm90, Arguments, prepare) {
    SHARED_DYNAMIC(Memory, memory);
    // The same for all lanes, and known to be.
    const u32 warpgroup = shuffle(threadIdx.x / WARPGROUP, 0);
    if (warpgroup == 0) {
        registers_give<32>();
        if (threadIdx.x == 0) produce(p, memory);
    } else {
        registers_take<160>();
        consume(p, memory, warpgroup - 1);
    }
}
