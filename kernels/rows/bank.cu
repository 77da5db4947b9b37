// Rows against a bank of training rows: tables of products, one thread block a tile, and sums over a row of a table, one thread block a
// row. Features are multiplied by a number a row first, 1 over their norms.
//
//   row_guided_products  <x[n] x_scale[n], bank[m] bank_scale[m]> guide[m]
//   row_likenesses       r^power where r = max(<x[n] x_scale[n], bank[m] bank_scale[m]>, 0) <p[n], bank_p[m]> exceeds `least`, else 0
//   row_sum_of_largest   sum of the k largest of a row
//   row_sum              sum of a row
#include "intrinsics/ptx.cuh"
#include "common/pairwise_tile.cuh"
#include "common/select.cuh"
#include "common/warp_row.cuh"

struct GuidedProducts {
    const float* x;            // (rows, depth)
    const double* x_scale;     // (rows)
    const float* bank;         // (others, depth)
    const double* bank_scale;  // (others)
    const double* guide;       // (others)
    double* products;          // (rows, others)
    u32 rows, others, depth;
    u32 unused;
};

KERNEL(THREADS, row_guided_products, GuidedProducts) {
    SHARED(TileStage<double>, stage);
    const u32 first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    double sums[4][4] = {};
    scaled_tile_sums(stage, sums, first_row, first_column, p, Multiply());
    each_sum(sums, first_row, p.rows, first_column, p.others,
             [&](u32 n, u32 m, double sum) { store(p.products + u64(n) * p.others + m, sum * load(p.guide + m)); });
}

struct Likenesses {
    const float* x;             // (rows, depth)
    const double* x_scale;      // (rows)
    const double* probability;  // (rows, classes)
    const float* bank;          // (others, depth)
    const double* bank_scale;   // (others)
    const float* bank_probability;  // (others, classes)
    double* likenesses;         // (rows, others)
    double least, power;
    u32 rows, others, depth;
    u32 classes;
};

KERNEL(THREADS, row_likenesses, Likenesses) {
    SHARED(TileStage<double>, stage);
    const u32 first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    double cosines[4][4] = {};
    scaled_tile_sums(stage, cosines, first_row, first_column, p, Multiply());
    double agreements[4][4] = {};
    tile_sums<true, true>(
        stage, agreements, first_row, p.rows, first_column, p.others, p.classes,
        [&](u32 n, u32 c) { return load(p.probability + u64(n) * p.classes + c); },
        [&](u32 m, u32 c) { return double(load(p.bank_probability + u64(m) * p.classes + c)); }, Multiply());
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
#pragma unroll
        for (u32 j = 0; j < 4; ++j) agreements[i][j] *= cosines[i][j] > 0.0 ? cosines[i][j] : 0.0;
    }
    each_sum(agreements, first_row, p.rows, first_column, p.others, [&](u32 n, u32 m, double likeness) {
        const double raised = p.power == 1.0 ? likeness : exp(p.power * log(likeness));
        store(p.likenesses + u64(n) * p.others + m, likeness > p.least ? raised : 0.0);
    });
}

struct RowSums {
    const double* values;  // (rows, columns)
    double* sums;          // (rows)
    u32 rows, columns;
    u32 k;                 // from 1 to columns
    u32 unused;
};

struct SharedSelection {
    DigitCounts counts;
    double sums[WARPS];
    u32 numbers[WARPS];
};

KERNEL(THREADS, row_sum_of_largest, RowSums) {
    SHARED(SharedSelection, shared);
    const double* values = p.values + u64(blockIdx.x) * p.columns;
    const u64 bound = kth_smallest(shared.counts, p.columns, p.columns - p.k + 1, [&](u32 i) { return ordered(load(values + i)); });
    double sum = 0.0;
    u32 above = 0;
    for (u32 i = threadIdx.x; i < p.columns; i += THREADS) {
        const double value = load(values + i);
        if (ordered(value) > bound) {
            sum += value;
            ++above;
        }
    }
    sum = block_sum(shared.sums, sum);
    above = block_sum(shared.numbers, above);
    if (threadIdx.x == 0) store(p.sums + blockIdx.x, sum + double(p.k - above) * value_of(bound));
}

KERNEL(THREADS, row_sum, RowSums) {
    SHARED(SharedSelection, shared);
    const double* values = p.values + u64(blockIdx.x) * p.columns;
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < p.columns; i += THREADS) sum += load(values + i);
    sum = block_sum(shared.sums, sum);
    if (threadIdx.x == 0) store(p.sums + blockIdx.x, sum);
}
