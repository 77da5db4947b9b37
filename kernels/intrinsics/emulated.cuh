// The second bodies of the intrinsics of ptx.cuh, for kernels that run on the host, thread by thread.
//
// Every thread of a thread block is a fiber. A fiber runs until it must wait for others (`wait_for_others`); the host program
// that started it (src/backend/cuda/driver/emulator) then runs the next one, completes the exchange once all lanes have come, and
// detects errors that a GPU would answer with wrong numbers or a hang. Every intrinsic takes the line it was called from, so that
// an error can name it. No host header is included, so no name of a kernel can collide with one of theirs.

// ---- CUDA's built-ins ----

#define __global__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__

extern "C" {
float expf(float) noexcept;
float exp2f(float) noexcept;
float logf(float) noexcept;
float log2f(float) noexcept;
float log1pf(float) noexcept;
float sqrtf(float) noexcept;
float powf(float, float) noexcept;
float sinf(float) noexcept;
float cosf(float) noexcept;
float tanhf(float) noexcept;
float fabsf(float) noexcept;
float floorf(float) noexcept;
float ceilf(float) noexcept;
float rintf(float) noexcept;
float fmaf(float, float, float) noexcept;
float fminf(float, float) noexcept;
float fmaxf(float, float) noexcept;
double exp(double) noexcept;
double log(double) noexcept;
double log1p(double) noexcept;
double expm1(double) noexcept;
double fabs(double) noexcept;
double sqrt(double) noexcept;
}

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
/// Multiplication and addition that no compiler may fuse.
inline float __fmul_rn(float x, float y) {
    float z = x * y;
    asm("" : "+m"(z));
    return z;
}
inline float __fadd_rn(float x, float y) {
    float z = x + y;
    asm("" : "+m"(z));
    return z;
}
inline bool isnan(float x) { return __builtin_isnan(x); }
inline bool isinf(float x) { return __builtin_isinf(x); }
inline bool isfinite(float x) { return __builtin_isfinite(x); }

inline float __uint_as_float(u32 bits) {
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}
inline u32 __float_as_uint(float x) {
    u32 bits;
    __builtin_memcpy(&bits, &x, 4);
    return bits;
}
inline i64 __double_as_longlong(double x) {
    i64 bits;
    __builtin_memcpy(&bits, &x, 8);
    return bits;
}
inline double __longlong_as_double(i64 bits) {
    double x;
    __builtin_memcpy(&x, &bits, 8);
    return x;
}
inline float __int_as_float(int bits) { return __uint_as_float(u32(bits)); }
inline int __float_as_int(float x) { return int(__float_as_uint(x)); }
inline int __popc(u32 x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(u32(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline u32 __umulhi(u32 a, u32 b) { return u32((u64(a) * b) >> 32); }
inline u64 __umul64hi(u64 a, u64 b) { return u64(((unsigned __int128)a * b) >> 64); }

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline u32 min(u32 a, u32 b) { return a < b ? a : b; }
inline u32 max(u32 a, u32 b) { return a > b ? a : b; }
inline i64 min(i64 a, i64 b) { return a < b ? a : b; }
inline i64 max(i64 a, i64 b) { return a > b ? a : b; }
inline u64 min(u64 a, u64 b) { return a < b ? a : b; }
inline u64 max(u64 a, u64 b) { return a > b ? a : b; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

// ---- the interface between the host program and the kernel ----

namespace residua {

/// Raised whenever a struct below changes.
constexpr u32 VERSION = 4;

struct Index {
    u32 x, y, z;
};

enum State : u32 { RUNNING, AT_COLLECTIVE, AT_BARRIER, DONE, AT_NAMED_BARRIER, AT_MBARRIER, AT_WARPGROUP, AT_CLUSTER };

/// One thread of a thread block.
struct Lane {
    Index thread;
    State state;
    /// Where and in which intrinsic it waits.
    const char* file;
    const char* what;
    u32 line;
    u32 unused;
    /// Completes the exchange for all 32 lanes of a warp, each of which has left its operands.
    void (*complete)(Lane* warp);
    void* operands;
    void* yielder;
};

/// A part of global memory that the launch may access.
struct Operand {
    u64 first;
    u64 bytes;
};

enum Wrong : u32 { NOTHING, GLOBAL_READ, GLOBAL_WRITE, SHARED_ADDRESS, DYNAMIC_SHARED, SPINNING };

/// The error of a thread.
struct Failure {
    Wrong wrong;
    u32 line;
    const char* file;
    const char* what;
    u64 address;
    u64 bytes;
};

struct TmaLoad;
struct Wgmma;

/// One thread block, and the host program's side of the intrinsics.
struct Block {
    Lane* lane;
    Index block, threads, blocks;
    u32 writable, operands;
    /// Thread blocks of a cluster.
    u32 cluster;
    const Operand* operand;
    u8* dynamic_shared;
    u64 dynamic_bytes;
    u8* static_shared;
    u64 static_bytes;
    u64 steps_left;
    Failure failure;
    void (*suspend)(Block*);
    u8* (*declare_shared)(Block*, const void* key, const char* name, u64 bytes, const char* file, u32 line);
    void (*cp_async)(Block*, void* to, const void* from, u32 bytes, u32 valid);
    void (*cp_async_commit)(Block*);
    void (*cp_async_wait)(Block*, u32 pending);
    // Of emulated_sm90.cuh.
    void (*mbarrier)(Block*, u32 operation, u64* barrier, u32 value);
    void (*tma_load)(Block*, const TmaLoad*);
    void (*wgmma)(Block*, const Wgmma*);
    void (*wgmma_fence)(Block*);
    void (*wgmma_commit)(Block*);
    void (*fence_proxy_async)(Block*);
};

/// A kernel, as the host program finds it.
struct Entry {
    void (*run)(const void* arguments);
    u32 most_threads;
    u32 argument_bytes;
};

namespace {
/// The thread block that this host thread is running.
thread_local Block* running;
}  // namespace

inline Block& block() { return *running; }
inline Lane& lane() { return *running->lane; }

extern "C" {
__attribute__((visibility("default"))) u32 residua_version = VERSION;
__attribute__((visibility("default"))) void residua_enter(Block* block) { running = block; }
}

/// Stops this thread for good; the host program reports why.
[[noreturn]] __attribute__((noinline, cold)) inline void fail(Wrong wrong, const char* what, const void* address, u64 bytes,
                                                              const char* file, u32 line) {
    Block& b = block();
    b.failure = Failure{wrong, line, file, what, u64(address), bytes};
    for (;;) b.suspend(&b);
}

/// Notes which intrinsic this thread has called.
inline Lane& note_call(const char* what, const char* file, u32 line) {
    Lane& l = lane();
    l.file = file;
    l.what = what;
    l.line = line;
    return l;
}

/// Waits for other threads.
inline void wait_for_others(State state, const char* what, void (*complete)(Lane*), void* operands, const char* file, u32 line) {
    Block& b = block();
    Lane& l = note_call(what, file, line);
    l.complete = complete;
    l.operands = operands;
    l.state = state;
    b.suspend(&b);
}

/// Whether an access lies inside one of the first `operands`, aligned to its size.
inline bool allowed(const Block& b, u32 operands, const void* at, u64 bytes) {
    u64 address = u64(at);
    if (address & (bytes - 1)) return false;
    for (u32 i = 0; i < operands; i++) {
        u64 offset = address - b.operand[i].first;
        if (offset < b.operand[i].bytes && b.operand[i].bytes - offset >= bytes) return true;
    }
    return false;
}

inline void check_read(const char* what, const void* from, u64 bytes, const char* file, u32 line) {
    Block& b = block();
    if (__builtin_expect(--b.steps_left == 0, 0)) fail(SPINNING, what, from, bytes, file, line);
    if (__builtin_expect(!allowed(b, b.operands, from, bytes), 0)) fail(GLOBAL_READ, what, from, bytes, file, line);
}

inline void check_write(const char* what, const void* to, u64 bytes, const char* file, u32 line) {
    Block& b = block();
    if (__builtin_expect(--b.steps_left == 0, 0)) fail(SPINNING, what, to, bytes, file, line);
    if (__builtin_expect(!allowed(b, b.writable, to, bytes), 0)) fail(GLOBAL_WRITE, what, to, bytes, file, line);
}

inline void check_shared(const char* what, const void* at, u64 bytes, const char* file, u32 line) {
    Block& b = block();
    u64 in_dynamic = u64(at) - u64(b.dynamic_shared), in_static = u64(at) - u64(b.static_shared);
    bool inside = (in_dynamic < b.dynamic_bytes && b.dynamic_bytes - in_dynamic >= bytes) ||
                  (in_static < b.static_bytes && b.static_bytes - in_static >= bytes);
    if (__builtin_expect(!inside || (u64(at) & (bytes - 1)), 0)) fail(SHARED_ADDRESS, what, at, bytes, file, line);
}

inline void* dynamic_shared(const char* name, u64 bytes, const char* file, u32 line) {
    Block& b = block();
    if (bytes > b.dynamic_bytes) fail(DYNAMIC_SHARED, name, nullptr, bytes, file, line);
    return b.dynamic_shared;
}

// ---- warp collectives ----

struct Shuffle {
    u64 value;
    u64 received;
    u32 from;
};

inline void complete_shuffle(Lane* warp) {
    for (int i = 0; i < 32; i++) {
        Shuffle& mine = *static_cast<Shuffle*>(warp[i].operands);
        mine.received = static_cast<Shuffle*>(warp[mine.from].operands)->value;
    }
}

template <class T>
inline T exchange(const char* what, T value, u32 from, const char* file, u32 line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    Shuffle shuffle{0, 0, from};
    __builtin_memcpy(&shuffle.value, &value, sizeof(T));
    wait_for_others(AT_COLLECTIVE, what, complete_shuffle, &shuffle, file, line);
    __builtin_memcpy(&value, &shuffle.received, sizeof(T));
    return value;
}

struct Ldmatrix {
    u32* r;
    const u16* row;
};

inline void complete_ldmatrix(Lane* warp) {
    for (int l = 0; l < 32; l++) {
        for (int i = 0; i < 4; i++) {
            const u16* row = static_cast<Ldmatrix*>(warp[8 * i + l / 4].operands)->row + 2 * (l % 4);
            static_cast<Ldmatrix*>(warp[l].operands)->r[i] = row[0] | u32(row[1]) << 16;
        }
    }
}

inline void complete_ldmatrix_transposed(Lane* warp) {
    for (int l = 0; l < 32; l++) {
        for (int i = 0; i < 4; i++) {
            int row = 8 * i + 2 * (l % 4);
            u16 upper = static_cast<Ldmatrix*>(warp[row].operands)->row[l / 4];
            u16 lower = static_cast<Ldmatrix*>(warp[row + 1].operands)->row[l / 4];
            static_cast<Ldmatrix*>(warp[l].operands)->r[i] = upper | u32(lower) << 16;
        }
    }
}

struct Mma {
    float* d;
    const u32* a;
    u32 b[2];
};

/// Eight elements of a row: one register of the host.
typedef float Row __attribute__((vector_size(32)));

inline void complete_mma(Lane* warp) {
    float a[16][16];
    Row b[16], d[16];
    auto split = [](u32 pair, float& first, float& second) {
        first = __uint_as_float(pair << 16);
        second = __uint_as_float(pair & 0xffff0000u);
    };
    for (int l = 0; l < 32; l++) {
        const Mma& m = *static_cast<Mma*>(warp[l].operands);
        int g = l / 4, t = 2 * (l % 4);
        split(m.a[0], a[g][t], a[g][t + 1]);
        split(m.a[1], a[g + 8][t], a[g + 8][t + 1]);
        split(m.a[2], a[g][t + 8], a[g][t + 9]);
        split(m.a[3], a[g + 8][t + 8], a[g + 8][t + 9]);
        for (int half = 0; half < 2; half++) {
            float first, second;
            split(m.b[half], first, second);
            b[t + 8 * half][g] = first;
            b[t + 8 * half + 1][g] = second;
        }
        d[g][t] = m.d[0];
        d[g][t + 1] = m.d[1];
        d[g + 8][t] = m.d[2];
        d[g + 8][t + 1] = m.d[3];
    }
    for (int i = 0; i < 16; i++) {
        Row sum = d[i];
        for (int k = 0; k < 16; k++) sum += a[i][k] * b[k];
        d[i] = sum;
    }
    for (int l = 0; l < 32; l++) {
        const Mma& m = *static_cast<Mma*>(warp[l].operands);
        int g = l / 4, t = 2 * (l % 4);
        m.d[0] = d[g][t];
        m.d[1] = d[g][t + 1];
        m.d[2] = d[g + 8][t];
        m.d[3] = d[g + 8][t + 1];
    }
}

}  // namespace residua

#define threadIdx (residua::lane().thread)
#define blockIdx (residua::block().block)
#define blockDim (residua::block().threads)
#define gridDim (residua::block().blocks)

/// The line an intrinsic was called from, as its last two parameters.
#define RESIDUA_CALL_SITE const char *file = __builtin_FILE(), u32 line = __builtin_LINE()

// ---- the intrinsics ----

#define INFINITY_F32 __builtin_inff()
#define KERNEL(threads, name, Arguments) KERNEL_WITH_PREAMBLE(threads, name, Arguments, [](const Arguments&) {})
#define KERNEL_WITH_PREAMBLE(threads, name, Arguments, preamble)                                                   \
    static_assert((threads) % 32 == 0 && (threads) <= 1024, "a block is whole warps, at most 1024 threads");       \
    static void name(const Arguments& p);                                                                          \
    extern "C" {                                                                                                   \
    __attribute__((visibility("default"))) residua::Entry residua_kernel_##name = {                                \
        [](const void* arguments) {                                                                                \
            const Arguments& p = *static_cast<const Arguments*>(arguments);                                        \
            preamble(p);                                                                                           \
            name(p);                                                                                               \
        },                                                                                                         \
        threads, sizeof(Arguments)};                                                                               \
    }                                                                                                              \
    static void name(const Arguments& p)
#define SHARED(Type, name)                                                                                         \
    static const char residua_key_##name = 0;                                                                      \
    Type& name = *reinterpret_cast<Type*>(residua::block().declare_shared(&residua::block(), &residua_key_##name,  \
                                                                          #name, sizeof(Type), __FILE__, __LINE__))
#define SHARED_DYNAMIC(Type, name) \
    Type& name = *static_cast<Type*>(residua::dynamic_shared(#name, sizeof(Type), __FILE__, __LINE__))

template <class T>
inline T load(const T* from, RESIDUA_CALL_SITE) {
    residua::check_read("load", from, sizeof(T), file, line);
    return *from;
}

template <class T>
inline void store(T* to, T value, RESIDUA_CALL_SITE) {
    residua::check_write("store", to, sizeof(T), file, line);
    *to = value;
}

template <int N, class T>
inline Vector<T, N> load_vector(const T* from, RESIDUA_CALL_SITE) {
    residua::check_read("load_vector", from, sizeof(Vector<T, N>), file, line);
    return *reinterpret_cast<const Vector<T, N>*>(from);
}

template <int N, class T>
inline void store_vector(T* to, const Vector<T, N>& values, RESIDUA_CALL_SITE) {
    residua::check_write("store_vector", to, sizeof(Vector<T, N>), file, line);
    *reinterpret_cast<Vector<T, N>*>(to) = values;
}

/// Nothing to do; but what is asked for must be there.
inline void prefetch_l2(const void* at, RESIDUA_CALL_SITE) { residua::check_read("prefetch_l2", at, 1, file, line); }

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }

template <class T>
inline T from_float(float x);
template <>
inline float from_float<float>(float x) { return x; }
template <>
inline bf16 from_float<bf16>(float x) {
    u32 bits = __float_as_uint(x);
    // Rounding adds half a unit in the last place that stays, less one where that place is even: ties go to even.
    u32 rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return bf16{u16((bits & 0x7fffffff) > 0x7f800000 ? 0x7fff : rounded)};
}

inline void block_sync(RESIDUA_CALL_SITE) {
    residua::wait_for_others(residua::AT_BARRIER, "block_sync", nullptr, nullptr, file, line);
}
inline void warp_sync(RESIDUA_CALL_SITE) {
    residua::wait_for_others(residua::AT_COLLECTIVE, "warp_sync", nullptr, nullptr, file, line);
}

template <class T>
inline T shuffle_xor(T value, u32 mask, RESIDUA_CALL_SITE) {
    return residua::exchange("shuffle_xor", value, (threadIdx.x ^ mask) & 31, file, line);
}
template <class T>
inline T shuffle_down(T value, u32 delta, RESIDUA_CALL_SITE) {
    u32 own = threadIdx.x & 31;
    return residua::exchange("shuffle_down", value, own + (delta & 31) < 32 ? own + (delta & 31) : own, file, line);
}
template <class T>
inline T shuffle(T value, u32 lane, RESIDUA_CALL_SITE) {
    return residua::exchange("shuffle", value, lane & 31, file, line);
}

inline void cp_async_16(void* to, const void* from, bool valid, RESIDUA_CALL_SITE) {
    residua::check_shared("cp_async_16", to, 16, file, line);
    if (valid) residua::check_read("cp_async_16", from, 16, file, line);
    residua::block().cp_async(&residua::block(), to, from, 16, valid);
}
inline void cp_async_4(void* to, const void* from, bool valid, RESIDUA_CALL_SITE) {
    residua::check_shared("cp_async_4", to, 4, file, line);
    if (valid) residua::check_read("cp_async_4", from, 4, file, line);
    residua::block().cp_async(&residua::block(), to, from, 4, valid);
}
inline void cp_async_commit() { residua::block().cp_async_commit(&residua::block()); }
template <int PENDING>
inline void cp_async_wait() { residua::block().cp_async_wait(&residua::block(), PENDING); }

inline void ldmatrix_x4(u32 (&r)[4], const void* row, RESIDUA_CALL_SITE) {
    residua::check_shared("ldmatrix_x4", row, 16, file, line);
    residua::Ldmatrix operands{r, static_cast<const u16*>(row)};
    residua::wait_for_others(residua::AT_COLLECTIVE, "ldmatrix_x4", residua::complete_ldmatrix, &operands, file, line);
}
inline void ldmatrix_x4_transposed(u32 (&r)[4], const void* row, RESIDUA_CALL_SITE) {
    residua::check_shared("ldmatrix_x4_transposed", row, 16, file, line);
    residua::Ldmatrix operands{r, static_cast<const u16*>(row)};
    residua::wait_for_others(residua::AT_COLLECTIVE, "ldmatrix_x4_transposed", residua::complete_ldmatrix_transposed, &operands,
                  file, line);
}
inline void mma_16x8x16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, RESIDUA_CALL_SITE) {
    residua::Mma operands{d, a, {b0, b1}};
    residua::wait_for_others(residua::AT_COLLECTIVE, "mma_16x8x16", residua::complete_mma, &operands, file, line);
}
