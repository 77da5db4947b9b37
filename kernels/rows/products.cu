// Products of rows with rows: coordinates in a basis, and squared distances.
//
//   row_projection            z[n, j] = sum over i of (x[n, i] - shift[i]) / divisor[i] * basis[i, j]
//   row_projection_of_coordinates  the same of x in f64
//   row_shaped_projection     z[n, j] = sum over i of shape(x[n, i]) * basis[i, j]: cut, clipped, or the largest of a row kept
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
    const void* x;          // (rows, inputs): f32, or f64 in row_projection_of_coordinates
    const double* shift;    // (inputs), or null
    const double* divisor;  // (inputs), or null
    const double* basis;    // (inputs, outputs)
    double* z;              // (rows, outputs)
    u32 rows, inputs, outputs;
    u32 unused;
};

template <class Value>
__device__ void project(TileStage<double>& stage, const Projection& p) {
    const u32 first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    double sums[4][4] = {};
    tile_sums<true, false>(
        stage, sums, first_row, p.rows, first_column, p.outputs, p.inputs,
        [&](u32 n, u32 i) {
            double value = load(static_cast<const Value*>(p.x) + u64(n) * p.inputs + i);
            if (p.shift) value -= load(p.shift + i);
            if (p.divisor) value /= load(p.divisor + i);
            return value;
        },
        [&](u32 j, u32 i) { return load(p.basis + u64(i) * p.outputs + j); }, Multiply());
    each_sum(sums, first_row, p.rows, first_column, p.outputs,
             [&](u32 n, u32 j, double sum) { store(p.z + u64(n) * p.outputs + j, sum); });
}

KERNEL(THREADS, row_projection, Projection) {
    SHARED(TileStage<double>, stage);
    project<float>(stage, p);
}

KERNEL(THREADS, row_projection_of_coordinates, Projection) {
    SHARED(TileStage<double>, stage);
    project<double>(stage, p);
}

/// Above `high` it becomes that; below `low`, where there is one, 0; lambda is added between.
LAUNCHER_CONSTANT u32 CUT = 0;
/// Clipped to [low, high].
LAUNCHER_CONSTANT u32 CLIP = 1;
/// 0 unless it is above the row's `low`, or equals it in a column up to the row's `high`.
LAUNCHER_CONSTANT u32 KEEP = 2;
/// The same, and 1 in place of what is kept.
LAUNCHER_CONSTANT u32 KEEP_ONES = 3;

struct ShapedProjection {
    const float* x;       // (rows, inputs)
    const double* low;    // (inputs), or null; where values are kept (rows)
    const double* high;   // (inputs); where values are kept (rows)
    const double* basis;  // (inputs, outputs)
    double* z;            // (rows, outputs)
    double lambda;
    u32 rows, inputs, outputs;
    u32 mode;
};

KERNEL(THREADS, row_shaped_projection, ShapedProjection) {
    SHARED(TileStage<double>, stage);
    const u32 first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    double sums[4][4] = {};
    tile_sums<true, false>(
        stage, sums, first_row, p.rows, first_column, p.outputs, p.inputs,
        [&](u32 n, u32 i) {
            const double value = load(p.x + u64(n) * p.inputs + i);
            if (p.mode >= KEEP) {
                const double bound = load(p.low + n);
                const bool is_kept = value > bound || (value == bound && i <= load(p.high + n));
                return !is_kept ? 0.0 : p.mode == KEEP_ONES ? 1.0 : value;
            }
            const double high = load(p.high + i);
            const bool is_low = p.low && value < load(p.low + i);
            if (is_low) return p.mode == CUT ? 0.0 : load(p.low + i);
            if (value > high) return high;
            return p.mode == CLIP ? value : value + p.lambda;
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
    scaled_tile_sums(stage, sums, first_row, first_column, p, SquaredDifference());
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
