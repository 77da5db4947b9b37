// A tile of C[i, j] = sum over k of combine(a(i, k), b(j, k)), sums over pairs of rows, on CUDA cores.
//
// A thread block of 256 threads computes TILE x TILE of C, BLOCK_K elements of k at a time: the next stage of a and b is loaded
// into registers while the one in shared memory is used. A thread owns rows 2 t, 2 t + 1, 32 + 2 t, 33 + 2 t of the tile for t =
// thread / 16, and the columns of the same pattern for t = thread % 16. The order of every sum is that of k.
#pragma once
#include "common/reduce.cuh"

/// Rows and columns of the tile that a thread block computes.
LAUNCHER_CONSTANT u32 TILE = 64;
constexpr u32 BLOCK_K = 16;
/// Elements of a stage of one operand that a thread loads.
constexpr u32 PER_THREAD = TILE * BLOCK_K / THREADS;

/// A stage of both operands: a TILE x BLOCK_K tile of each. Rows are padded by two numbers, so that threads which write a column
/// access different banks.
template <class Number>
struct alignas(16) TileStage {
    Vector<Number, 2> a[BLOCK_K][TILE / 2 + 1];
    Vector<Number, 2> b[BLOCK_K][TILE / 2 + 1];
};

/// Position in a stage of a thread's element number i. Neighbouring threads load neighbours in memory: along k for a K-major
/// operand, else along the rows of C.
template <bool K_MAJOR>
__device__ inline void thread_element(u32 i, u32& along_tile, u32& along_k) {
    const u32 index = i * THREADS + threadIdx.x;
    along_tile = K_MAJOR ? index / BLOCK_K : index % TILE;
    along_k = K_MAJOR ? index % BLOCK_K : index / TILE;
}

template <bool K_MAJOR, class Number, class Element>
__device__ void fetch_stage(Number (&fetched)[PER_THREAD], u32 first, u32 extent, u32 first_k, u32 k_extent,
                            const Element& element) {
#pragma unroll
    for (u32 i = 0; i < PER_THREAD; ++i) {
        u32 along_tile, along_k;
        thread_element<K_MAJOR>(i, along_tile, along_k);
        const u32 row = first + along_tile, k = first_k + along_k;
        fetched[i] = row < extent && k < k_extent ? element(row, k) : Number(0);
    }
}

template <bool K_MAJOR, class Number>
__device__ void store_stage(Vector<Number, 2> (&stage)[BLOCK_K][TILE / 2 + 1], const Number (&fetched)[PER_THREAD]) {
#pragma unroll
    for (u32 i = 0; i < PER_THREAD; ++i) {
        u32 along_tile, along_k;
        thread_element<K_MAJOR>(i, along_tile, along_k);
        stage[along_k][along_tile / 2][along_tile % 2] = fetched[i];
    }
}

/// The row (or column) of a tile that a thread's sum number i belongs to.
__device__ inline u32 own_row(u32 i) { return i / 2 * (TILE / 2) + threadIdx.x / 16 * 2 + i % 2; }
__device__ inline u32 own_column(u32 j) { return j / 2 * (TILE / 2) + threadIdx.x % 16 * 2 + j % 2; }

/// Combines by multiplication.
struct Multiply {
    template <class Number>
    __device__ void operator()(Number a, Number b, Number& sum) const { sum += a * b; }
};

/// Combines by squared difference, which loses no digit where a and b are close.
struct SquaredDifference {
    template <class Number>
    __device__ void operator()(Number a, Number b, Number& sum) const {
        const Number difference = a - b;
        sum += difference * difference;
    }
};

/// Sums of the tile at (first_row, first_column) of C (rows, columns), over k in [0, k_extent); elements outside count as
/// zero. `a(row, k)` and `b(column, k)` load an element. All threads of the thread block must call.
template <bool A_K_MAJOR, bool B_K_MAJOR, class Number, class A, class B, class Combine>
__device__ void tile_sums(TileStage<Number>& stage, Number (&sums)[4][4], u32 first_row, u32 rows, u32 first_column,
                          u32 columns, u32 k_extent, const A& a, const B& b, const Combine& combine) {
    Number next_a[PER_THREAD], next_b[PER_THREAD];
    fetch_stage<A_K_MAJOR>(next_a, first_row, rows, 0, k_extent, a);
    fetch_stage<B_K_MAJOR>(next_b, first_column, columns, 0, k_extent, b);
    for (u32 k = 0; k < k_extent; k += BLOCK_K) {
        store_stage<A_K_MAJOR>(stage.a, next_a);
        store_stage<B_K_MAJOR>(stage.b, next_b);
        block_sync();
        fetch_stage<A_K_MAJOR>(next_a, first_row, rows, k + BLOCK_K, k_extent, a);
        fetch_stage<B_K_MAJOR>(next_b, first_column, columns, k + BLOCK_K, k_extent, b);
#pragma unroll
        for (u32 d = 0; d < BLOCK_K; ++d) {
            Vector<Number, 2> left[2], right[2];
#pragma unroll
            for (u32 half = 0; half < 2; ++half) {
                left[half] = stage.a[d][half * (TILE / 4) + threadIdx.x / 16];
                right[half] = stage.b[d][half * (TILE / 4) + threadIdx.x % 16];
            }
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
#pragma unroll
                for (u32 j = 0; j < 4; ++j) combine(left[i / 2][i % 2], right[j / 2][j % 2], sums[i][j]);
            }
        }
        block_sync();
    }
}

/// The sums of rows of `p.x` (rows, depth) with rows of `p.bank` (others, depth), each row multiplied by its number in `p.x_scale` or
/// `p.bank_scale` first.
template <class Operands, class Combine>
__device__ void scaled_tile_sums(TileStage<double>& stage, double (&sums)[4][4], u32 first_row, u32 first_column, const Operands& p,
                                 const Combine& combine) {
    tile_sums<true, true>(
        stage, sums, first_row, p.rows, first_column, p.others, p.depth,
        [&](u32 n, u32 i) { return load(p.x + u64(n) * p.depth + i) * load(p.x_scale + n); },
        [&](u32 m, u32 i) { return load(p.bank + u64(m) * p.depth + i) * load(p.bank_scale + m); }, combine);
}

/// The same as tile_sums in f32, where each PART elements of k are summed up by themselves, and these sums in f64: the rounding errors of long
/// sums stay out, at a share of 1/PART of the operations in f64.
template <u32 PART, bool A_K_MAJOR, bool B_K_MAJOR, class A, class B, class Combine>
__device__ void tile_sums_in_parts(TileStage<float>& stage, double (&sums)[4][4], u32 first_row, u32 rows, u32 first_column,
                                   u32 columns, u32 k_extent, const A& a, const B& b, const Combine& combine) {
    static_assert(PART % BLOCK_K == 0, "parts are whole stages");
    for (u32 first_k = 0; first_k < k_extent; first_k += PART) {
        float part[4][4] = {};
        const u32 left = k_extent - first_k;
        tile_sums<A_K_MAJOR, B_K_MAJOR>(
            stage, part, first_row, rows, first_column, columns, left < PART ? left : PART,
            [&](u32 row, u32 k) { return a(row, first_k + k); }, [&](u32 column, u32 k) { return b(column, first_k + k); },
            combine);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
#pragma unroll
            for (u32 j = 0; j < 4; ++j) sums[i][j] += part[i][j];
        }
    }
}

/// Calls `each(row, column, sum)` for this thread's sums that lie inside C.
template <class Number, class Each>
__device__ void each_sum(const Number (&sums)[4][4], u32 first_row, u32 rows, u32 first_column, u32 columns,
                         const Each& each) {
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
#pragma unroll
        for (u32 j = 0; j < 4; ++j) {
            const u32 row = first_row + own_row(i), column = first_column + own_column(j);
            if (row < rows && column < columns) each(row, column, sums[i][j]);
        }
    }
}
