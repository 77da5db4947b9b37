// The three products of a convolution (see convolution.cuh) on tiles of TILE_M x TILE_N, for compute capability 8.0 and
// later: tiles of both operands stream through a ring of stages in shared memory by asynchronous copies, 64 bytes of the
// sum at a time; the result goes through shared memory once, so that whole rows are stored, 16 bytes a thread.
//
// A block computes tile blockIdx.x, counted along the rows: blocks that run together share the rows' pixels, and all
// share the other operand through the second-level cache. blockIdx.z is the walk of an input gradient, or the split of a
// weight gradient.
//
// Constants: BF16, PASS, TILE_M, TILE_N, WARPS_M, WARPS_N; VECTOR_A, VECTOR_B: whether rows of the operand (pixels x
// reduction; reduction x columns) are a multiple of 16 bytes. Where they are not, elements are gathered one by one,
// neighbouring threads taking neighbouring elements of a patch: that is also how a network's first layer, with its few
// channels, keeps its sum dense.
#include "intrinsics/ptx.cuh"
#include "convolution/sm80/problem.cuh"
#include "convolution/sm80/swizzled_tile.cuh"
#if BF16
#include "convolution/sm80/mma_bf16.cuh"
#else
#include "convolution/sm80/simt_f32.cuh"
#endif

constexpr int THREADS = 32 * WARPS_M * WARPS_N;
constexpr int STAGES = 4;

// Whether the sum runs along the rows of a tile as it lies in memory, or down its columns.
constexpr bool A_ALONG = PASS != WEIGHT_GRADIENT;
constexpr bool B_ALONG = PASS == FORWARD;
typedef Product<A_ALONG, B_ALONG> Sums;
constexpr int STEP = Sums::STEP;

template <bool YES, class T, class F>
struct Either { typedef T Type; };
template <class T, class F>
struct Either<false, T, F> { typedef F Type; };
typedef Either<A_ALONG, Tile<TILE_M, STEP>, Tile<STEP, TILE_M>>::Type TileA;
typedef Either<B_ALONG, Tile<TILE_N, STEP>, Tile<STEP, TILE_N>>::Type TileB;
typedef Either<PASS == WEIGHT_GRADIENT, float, Real>::Type Out;

struct Stage {
    TileA a;
    TileB b;
};

/// What is looked up for a row of the right operand where the sum runs down its columns: each is computed once, by one
/// thread, ahead of the copies that many threads make with it.
typedef Either<PASS == WEIGHT_GRADIENT, Pixel, u32>::Type Row;

struct Memory {
    union {
        Stage stages[STAGES];
        Slab<TILE_M, TILE_N> slab;
    };
    Pixel pixels[A_ALONG && !VECTOR_A ? TILE_M : 1];
    Row rows[B_ALONG ? 1 : STAGES][STEP];
};

/// Which parts of a tile a thread brings in: one column of chunks, and of that every APART-th row.
template <class T, bool VECTOR>
struct Share {
    static constexpr int CHUNK = VECTOR ? WIDEST<Real> : 1;
    static constexpr int ACROSS = T::COLUMNS / CHUNK;
    static constexpr int APART = THREADS / ACROSS;
    static constexpr int COUNT = T::ROWS / APART;
    static_assert(THREADS % ACROSS == 0 && T::ROWS % APART == 0, "the threads share a tile evenly");

    static __device__ int row(int i) { return threadIdx.x / ACROSS + i * APART; }
    static __device__ int column() { return threadIdx.x % ACROSS * CHUNK; }

    /// Brings in this thread's parts; `source` tells where the i-th is.
    template <class Locate>
    static __device__ void fill(T& tile, Locate source) {
        if constexpr (VECTOR || sizeof(Real) == 4) {
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                const Source s = source(i);
                if constexpr (VECTOR) cp_async_16(tile.at(row(i), column()), s.from, s.exists);
                else cp_async_4(tile.at(row(i), column()), s.from, s.exists);
            }
        } else {
            // No asynchronous copy moves two bytes: all are under way before the first is waited for.
            Real parts[COUNT];
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                const Source s = source(i);
                parts[i] = s.exists ? load(s.from) : from_float<Real>(0.0f);
            }
#pragma unroll
            for (int i = 0; i < COUNT; i++) *tile.at(row(i), column()) = parts[i];
        }
    }
};
typedef Share<TileA, VECTOR_A> ShareA;
typedef Share<TileB, VECTOR_B> ShareB;

/// The left operand of forward and input gradient: a row per pixel.
struct Patches {
    Pixel mine[VECTOR_A ? ShareA::COUNT : 1];

    __device__ Patches(const Arguments& p, const Walk& walk, u32 first_row, Memory& memory) {
        if constexpr (VECTOR_A) {
#pragma unroll
            for (int i = 0; i < ShareA::COUNT; i++) mine[i] = pixel_at(p, walk, first_row + ShareA::row(i));
        } else {
            for (int i = threadIdx.x; i < TILE_M; i += THREADS) memory.pixels[i] = pixel_at(p, walk, first_row + i);
            block_sync();
        }
    }

    __device__ void fill(TileA& tile, const Arguments& p, const Walk& walk, const Memory& memory, u32 step) const {
        const Tap tap = tap_at(p, walk, step * STEP + ShareA::column());
        ShareA::fill(tile, [&](int i) -> Source {
            return patch_at(p, VECTOR_A ? mine[i] : memory.pixels[ShareA::row(i)], tap);
        });
    }
};

/// The left operand of a weight gradient: dy, a row of channels per pixel.
struct OutputGradient {
    u32 column;
    const Real* from;

    __device__ OutputGradient(const Arguments& p, const Walk&, u32 first_row, Memory&)
        : column(first_row + ShareA::column()), from(p.matrix + column) {}

    __device__ void fill(TileA& tile, const Arguments& p, const Walk& walk, const Memory&, u32 step) const {
        ShareA::fill(tile, [&](int i) -> Source {
            const u32 pixel = step * STEP + ShareA::row(i);
            return {from + i64(pixel) * p.rows, pixel < walk.pixels && column < p.rows};
        });
    }
};

/// The right operand of forward: weights, a row per output channel, the sum along it.
struct WeightRows {
    u32 row;
    const Real* from;

    __device__ WeightRows(const Arguments& p, const Walk& walk, u32 first_column)
        : row(first_column + ShareB::row(0)), from(p.matrix + i64(row) * walk.patch + ShareB::column()) {}

    __device__ static Row row_at(const Arguments&, const Walk&, u32) { return {}; }

    __device__ void fill(TileB& tile, const Arguments& p, const Walk& walk, const Row*, u32 step) const {
        const bool exists = step * STEP + ShareB::column() < walk.patch;
        ShareB::fill(tile, [&](int i) -> Source {
            const u32 further = i * ShareB::APART;
            return {from + i64(further) * walk.patch + step * STEP, exists && row + further < p.columns};
        });
    }
};

/// The right operand of an input gradient: weights, a row of input channels per (tap, output channel) of the sum.
struct WeightColumns {
    u32 column;

    __device__ WeightColumns(const Arguments&, const Walk&, u32 first_column)
        : column(first_column + ShareB::column()) {}

    __device__ static u32 row_at(const Arguments& p, const Walk& walk, u32 element) {
        return filter_at(p, walk, element);
    }

    __device__ void fill(TileB& tile, const Arguments& p, const Walk&, const u32* rows, u32) const {
        ShareB::fill(tile, [&](int i) -> Source {
            const u32 row = rows[ShareB::row(i)];
            return {p.matrix + (i64(row) + column), row != NOWHERE && column < p.columns};
        });
    }
};

/// The right operand of a weight gradient: patches, a row per pixel of the sum.
struct PatchColumns {
    Tap tap;

    __device__ PatchColumns(const Arguments& p, const Walk& walk, u32 first_column)
        : tap(tap_at(p, walk, first_column + ShareB::column())) {}

    __device__ static Pixel row_at(const Arguments& p, const Walk& walk, u32 pixel) { return pixel_at(p, walk, pixel); }

    __device__ void fill(TileB& tile, const Arguments& p, const Walk&, const Pixel* rows, u32) const {
        ShareB::fill(tile, [&](int i) -> Source { return patch_at(p, rows[ShareB::row(i)], tap); });
    }
};

typedef Either<A_ALONG, Patches, OutputGradient>::Type Left;
typedef Either<B_ALONG, WeightRows, Either<PASS == INPUT_GRADIENT, WeightColumns, PatchColumns>::Type>::Type Right;

/// Adds what there is to add to COUNT neighbours of a row, and stores them.
template <int COUNT>
__device__ void finish(const Arguments& p, Out* to, const float* sums, i64 at, u32 column) {
    Pack<Out, COUNT> result;
    Pack<float, COUNT> values;
#pragma unroll
    for (int v = 0; v < COUNT; v++) values[v] = sums[v];
    if constexpr (PASS != WEIGHT_GRADIENT) {
        if (p.bias) {
#pragma unroll
            for (int v = 0; v < COUNT; v++) values[v] += load(p.bias + column + v);
        }
        if (p.addend) {
            const Pack<Real, COUNT> addend = load_pack<COUNT>(p.addend + at);
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
    store_pack<COUNT>(to + at, result);
}

/// From the slab to memory.
__device__ void store_tile(const Arguments& p, const Walk& walk, Slab<TILE_M, TILE_N>& slab, u32 rows, u32 first_row,
                           u32 first_column) {
    constexpr int WIDE = WIDEST<Out>, ACROSS = TILE_N / WIDE;
    Out* out = static_cast<Out*>(p.out);
    if (PASS == WEIGHT_GRADIENT) out += i64(blockIdx.z) * p.rows * p.columns;
    for (int i = threadIdx.x; i < TILE_M * ACROSS; i += THREADS) {
        const u32 row = first_row + i / ACROSS, column = first_column + i % ACROSS * WIDE;
        if (row >= rows || column >= p.columns) continue;
        alignas(16) float sums[WIDE];
#pragma unroll
        for (int v = 0; v < WIDE; v += 4) {
            const float* from = slab.at(i / ACROSS, i % ACROSS * WIDE + v);
            *reinterpret_cast<Pack<float, 4>*>(sums + v) = *reinterpret_cast<const Pack<float, 4>*>(from);
        }
        const i64 at = i64(PASS == INPUT_GRADIENT ? out_row_of(p, walk, row) : row) * p.columns + column;
        if (p.wide_out) {
            finish<WIDE>(p, out, sums, at, column);
        } else {
#pragma unroll
            for (int v = 0; v < WIDE; v++)
                if (column + v < p.columns) finish<1>(p, out, sums + v, at + v, column + v);
        }
    }
}

/// One tile of the result.
__device__ inline void convolve(const Arguments& p) {
    SHARED_DYNAMIC(Memory, memory);
    const Walk& walk = p.walks[PASS == INPUT_GRADIENT ? blockIdx.z : 0];
    const u32 rows = PASS == WEIGHT_GRADIENT ? p.rows : walk.pixels;
    const u32 first_row = blockIdx.x / p.tiles_across * TILE_M, first_column = blockIdx.x % p.tiles_across * TILE_N;
    // Walks of one launch differ in size; this leaves as a whole block.
    if (first_row >= rows) return;

    // The part of the sum that is this block's.
    const u32 all_steps = ((PASS == WEIGHT_GRADIENT ? walk.pixels : walk.patch) + STEP - 1) / STEP;
    const u32 first_step = PASS == WEIGHT_GRADIENT ? u32(u64(all_steps) * blockIdx.z / p.splits) : 0;
    const u32 end_step = PASS == WEIGHT_GRADIENT ? u32(u64(all_steps) * (blockIdx.z + 1) / p.splits) : all_steps;

    const Left left(p, walk, first_row, memory);
    const Right right(p, walk, first_column);
    // Looks up the rows of a step, the warps taking turns.
    const auto prepare = [&](u32 step) {
        const u32 thread = threadIdx.x - step % (THREADS / 32) * 32;
        if (!B_ALONG && thread < STEP)
            memory.rows[(step - first_step) % STAGES][thread] = Right::row_at(p, walk, step * STEP + thread);
    };
    const auto fill = [&](u32 step) {
        if (step < end_step) {
            const int turn = (step - first_step) % STAGES;
            left.fill(memory.stages[turn].a, p, walk, memory, step);
            right.fill(memory.stages[turn].b, p, walk, memory.rows[B_ALONG ? 0 : turn], step);
        }
        // Also where there is nothing to fill: then the number of groups under way is the same in every turn.
        cp_async_commit();
    };
    for (u32 step = first_step; step < first_step + STAGES; step++) prepare(step);
    if (!B_ALONG) block_sync();
    for (u32 step = first_step; step < first_step + STAGES - 1; step++) fill(step);
    Sums sums;
    for (u32 step = first_step; step < end_step; step++) {
        cp_async_wait<STAGES - 2>();
        // Behind this, everyone's copies of this stage are there, and so are the rows of the one that is filled next; no one
        // reads that one any more, nor this one's rows.
        block_sync();
        fill(step + STAGES - 1);
        prepare(step + STAGES);
        const Stage& stage = memory.stages[(step - first_step) % STAGES];
        sums.multiply(stage.a, stage.b);
    }
    cp_async_wait<0>();
    block_sync();
    sums.write(memory.slab);
    block_sync();
    store_tile(p, walk, memory.slab, rows, first_row, first_column);
}

#if PASS == FORWARD
KERNEL(THREADS, convolution_forward, Arguments) { convolve(p); }
#elif PASS == INPUT_GRADIENT
KERNEL(THREADS, convolution_input_gradient, Arguments) { convolve(p); }
#else
KERNEL(THREADS, convolution_weight_gradient, Arguments) { convolve(p); }
#endif
