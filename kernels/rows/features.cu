// Scores of the features of single rows, one warp a row; f64 sums of f32 features.
//
//   row_unit            x / |x|; rows of zeros stay
//   row_largest         the k largest features: the least of them, the last that equals it, their sum against that of all
//   row_class_products  <x - shift, points[y]>, y the label of the row
//   row_magnitudes      sums of the positive and of the negative parts of (x - means[y]) sign(weights[y])
//   row_coverage        mean over columns of the coverage of the bin that alpha x g lies in
#include "intrinsics/ptx.cuh"
#include "common/warp_row.cuh"

struct Unit {
    const float* x;  // (rows, columns), as y
    double* y;
    u32 rows, columns;
};

KERNEL(THREADS, row_unit, Unit) {
    const u32 lane = threadIdx.x % 32, row = warp_row();
    if (row < p.rows) {
        const u64 first = u64(row) * p.columns;
        double sum = 0.0;
        for (u32 i = lane; i < p.columns; i += 32) {
            const double value = load(p.x + first + i);
            sum += value * value;
        }
        const double norm = sqrt(warp_sum(sum));
        for (u32 i = lane; i < p.columns; i += 32) {
            const double value = load(p.x + first + i);
            store(p.y + first + i, norm > 0.0 ? value / norm : value);
        }
    }
}

struct Largest {
    const float* x;  // (rows, columns)
    double* bound;   // (rows), as all four
    double* last;
    double* scale;
    double* share;
    u32 rows, columns;
    u32 k;           // from 1 to columns
    u32 unused;
};

KERNEL(THREADS, row_largest, Largest) {
    const u32 lane = threadIdx.x % 32, row = warp_row();
    if (row < p.rows) {
        const float* x = p.x + u64(row) * p.columns;
        const float bound = value_of(warp_kth_largest<u32>(x, p.columns, p.k));
        u32 above = 0;
        double sum = 0.0, kept = 0.0;
        for (u32 i = lane; i < p.columns; i += 32) {
            const float value = load(x + i);
            sum += value;
            if (value > bound) {
                kept += value;
                ++above;
            }
        }
        const u32 equal = p.k - warp_sum(above);
        sum = warp_sum(sum);
        kept = warp_sum(kept) + double(equal) * bound;
        // The column of the equal-th value at the bound, bit by bit: the first column with that many up to it.
        u32 beyond = 0;  // columns that hold fewer
        for (u32 step = 1u << (31 - __clz(int(p.columns))); step > 0; step /= 2) {
            const u32 end = beyond + step;  // columns counted
            if (end >= p.columns) continue;
            u32 count = 0;
            for (u32 i = lane; i < end; i += 32) count += load(x + i) == bound;
            if (warp_sum(count) < equal) beyond = end;
        }
        if (lane == 0) {
            store(p.bound + row, double(bound));
            store(p.last + row, double(beyond));
            store(p.scale + row, kept == 0.0 ? 1.0 : exp(sum / kept));
            store(p.share + row, sum / p.k);
        }
    }
}

struct ClassProducts {
    const float* x;        // (rows, columns)
    const int* labels;     // (rows)
    const double* shift;   // (columns), or null
    const double* points;  // (classes, columns)
    double* products;      // (rows)
    u32 rows, columns;
};

KERNEL(THREADS, row_class_products, ClassProducts) {
    const u32 lane = threadIdx.x % 32, row = warp_row();
    if (row < p.rows) {
        const float* x = p.x + u64(row) * p.columns;
        const double* point = p.points + u64(load(p.labels + row)) * p.columns;
        double sum = 0.0;
        for (u32 i = lane; i < p.columns; i += 32) {
            double value = load(x + i);
            if (p.shift) value -= load(p.shift + i);
            sum += value * load(point + i);
        }
        sum = warp_sum(sum);
        if (lane == 0) store(p.products + row, sum);
    }
}

struct Magnitudes {
    const float* x;         // (rows, columns)
    const int* labels;      // (rows), or null where neither means nor weights are given
    const double* means;    // (classes, columns), or null
    const double* weights;  // (classes, columns), or null
    double* above;          // (rows), as below
    double* below;
    u32 rows, columns;
};

KERNEL(THREADS, row_magnitudes, Magnitudes) {
    const u32 lane = threadIdx.x % 32, row = warp_row();
    if (row < p.rows) {
        const float* x = p.x + u64(row) * p.columns;
        const u64 own = p.labels ? u64(load(p.labels + row)) * p.columns : 0;
        double above = 0.0, below = 0.0;
        for (u32 i = lane; i < p.columns; i += 32) {
            double value = load(x + i);
            if (p.means) value -= load(p.means + own + i);
            if (p.weights) {
                const double weight = load(p.weights + own + i);
                value = weight == 0.0 ? 0.0 : weight < 0.0 ? -value : value;
            }
            if (value > 0.0) above += value;
            else below -= value;
        }
        above = warp_sum(above);
        below = warp_sum(below);
        if (lane == 0) {
            store(p.above + row, above);
            store(p.below + row, below);
        }
    }
}

struct Coverage {
    const float* x;           // (rows, columns)
    const double* gradients;  // (rows, columns)
    const double* edges;      // (bins - 1), ascending
    const double* coverage;   // (columns, bins)
    double* covered;          // (rows)
    double alpha;
    u32 rows, columns;
    u32 bins;
    u32 unused;
};

KERNEL(THREADS, row_coverage, Coverage) {
    const u32 lane = threadIdx.x % 32, row = warp_row();
    if (row < p.rows) {
        const u64 first = u64(row) * p.columns;
        double sum = 0.0;
        for (u32 i = lane; i < p.columns; i += 32) {
            const double state = p.alpha * load(p.x + first + i) * load(p.gradients + first + i);
            u32 bin = 0, end = p.bins - 1;  // the number of edges not above the state lies between them
            while (bin < end) {
                const u32 middle = (bin + end) / 2;
                if (load(p.edges + middle) <= state) bin = middle + 1;
                else end = middle;
            }
            sum += load(p.coverage + u64(i) * p.bins + bin);
        }
        sum = warp_sum(sum);
        if (lane == 0) store(p.covered + row, sum / p.columns);
    }
}
