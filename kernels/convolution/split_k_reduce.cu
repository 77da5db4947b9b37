// out[i] = sum over splits of parts[split, i]: the parts of a weight gradient, added in a fixed order.
//
// parts (splits, elements), out (elements), f32. There may be few elements and many splits. So a warp's threads lie along the
// elements, four neighbours each (one where their number is odd), and each of a block's eight warps adds up its share of the
// splits; then the first adds the shares.
#include "intrinsics/ptx.cuh"

struct Arguments {
    const float* parts;
    float* out;
    i64 elements;
    u32 splits;
    u32 wide;  // whether elements is a multiple of 4
};

constexpr u32 WARP = 32, SHARES = 8;

template <int COUNT>
using Sums = Pack<float, COUNT>;
typedef Pack<float, 4> Shares[SHARES][WARP];

/// The sum of the splits from `split` on, up to `end`.
template <int COUNT>
__device__ Sums<COUNT> sum(const Arguments& p, i64 at, u32 split, u32 end) {
    Sums<COUNT> sums = {};
#pragma unroll 4
    for (; split < end; split++) {
        const Sums<COUNT> part = load_pack<COUNT>(p.parts + split * p.elements + at);
#pragma unroll
        for (int v = 0; v < COUNT; v++) sums[v] += part[v];
    }
    return sums;
}

template <int COUNT>
__device__ void sum_all(const Arguments& p, Shares& shares) {
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const i64 at = (i64(blockIdx.x) * WARP + lane) * COUNT;
    const bool inside = at < p.elements;
    if (inside) {
        const Sums<COUNT> share = sum<COUNT>(p, at, p.splits * warp / SHARES, p.splits * (warp + 1) / SHARES);
#pragma unroll
        for (int v = 0; v < COUNT; v++) shares[warp][lane][v] = share[v];
    }
    block_sync();
    if (warp > 0 || !inside) return;
    Sums<COUNT> sums = {};
#pragma unroll
    for (u32 i = 0; i < SHARES; i++) {
#pragma unroll
        for (int v = 0; v < COUNT; v++) sums[v] += shares[i][lane][v];
    }
    store_pack<COUNT>(p.out + at, sums);
}

KERNEL(256, convolution_sum, Arguments) {
    SHARED(Shares, shares);
    if (p.wide) sum_all<4>(p, shares);
    else sum_all<1>(p, shares);
}
