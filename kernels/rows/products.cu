// Products of rows with rows: coordinates in a basis, and squared distances.
//
//   row_projection            z[n, j] = sum over i of (x[n, i] - shift[i]) / divisor[i] * basis[i, j]
//   row_distances             |z[n] - points[m]|²
//   row_normalised_distances  |x[n] * x_scale[n] - bank[m] * bank_scale[m]|²
//   row_distances_f32         |z[n] - points[m]|² of f32, multiplied in f32
//
// Features are f32, all results f64: where classes have collapsed, whitening multiplies the rounding error of a difference of
// nearly equal numbers by thousands. Distances are taken by differences, not as |a|² - 2ab + |b|², which cancels for
// the nearest rows. Only between normalised features, whose distances nothing multiplies, may products be f32.
#include "intrinsics/ptx.cuh"
#include "common/pairwise_tile.cuh"

struct Projection {
    const float* x;         // (rows, inputs)
    const double* shift;    // (inputs), or null
    const double* divisor;  // (inputs), or null
    const double* basis;    // (inputs, outputs)
    double* z;              // (rows, outputs)
    u32 rows, inputs, outputs;
    u32 unused;
};

KERNEL(THREADS, row_projection, Projection) {
    SHARED(TileStage<double>, stage);
    const u32 first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    double sums[4][4] = {};
    tile_sums<true, false>(
        stage, sums, first_row, p.rows, first_column, p.outputs, p.inputs,
        [&](u32 n, u32 i) {
            double value = load(p.x + u64(n) * p.inputs + i);
            if (p.shift) value -= load(p.shift + i);
            if (p.divisor) value /= load(p.divisor + i);
            return value;
        },
        [&](u32 j, u32 i) { return load(p.basis + u64(i) * p.outputs + j); }, Multiply());
    each_sum(sums, first_row, p.rows, first_column, p.outputs,
             [&](u32 n, u32 j, double sum) { store(p.z + u64(n) * p.outputs + j, sum); });
}

/// Of f64, or of f32 in row_distances_f32.
struct Distances {
    const void* z;       // (rows, depth)
    const void* points;  // (others, depth)
    double* distances;   // (rows, others)
    u32 rows, others, depth;
    u32 unused;
};

KERNEL(THREADS, row_distances, Distances) {
    SHARED(TileStage<double>, stage);
    const u32 first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    double sums[4][4] = {};
    tile_sums<true, true>(
        stage, sums, first_row, p.rows, first_column, p.others, p.depth,
        [&](u32 n, u32 i) { return load(static_cast<const double*>(p.z) + u64(n) * p.depth + i); },
        [&](u32 m, u32 i) { return load(static_cast<const double*>(p.points) + u64(m) * p.depth + i); }, SquaredDifference());
    each_sum(sums, first_row, p.rows, first_column, p.others,
             [&](u32 n, u32 m, double sum) { store(p.distances + u64(n) * p.others + m, sum); });
}

struct NormalisedDistances {
    const float* x;            // (rows, depth)
    const double* x_scale;     // (rows)
    const float* bank;         // (others, depth)
    const double* bank_scale;  // (others)
    double* distances;         // (rows, others)
    u32 rows, others, depth;
    u32 unused;
};

KERNEL(THREADS, row_normalised_distances, NormalisedDistances) {
    SHARED(TileStage<double>, stage);
    const u32 first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    double sums[4][4] = {};
    tile_sums<true, true>(
        stage, sums, first_row, p.rows, first_column, p.others, p.depth,
        [&](u32 n, u32 i) { return load(p.x + u64(n) * p.depth + i) * load(p.x_scale + n); },
        [&](u32 m, u32 i) { return load(p.bank + u64(m) * p.depth + i) * load(p.bank_scale + m); }, SquaredDifference());
    each_sum(sums, first_row, p.rows, first_column, p.others,
             [&](u32 n, u32 m, double sum) { store(p.distances + u64(n) * p.others + m, sum); });
}

KERNEL(THREADS, row_distances_f32, Distances) {
    SHARED(TileStage<float>, stage);
    const u32 first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    double sums[4][4] = {};
    tile_sums_in_parts<64, true, true>(
        stage, sums, first_row, p.rows, first_column, p.others, p.depth,
        [&](u32 n, u32 i) { return load(static_cast<const float*>(p.z) + u64(n) * p.depth + i); },
        [&](u32 m, u32 i) { return load(static_cast<const float*>(p.points) + u64(m) * p.depth + i); }, SquaredDifference());
    each_sum(sums, first_row, p.rows, first_column, p.others,
             [&](u32 n, u32 m, double sum) { store(p.distances + u64(n) * p.others + m, sum); });
}
