// The rate at which TMA brings pixels of images to shared memory (`bench --calibrate`), as boxes of a matrix or in im2col mode: one thread
// keeps all stages in flight, and nobody reads them.
//
// Images have SIDE x SIDE pixels of 64 channels; a load brings PIXELS pixels, whole rows. Each is loaded nine times, as for a 3 x 3
// filter, in im2col mode for its nine taps. Constant: IM2COL.
#include "intrinsics/ptx_sm90.cuh"

LAUNCHER_CONSTANT u32 THREADS = 128;
LAUNCHER_CONSTANT u32 STAGES = 8;
LAUNCHER_CONSTANT u32 SIDE = 32;
LAUNCHER_CONSTANT u32 CHANNELS = 64;
LAUNCHER_CONSTANT u32 PIXELS = 128;
constexpr u32 TAPS = 9;
/// Bytes of a load.
LAUNCHER_CONSTANT u32 STAGE_BYTES = PIXELS * CHANNELS * 2;

struct TmaArguments {
    TensorMap images;
    u32* out;
    u32 loads;   // of each thread block
    u32 groups;  // of PIXELS pixels, in all images
    u32 unused[12];
};

struct alignas(1024) SharedStorage {
    u8 stages[STAGES][STAGE_BYTES];
    Mbarrier full[STAGES];
};

KERNEL(THREADS, calibration_tma_sm90, TmaArguments) {
    SHARED_DYNAMIC(SharedStorage, shared);
    if (threadIdx.x == 0) {
        for (u32 i = 0; i < STAGES; i++) mbarrier_init(shared.full[i], 1);
        mbarrier_init_fence();
    }
    block_sync();
    if (threadIdx.x == 0) {
        for (u32 i = 0; i < p.loads + STAGES; i++) {
            const u32 stage = i % STAGES, lap = i / STAGES;
            Mbarrier& full = shared.full[stage];
            // The load of the lap before has arrived.
            if (lap > 0) mbarrier_wait(full, (lap - 1) & 1);
            if (i >= p.loads) continue;
            const u32 group = (blockIdx.x + i / TAPS * gridDim.x) % p.groups, tap = i % TAPS;
            mbarrier_arrive_expect_tx(full, STAGE_BYTES);
#if IM2COL
            const u32 line = group * (PIXELS / SIDE);
            tma_load_im2col(shared.stages[stage], p.images, full, 0, -1, int(line % SIDE) - 1, line / SIDE, tap % 3, tap / 3);
#else
            tma_load(shared.stages[stage], p.images, full, 0, int(group * PIXELS));
            (void)tap;
#endif
        }
    }
    block_sync();
    if (threadIdx.x == 0) store(p.out + blockIdx.x, u32(shared.stages[0][0]));
}
