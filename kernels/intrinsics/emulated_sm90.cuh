// The second bodies of the words of ptx_sm90.cuh. What threads share (barriers, copies under way, products of a warpgroup) is
// kept by the program that runs the block; a word here notes where it was called, and hands its operands over.

namespace residua {

/// What the program is asked to do with a barrier.
enum MbarrierTask : u32 {
    MBARRIER_INIT,
    MBARRIER_INIT_FENCE,
    MBARRIER_ARRIVE,
    MBARRIER_ARRIVE_EXPECT,
    MBARRIER_WAIT,
    MBARRIER_ARRIVE_REMOTE
};

/// What a warpgroup does together.
enum Together : u32 { TOGETHER_WGMMA_WAIT, TOGETHER_REGISTERS_GIVE, TOGETHER_REGISTERS_TAKE };

/// What a thread at a named barrier, or one that waits for its warpgroup, leaves behind.
struct Meeting {
    u32 kind, value;
};

struct TensorCopy {
    void* to;
    const TensorMap* map;
    Mbarrier* barrier;
    int coordinates[5];
    u32 rank;
    u32 offsets[2];
    u32 im2col;
    /// A bit for each block that it goes to, and this one; or nothing, where it stays in its own.
    u32 ranks;
    static constexpr u32 MULTICAST = 1 << 16;
};

struct Product {
    float* sums;
    u64 a, b;
    u32 columns, add, a_down, b_down;
    void (*multiply)(const u8* shared, u64 a, u64 b, float* sums);
};

inline void at_mbarrier(MbarrierTask task, const char* what, Mbarrier* barrier, u32 value, const char* file, u32 line) {
    check_shared(what, barrier, sizeof(Mbarrier), file, line);
    come_to(what, file, line);
    block().mbarrier(&block(), task, &barrier->state, value);
}

inline void meet_warpgroup(Together kind, const char* what, u32 value, const char* file, u32 line) {
    Meeting meeting{kind, value};
    meet(AT_WARPGROUP, what, nullptr, &meeting, file, line);
}

inline void copy_tensor(TensorCopy copy, const char* what, const char* file, u32 line) {
    if (copy.barrier != nullptr) check_shared(what, copy.barrier, sizeof(Mbarrier), file, line);
    come_to(what, file, line);
    block().tensor_copy(&block(), &copy);
}

// ---- products of a warpgroup ----

/// A tile as a descriptor gives it: 16 of the sum by so many rows or columns.
struct Tile {
    u64 start, leading, stride;

    explicit Tile(u64 descriptor)
        : start((descriptor & 0x3fff) << 4), leading((descriptor >> 16 & 0x3fff) << 4), stride((descriptor >> 32 & 0x3fff) << 4) {}

    /// The address of the number `k` of the sum in row (or column) `i`, whose seven neighbours lie behind it.
    template <bool DOWN>
    u64 at(u32 i, u32 k) const {
        u64 address = DOWN ? start + i / 64 * leading + i % 64 * 2 + k / 8 * stride + k % 8 * 128
                           : start + i / 8 * stride + i % 8 * 128 + k * 2;
        return address ^ (address >> 7 & 7) << 4;
    }

    /// All numbers as f32: `numbers[k][i]`, or `numbers[i][k]` if TURNED.
    template <bool DOWN, bool TURNED, int EXTENT>
    void read(const u8* shared, float* numbers) const {
        for (u32 piece = 0; piece < EXTENT * 2; piece++) {
            u32 i = DOWN ? piece / 16 * 8 : piece / 2, k = DOWN ? piece % 16 : piece % 2 * 8;
            u16 bits[8];
            __builtin_memcpy(bits, shared + at<DOWN>(i, k), 16);
            for (u32 n = 0; n < 8; n++) {
                u32 row = DOWN ? i + n : i, sum = DOWN ? k : k + n;
                numbers[TURNED ? row * 16 + sum : sum * EXTENT + row] = __uint_as_float(u32(bits[n]) << 16);
            }
        }
    }
};

/// sums (64 x N) += a (64 x 16) * b (16 x N).
template <int N, bool A_DOWN, bool B_DOWN>
void multiply(const u8* shared, u64 a_descriptor, u64 b_descriptor, float* sums) {
    constexpr int ROWS = N / 8, AT_ONCE = 8;
    float a_numbers[64][16];
    Row b[16][ROWS];
    Tile(a_descriptor).read<A_DOWN, true, 64>(shared, a_numbers[0]);
    Tile(b_descriptor).read<B_DOWN, false, N>(shared, reinterpret_cast<float*>(b));
    for (u32 i = 0; i < 64; i++) {
        const float* a = a_numbers[i];
        for (u32 first = 0; first < ROWS; first += AT_ONCE) {
            float* row = sums + i * N + first * 8;
            Row sum[AT_ONCE];
            __builtin_memcpy(sum, row, sizeof(sum));
            for (u32 k = 0; k < 16; k++)
                for (u32 j = 0; j < AT_ONCE; j++) sum[j] += a[k] * b[k][first + j];
            __builtin_memcpy(row, sum, sizeof(sum));
        }
    }
}

}  // namespace residua

// ---- the words ----

inline void mbarrier_init(Mbarrier& barrier, u32 arrivals, RESIDUA_PLACE) {
    residua::at_mbarrier(residua::MBARRIER_INIT, "mbarrier_init", &barrier, arrivals, file, line);
}
inline void mbarrier_init_fence(RESIDUA_PLACE) {
    residua::come_to("mbarrier_init_fence", file, line);
    residua::block().mbarrier(&residua::block(), residua::MBARRIER_INIT_FENCE, nullptr, 0);
}
inline void mbarrier_arrive(Mbarrier& barrier, RESIDUA_PLACE) {
    residua::at_mbarrier(residua::MBARRIER_ARRIVE, "mbarrier_arrive", &barrier, 0, file, line);
}
inline void mbarrier_arrive_expect(Mbarrier& barrier, u32 bytes, RESIDUA_PLACE) {
    residua::at_mbarrier(residua::MBARRIER_ARRIVE_EXPECT, "mbarrier_arrive_expect", &barrier, bytes, file, line);
}
inline void mbarrier_wait(Mbarrier& barrier, u32 parity, RESIDUA_PLACE) {
    residua::at_mbarrier(residua::MBARRIER_WAIT, "mbarrier_wait", &barrier, parity, file, line);
}

inline u32 cluster_rank() { return blockIdx.x % residua::block().cluster; }
inline void cluster_sync(RESIDUA_PLACE) {
    residua::meet(residua::AT_CLUSTER, "cluster_sync", nullptr, nullptr, file, line);
}
inline void mbarrier_arrive_remote(Mbarrier& own, u32 rank, RESIDUA_PLACE) {
    residua::at_mbarrier(residua::MBARRIER_ARRIVE_REMOTE, "mbarrier_arrive_remote", &own, rank, file, line);
}

inline void named_barrier_sync(u32 id, u32 threads, RESIDUA_PLACE) {
    residua::Meeting meeting{id, threads};
    residua::meet(residua::AT_NAMED_BARRIER, "named_barrier_sync", nullptr, &meeting, file, line);
}

template <bool RELU>
inline u32 bf16_pair(float first, float second) {
    const auto bits = [](float x) { return u32(from_float<bf16>(RELU && x <= 0.0f ? 0.0f : x).bits); };
    return bits(first) | bits(second) << 16;
}

inline void fence_async_shared() { residua::block().fence_async_shared(&residua::block()); }

template <int REGISTERS>
inline void registers_give(RESIDUA_PLACE) {
    static_assert(REGISTERS % 8 == 0 && 24 <= REGISTERS && REGISTERS <= 256, "registers are given in eights, 24 to 256");
    residua::meet_warpgroup(residua::TOGETHER_REGISTERS_GIVE, "registers_give", REGISTERS, file, line);
}
template <int REGISTERS>
inline void registers_take(RESIDUA_PLACE) {
    static_assert(REGISTERS % 8 == 0 && 24 <= REGISTERS && REGISTERS <= 256, "registers are taken in eights, 24 to 256");
    residua::meet_warpgroup(residua::TOGETHER_REGISTERS_TAKE, "registers_take", REGISTERS, file, line);
}

inline void prefetch_tensor_map(const TensorMap& map, RESIDUA_PLACE) {
    residua::copy_tensor({nullptr, &map, nullptr, {}, 0, {}, 0, 0}, "prefetch_tensor_map", file, line);
}
inline void tensor_copy(void* to, const TensorMap& map, Mbarrier& barrier, int c0, int c1, RESIDUA_PLACE) {
    residua::copy_tensor({to, &map, &barrier, {c0, c1}, 2, {}, 0, 0}, "tensor_copy", file, line);
}
inline void tensor_copy(void* to, const TensorMap& map, Mbarrier& barrier, int c0, int c1, int c2, RESIDUA_PLACE) {
    residua::copy_tensor({to, &map, &barrier, {c0, c1, c2}, 3, {}, 0, 0}, "tensor_copy", file, line);
}
inline void tensor_copy(void* to, const TensorMap& map, Mbarrier& barrier, int c0, int c1, int c2, int c3, RESIDUA_PLACE) {
    residua::copy_tensor({to, &map, &barrier, {c0, c1, c2, c3}, 4, {}, 0, 0}, "tensor_copy", file, line);
}
inline void tensor_copy_im2col(void* to, const TensorMap& map, Mbarrier& barrier, int c, int w, int h, int n, u16 offset_w,
                               u16 offset_h, RESIDUA_PLACE) {
    residua::copy_tensor({to, &map, &barrier, {c, w, h, n}, 4, {offset_w, offset_h}, 1, 0}, "tensor_copy_im2col", file, line);
}
inline void tensor_multicast(void* to, const TensorMap& map, Mbarrier& barrier, u16 ranks, int c0, int c1, RESIDUA_PLACE) {
    residua::copy_tensor({to, &map, &barrier, {c0, c1}, 2, {}, 0, residua::TensorCopy::MULTICAST | ranks}, "tensor_multicast",
                         file, line);
}
inline void tensor_multicast(void* to, const TensorMap& map, Mbarrier& barrier, u16 ranks, int c0, int c1, int c2,
                             RESIDUA_PLACE) {
    residua::copy_tensor({to, &map, &barrier, {c0, c1, c2}, 3, {}, 0, residua::TensorCopy::MULTICAST | ranks},
                         "tensor_multicast", file, line);
}
inline void tensor_multicast_im2col(void* to, const TensorMap& map, Mbarrier& barrier, u16 ranks, int c, int w, int h, int n,
                                    u16 offset_w, u16 offset_h, RESIDUA_PLACE) {
    residua::copy_tensor({to, &map, &barrier, {c, w, h, n}, 4, {offset_w, offset_h}, 1, residua::TensorCopy::MULTICAST | ranks},
                         "tensor_multicast_im2col", file, line);
}

/// As on a card, but that addresses count from the first byte of dynamic shared memory, where all tiles must lie.
inline u64 matrix_descriptor(const void* tile, u32 leading, u32 stride, RESIDUA_PLACE) {
    residua::Block& b = residua::block();
    u64 address = u64(tile) - u64(b.dynamic_shared);
    if (address >= b.dynamic_bytes) residua::fail(residua::SHARED_ADDRESS, "matrix_descriptor", tile, 1, file, line);
    return address >> 4 | u64(leading >> 4) << 16 | u64(stride >> 4) << 32 | u64(1) << 62;
}

inline void wgmma_fence(RESIDUA_PLACE) {
    residua::come_to("wgmma_fence", file, line);
    residua::block().wgmma_fence(&residua::block());
}
inline void wgmma_commit(RESIDUA_PLACE) {
    residua::come_to("wgmma_commit", file, line);
    residua::block().wgmma_commit(&residua::block());
}
template <int PENDING>
inline void wgmma_wait(RESIDUA_PLACE) {
    static_assert(0 <= PENDING && PENDING < 8, "at most seven groups may be under way");
    residua::meet_warpgroup(residua::TOGETHER_WGMMA_WAIT, "wgmma_wait", PENDING, file, line);
}
template <int N, bool A_DOWN, bool B_DOWN>
inline void wgmma(float (&d)[N / 2], u64 a, u64 b, bool add, RESIDUA_PLACE) {
    static_assert(N == 64 || N == 128 || N == 192 || N == 256, "widths that have a body");
    residua::Product product{d, a, b, N, add, A_DOWN, B_DOWN, residua::multiply<N, A_DOWN, B_DOWN>};
    residua::come_to("wgmma", file, line);
    residua::block().wgmma(&residua::block(), &product);
}
