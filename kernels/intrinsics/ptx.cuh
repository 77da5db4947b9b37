// Intrinsics of all kernels: types, memory accesses, barriers, and one function per machine instruction.
//
// This and ptx_sm90.cuh are the only files that hold PTX. On the emulator (RESIDUA_EMULATOR) `emulated.cuh` gives every intrinsic a
// second body with the same meaning, which checks its operands. So kernels
//   - access global memory only through load, store, load_vector, store_vector, cp_async and TMA: the emulator checks each address;
//   - declare shared memory with SHARED or SHARED_DYNAMIC: the emulator fills it with NaN before every thread block;
//   - take one argument, a struct, and begin with KERNEL(threads, name, Arguments): `p` is the argument, and the kernels launched
//     before have ended. The launcher fills the struct that stands here: build.rs reads its fields, one declaration a line;
//   - include no CUDA header.
#pragma once

#ifdef RESIDUA_EMULATOR
#define __device__
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

/// A constant that the launcher uses too: it is read from here when the program is built, and an edited file must leave it as it is.
#define LAUNCHER_CONSTANT constexpr

/// The upper half of an f32, rounded to nearest even.
struct bf16 {
    u16 bits;
};

/// An aligned vector of N neighbours in memory, accessed by one instruction: N * sizeof(T) is 2, 4, 8 or 16 bytes.
template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
    T values[N];
    __device__ T& operator[](int i) { return values[i]; }
    __device__ const T& operator[](int i) const { return values[i]; }
};

/// Elements of T in the widest vectorized access, 16 bytes.
template <class T>
constexpr int MAX_VECTOR_SIZE = 16 / sizeof(T);

#ifdef RESIDUA_EMULATOR
#include "intrinsics/emulated.cuh"
#else

#define INFINITY_F32 __int_as_float(0x7f800000)
/// Programmatic dependent launch (PDL, sm_90 and later): allows the next kernel's thread blocks to be placed from now on
/// (griddepcontrol.launch_dependents), and waits until the kernels launched before this one have ended and all their writes are
/// visible (griddepcontrol.wait).
///
/// Order is as without PDL: each kernel waits before it accesses memory. So it ends only after the kernel before it has ended,
/// and a kernel that waits for one has waited for all. No deadlock is possible: the next kernel's thread blocks are placed once
/// all thread blocks of this one have begun, so they take no resources that this one still needs, and each waits only for kernels
/// launched earlier. In a launch without PDL both instructions do nothing.
__device__ __forceinline__ void grid_dependency_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// The entry is defined apart from the body, so that no kernel can forget to wait. `preamble(p)` runs before the grid dependency
/// wait and may access shared memory and the argument, but nothing that an earlier kernel writes or reads.
#define KERNEL_WITH_PREAMBLE(threads, name, Arguments, preamble)                                       \
    static __device__ __forceinline__ void name##_body(const Arguments& p);                            \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Arguments p) {  \
        preamble(p);                                                                                   \
        grid_dependency_wait();                                                                        \
        name##_body(p);                                                                                \
    }                                                                                                  \
    static __device__ __forceinline__ void name##_body(const Arguments& p)
#define KERNEL(threads, name, Arguments) KERNEL_WITH_PREAMBLE(threads, name, Arguments, empty_preamble)
template <class Arguments>
__device__ __forceinline__ void empty_preamble(const Arguments&) {}
/// `Type name;` in static shared memory (at most 48 KiB per thread block). Type is one name: a struct, or an array's typedef.
#define SHARED(Type, name) __shared__ Type name
/// `Type& name` over the launch's dynamic shared memory, whose size must suffice; every use refers to the same memory, so to the
/// same Type.
#define SHARED_DYNAMIC(Type, name) \
    extern __shared__ __align__(1024) u8 dynamic_shared_memory[]; \
    Type& name = *reinterpret_cast<Type*>(dynamic_shared_memory)

// ---- global memory ----

template <class T>
__device__ T load(const T* from) { return *from; }

template <class T>
__device__ void store(T* to, T value) { *to = value; }

template <int N, class T>
__device__ Vector<T, N> load_vector(const T* from) { return *reinterpret_cast<const Vector<T, N>*>(from); }

template <int N, class T>
__device__ void store_vector(T* to, const Vector<T, N>& values) { *reinterpret_cast<Vector<T, N>*>(to) = values; }

/// Asks for the cache line of an address to be brought to L2. Nothing waits for it.
__device__ inline void prefetch_l2(const void* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(at))); }

// ---- conversions ----

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __int_as_float(u32(x.bits) << 16); }

template <class T>
__device__ T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) { return x; }
template <>
__device__ inline bf16 from_float<bf16>(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// ---- barriers and shuffles ----

#define block_sync() __syncthreads()
#define warp_sync() __syncwarp()
/// The value of the lane whose number differs in the bits of `mask`; all 32 lanes must call. 4- and 8-byte types.
#define shuffle_xor(value, mask) __shfl_xor_sync(0xffffffffu, value, mask)
#define shuffle_down(value, delta) __shfl_down_sync(0xffffffffu, value, delta)
#define shuffle(value, lane) __shfl_sync(0xffffffffu, value, lane)

// ---- asynchronous copies to shared memory, sm_80 ----

__device__ inline u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }

/// Copies 16 bytes from global to shared memory, or writes zeros if not `valid` (`from` is then not read).
__device__ inline void cp_async_16(void* to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}
/// Copies 4 bytes, or writes zeros, in the same way.
__device__ inline void cp_async_4(void* to, const void* from, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 4 : 0)
                 : "memory");
}
/// Commits the group of this thread's copies since the last commit.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `PENDING` of this thread's groups are in flight. Other threads' copies need a barrier as well.
template <int PENDING>
__device__ inline void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }

// ---- tensor cores, sm_80: ldmatrix and mma; fragments as in the PTX manual ----

/// Four 8x8 matrices of 16-bit elements: lanes 8i..8i+7 give the addresses of the rows of matrix i, 16 bytes each, aligned.
/// Lane l receives in r[i] the element (l / 4, 2 * (l % 4)) of matrix i and the next one in its row.
__device__ inline void ldmatrix_x4(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
/// Loads each matrix transposed: lane l receives the element (2 * (l % 4), l / 4) and the next one in its column.
__device__ inline void ldmatrix_x4_transposed(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
/// d (16x8, f32) += a (16x16, bf16, row-major fragments) * b (16x8, bf16, column fragments). With g = lane / 4, t = lane % 4:
/// a[0] = (g, 2t..), a[1] = (g + 8, 2t..), a[2] = (g, 2t + 8..), a[3] = (g + 8, 2t + 8..);
/// b[0] = (2t.., g), b[1] = (2t + 8.., g); d[0], d[1] = (g, 2t..), d[2], d[3] = (g + 8, 2t..).
__device__ inline void mma_16x8x16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif

/// The element type that a variant is compiled for: `#define BF16 1` or 0.
#ifdef BF16
#if BF16
typedef bf16 Real;
#else
typedef float Real;
#endif
#endif
