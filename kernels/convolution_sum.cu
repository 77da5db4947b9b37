// out[i] = sum over splits of parts[split, i]: the parts of a weight gradient, added in their order.
//
// parts (splits, elements), out (elements), f32. A thread owns four neighbours.
#include "ptx.cuh"

struct Arguments {
    const float* parts;
    float* out;
    i64 elements;
    u32 splits;
    u32 wide;  // whether elements is a multiple of 4
};

template <int COUNT>
__device__ void sum(const Arguments& p, i64 at) {
    Pack<float, COUNT> sums = load_pack<COUNT>(p.parts + at);
#pragma unroll 4
    for (u32 split = 1; split < p.splits; split++) {
        const Pack<float, COUNT> part = load_pack<COUNT>(p.parts + split * p.elements + at);
#pragma unroll
        for (int v = 0; v < COUNT; v++) sums[v] += part[v];
    }
    store_pack<COUNT>(p.out + at, sums);
}

KERNEL(256, convolution_sum, Arguments) {
    const i64 thread = i64(blockIdx.x) * 256 + threadIdx.x;
    if (p.wide) {
        if (thread * 4 < p.elements) sum<4>(p, thread * 4);
    } else {
        if (thread < p.elements) sum<1>(p, thread);
    }
}
