// The fully connected layer, in f32: x (batch, inputs), weight (outputs, inputs), y (batch, outputs), rows contiguous.
//
//   linear_forward            y[n, o]  = sum over i of x[n, i] weight[o, i], + bias[o]
//   linear_input_gradient     dx[n, i] = sum over o of dy[n, o] weight[o, i]
//   linear_weight_gradient    dweight[o, i] = sum over n of dy[n, o] x[n, i]
//   linear_bias_gradient      dbias[o] = sum over n of dy[n, o]
//
// All three are GEMMs C (rows, columns) = A B, with A and B read along whichever of their two extents is contiguous. A thread block
// computes a TILE x TILE part of C over a slice of K, BLOCK_K at a time in shared memory, each thread 4 x 4 of it in
// registers, while the next stage is loaded. These matrices are small: where the tiles alone would leave SMs idle, K is cut into
// `split_k` slices, whose results `linear_split_k_reduce` adds in order.
#include "intrinsics/ptx.cuh"
#include "common/reduce.cuh"

/// Rows and columns of the tile that a thread block computes.
LAUNCHER_CONSTANT u32 TILE = 64;
/// Elements of K in a stage.
LAUNCHER_CONSTANT u32 BLOCK_K = 16;

struct Gemm {
    const float* a;
    const float* b;
    const float* bias;  // per column of C, or null
    float* c;           // (split_k, rows, columns)
    u32 rows, columns, k_extent;
    u32 slice;  // of K, a multiple of BLOCK_K
};

/// A stage of A and B: BLOCK_K x TILE each, the extent of the tile fastest, four neighbours together.
struct alignas(16) Stage {
    Vector<float, 4> a[BLOCK_K][TILE / 4];
    Vector<float, 4> b[BLOCK_K][TILE / 4];
};

/// Elements of a stage of one operand that a thread loads.
constexpr u32 PER_THREAD = TILE * BLOCK_K / THREADS;

/// Position in a stage (along the tile, along K) of a thread's element number i. Neighbouring threads load
/// neighbours in memory: along K for a K-major operand, else along the tile.
template <bool K_MAJOR>
__device__ void thread_element(u32 i, u32& along_tile, u32& along_k) {
    const u32 index = i * THREADS + threadIdx.x;
    along_tile = K_MAJOR ? index / BLOCK_K : index % TILE;
    along_k = K_MAJOR ? index % BLOCK_K : index / TILE;
}

/// Loads this thread's elements of a stage; zero outside the matrix of `extent` x `k_extent`.
template <bool K_MAJOR>
__device__ void fetch(const float* matrix, u32 extent, u32 k_extent, u32 first, u32 first_k, u32 end_k,
                      float (&fetched)[PER_THREAD]) {
#pragma unroll
    for (u32 i = 0; i < PER_THREAD; ++i) {
        u32 along_tile, along_k;
        thread_element<K_MAJOR>(i, along_tile, along_k);
        const u64 at = first + along_tile, k = first_k + along_k;
        const bool inside = at < extent && k < end_k;
        fetched[i] = inside ? load(matrix + (K_MAJOR ? at * k_extent + k : k * extent + at)) : 0.0f;
    }
}

template <bool K_MAJOR>
__device__ void store_stage(Vector<float, 4> (&stage)[BLOCK_K][TILE / 4], const float (&fetched)[PER_THREAD]) {
#pragma unroll
    for (u32 i = 0; i < PER_THREAD; ++i) {
        u32 along_tile, along_k;
        thread_element<K_MAJOR>(i, along_tile, along_k);
        stage[along_k][along_tile / 4][along_tile % 4] = fetched[i];
    }
}

template <bool A_K_MAJOR, bool B_K_MAJOR>
__device__ void gemm(const Gemm& p, Stage& stage) {
    const u32 tiles = (p.columns + TILE - 1) / TILE;
    const u32 first_row = blockIdx.x / tiles * TILE, first_column = blockIdx.x % tiles * TILE;
    const u32 begin = blockIdx.y * p.slice;
    const u32 end = begin + p.slice < p.k_extent ? begin + p.slice : p.k_extent;
    const u32 own_row = threadIdx.x / (TILE / 4), own_column = threadIdx.x % (TILE / 4);

    float sums[4][4] = {};
    float a[PER_THREAD], b[PER_THREAD];
    fetch<A_K_MAJOR>(p.a, p.rows, p.k_extent, first_row, begin, end, a);
    fetch<B_K_MAJOR>(p.b, p.columns, p.k_extent, first_column, begin, end, b);
    for (u32 k = begin; k < end; k += BLOCK_K) {
        store_stage<A_K_MAJOR>(stage.a, a);
        store_stage<B_K_MAJOR>(stage.b, b);
        block_sync();
        fetch<A_K_MAJOR>(p.a, p.rows, p.k_extent, first_row, k + BLOCK_K, end, a);
        fetch<B_K_MAJOR>(p.b, p.columns, p.k_extent, first_column, k + BLOCK_K, end, b);
#pragma unroll
        for (u32 d = 0; d < BLOCK_K; ++d) {
            const Vector<float, 4> left = stage.a[d][own_row], right = stage.b[d][own_column];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(left[i], right[j], sums[i][j]);
            }
        }
        block_sync();
    }

    float* c = p.c + u64(blockIdx.y) * p.rows * p.columns;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const u32 row = first_row + own_row * 4 + i;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const u32 column = first_column + own_column * 4 + j;
            if (row < p.rows && column < p.columns) {
                const float bias = p.bias ? load(p.bias + column) : 0.0f;
                store(c + u64(row) * p.columns + column, sums[i][j] + bias);
            }
        }
    }
}

KERNEL(THREADS, linear_forward, Gemm) {
    SHARED(Stage, stage);
    gemm<true, true>(p, stage);
}

KERNEL(THREADS, linear_input_gradient, Gemm) {
    SHARED(Stage, stage);
    gemm<true, false>(p, stage);
}

KERNEL(THREADS, linear_weight_gradient, Gemm) {
    SHARED(Stage, stage);
    gemm<false, false>(p, stage);
}

struct SplitKReduce {
    const float* partial;  // (split_k, elements)
    const float* bias;     // per column, or null
    float* c;
    u64 elements;
    u32 columns;
    u32 split_k;
};

KERNEL(THREADS, linear_split_k_reduce, SplitKReduce) {
    const u64 at = thread_in_small_grid();
    if (at < p.elements) {
        float sum = 0.0f;
#pragma unroll 4
        for (u32 slice = 0; slice < p.split_k; ++slice) sum += load(p.partial + slice * p.elements + at);
        store(p.c + at, p.bias ? sum + load(p.bias + u32(at) % p.columns) : sum);
    }
}

struct BiasGradient {
    const float* dy;
    float* dbias;
    u32 batch;
    u32 outputs;
};

/// Threads side by side along outputs; the others are lanes along the batch.
LAUNCHER_CONSTANT u32 COLUMNS = 8;

struct SharedSums {
    float values[1][THREADS];
};

KERNEL(THREADS, linear_bias_gradient, BiasGradient) {
    SHARED(SharedSums, shared);
    const u32 output = blockIdx.x * COLUMNS + threadIdx.x % COLUMNS;
    float sum[1] = {};
    if (output < p.outputs) {
#pragma unroll 4
        for (u32 row = threadIdx.x / COLUMNS; row < p.batch; row += THREADS / COLUMNS) {
            sum[0] += load(p.dy + u64(row) * p.outputs + output);
        }
    }
    sum_lanes(shared.values, sum, COLUMNS);
    if (output < p.outputs && threadIdx.x < COLUMNS) store(p.dbias + output, sum[0]);
}
