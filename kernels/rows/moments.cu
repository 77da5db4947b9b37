// Sums over the rows of each class, and the scatter of rows about their class means; f64 sums of f32 features.
//
//   class_sums      sums[c, i] += sum over rows n of class c of x[n, i]
//   within_scatter  scatter[s, i, j] += sum over rows n of slice s of (x[n, i] - mean[y, i]) (x[n, j] - mean[y, j]), y = label of
//                   n, for j <= i: elements above the diagonal are never accessed
//
// Labels lie in 0..classes. Rows are added to a sum in their order, batch of rows after batch of rows.
#include "intrinsics/ptx.cuh"
#include "common/pairwise_tile.cuh"

struct ClassSums {
    const float* x;     // (rows, columns)
    const int* labels;  // (rows)
    double* sums;       // (classes, columns)
    u32 rows, columns;
};

/// Thread block (b, c): class c, THREADS columns from THREADS b on. All threads of a warp read the same label, and only rows of the
/// class are read.
KERNEL(THREADS, class_sums, ClassSums) {
    const int wanted = int(blockIdx.y);
    const u32 column = blockIdx.x * THREADS + threadIdx.x;
    if (column < p.columns) {
        double sum = load(p.sums + u64(blockIdx.y) * p.columns + column);
#pragma unroll 4
        for (u32 row = 0; row < p.rows; ++row) {
            if (load(p.labels + row) == wanted) sum += load(p.x + u64(row) * p.columns + column);
        }
        store(p.sums + u64(blockIdx.y) * p.columns + column, sum);
    }
}

struct WithinScatter {
    const float* x;       // (rows, columns)
    const int* labels;    // (rows)
    const double* means;  // (classes, columns)
    double* scatter;      // (slices, columns, columns)
    u32 rows, columns;
    u32 slice;  // rows of a slice
    u32 unused;
};

KERNEL(THREADS, within_scatter, WithinScatter) {
    SHARED(TileStage<double>, stage);
    const u32 first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    const u32 begin = blockIdx.z * p.slice;
    if (first_column <= first_row && begin < p.rows) {  // the same for all threads of a thread block
        const u32 depth = p.rows - begin < p.slice ? p.rows - begin : p.slice;
        auto centred = [&](u32 i, u32 k) {
            const u32 n = begin + k;
            return load(p.x + u64(n) * p.columns + i) - load(p.means + u64(load(p.labels + n)) * p.columns + i);
        };
        double sums[4][4] = {};
        tile_sums<false, false>(stage, sums, first_row, p.columns, first_column, p.columns, depth, centred, centred,
                                Multiply());
        double* scatter = p.scatter + u64(blockIdx.z) * p.columns * p.columns;
        each_sum(sums, first_row, p.columns, first_column, p.columns, [&](u32 i, u32 j, double sum) {
            if (j <= i) {
                double* to = scatter + u64(i) * p.columns + j;
                store(to, load(to) + sum);
            }
        });
    }
}
