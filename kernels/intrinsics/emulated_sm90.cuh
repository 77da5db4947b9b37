// The second bodies of the intrinsics of ptx_sm90.cuh. The state that threads share (mbarriers, TMA loads in flight, WGMMA
// instructions in flight) is kept by the host program that runs the thread block; an intrinsic notes its call, and hands its
// operands over.

namespace residua {

/// Operations on mbarriers that the host program is asked for.
enum MbarrierOperation : u32 {
    MBARRIER_INIT,
    MBARRIER_INIT_FENCE,
    MBARRIER_ARRIVE,
    MBARRIER_ARRIVE_EXPECT_TX,
    MBARRIER_WAIT,
    MBARRIER_ARRIVE_REMOTE
};

/// Collective operations of a warpgroup.
enum WarpgroupOperation : u32 { WARPGROUP_WGMMA_WAIT, WARPGROUP_SETMAXNREG_DEC, WARPGROUP_SETMAXNREG_INC };

/// Operands of a thread that waits at a named barrier, or for its warpgroup.
struct BarrierOperands {
    u32 kind, value;
};

struct TmaLoad {
    void* to;
    const TensorMap* map;
    Mbarrier* barrier;
    int coordinates[5];
    u32 rank;
    u32 offsets[2];
    u32 im2col;
    /// Multicast: MULTICAST and a bit for the rank of each destination; else 0.
    u32 ranks;
    static constexpr u32 MULTICAST = 1 << 16;
};

struct Wgmma {
    float* accumulators;
    u64 a, b;
    u32 columns, add, a_mn_major, b_mn_major;
    void (*multiply)(const u8* shared, u64 a, u64 b, float* accumulators);
};

inline void call_mbarrier(MbarrierOperation operation, const char* what, Mbarrier* barrier, u32 value, const char* file, u32 line) {
    check_shared(what, barrier, sizeof(Mbarrier), file, line);
    note_call(what, file, line);
    block().mbarrier(&block(), operation, &barrier->state, value);
}

inline void wait_for_warpgroup(WarpgroupOperation kind, const char* what, u32 value, const char* file, u32 line) {
    BarrierOperands operands{kind, value};
    wait_for_others(AT_WARPGROUP, what, nullptr, &operands, file, line);
}

inline void issue_tma(TmaLoad load, const char* what, const char* file, u32 line) {
    if (load.barrier != nullptr) check_shared(what, load.barrier, sizeof(Mbarrier), file, line);
    note_call(what, file, line);
    block().tma_load(&block(), &load);
}

// ---- WGMMA ----

/// A tile as a descriptor gives it: 16 elements of GEMM K by the rows (or columns) of the operand.
struct Tile {
    u64 start, leading, stride;

    explicit Tile(u64 descriptor)
        : start((descriptor & 0x3fff) << 4), leading((descriptor >> 16 & 0x3fff) << 4), stride((descriptor >> 32 & 0x3fff) << 4) {}

    /// The address of element `k` of GEMM K in row (or column) `i`; its next seven neighbours lie behind it.
    template <bool MN_MAJOR>
    u64 at(u32 i, u32 k) const {
        u64 address = MN_MAJOR ? start + i / 64 * leading + i % 64 * 2 + k / 8 * stride + k % 8 * 128
                               : start + i / 8 * stride + i % 8 * 128 + k * 2;
        return address ^ (address >> 7 & 7) << 4;
    }

    /// All elements as f32: `numbers[k][i]`, or `numbers[i][k]` if TRANSPOSED.
    template <bool MN_MAJOR, bool TRANSPOSED, int EXTENT>
    void read(const u8* shared, float* numbers) const {
        for (u32 chunk = 0; chunk < EXTENT * 2; chunk++) {
            u32 i = MN_MAJOR ? chunk / 16 * 8 : chunk / 2, k = MN_MAJOR ? chunk % 16 : chunk % 2 * 8;
            u16 bits[8];
            __builtin_memcpy(bits, shared + at<MN_MAJOR>(i, k), 16);
            for (u32 n = 0; n < 8; n++) {
                u32 row = MN_MAJOR ? i + n : i, sum = MN_MAJOR ? k : k + n;
                numbers[TRANSPOSED ? row * 16 + sum : sum * EXTENT + row] = __uint_as_float(u32(bits[n]) << 16);
            }
        }
    }
};

/// accumulators (64 x N) += a (64 x 16) * b (16 x N).
template <int N, bool A_MN_MAJOR, bool B_MN_MAJOR>
void multiply(const u8* shared, u64 a_descriptor, u64 b_descriptor, float* accumulators) {
    constexpr int ROWS = N / 8, AT_ONCE = 8;
    float a_numbers[64][16];
    Row b[16][ROWS];
    Tile(a_descriptor).read<A_MN_MAJOR, true, 64>(shared, a_numbers[0]);
    Tile(b_descriptor).read<B_MN_MAJOR, false, N>(shared, reinterpret_cast<float*>(b));
    for (u32 i = 0; i < 64; i++) {
        const float* a = a_numbers[i];
        for (u32 first = 0; first < ROWS; first += AT_ONCE) {
            float* row = accumulators + i * N + first * 8;
            Row sum[AT_ONCE];
            __builtin_memcpy(sum, row, sizeof(sum));
            for (u32 k = 0; k < 16; k++)
                for (u32 j = 0; j < AT_ONCE; j++) sum[j] += a[k] * b[k][first + j];
            __builtin_memcpy(row, sum, sizeof(sum));
        }
    }
}

}  // namespace residua

// ---- the intrinsics ----

inline void mbarrier_init(Mbarrier& barrier, u32 arrivals, RESIDUA_CALL_SITE) {
    residua::call_mbarrier(residua::MBARRIER_INIT, "mbarrier_init", &barrier, arrivals, file, line);
}
inline void mbarrier_init_fence(RESIDUA_CALL_SITE) {
    residua::note_call("mbarrier_init_fence", file, line);
    residua::block().mbarrier(&residua::block(), residua::MBARRIER_INIT_FENCE, nullptr, 0);
}
inline void mbarrier_arrive(Mbarrier& barrier, RESIDUA_CALL_SITE) {
    residua::call_mbarrier(residua::MBARRIER_ARRIVE, "mbarrier_arrive", &barrier, 0, file, line);
}
inline void mbarrier_arrive_expect_tx(Mbarrier& barrier, u32 bytes, RESIDUA_CALL_SITE) {
    residua::call_mbarrier(residua::MBARRIER_ARRIVE_EXPECT_TX, "mbarrier_arrive_expect_tx", &barrier, bytes, file, line);
}
inline void mbarrier_wait(Mbarrier& barrier, u32 parity, RESIDUA_CALL_SITE) {
    residua::call_mbarrier(residua::MBARRIER_WAIT, "mbarrier_wait", &barrier, parity, file, line);
}

inline u32 cluster_rank() { return blockIdx.x % residua::block().cluster; }
inline void cluster_sync(RESIDUA_CALL_SITE) {
    residua::wait_for_others(residua::AT_CLUSTER, "cluster_sync", nullptr, nullptr, file, line);
}
inline void mbarrier_arrive_remote(Mbarrier& own, u32 rank, RESIDUA_CALL_SITE) {
    residua::call_mbarrier(residua::MBARRIER_ARRIVE_REMOTE, "mbarrier_arrive_remote", &own, rank, file, line);
}

inline void named_barrier_sync(u32 id, u32 threads, RESIDUA_CALL_SITE) {
    residua::BarrierOperands operands{id, threads};
    residua::wait_for_others(residua::AT_NAMED_BARRIER, "named_barrier_sync", nullptr, &operands, file, line);
}

template <bool RELU>
inline u32 bf16_pair(float first, float second) {
    const auto bits = [](float x) { return u32(from_float<bf16>(RELU && x <= 0.0f ? 0.0f : x).bits); };
    return bits(first) | bits(second) << 16;
}

inline void fence_proxy_async() { residua::block().fence_proxy_async(&residua::block()); }

template <int REGISTERS>
inline void setmaxnreg_dec(RESIDUA_CALL_SITE) {
    static_assert(REGISTERS % 8 == 0 && 24 <= REGISTERS && REGISTERS <= 256, "setmaxnreg takes multiples of 8, 24 to 256");
    residua::wait_for_warpgroup(residua::WARPGROUP_SETMAXNREG_DEC, "setmaxnreg_dec", REGISTERS, file, line);
}
template <int REGISTERS>
inline void setmaxnreg_inc(RESIDUA_CALL_SITE) {
    static_assert(REGISTERS % 8 == 0 && 24 <= REGISTERS && REGISTERS <= 256, "setmaxnreg takes multiples of 8, 24 to 256");
    residua::wait_for_warpgroup(residua::WARPGROUP_SETMAXNREG_INC, "setmaxnreg_inc", REGISTERS, file, line);
}

inline void prefetch_tensor_map(const TensorMap& map, RESIDUA_CALL_SITE) {
    residua::issue_tma({nullptr, &map, nullptr, {}, 0, {}, 0, 0}, "prefetch_tensor_map", file, line);
}
inline void tma_load(void* to, const TensorMap& map, Mbarrier& barrier, int c0, int c1, RESIDUA_CALL_SITE) {
    residua::issue_tma({to, &map, &barrier, {c0, c1}, 2, {}, 0, 0}, "tma_load", file, line);
}
inline void tma_load(void* to, const TensorMap& map, Mbarrier& barrier, int c0, int c1, int c2, RESIDUA_CALL_SITE) {
    residua::issue_tma({to, &map, &barrier, {c0, c1, c2}, 3, {}, 0, 0}, "tma_load", file, line);
}
inline void tma_load(void* to, const TensorMap& map, Mbarrier& barrier, int c0, int c1, int c2, int c3, RESIDUA_CALL_SITE) {
    residua::issue_tma({to, &map, &barrier, {c0, c1, c2, c3}, 4, {}, 0, 0}, "tma_load", file, line);
}
inline void tma_load_im2col(void* to, const TensorMap& map, Mbarrier& barrier, int c, int w, int h, int n, u16 offset_w,
                               u16 offset_h, RESIDUA_CALL_SITE) {
    residua::issue_tma({to, &map, &barrier, {c, w, h, n}, 4, {offset_w, offset_h}, 1, 0}, "tma_load_im2col", file, line);
}
inline void tma_load_multicast(void* to, const TensorMap& map, Mbarrier& barrier, u16 ranks, int c0, int c1, RESIDUA_CALL_SITE) {
    residua::issue_tma({to, &map, &barrier, {c0, c1}, 2, {}, 0, residua::TmaLoad::MULTICAST | ranks}, "tma_load_multicast",
                         file, line);
}
inline void tma_load_multicast(void* to, const TensorMap& map, Mbarrier& barrier, u16 ranks, int c0, int c1, int c2,
                             RESIDUA_CALL_SITE) {
    residua::issue_tma({to, &map, &barrier, {c0, c1, c2}, 3, {}, 0, residua::TmaLoad::MULTICAST | ranks},
                         "tma_load_multicast", file, line);
}
inline void tma_load_multicast_im2col(void* to, const TensorMap& map, Mbarrier& barrier, u16 ranks, int c, int w, int h, int n,
                                    u16 offset_w, u16 offset_h, RESIDUA_CALL_SITE) {
    residua::issue_tma({to, &map, &barrier, {c, w, h, n}, 4, {offset_w, offset_h}, 1, residua::TmaLoad::MULTICAST | ranks},
                         "tma_load_multicast_im2col", file, line);
}

/// As on a GPU, but addresses count from the first byte of dynamic shared memory, where all tiles must lie.
inline u64 matrix_descriptor(const void* tile, u32 leading, u32 stride, RESIDUA_CALL_SITE) {
    residua::Block& b = residua::block();
    u64 address = u64(tile) - u64(b.dynamic_shared);
    if (address >= b.dynamic_bytes) residua::fail(residua::SHARED_ADDRESS, "matrix_descriptor", tile, 1, file, line);
    return address >> 4 | u64(leading >> 4) << 16 | u64(stride >> 4) << 32 | u64(1) << 62;
}

inline void wgmma_fence(RESIDUA_CALL_SITE) {
    residua::note_call("wgmma_fence", file, line);
    residua::block().wgmma_fence(&residua::block());
}
inline void wgmma_commit(RESIDUA_CALL_SITE) {
    residua::note_call("wgmma_commit", file, line);
    residua::block().wgmma_commit(&residua::block());
}
template <int PENDING>
inline void wgmma_wait(RESIDUA_CALL_SITE) {
    static_assert(0 <= PENDING && PENDING < 8, "at most seven groups may be in flight");
    residua::wait_for_warpgroup(residua::WARPGROUP_WGMMA_WAIT, "wgmma_wait", PENDING, file, line);
}
template <int N, bool A_MN_MAJOR, bool B_MN_MAJOR>
inline void wgmma(float (&d)[N / 2], u64 a, u64 b, bool add, RESIDUA_CALL_SITE) {
    static_assert(N == 64 || N == 128 || N == 192 || N == 256, "N has a body here");
    residua::Wgmma operands{d, a, b, N, add, A_MN_MAJOR, B_MN_MAJOR, residua::multiply<N, A_MN_MAJOR, B_MN_MAJOR>};
    residua::note_call("wgmma", file, line);
    residua::block().wgmma(&residua::block(), &operands);
}
