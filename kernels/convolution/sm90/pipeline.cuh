// A ring of stages in shared memory, between one thread that has tensor copied into them and warpgroups that multiply.
//
// Each stage has two barriers. `full` completes a phase when the copies of a filling are there; `empty` when all who read it
// have let it go. Nobody waits for a phase while the one before it is not over: a barrier tells only two phases apart.
#pragma once
#include "intrinsics/ptx_sm90.cuh"

template <u32 COUNT>
struct RingBarriers {
    Mbarrier full[COUNT], empty[COUNT];

    __device__ void init(u32 readers) {
#pragma unroll
        for (u32 i = 0; i < COUNT; i++) {
            mbarrier_init(full[i], 1);
            mbarrier_init(empty[i], readers);
        }
    }
};

/// Somebody's place in a ring of so many stages.
struct RingPlace {
    const u32 stages;
    u32 stage = 0, parity = 0;

    __device__ explicit RingPlace(u32 stages) : stages(stages) {}
    __device__ void advance() {
        if (++stage == stages) stage = 0, parity ^= 1;
    }
    __device__ void skip(u32 steps) {
        const u32 at = stage + steps;
        stage = at % stages;
        parity ^= at / stages & 1;
    }
};
