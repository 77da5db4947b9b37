// fprop, dgrad and wgrad as implicit GEMMs (see problem.cuh) on tiles of TILE_M x TILE_N, for compute capability 8.0 and later:
// tiles of both operands stream through a multistage pipeline in shared memory by cp.async, 64 bytes of GEMM K at a time; the
// epilogue passes the result through shared memory, so that whole rows are stored, 16 bytes a thread.
//
// A thread block computes output tile blockIdx.x, counted along the rows: thread blocks that run together share the rows' pixels,
// and all share operand B through L2. blockIdx.z is the phase of a dgrad, or the split-K slice of a wgrad.
//
// Constants: BF16, PASS, TILE_M, TILE_N, WARPS_M, WARPS_N; VECTOR_A, VECTOR_B: whether rows of the operand (pixels x
// reduction; reduction x columns) are a multiple of 16 bytes. Where they are not, elements are gathered one by one,
// neighbouring threads reading neighbouring elements of a patch: that also keeps GEMM K of a network's first layer, with its
// few channels, dense.
#include "intrinsics/ptx.cuh"
#include "convolution/sm80/problem.cuh"
#include "convolution/sm80/swizzled_tile.cuh"
#if BF16
#include "convolution/sm80/mma_bf16.cuh"
#else
#include "convolution/sm80/simt_f32.cuh"
#endif

constexpr int THREADS = 32 * WARPS_M * WARPS_N;
/// Pipeline stages.
LAUNCHER_CONSTANT int STAGES = 4;

// Whether an operand's tile is K-major in shared memory (GEMM K runs along its rows) or MN-major.
constexpr bool A_K_MAJOR = PASS != WGRAD;
constexpr bool B_K_MAJOR = PASS == FPROP;
typedef BlockMma<A_K_MAJOR, B_K_MAJOR> Mma;
constexpr int BLOCK_K = Mma::BLOCK_K;

template <bool YES, class T, class F>
struct Either { typedef T Type; };
template <class T, class F>
struct Either<false, T, F> { typedef F Type; };
typedef Either<A_K_MAJOR, SwizzledTile<TILE_M, BLOCK_K>, SwizzledTile<BLOCK_K, TILE_M>>::Type TileA;
typedef Either<B_K_MAJOR, SwizzledTile<TILE_N, BLOCK_K>, SwizzledTile<BLOCK_K, TILE_N>>::Type TileB;
typedef Either<PASS == WGRAD, float, Real>::Type Out;

struct Stage {
    TileA a;
    TileB b;
};

/// The position of a row of operand B where it is MN-major: computed once, by one thread, ahead of the copies that many threads
/// make with it.
typedef Either<PASS == WGRAD, Pixel, u32>::Type Row;

struct SharedStorage {
    union {
        Stage stages[STAGES];
        EpilogueTile<TILE_M, TILE_N> epilogue_tile;
    };
    Pixel pixels[A_K_MAJOR && !VECTOR_A ? TILE_M : 1];
    Row rows[B_K_MAJOR ? 1 : STAGES][BLOCK_K];
};

/// The elements of a tile that a thread copies: one column of chunks, and of that each ROW_STRIDE-th row.
template <class T, bool VECTORIZED>
struct ThreadMap {
    static constexpr int CHUNK = VECTORIZED ? MAX_VECTOR_SIZE<Real> : 1;
    static constexpr int CHUNKS = T::COLUMNS / CHUNK;
    static constexpr int ROW_STRIDE = THREADS / CHUNKS;
    static constexpr int COUNT = T::ROWS / ROW_STRIDE;
    static_assert(THREADS % CHUNKS == 0 && T::ROWS % ROW_STRIDE == 0, "the threads share a tile evenly");

    static __device__ int row(int i) { return threadIdx.x / CHUNKS + i * ROW_STRIDE; }
    static __device__ int column() { return threadIdx.x % CHUNKS * CHUNK; }

    /// Copies this thread's elements; `source` locates the i-th.
    template <class Locate>
    static __device__ void fill(T& tile, Locate source) {
        if constexpr (VECTORIZED || sizeof(Real) == 4) {
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                const Source s = source(i);
                if constexpr (VECTORIZED) cp_async_16(tile.at(row(i), column()), s.from, s.exists);
                else cp_async_4(tile.at(row(i), column()), s.from, s.exists);
            }
        } else {
            // No cp.async copies two bytes: all loads are in flight before the first result is used.
            Real values[COUNT];
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                const Source s = source(i);
                values[i] = s.exists ? load(s.from) : from_float<Real>(0.0f);
            }
#pragma unroll
            for (int i = 0; i < COUNT; i++) *tile.at(row(i), column()) = values[i];
        }
    }
};
typedef ThreadMap<TileA, VECTOR_A> MapA;
typedef ThreadMap<TileB, VECTOR_B> MapB;

/// Operand A of fprop and dgrad: patches, a row per pixel.
struct PatchRows {
    Pixel own[VECTOR_A ? MapA::COUNT : 1];

    __device__ PatchRows(const Arguments& p, const Phase& phase, u32 first_row, SharedStorage& shared) {
        if constexpr (VECTOR_A) {
#pragma unroll
            for (int i = 0; i < MapA::COUNT; i++) own[i] = pixel_at(p, phase, first_row + MapA::row(i));
        } else {
            for (int i = threadIdx.x; i < TILE_M; i += THREADS) shared.pixels[i] = pixel_at(p, phase, first_row + i);
            block_sync();
        }
    }

    __device__ void fill(TileA& tile, const Arguments& p, const Phase& phase, const SharedStorage& shared, u32 k_block) const {
        const Tap tap = tap_at(p, phase, k_block * BLOCK_K + MapA::column());
        MapA::fill(tile, [&](int i) -> Source {
            return patch_at(p, VECTOR_A ? own[i] : shared.pixels[MapA::row(i)], tap);
        });
    }
};

/// Operand A of wgrad: dy, a row of channels per pixel.
struct OutputGradient {
    u32 column;
    const Real* from;

    __device__ OutputGradient(const Arguments& p, const Phase&, u32 first_row, SharedStorage&)
        : column(first_row + MapA::column()), from(p.matrix + column) {}

    __device__ void fill(TileA& tile, const Arguments& p, const Phase& phase, const SharedStorage&, u32 k_block) const {
        MapA::fill(tile, [&](int i) -> Source {
            const u32 pixel = k_block * BLOCK_K + MapA::row(i);
            return {from + i64(pixel) * p.gemm_m, pixel < phase.pixels && column < p.gemm_m};
        });
    }
};

/// Operand B of fprop: weights, a row per output channel, GEMM K along it.
struct WeightRows {
    u32 row;
    const Real* from;

    __device__ WeightRows(const Arguments& p, const Phase& phase, u32 first_column)
        : row(first_column + MapB::row(0)), from(p.matrix + i64(row) * phase.patch + MapB::column()) {}

    __device__ static Row row_at(const Arguments&, const Phase&, u32) { return {}; }

    __device__ void fill(TileB& tile, const Arguments& p, const Phase& phase, const Row*, u32 k_block) const {
        const bool exists = k_block * BLOCK_K + MapB::column() < phase.patch;
        MapB::fill(tile, [&](int i) -> Source {
            const u32 distance = i * MapB::ROW_STRIDE;
            return {from + i64(distance) * phase.patch + k_block * BLOCK_K, exists && row + distance < p.gemm_n};
        });
    }
};

/// Operand B of dgrad: weights, a row of input channels per (tap, output channel) of GEMM K.
struct WeightColumns {
    u32 column;

    __device__ WeightColumns(const Arguments&, const Phase&, u32 first_column)
        : column(first_column + MapB::column()) {}

    __device__ static u32 row_at(const Arguments& p, const Phase& phase, u32 element) {
        return filter_at(p, phase, element);
    }

    __device__ void fill(TileB& tile, const Arguments& p, const Phase&, const u32* rows, u32) const {
        MapB::fill(tile, [&](int i) -> Source {
            const u32 row = rows[MapB::row(i)];
            return {p.matrix + (i64(row) + column), row != NONE && column < p.gemm_n};
        });
    }
};

/// Operand B of wgrad: patches, a row per pixel of GEMM K.
struct PatchColumns {
    Tap tap;

    __device__ PatchColumns(const Arguments& p, const Phase& phase, u32 first_column)
        : tap(tap_at(p, phase, first_column + MapB::column())) {}

    __device__ static Pixel row_at(const Arguments& p, const Phase& phase, u32 pixel) { return pixel_at(p, phase, pixel); }

    __device__ void fill(TileB& tile, const Arguments& p, const Phase&, const Pixel* rows, u32) const {
        MapB::fill(tile, [&](int i) -> Source { return patch_at(p, rows[MapB::row(i)], tap); });
    }
};

typedef Either<A_K_MAJOR, PatchRows, OutputGradient>::Type OperandA;
typedef Either<B_K_MAJOR, WeightRows, Either<PASS == DGRAD, WeightColumns, PatchColumns>::Type>::Type OperandB;

/// Applies bias, addend and ReLU to COUNT neighbouring accumulators of a row, and stores them.
template <int COUNT>
__device__ void store_elements(const Arguments& p, Out* to, const float* accumulators, i64 at, u32 column) {
    Vector<Out, COUNT> result;
    Vector<float, COUNT> values;
#pragma unroll
    for (int v = 0; v < COUNT; v++) values[v] = accumulators[v];
    if constexpr (PASS != WGRAD) {
        if (p.bias) {
#pragma unroll
            for (int v = 0; v < COUNT; v++) values[v] += load(p.bias + column + v);
        }
        if (p.addend) {
            const Vector<Real, COUNT> addend = load_vector<COUNT>(p.addend + at);
#pragma unroll
            for (int v = 0; v < COUNT; v++) values[v] += to_float(addend[v]);
        }
        // A comparison that NaN passes through.
        if (p.relu) {
#pragma unroll
            for (int v = 0; v < COUNT; v++) values[v] = values[v] < 0.0f ? 0.0f : values[v];
        }
    }
#pragma unroll
    for (int v = 0; v < COUNT; v++) result[v] = from_float<Out>(values[v]);
    store_vector<COUNT>(to + at, result);
}

/// The epilogue: from the epilogue tile in shared memory to global memory.
__device__ void epilogue(const Arguments& p, const Phase& phase, EpilogueTile<TILE_M, TILE_N>& tile, u32 rows, u32 first_row,
                         u32 first_column) {
    constexpr int VECTOR_SIZE = MAX_VECTOR_SIZE<Out>, VECTORS = TILE_N / VECTOR_SIZE;
    Out* out = static_cast<Out*>(p.out);
    if (PASS == WGRAD) out += i64(blockIdx.z) * p.gemm_m * p.gemm_n;
    for (int i = threadIdx.x; i < TILE_M * VECTORS; i += THREADS) {
        const u32 row = first_row + i / VECTORS, column = first_column + i % VECTORS * VECTOR_SIZE;
        if (row >= rows || column >= p.gemm_n) continue;
        alignas(16) float accumulators[VECTOR_SIZE];
#pragma unroll
        for (int v = 0; v < VECTOR_SIZE; v += 4) {
            const float* from = tile.at(i / VECTORS, i % VECTORS * VECTOR_SIZE + v);
            *reinterpret_cast<Vector<float, 4>*>(accumulators + v) = *reinterpret_cast<const Vector<float, 4>*>(from);
        }
        const i64 at = i64(PASS == DGRAD ? out_row_of(p, phase, row) : row) * p.gemm_n + column;
        if (p.vectorized_out) {
            store_elements<VECTOR_SIZE>(p, out, accumulators, at, column);
        } else {
#pragma unroll
            for (int v = 0; v < VECTOR_SIZE; v++)
                if (column + v < p.gemm_n) store_elements<1>(p, out, accumulators + v, at + v, column + v);
        }
    }
}

/// Computes one output tile.
__device__ inline void conv2d(const Arguments& p) {
    SHARED_DYNAMIC(SharedStorage, shared);
    const Phase& phase = p.phases[PASS == DGRAD ? blockIdx.z : 0];
    const u32 rows = PASS == WGRAD ? p.gemm_m : phase.pixels;
    const u32 first_row = blockIdx.x / p.tiles_n * TILE_M, first_column = blockIdx.x % p.tiles_n * TILE_N;
    // The phases of one launch differ in size; whole thread blocks leave here.
    if (first_row >= rows) return;

    // The K blocks of this thread block's split-K slice.
    const u32 all_k_blocks = ((PASS == WGRAD ? phase.pixels : phase.patch) + BLOCK_K - 1) / BLOCK_K;
    const u32 first_k_block = PASS == WGRAD ? u32(u64(all_k_blocks) * blockIdx.z / p.split_k) : 0;
    const u32 end_k_block = PASS == WGRAD ? u32(u64(all_k_blocks) * (blockIdx.z + 1) / p.split_k) : all_k_blocks;

    const OperandA a(p, phase, first_row, shared);
    const OperandB b(p, phase, first_column);
    // Computes the positions of a K block's rows; the warps take turns.
    const auto locate_rows = [&](u32 k_block) {
        const u32 thread = threadIdx.x - k_block % (THREADS / 32) * 32;
        if (!B_K_MAJOR && thread < BLOCK_K)
            shared.rows[(k_block - first_k_block) % STAGES][thread] = OperandB::row_at(p, phase, k_block * BLOCK_K + thread);
    };
    const auto fill = [&](u32 k_block) {
        if (k_block < end_k_block) {
            const int stage = (k_block - first_k_block) % STAGES;
            a.fill(shared.stages[stage].a, p, phase, shared, k_block);
            b.fill(shared.stages[stage].b, p, phase, shared.rows[B_K_MAJOR ? 0 : stage], k_block);
        }
        // Also where there is nothing to fill: then the number of groups in flight is the same in every iteration.
        cp_async_commit();
    };
    for (u32 k_block = first_k_block; k_block < first_k_block + STAGES; k_block++) locate_rows(k_block);
    if (!B_K_MAJOR) block_sync();
    for (u32 k_block = first_k_block; k_block < first_k_block + STAGES - 1; k_block++) fill(k_block);
    Mma mma;
    for (u32 k_block = first_k_block; k_block < end_k_block; k_block++) {
        cp_async_wait<STAGES - 2>();
        // Behind this barrier all threads' copies of this stage have arrived, and the row positions of the stage that is filled
        // next; no thread reads that stage any more, nor this stage's row positions.
        block_sync();
        fill(k_block + STAGES - 1);
        locate_rows(k_block + STAGES);
        const Stage& stage = shared.stages[(k_block - first_k_block) % STAGES];
        mma.multiply(stage.a, stage.b);
    }
    cp_async_wait<0>();
    block_sync();
    mma.store_accumulators(shared.epilogue_tile);
    block_sync();
    epilogue(p, phase, shared.epilogue_tile, rows, first_row, first_column);
}

#if PASS == FPROP
KERNEL(THREADS, conv2d_fprop_sm80, Arguments) { conv2d(p); }
#elif PASS == DGRAD
KERNEL(THREADS, conv2d_dgrad_sm80, Arguments) { conv2d(p); }
#else
KERNEL(THREADS, conv2d_wgrad_sm80, Arguments) { conv2d(p); }
#endif
