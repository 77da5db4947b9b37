// A ring of stages in shared memory, between one thread that has tensor copied into them and warpgroups that multiply.
//
// Each stage has two barriers. `full` completes a phase when the copies of a filling are there; `empty` when all who read it
// have let it go. Nobody waits for a phase while the one before it is not over: a barrier tells only two phases apart.
#pragma once
#include "ptx_sm90.cuh"

struct RingBarriers {
    Mbarrier full[STAGES], empty[STAGES];

    __device__ void init(u32 readers) {
#pragma unroll
        for (u32 i = 0; i < STAGES; i++) {
            mbarrier_init(full[i], 1);
            mbarrier_init(empty[i], readers);
        }
    }
};

/// Somebody's place in the ring.
struct RingPlace {
    u32 stage = 0, parity = 0;

    __device__ void advance() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
    __device__ void skip(u32 steps) {
        const u32 at = stage + steps;
        stage = at % STAGES;
        parity ^= at / STAGES & 1;
    }
};
