// Intrinsics of compute capability 9.0 (sm_90a): TMA loads, mbarriers, clusters, setmaxnreg and WGMMA. Their PTX, one function per
// instruction, as in ptx.cuh; on the emulator `emulated_sm90.cuh` gives each a second body.
//
// Tiles in shared memory have the 128-byte swizzle of TMA and WGMMA: rows of 128 bytes, in which bits 4 to 6 of a byte's address
// are replaced by themselves XOR bits 7 to 9. Eight rows, 1024 bytes, are the period of the pattern, so tiles are aligned to
// 1024 bytes.
#pragma once
#include "intrinsics/ptx.cuh"

/// Describes a tensor in global memory to TMA. The host encodes it; it is a member of a kernel's argument.
struct alignas(64) TensorMap {
    u64 words[16];
};

/// A barrier in shared memory that counts arrivals of threads and bytes of TMA loads. A phase completes once all arrivals and all
/// expected bytes have come; then the next phase begins. Phases have parity 0, 1, 0, ..
struct Mbarrier {
    u64 state;
};

#ifdef RESIDUA_EMULATOR
#include "intrinsics/emulated_sm90.cuh"
#else

// ---- mbarriers ----

/// Initialises a barrier for `arrivals` arrivals, by one thread; `mbarrier_init_fence` and then `block_sync` make it visible to
/// all others.
__device__ inline void mbarrier_init(Mbarrier& barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(arrivals) : "memory");
}
__device__ inline void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
/// Arrives at the barrier.
__device__ inline void mbarrier_arrive(Mbarrier& barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}
/// Arrives at the barrier, and makes its phase expect `bytes` bytes of TMA loads.
__device__ inline void mbarrier_arrive_expect_tx(Mbarrier& barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)), "r"(bytes)
                 : "memory");
}
/// Waits until the barrier is no longer in a phase of this parity. A new barrier is in a phase of parity 0, so a wait for
/// parity 1 returns at once.
__device__ inline void mbarrier_wait(Mbarrier& barrier, u32 parity) {
#ifdef TRAP_SECONDS
    // A debugging build: a wait that takes this long ends the kernel with an error, which would else hang the GPU.
    u64 began;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(began));
    for (u32 done = 0; !done;) {
        u64 now;
        asm volatile(
            "{\n"
            ".reg .pred done;\n"
            "mbarrier.try_wait.parity.shared::cta.b64 done, [%2], %3;\n"
            "selp.u32 %0, 1, 0, done;\n"
            "mov.u64 %1, %%globaltimer;\n"
            "}\n"
            : "=r"(done), "=l"(now)
            : "r"(shared_address(&barrier)), "r"(parity)
            : "memory");
        if (!done && now - began > TRAP_SECONDS * 1000000000ull) asm volatile("trap;");
    }
#else
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra over;\n"
        "bra again;\n"
        "over:\n"
        "}\n" ::"r"(shared_address(&barrier)), "r"(parity)
        : "memory");
#endif
}

// ---- clusters: thread blocks that run at the same time and access each other's shared memory ----

/// Rank of this thread block in its cluster.
__device__ inline u32 cluster_rank() {
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
/// Waits for all threads of the cluster; the lanes of a warp must converge. Barriers that were initialised before and fenced by
/// `mbarrier_init_fence` are visible to all; other writes are not, which would cost a fence of the whole device. A
/// thread block whose shared memory others access ends with it, or that memory might be gone.
__device__ inline void cluster_sync() {
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
/// Arrives at the barrier of the thread block with this rank, at the address that `own` has in this one. It releases
/// shared memory: this thread's reads are over, and the WGMMA instructions that read what it wrote there have completed. Its
/// writes to global memory are not made visible, which would cost a fence of the whole device.
__device__ inline void mbarrier_arrive_remote(Mbarrier& own, u32 rank) {
    asm volatile(
        "{\n"
        ".reg .b32 there;\n"
        "mapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
        "}\n" ::"r"(shared_address(&own)),
        "r"(rank)
        : "memory");
}

/// Waits for `threads` threads, whole warps, at barrier `id` (1 to 15; 0 is `block_sync`).
__device__ inline void named_barrier_sync(u32 id, u32 threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// Makes ordinary stores of this thread to shared memory visible to the async proxy: to TMA and WGMMA.
__device__ inline void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- conversions ----

/// Two floats as bf16, the first in the lower half; RELU: max(x, 0) of them, where NaN stays NaN.
template <bool RELU>
__device__ inline u32 bf16_pair(float first, float second) {
    u32 pair;
    if constexpr (RELU) asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    else asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}

// ---- setmaxnreg; all threads of a warpgroup must call ----

/// Reduces the registers of each thread to REGISTERS, and releases the rest.
template <int REGISTERS>
__device__ inline void setmaxnreg_dec() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS)); }
/// Waits until other warpgroups have released enough registers, and raises those of each thread to REGISTERS.
template <int REGISTERS>
__device__ inline void setmaxnreg_inc() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS)); }

// ---- TMA loads; one thread issues, `barrier` counts the bytes, zeros are written beyond the tensor ----

__device__ inline void prefetch_tensor_map(const TensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
/// Loads the box whose first element has these coordinates, innermost first.
__device__ inline void tma_load(void* to, const TensorMap& map, Mbarrier& barrier, int c0, int c1) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
            shared_address(to)),
        "l"(&map), "r"(shared_address(&barrier)), "r"(c0), "r"(c1)
        : "memory");
}
__device__ inline void tma_load(void* to, const TensorMap& map, Mbarrier& barrier, int c0, int c1, int c2) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(
            shared_address(to)),
        "l"(&map), "r"(shared_address(&barrier)), "r"(c0), "r"(c1), "r"(c2)
        : "memory");
}
__device__ inline void tma_load(void* to, const TensorMap& map, Mbarrier& barrier, int c0, int c1, int c2, int c3) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(
            shared_address(to)),
        "l"(&map), "r"(shared_address(&barrier)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
        : "memory");
}
/// Loads pixels of images (NHWC) in im2col mode: the pixels from (n, h, w) on within the map's bounding box, each moved by the
/// offsets, and of each pixel the map's number of channels from c on.
__device__ inline void tma_load_im2col(void* to, const TensorMap& map, Mbarrier& barrier, int c, int w, int h, int n,
                                          u16 offset_w, u16 offset_h) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
        "[%2], {%7, %8};" ::"r"(shared_address(to)),
        "l"(&map), "r"(shared_address(&barrier)), "r"(c), "r"(w), "r"(h), "r"(n), "h"(offset_w), "h"(offset_h)
        : "memory");
}

// Multicast: the box is written to the same address in every thread block of the cluster whose rank has its bit in `ranks`, and
// its bytes are counted by the barrier at the same address there.

__device__ inline void tma_load_multicast(void* to, const TensorMap& map, Mbarrier& barrier, u16 ranks, int c0, int c1) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(to)),
        "l"(&map), "r"(shared_address(&barrier)), "r"(c0), "r"(c1), "h"(ranks)
        : "memory");
}
__device__ inline void tma_load_multicast(void* to, const TensorMap& map, Mbarrier& barrier, u16 ranks, int c0, int c1, int c2) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(shared_address(to)),
        "l"(&map), "r"(shared_address(&barrier)), "r"(c0), "r"(c1), "r"(c2), "h"(ranks)
        : "memory");
}
__device__ inline void tma_load_multicast_im2col(void* to, const TensorMap& map, Mbarrier& barrier, u16 ranks, int c, int w, int h,
                                               int n, u16 offset_w, u16 offset_h) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8}, %9;" ::"r"(shared_address(to)),
        "l"(&map), "r"(shared_address(&barrier)), "r"(c), "r"(w), "r"(h), "r"(n), "h"(offset_w), "h"(offset_h), "h"(ranks)
        : "memory");
}

// ---- WGMMA: 128 threads of four warps, the first a multiple of four ----

/// Descriptor of a swizzled tile, an operand of WGMMA. K-major (rows of 64 elements of GEMM K): groups of eight rows are `stride`
/// bytes apart, and the next 16 elements of K begin 32 bytes on. MN-major (rows of 64 elements of M or N): groups of eight rows
/// of K are `stride` bytes apart, the next 64 columns `leading` bytes, and the next 16 rows of K begin 2048 bytes on.
__device__ inline u64 matrix_descriptor(const void* tile, u32 leading, u32 stride) {
    return (shared_address(tile) & 0x3ffff) >> 4 | u64(leading >> 4) << 16 | u64(stride >> 4) << 32 | u64(1) << 62;
}

/// Required before the first WGMMA, and before the first after other code accessed its accumulators.
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
/// Commits the group of WGMMA instructions since the last commit.
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits until at most `PENDING` groups are in flight. Until its group is waited for, nothing else may access the accumulators of
/// a WGMMA.
template <int PENDING>
__device__ inline void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory"); }

#define WGMMA_TENTH(i) "%" #i "0, %" #i "1, %" #i "2, %" #i "3, %" #i "4, %" #i "5, %" #i "6, %" #i "7, %" #i "8, %" #i "9, "
#define WGMMA_FIRST_TEN "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, "
#define WGMMA_ACCUMULATORS_32 WGMMA_FIRST_TEN WGMMA_TENTH(1) WGMMA_TENTH(2) "%30, %31"
#define WGMMA_ACCUMULATORS_64 \
    WGMMA_FIRST_TEN WGMMA_TENTH(1) WGMMA_TENTH(2) WGMMA_TENTH(3) WGMMA_TENTH(4) WGMMA_TENTH(5) "%60, %61, %62, %63"
#define WGMMA_ACCUMULATORS_96 \
    WGMMA_FIRST_TEN WGMMA_TENTH(1) WGMMA_TENTH(2) WGMMA_TENTH(3) WGMMA_TENTH(4) WGMMA_TENTH(5) WGMMA_TENTH(6) \
        WGMMA_TENTH(7) WGMMA_TENTH(8) "%90, %91, %92, %93, %94, %95"
#define WGMMA_ACCUMULATORS_128 \
    WGMMA_FIRST_TEN WGMMA_TENTH(1) WGMMA_TENTH(2) WGMMA_TENTH(3) WGMMA_TENTH(4) WGMMA_TENTH(5) WGMMA_TENTH(6) \
        WGMMA_TENTH(7) WGMMA_TENTH(8) WGMMA_TENTH(9) WGMMA_TENTH(10) WGMMA_TENTH(11) \
            "%120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_8(i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define WGMMA_32(i) WGMMA_8(i), WGMMA_8(i + 8), WGMMA_8(i + 16), WGMMA_8(i + 24)
/// Operands a, b, whether to accumulate, and the majorness of a and b; numbered from the first behind the accumulators.
#define WGMMA(shape, sums, a_at, b_at, add_at, a_major_at, b_major_at, ...)                                              \
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " add_at ", 0;\n"                                             \
                 "wgmma.mma_async.sync.aligned." shape ".f32.bf16.bf16 {" sums "}, " a_at ", " b_at                    \
                 ", add, 1, 1, " a_major_at ", " b_major_at ";\n}\n"                                                   \
                 : __VA_ARGS__                                                                                         \
                 : "l"(a), "l"(b), "r"(u32(add)), "n"(u32(A_MN_MAJOR)), "n"(u32(B_MN_MAJOR)))

/// d (64 x N, f32) = a (64 x 16) * b (16 x N), bf16 tiles in shared memory, added to d if `add`. Warp w of the four holds rows
/// 16 w + g and 16 w + g + 8, with g = lane / 4; d[4 j], d[4 j + 1] are columns 8 j + 2 (lane % 4) and the next of the first of
/// these rows, d[4 j + 2], d[4 j + 3] those of the second.
template <int N, bool A_MN_MAJOR, bool B_MN_MAJOR>
__device__ inline void wgmma(float (&d)[N / 2], u64 a, u64 b, bool add) {
    static_assert(N == 64 || N == 128 || N == 192 || N == 256, "N has a body here");
    if constexpr (N == 64)
        WGMMA("m64n64k16", WGMMA_ACCUMULATORS_32, "%32", "%33", "%34", "%35", "%36", WGMMA_32(0));
    else if constexpr (N == 128)
        WGMMA("m64n128k16", WGMMA_ACCUMULATORS_64, "%64", "%65", "%66", "%67", "%68", WGMMA_32(0), WGMMA_32(32));
    else if constexpr (N == 192)
        WGMMA("m64n192k16", WGMMA_ACCUMULATORS_96, "%96", "%97", "%98", "%99", "%100", WGMMA_32(0), WGMMA_32(32), WGMMA_32(64));
    else
        WGMMA("m64n256k16", WGMMA_ACCUMULATORS_128, "%128", "%129", "%130", "%131", "%132", WGMMA_32(0), WGMMA_32(32),
              WGMMA_32(64), WGMMA_32(96));
}

#endif
