// Histograms of rows, one thread block a row, and their divergence from a training histogram.
//
//   row_histogram                 of features
//   row_histogram_of_coordinates  of coordinates plus a bias that repeats along them
//
// The share of a row's values in each bin is smoothed by a box (the outer bins repeat beyond the ends); a constant is added to both
// histograms, which are divided by their sums; divergence = sum of (p - q) (log p - log q).
#include "intrinsics/ptx.cuh"
#include "common/reduce.cuh"

/// Bins between BINS + 1 edges; values outside are in none.
LAUNCHER_CONSTANT u32 BINS = 100;
/// Values of a thread in one pass: its counts are bytes.
constexpr u32 MOST_COUNTED = 255;

struct RowHistogram {
    const void* values;    // (rows, columns), f32 or f64
    const double* bias;    // (period), or null
    const double* edges;   // (BINS + 1), equally spaced
    const double* shares;  // (BINS): of the training values
    double* divergence;    // (rows)
    double per_width, floor;
    u32 rows, columns;
    u32 period, width;
};

struct SharedHistogram {
    double edges[BINS + 1];
    double own[BINS];
    double smooth[BINS];
    double terms[BINS];
    u8 counts[BINS][THREADS];
};

template <class Value>
__device__ void histogram_divergence(SharedHistogram& shared, const RowHistogram& p) {
    const u32 thread = threadIdx.x, row = blockIdx.x;
    const Value* values = static_cast<const Value*>(p.values) + u64(row) * p.columns;
    for (u32 i = thread; i <= BINS; i += THREADS) shared.edges[i] = load(p.edges + i);
    u32 total = 0;  // of the bin of this thread
    for (u32 first = 0; first < p.columns; first += MOST_COUNTED * THREADS) {
        const u32 left = p.columns - first;
        const u32 end = first + (left < MOST_COUNTED * THREADS ? left : MOST_COUNTED * THREADS);
        for (u32 bin = 0; bin < BINS; ++bin) shared.counts[bin][thread] = 0;
        block_sync();
        for (u32 i = first + thread; i < end; i += THREADS) {
            double value = load(values + i);
            if (p.bias) value += load(p.bias + i % p.period);
            if (!(value >= shared.edges[0] && value < shared.edges[BINS])) continue;
            // The quotient is off by one at the most, next to an edge.
            u32 bin = u32((value - shared.edges[0]) * p.per_width);
            if (bin > BINS - 1) bin = BINS - 1;
            if (value < shared.edges[bin]) --bin;
            else if (value >= shared.edges[bin + 1]) ++bin;
            shared.counts[bin][thread] += 1;
        }
        block_sync();
        if (thread < BINS) {
            for (u32 i = 0; i < THREADS; ++i) total += shared.counts[thread][i];
        }
        block_sync();
    }
    if (thread < BINS) shared.own[thread] = double(total) / p.columns;
    block_sync();
    if (thread < BINS) {
        double sum = 0.0;
        for (u32 i = 0; i < p.width; ++i) {
            const int at = int(thread + i) - int((p.width - 1) / 2);
            sum += shared.own[at < 0 ? 0 : at > int(BINS) - 1 ? int(BINS) - 1 : at];
        }
        shared.smooth[thread] = sum / p.width + p.floor;
    }
    block_sync();
    if (thread < BINS) {
        double all = 0.0, training = 0.0;
        for (u32 bin = 0; bin < BINS; ++bin) {
            all += shared.smooth[bin];
            training += load(p.shares + bin) + p.floor;
        }
        const double a = (load(p.shares + thread) + p.floor) / training, b = shared.smooth[thread] / all;
        shared.terms[thread] = (a - b) * (log(a) - log(b));
    }
    block_sync();
    if (thread == 0) {
        double sum = 0.0;
        for (u32 bin = 0; bin < BINS; ++bin) sum += shared.terms[bin];
        store(p.divergence + row, sum);
    }
}

KERNEL(THREADS, row_histogram, RowHistogram) {
    SHARED(SharedHistogram, shared);
    histogram_divergence<float>(shared, p);
}

KERNEL(THREADS, row_histogram_of_coordinates, RowHistogram) {
    SHARED(SharedHistogram, shared);
    histogram_divergence<double>(shared, p);
}
