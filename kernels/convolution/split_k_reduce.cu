// out[i] = sum over split-K slices of slices[split, i]: the reduction behind a split-K wgrad, in a fixed order.
//
// slices (split_k, elements), out (elements), f32. There may be few elements and many slices. So a warp's threads lie along the
// elements, four neighbours each (one where their number is odd), and each of a thread block's eight warps sums an eighth of the
// slices; then the first warp adds the eight sums.
#include "intrinsics/ptx.cuh"

struct Arguments {
    const float* slices;
    float* out;
    i64 elements;
    u32 split_k;
    u32 vectorized;  // whether elements is a multiple of 4
};

/// Threads of a warp, which lie along the elements, and warps of a thread block, which share the slices.
LAUNCHER_CONSTANT u32 WARP = 32, WARPS = 8;

template <int COUNT>
using Sums = Vector<float, COUNT>;
typedef Vector<float, 4> WarpSums[WARPS][WARP];

/// The sum of the slices from `split` on, up to `end`.
template <int COUNT>
__device__ Sums<COUNT> sum(const Arguments& p, i64 at, u32 split, u32 end) {
    Sums<COUNT> sums = {};
#pragma unroll 4
    for (; split < end; split++) {
        const Sums<COUNT> slice = load_vector<COUNT>(p.slices + split * p.elements + at);
#pragma unroll
        for (int v = 0; v < COUNT; v++) sums[v] += slice[v];
    }
    return sums;
}

template <int COUNT>
__device__ void reduce(const Arguments& p, WarpSums& warp_sums) {
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const i64 at = (i64(blockIdx.x) * WARP + lane) * COUNT;
    const bool inside = at < p.elements;
    if (inside) {
        const Sums<COUNT> own = sum<COUNT>(p, at, p.split_k * warp / WARPS, p.split_k * (warp + 1) / WARPS);
#pragma unroll
        for (int v = 0; v < COUNT; v++) warp_sums[warp][lane][v] = own[v];
    }
    block_sync();
    if (warp > 0 || !inside) return;
    Sums<COUNT> sums = {};
#pragma unroll
    for (u32 i = 0; i < WARPS; i++) {
#pragma unroll
        for (int v = 0; v < COUNT; v++) sums[v] += warp_sums[i][lane][v];
    }
    store_vector<COUNT>(p.out + at, sums);
}

KERNEL(WARP * WARPS, split_k_reduce, Arguments) {
    SHARED(WarpSums, warp_sums);
    if (p.vectorized) reduce<4>(p, warp_sums);
    else reduce<1>(p, warp_sums);
}
