// Partial sums of very many chunks of rows, merged in runs of RUN: a stage between the two of batch_norm.cu.
//
//   merge_moments      means and squared deviations, by Chan's formula
//   merge_sums         sums
//
// A thread block merges RUN chunks of MERGE_COLUMNS channels: a warp reads whole lines, and a thread has all its loads in flight at
// a time. The order of the sums follows from the number of chunks alone.
#include "intrinsics/ptx.cuh"
#include "common/reduce.cuh"

/// Chunks that are merged into one.
LAUNCHER_CONSTANT u32 RUN = 64;
/// Channels of a thread block; the other threads are lanes along chunks.
LAUNCHER_CONSTANT u32 MERGE_COLUMNS = 32;
constexpr u32 LANES = THREADS / MERGE_COLUMNS;

struct MergeArguments {
    const float* partial;  // (2, chunks, channels)
    float* merged;         // (2, chunks / RUN, channels)
    Cut cut;
};

/// The part of a run that belongs to a thread: chunks first, first + LANES, .. below end, of one channel.
struct Run {
    u32 first, end, channel;
    u64 second;  // from a chunk's first sum to its second

    __device__ explicit Run(const Cut& cut) {
        const u32 begin = blockIdx.y * RUN;
        end = begin + RUN < cut.chunks ? begin + RUN : cut.chunks;
        first = begin + threadIdx.x / MERGE_COLUMNS;
        channel = blockIdx.x * MERGE_COLUMNS + threadIdx.x % MERGE_COLUMNS;
        if (channel >= cut.channels) end = 0;
        second = u64(cut.chunks) * cut.channels;
    }
};

/// Stores both results of this thread block's run, in the threads of the first lane.
__device__ inline void store_merged(const MergeArguments& p, const Run& run, float first, float second) {
    if (run.channel >= p.cut.channels || threadIdx.x >= MERGE_COLUMNS) return;
    float* to = p.merged + u64(blockIdx.y) * p.cut.channels + run.channel;
    store(to, first);
    store(to + u64(gridDim.y) * p.cut.channels, second);
}

KERNEL(THREADS, merge_moments, MergeArguments) {
    SHARED(SharedMoments<1>, shared);
    const Run run(p.cut);
    Moments<1> moments;
#pragma unroll
    for (u32 turn = 0; turn < RUN / LANES; ++turn) {
        const u32 chunk = run.first + turn * LANES;
        if (chunk >= run.end) continue;
        const float* from = p.partial + u64(chunk) * p.cut.channels + run.channel;
        const float mean[1] = {load(from)};
        const float deviations[1] = {load(from + run.second)};
        moments.merge(p.cut.rows_of(chunk), mean, deviations);
    }
    merge_lanes(shared, moments, MERGE_COLUMNS);
    store_merged(p, run, moments.mean[0], moments.deviations[0]);
}

struct SharedSums {
    float values[2][THREADS];
};

KERNEL(THREADS, merge_sums, MergeArguments) {
    SHARED(SharedSums, shared);
    const Run run(p.cut);
    float sums[2] = {};
#pragma unroll
    for (u32 turn = 0; turn < RUN / LANES; ++turn) {
        const u32 chunk = run.first + turn * LANES;
        if (chunk >= run.end) continue;
        const float* from = p.partial + u64(chunk) * p.cut.channels + run.channel;
        sums[0] += load(from);
        sums[1] += load(from + run.second);
    }
    sum_lanes(shared.values, sums, MERGE_COLUMNS);
    store_merged(p, run, sums[0], sums[1]);
}
