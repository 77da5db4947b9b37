// A pipeline of stages in shared memory between one producer thread, which issues TMA loads, and consumer warpgroups, which
// multiply.
//
// Each stage has two barriers: `full` completes a phase when the loads of a stage have arrived, `empty` when all consumers have
// released it. No thread waits for a phase before the one before it is over: a barrier distinguishes only two phases.
#pragma once
#include "intrinsics/ptx_sm90.cuh"

template <u32 STAGES_>
struct PipelineBarriers {
    Mbarrier full[STAGES_], empty[STAGES_];

    __device__ void init(u32 consumers) {
#pragma unroll
        for (u32 i = 0; i < STAGES_; i++) {
            mbarrier_init(full[i], 1);
            mbarrier_init(empty[i], consumers);
        }
    }
};

/// A thread's position in a pipeline: its stage, and the parity of that stage's phase.
struct PipelineState {
    const u32 stages;
    u32 stage = 0, parity = 0;

    __device__ explicit PipelineState(u32 stages) : stages(stages) {}
    __device__ void advance() {
        if (++stage == stages) stage = 0, parity ^= 1;
    }
    /// Advances by `count` stages.
    __device__ void skip(u32 count) {
        const u32 at = stage + count;
        stage = at % stages;
        parity ^= at / stages & 1;
    }
};
