// What the cost model assumes of memory, L2 and launches, to be measured on a card (`bench --calibrate`).
#include "common/vectorized.cuh"

/// Vectors of 16 bytes that a thread block reads at a time: each thread four.
LAUNCHER_CONSTANT u32 CHUNK = 1024;

struct MemoryArguments {
    const u32* from;
    u32* to;
    u32 chunks;
    u32 rounds;
};

typedef Vector<u32, 4> Vector16;

/// Loads a thread's four vectors of a chunk, all in flight at once.
__device__ inline void load_chunk(Vector16 (&values)[CHUNK / THREADS], const u32* from, u32 chunk) {
#pragma unroll
    for (u32 i = 0; i < CHUNK / THREADS; i++)
        values[i] = load_vector<4>(from + (u64(chunk) * CHUNK + i * THREADS + threadIdx.x) * 4);
}

/// Fills all chunks of `to` with numbers that look random: zeros would move at less power.
KERNEL(THREADS, calibration_fill, MemoryArguments) {
    for (u32 chunk = blockIdx.x; chunk < p.chunks; chunk += gridDim.x) {
#pragma unroll
        for (u32 i = 0; i < CHUNK / THREADS; i++) {
            const u64 vector = u64(chunk) * CHUNK + i * THREADS + threadIdx.x;
            Vector16 values;
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                const u32 bits = u32(vector * 4 + j) * 2654435761u;
                values[j] = bits ^ bits >> 15;
            }
            store_vector<4>(p.to + vector * 4, values);
        }
    }
}

/// Copies all chunks.
KERNEL(THREADS, calibration_copy, MemoryArguments) {
    for (u32 chunk = blockIdx.x; chunk < p.chunks; chunk += gridDim.x) {
        Vector16 values[CHUNK / THREADS];
        load_chunk(values, p.from, chunk);
#pragma unroll
        for (u32 i = 0; i < CHUNK / THREADS; i++)
            store_vector<4>(p.to + (u64(chunk) * CHUNK + i * THREADS + threadIdx.x) * 4, values[i]);
    }
}

/// Reads all chunks, `rounds` times; in each round another SM reads a chunk, so that it comes from L2 and not from L1. `to` receives a
/// number for each thread, which depends on all that it has read.
KERNEL(THREADS, calibration_read, MemoryArguments) {
    u32 sum = 0;
    for (u32 round = 0; round < p.rounds; round++) {
        for (u32 chunk = (blockIdx.x + round) % gridDim.x; chunk < p.chunks; chunk += gridDim.x) {
            Vector16 values[CHUNK / THREADS];
            load_chunk(values, p.from, chunk);
#pragma unroll
            for (u32 i = 0; i < CHUNK / THREADS; i++) sum ^= values[i][0] ^ values[i][1] ^ values[i][2] ^ values[i][3];
        }
    }
    store(p.to + thread_in_grid(), sum);
}

/// Nothing: what remains is the launch.
KERNEL(THREADS, calibration_nothing, MemoryArguments) {
    if (p.rounds > 0) store(p.to, p.chunks);
}
