// The words all kernels are written in: types, memory accesses, barriers, and one function per machine instruction.
//
// This and ptx_sm90.cuh are the only files that hold PTX. Where a kernel is emulated (RESIDUA_EMULATOR), `emulated.cuh` gives every word
// a second body with the same meaning, which checks what it is asked to do. So kernels
//   - touch global memory only through load, store, load_pack, store_pack and cp_async: the emulator checks each address;
//   - declare shared memory with SHARED or SHARED_DYNAMIC: the emulator fills it with NaN before every block;
//   - take one argument, a struct, and begin with KERNEL(threads, name, Arguments): `p` is the argument, and the kernels launched
//     before have ended;
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

/// The upper half of an f32, rounded to nearest even.
struct bf16 {
    u16 bits;
};

/// N neighbours in memory, moved by one instruction: N * sizeof(T) is 2, 4, 8 or 16 bytes.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T values[N];
    __device__ T& operator[](int i) { return values[i]; }
    __device__ const T& operator[](int i) const { return values[i]; }
};

/// Elements of T in the widest access, 16 bytes.
template <class T>
constexpr int WIDEST = 16 / sizeof(T);

#ifdef RESIDUA_EMULATOR
#include "intrinsics/emulated.cuh"
#else

#define INFINITY_F32 __int_as_float(0x7f800000)
/// Where the device overlaps launches (sm_90 and later), lets the next kernel's blocks be placed from now on, and waits until the
/// kernels launched before this one have ended and all they wrote is seen here.
///
/// Order is as without overlap: each kernel does this before it touches memory. So it ends only after the one before it has ended,
/// and who waits for one has waited for all. Nothing starves, and nobody waits in a circle: the next kernel's blocks are
/// placed once all blocks of this one have begun, so they take no room that this one still needs, and each waits only for
/// kernels launched earlier. Where a launch does not overlap, both instructions do nothing.
__device__ __forceinline__ void await_earlier_kernels() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// The entry is not where the body is written, so that none can forget to wait. What a kernel does before, `prepare(p)`, may touch
/// shared memory and its argument, and nothing that an earlier kernel writes or reads.
#define KERNEL_PREPARED(threads, name, Arguments, prepare)                                                 \
    static __device__ __forceinline__ void name##_body(const Arguments& p);                                \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Arguments p) {      \
        prepare(p);                                                                                        \
        await_earlier_kernels();                                                                           \
        name##_body(p);                                                                                    \
    }                                                                                                      \
    static __device__ __forceinline__ void name##_body(const Arguments& p)
#define KERNEL(threads, name, Arguments) KERNEL_PREPARED(threads, name, Arguments, prepare_nothing)
template <class Arguments>
__device__ __forceinline__ void prepare_nothing(const Arguments&) {}
/// `Type name;` in static shared memory (at most 48 KiB a block in all). Type is one name: a struct, or an array's typedef.
#define SHARED(Type, name) __shared__ Type name
/// `Type& name` over the launch's dynamic shared memory, which must have room for it; the same memory each time, and so the same Type.
#define SHARED_DYNAMIC(Type, name) \
    extern __shared__ __align__(1024) u8 dynamic_shared_memory[]; \
    Type& name = *reinterpret_cast<Type*>(dynamic_shared_memory)

// ---- global memory ----

template <class T>
__device__ T load(const T* from) { return *from; }

template <class T>
__device__ void store(T* to, T value) { *to = value; }

template <int N, class T>
__device__ Pack<T, N> load_pack(const T* from) { return *reinterpret_cast<const Pack<T, N>*>(from); }

template <int N, class T>
__device__ void store_pack(T* to, const Pack<T, N>& values) { *reinterpret_cast<Pack<T, N>*>(to) = values; }

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

// ---- meeting points ----

#define block_sync() __syncthreads()
#define warp_sync() __syncwarp()
/// The value of the lane whose number differs in the bits of `mask`; all 32 lanes must take part. 4- and 8-byte types.
#define shuffle_xor(value, mask) __shfl_xor_sync(0xffffffffu, value, mask)
#define shuffle_down(value, delta) __shfl_down_sync(0xffffffffu, value, delta)
#define shuffle(value, lane) __shfl_sync(0xffffffffu, value, lane)

// ---- asynchronous copies to shared memory, sm_80 ----

__device__ inline u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }

/// Copies 16 bytes from global to shared memory, or writes zeros there if not `valid` (`from` is then not read).
__device__ inline void cp_async_16(void* to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}
/// The same for 4 bytes.
__device__ inline void cp_async_4(void* to, const void* from, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 4 : 0)
                 : "memory");
}
/// Closes the group of this thread's copies since the last commit.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `PENDING` of this thread's groups are under way. Other threads' copies need a barrier as well.
template <int PENDING>
__device__ inline void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }

// ---- matrices, sm_80; fragments as in the PTX manual ----

/// Four 8x8 matrices of 16-bit numbers: lanes 8i..8i+7 give the addresses of the rows of matrix i, 16 bytes each, aligned.
/// Lane l receives in r[i] the numbers (l / 4, 2 * (l % 4)) and its right neighbour of matrix i.
__device__ inline void ldmatrix_x4(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
/// The same, each matrix transposed: lane l receives (2 * (l % 4), l / 4) and its lower neighbour.
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
