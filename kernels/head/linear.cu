// The fully connected layer, in f32: x (batch, inputs), weight (outputs, inputs), y (batch, outputs), rows contiguous.
//
//   linear_forward            y[n, o]  = sum over i of x[n, i] weight[o, i], + bias[o]
//   linear_input_gradient     dx[n, i] = sum over o of dy[n, o] weight[o, i]
//   linear_weight_gradient    dweight[o, i] = sum over n of dy[n, o] x[n, i]
//   linear_bias_gradient      dbias[o] = sum over n of dy[n, o]
//
// All three products are C (rows, columns) = A B with depth as the inner extent, A and B read along whichever of their two
// extents is contiguous. A block computes a TILE x TILE part of C over a slice of the depth, DEPTH at a time in shared
// memory, each thread 4 x 4 of it in registers, while the next piece is on its way. These matrices are small: where the
// tiles alone would leave multiprocessors idle, the depth is cut into `slices`, whose results `linear_sum` adds in order.
#include "intrinsics/ptx.cuh"
#include "common/reduce.cuh"

constexpr u32 TILE = 64;
constexpr u32 DEPTH = 16;

struct Product {
    const float* a;
    const float* b;
    const float* bias;  // per column of C, or null
    float* c;           // (slices, rows, columns)
    u32 rows, columns, depth;
    u32 slice;  // depth of a slice, a multiple of DEPTH
};

/// A piece of A and one of B: DEPTH x TILE each, the tile's extent fastest, four neighbours together.
struct alignas(16) Pieces {
    Pack<float, 4> a[DEPTH][TILE / 4];
    Pack<float, 4> b[DEPTH][TILE / 4];
};

/// Elements of a piece that one thread carries.
constexpr u32 CARRIED = TILE * DEPTH / THREADS;

/// Where in a piece (along the tile, along the depth) a thread's element number i lies. Neighbouring threads take
/// neighbours in memory: along the depth if that is contiguous, else along the tile.
template <bool DEPTH_CONTIGUOUS>
__device__ void own_element(u32 i, u32& along_tile, u32& along_depth) {
    const u32 index = i * THREADS + threadIdx.x;
    along_tile = DEPTH_CONTIGUOUS ? index / DEPTH : index % TILE;
    along_depth = DEPTH_CONTIGUOUS ? index % DEPTH : index / TILE;
}

/// Fetches this thread's elements of a piece; zero outside the matrix of `extent` x `depth`.
template <bool DEPTH_CONTIGUOUS>
__device__ void fetch(const float* matrix, u32 extent, u32 depth, u32 first, u32 first_depth, u32 end_depth,
                      float (&carried)[CARRIED]) {
#pragma unroll
    for (u32 i = 0; i < CARRIED; ++i) {
        u32 along_tile, along_depth;
        own_element<DEPTH_CONTIGUOUS>(i, along_tile, along_depth);
        const u64 at = first + along_tile, k = first_depth + along_depth;
        const bool inside = at < extent && k < end_depth;
        carried[i] = inside ? load(matrix + (DEPTH_CONTIGUOUS ? at * depth + k : k * extent + at)) : 0.0f;
    }
}

template <bool DEPTH_CONTIGUOUS>
__device__ void put(Pack<float, 4> (&piece)[DEPTH][TILE / 4], const float (&carried)[CARRIED]) {
#pragma unroll
    for (u32 i = 0; i < CARRIED; ++i) {
        u32 along_tile, along_depth;
        own_element<DEPTH_CONTIGUOUS>(i, along_tile, along_depth);
        piece[along_depth][along_tile / 4][along_tile % 4] = carried[i];
    }
}

template <bool A_DEPTH_CONTIGUOUS, bool B_DEPTH_CONTIGUOUS>
__device__ void product(const Product& p, Pieces& pieces) {
    const u32 tiles = (p.columns + TILE - 1) / TILE;
    const u32 first_row = blockIdx.x / tiles * TILE, first_column = blockIdx.x % tiles * TILE;
    const u32 begin = blockIdx.y * p.slice;
    const u32 end = begin + p.slice < p.depth ? begin + p.slice : p.depth;
    const u32 own_row = threadIdx.x / (TILE / 4), own_column = threadIdx.x % (TILE / 4);

    float sums[4][4] = {};
    float a[CARRIED], b[CARRIED];
    fetch<A_DEPTH_CONTIGUOUS>(p.a, p.rows, p.depth, first_row, begin, end, a);
    fetch<B_DEPTH_CONTIGUOUS>(p.b, p.columns, p.depth, first_column, begin, end, b);
    for (u32 k = begin; k < end; k += DEPTH) {
        put<A_DEPTH_CONTIGUOUS>(pieces.a, a);
        put<B_DEPTH_CONTIGUOUS>(pieces.b, b);
        block_sync();
        fetch<A_DEPTH_CONTIGUOUS>(p.a, p.rows, p.depth, first_row, k + DEPTH, end, a);
        fetch<B_DEPTH_CONTIGUOUS>(p.b, p.columns, p.depth, first_column, k + DEPTH, end, b);
#pragma unroll
        for (u32 d = 0; d < DEPTH; ++d) {
            const Pack<float, 4> left = pieces.a[d][own_row], right = pieces.b[d][own_column];
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

KERNEL(256, linear_forward, Product) {
    SHARED(Pieces, pieces);
    product<true, true>(p, pieces);
}

KERNEL(256, linear_input_gradient, Product) {
    SHARED(Pieces, pieces);
    product<true, false>(p, pieces);
}

KERNEL(256, linear_weight_gradient, Product) {
    SHARED(Pieces, pieces);
    product<false, false>(p, pieces);
}

struct Sum {
    const float* partial;  // (slices, elements)
    const float* bias;     // per column, or null
    float* c;
    u64 elements;
    u32 columns;
    u32 slices;
};

KERNEL(256, linear_sum, Sum) {
    const u64 at = thread_in_small_grid();
    if (at < p.elements) {
        float sum = 0.0f;
#pragma unroll 4
        for (u32 slice = 0; slice < p.slices; ++slice) sum += load(p.partial + slice * p.elements + at);
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
constexpr u32 COLUMNS = 8;

struct SharedSums {
    float values[1][THREADS];
};

KERNEL(256, linear_bias_gradient, BiasGradient) {
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
