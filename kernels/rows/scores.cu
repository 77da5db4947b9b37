// Numbers of single rows: scores of logits, norms, the k-th smallest of a row. One warp per row but for the last.
//
//   row_logit_scores   of l = scale logits + bias: msp = 1 / s, mls = largest, energy = largest + T log s, s = sum of exp((l - largest) / T),
//                      entropy = sum of p log p, deviation = sum of |classes p - 1|, predicted = the first class of the largest
//   row_square_norms   |(x - shift) / divisor|² of rows of f32; the shift may depend on the label of the row
//   row_square_norms_of_coordinates   |z|² of rows of f64
//   row_inverse_norms  1 / (|x| + floor)
//   row_normalise      x / (|x| + floor), rounded to f32
//   row_kth_smallest   the k-th smallest of the numbers of a row, none of them negative
//
// Sums are taken in f64, in an order that depends on the extents alone.
#include "intrinsics/ptx.cuh"
#include "common/select.cuh"
#include "common/warp_row.cuh"

struct LogitScores {
    const double* logits;  // (rows, classes)
    const double* scale;   // (rows), or null
    const double* bias;    // (classes), or null
    double* msp;           // (rows), as all
    double* mls;
    double* energy;
    double* entropy;
    double* deviation;     // or null
    int* predicted;
    u32 rows, classes;
    double temperature;
};

KERNEL(THREADS, row_logit_scores, LogitScores) {
    const u32 lane = threadIdx.x % 32, row = warp_row();
    if (row < p.rows) {
        const double* logits = p.logits + u64(row) * p.classes;
        const double scale = p.scale ? load(p.scale + row) : 1.0;
        auto logit = [&](u32 c) {
            const double scaled = scale * load(logits + c);
            return p.bias ? scaled + load(p.bias + c) : scaled;
        };
        double largest = logit(0);
        u32 predicted = 0;
        for (u32 c = lane; c < p.classes; c += 32) {
            const double own = logit(c);
            if (own > largest) {
                largest = own;
                predicted = c;
            }
        }
#pragma unroll
        for (int mask = 16; mask > 0; mask /= 2) {
            const double other = shuffle_xor(largest, mask);
            const u32 other_class = shuffle_xor(predicted, mask);
            if (other > largest || (other == largest && other_class < predicted)) {
                largest = other;
                predicted = other_class;
            }
        }
        double sum = 0.0, weighted = 0.0;
        for (u32 c = lane; c < p.classes; c += 32) {
            const double below = (logit(c) - largest) / p.temperature, e = exp(below);
            sum += e;
            weighted += e * below;
        }
        sum = warp_sum(sum);
        weighted = warp_sum(weighted);
        double deviation = 0.0;
        if (p.deviation) {
            for (u32 c = lane; c < p.classes; c += 32) {
                deviation += fabs(p.classes * exp((logit(c) - largest) / p.temperature) / sum - 1.0);
            }
            deviation = warp_sum(deviation);
        }
        if (lane == 0) {
            store(p.msp + row, 1.0 / sum);
            store(p.mls + row, largest);
            store(p.energy + row, largest + p.temperature * log(sum));
            store(p.entropy + row, weighted / sum - log(sum));
            if (p.deviation) store(p.deviation + row, deviation);
            store(p.predicted + row, int(predicted));
        }
    }
}

struct SquareNorms {
    const float* x;         // (rows, columns)
    const double* shift;    // (columns), or (labels, columns) where there are labels; or null
    const double* divisor;  // (columns), or null
    const int* labels;      // (rows), or null
    double* norms;          // (rows)
    u32 rows, columns;
};

KERNEL(THREADS, row_square_norms, SquareNorms) {
    const u32 lane = threadIdx.x % 32, row = warp_row();
    if (row < p.rows) {
        const float* x = p.x + u64(row) * p.columns;
        const double* shift = p.shift;
        if (p.labels) shift += u64(load(p.labels + row)) * p.columns;
        auto square = [&](float value, u32 column) {
            double centred = value;
            if (shift) centred -= load(shift + column);
            if (p.divisor) centred /= load(p.divisor + column);
            return centred * centred;
        };
        double sum = 0.0;
        if (p.columns % 4 == 0) {
            for (u32 i = 4 * lane; i < p.columns; i += 128) {
                const Vector<float, 4> values = load_vector<4>(x + i);
#pragma unroll
                for (u32 j = 0; j < 4; ++j) sum += square(values[j], i + j);
            }
        } else {
            for (u32 i = lane; i < p.columns; i += 32) sum += square(load(x + i), i);
        }
        sum = warp_sum(sum);
        if (lane == 0) store(p.norms + row, sum);
    }
}

struct CoordinateNorms {
    const double* z;  // (rows, columns)
    double* norms;
    u32 rows, columns;
};

KERNEL(THREADS, row_square_norms_of_coordinates, CoordinateNorms) {
    const u32 lane = threadIdx.x % 32, row = warp_row();
    if (row < p.rows) {
        const double* z = p.z + u64(row) * p.columns;
        double sum = 0.0;
        if (p.columns % 2 == 0) {
            for (u32 i = 2 * lane; i < p.columns; i += 64) {
                const Vector<double, 2> values = load_vector<2>(z + i);
                sum += values[0] * values[0] + values[1] * values[1];
            }
        } else {
            for (u32 i = lane; i < p.columns; i += 32) {
                const double value = load(z + i);
                sum += value * value;
            }
        }
        sum = warp_sum(sum);
        if (lane == 0) store(p.norms + row, sum);
    }
}

struct InverseNorms {
    const float* x;  // (rows, columns)
    double* norms;
    u32 rows, columns;
    double floor;
};

/// 1 / (|x| + floor) of the row x, for all lanes of its warp.
__device__ inline double inverse_norm(const float* x, u32 columns, double floor) {
    const u32 lane = threadIdx.x % 32;
    double sum = 0.0;
    if (columns % 4 == 0) {
        for (u32 i = 4 * lane; i < columns; i += 128) {
            const Vector<float, 4> values = load_vector<4>(x + i);
#pragma unroll
            for (u32 j = 0; j < 4; ++j) sum += double(values[j]) * values[j];
        }
    } else {
        for (u32 i = lane; i < columns; i += 32) {
            const double value = load(x + i);
            sum += value * value;
        }
    }
    return 1.0 / (sqrt(warp_sum(sum)) + floor);
}

KERNEL(THREADS, row_inverse_norms, InverseNorms) {
    const u32 row = warp_row();
    if (row < p.rows) {
        const double norm = inverse_norm(p.x + u64(row) * p.columns, p.columns, p.floor);
        if (threadIdx.x % 32 == 0) store(p.norms + row, norm);
    }
}

struct Normalised {
    const float* x;  // (rows, columns), as y
    float* y;
    u32 rows, columns;
    double floor;
};

KERNEL(THREADS, row_normalise, Normalised) {
    const u32 row = warp_row();
    if (row < p.rows) {
        const u64 first = u64(row) * p.columns;
        const double norm = inverse_norm(p.x + first, p.columns, p.floor);
        for (u32 i = threadIdx.x % 32; i < p.columns; i += 32) store(p.y + first + i, float(load(p.x + first + i) * norm));
    }
}

struct KthSmallest {
    const u64* values;  // (rows, columns): the bits of f64 that are not negative, whose order is that of their values
    u64* smallest;      // (rows)
    u32 rows, columns;
    u32 k;              // from 1 to columns
    u32 unused;
};

/// One thread block per row.
KERNEL(THREADS, row_kth_smallest, KthSmallest) {
    SHARED(DigitCounts, counts);
    const u64* values = p.values + u64(blockIdx.x) * p.columns;
    const u64 found = kth_smallest(counts, p.columns, p.k, [&](u32 i) { return load(values + i); });
    if (threadIdx.x == 0) store(p.smallest + blockIdx.x, found);
}
