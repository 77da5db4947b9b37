// The rate of WGMMA instructions on operands that lie in shared memory (`bench --calibrate`): warpgroups issue them as a mainloop does, a
// group of four steps of K for each stage, but wait for no loads.
//
// Constants: WGMMA_N, and WGMMAS, the instructions of 64 rows that a consumer's part of a tile is made of.
#include "intrinsics/ptx_sm90.cuh"

/// Consumer warpgroups, of which `consumers` multiply.
LAUNCHER_CONSTANT u32 CONSUMERS = 2;
LAUNCHER_CONSTANT u32 THREADS = CONSUMERS * 128;
LAUNCHER_CONSTANT u32 STAGES = 2;
/// K of a stage, and its bytes for 64 rows.
LAUNCHER_CONSTANT u32 BLOCK_K = 64;
LAUNCHER_CONSTANT u32 PANEL_BYTES = 64 * BLOCK_K * 2;

struct WgmmaArguments {
    float* out;
    u32 rounds;
    u32 consumers;
};

struct Stage {
    u8 a[CONSUMERS][WGMMAS][PANEL_BYTES];
    u8 b[WGMMA_N / 64][PANEL_BYTES];
};

struct alignas(1024) SharedStorage {
    Stage stages[STAGES];
};

/// A bf16 of magnitude 1 to 2 and either sign, different for each number: zeros would cost no power.
__device__ inline u16 some_bf16(u32 number) {
    u32 bits = number * 2654435761u;
    bits ^= bits >> 15;
    return u16(0x3f80 | (bits & 0x807f));
}

/// `out` receives all sums of each thread that multiplies. (They are stored, not added up: additions might be moved before the wait.)
KERNEL(THREADS, calibration_wgmma_sm90, WgmmaArguments) {
    SHARED_DYNAMIC(SharedStorage, shared);
    u16* const elements = reinterpret_cast<u16*>(&shared);
    for (u32 i = threadIdx.x; i < sizeof(SharedStorage) / 2; i += THREADS) elements[i] = some_bf16(i + blockIdx.x);
    fence_proxy_async();
    block_sync();
    // The shuffle tells the compiler that all lanes have the same value.
    const u32 consumer = shuffle(threadIdx.x / 128, 0);
    if (consumer >= p.consumers) return;
    float accumulators[WGMMAS][WGMMA_N / 2] = {};
#pragma unroll 1
    for (u32 round = 0; round < p.rounds; round++) {
        const Stage& stage = shared.stages[round % STAGES];
        wgmma_fence();
#pragma unroll
        for (u32 k = 0; k < BLOCK_K; k += 16) {
#pragma unroll
            for (u32 i = 0; i < WGMMAS; i++)
                wgmma<WGMMA_N, false, false>(accumulators[i], matrix_descriptor(stage.a[consumer][i] + k * 2, 16, 1024),
                                             matrix_descriptor(stage.b[0] + k * 2, 16, 1024), true);
        }
        wgmma_commit();
        wgmma_wait<1>();
    }
    wgmma_wait<0>();
    float* const out = p.out + u64(blockIdx.x * THREADS + threadIdx.x) * (WGMMAS * WGMMA_N / 2);
#pragma unroll
    for (u32 i = 0; i < WGMMAS; i++) {
#pragma unroll
        for (u32 j = 0; j < WGMMA_N / 2; j++) store(out + i * (WGMMA_N / 2) + j, accumulators[i][j]);
    }
}
