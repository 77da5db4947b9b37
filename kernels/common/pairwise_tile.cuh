// Sums over pairs of rows, tile by tile: C[i, j] = sum over k of combine(a(i, k), b(j, k)).
//
// A block of 256 threads computes TILE x TILE of C, DEPTH of the inner extent at a time: the next piece of a and b is on
// its way to registers while the one in shared memory is used. A thread owns rows 2 t, 2 t + 1, 32 + 2 t, 33 + 2 t of the
// tile for t = thread / 16, and the columns of the same pattern for t = thread % 16. The order of every sum is that of k.
#pragma once
#include "common/reduce.cuh"

constexpr u32 TILE = 64;
constexpr u32 DEPTH = 16;
/// Elements of a piece that one thread carries.
constexpr u32 CARRIED = TILE * DEPTH / THREADS;

/// A piece of a and one of b. Rows are two numbers longer than a tile, so that threads which write a column meet
/// different banks.
template <class Number>
struct alignas(16) TilePieces {
    Pack<Number, 2> a[DEPTH][TILE / 2 + 1];
    Pack<Number, 2> b[DEPTH][TILE / 2 + 1];
};

/// Where in a piece a thread's element number i lies. Neighbouring threads take neighbours in memory: along the inner
/// extent if that is contiguous, else along the rows of C.
template <bool DEPTH_CONTIGUOUS>
__device__ inline void carried_element(u32 i, u32& along_tile, u32& along_depth) {
    const u32 index = i * THREADS + threadIdx.x;
    along_tile = DEPTH_CONTIGUOUS ? index / DEPTH : index % TILE;
    along_depth = DEPTH_CONTIGUOUS ? index % DEPTH : index / TILE;
}

template <bool DEPTH_CONTIGUOUS, class Number, class Element>
__device__ void fetch_piece(Number (&carried)[CARRIED], u32 first, u32 extent, u32 first_depth, u32 depth,
                            const Element& element) {
#pragma unroll
    for (u32 i = 0; i < CARRIED; ++i) {
        u32 along_tile, along_depth;
        carried_element<DEPTH_CONTIGUOUS>(i, along_tile, along_depth);
        const u32 row = first + along_tile, k = first_depth + along_depth;
        carried[i] = row < extent && k < depth ? element(row, k) : Number(0);
    }
}

template <bool DEPTH_CONTIGUOUS, class Number>
__device__ void put_piece(Pack<Number, 2> (&piece)[DEPTH][TILE / 2 + 1], const Number (&carried)[CARRIED]) {
#pragma unroll
    for (u32 i = 0; i < CARRIED; ++i) {
        u32 along_tile, along_depth;
        carried_element<DEPTH_CONTIGUOUS>(i, along_tile, along_depth);
        piece[along_depth][along_tile / 2][along_tile % 2] = carried[i];
    }
}

/// The row (or column) of a tile that a thread's sum number i belongs to.
__device__ inline u32 own_row(u32 i) { return i / 2 * (TILE / 2) + threadIdx.x / 16 * 2 + i % 2; }
__device__ inline u32 own_column(u32 j) { return j / 2 * (TILE / 2) + threadIdx.x % 16 * 2 + j % 2; }

/// What is summed up: products.
struct Multiply {
    template <class Number>
    __device__ void operator()(Number a, Number b, Number& sum) const { sum += a * b; }
};

/// What is summed up: squares of differences, which lose no digit where a and b are close.
struct SquareDifference {
    template <class Number>
    __device__ void operator()(Number a, Number b, Number& sum) const {
        const Number difference = a - b;
        sum += difference * difference;
    }
};

/// Sums of the tile at (first_row, first_column) of C (rows, columns), over k in [0, depth); what lies outside counts as
/// zero. `a(row, k)` and `b(column, k)` load an element. All threads of the block must call.
template <bool A_DEPTH_CONTIGUOUS, bool B_DEPTH_CONTIGUOUS, class Number, class A, class B, class Combine>
__device__ void tile_sums(TilePieces<Number>& pieces, Number (&sums)[4][4], u32 first_row, u32 rows, u32 first_column,
                          u32 columns, u32 depth, const A& a, const B& b, const Combine& combine) {
    Number next_a[CARRIED], next_b[CARRIED];
    fetch_piece<A_DEPTH_CONTIGUOUS>(next_a, first_row, rows, 0, depth, a);
    fetch_piece<B_DEPTH_CONTIGUOUS>(next_b, first_column, columns, 0, depth, b);
    for (u32 k = 0; k < depth; k += DEPTH) {
        put_piece<A_DEPTH_CONTIGUOUS>(pieces.a, next_a);
        put_piece<B_DEPTH_CONTIGUOUS>(pieces.b, next_b);
        block_sync();
        fetch_piece<A_DEPTH_CONTIGUOUS>(next_a, first_row, rows, k + DEPTH, depth, a);
        fetch_piece<B_DEPTH_CONTIGUOUS>(next_b, first_column, columns, k + DEPTH, depth, b);
#pragma unroll
        for (u32 d = 0; d < DEPTH; ++d) {
            Pack<Number, 2> left[2], right[2];
#pragma unroll
            for (u32 half = 0; half < 2; ++half) {
                left[half] = pieces.a[d][half * (TILE / 4) + threadIdx.x / 16];
                right[half] = pieces.b[d][half * (TILE / 4) + threadIdx.x % 16];
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
