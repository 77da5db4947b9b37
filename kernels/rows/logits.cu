// Scores of the logits of single rows, one warp a row; f64.
//
//   row_generalised_entropy  -sum of p^gamma (1 - p)^gamma over the m largest probabilities p
//   row_margin_sums          sum over c of |l[y] - l[c]| weights[y, c], y the label of the row
//   row_softmax              softmax(l) - centre
//   row_mean_probability     mean over heads of the largest softmax probability
//   row_open_max             probability of an unknown class, by Weibull tails of distances from the mean logits of classes
#include "intrinsics/ptx.cuh"
#include "common/warp_row.cuh"

struct GeneralisedEntropy {
    const double* logits;  // (rows, classes)
    double* entropy;       // (rows)
    double gamma, clamp;
    u32 rows, classes;
    u32 m;
    u32 unused;
};

/// Values that numpy adds up without halving them, in eight running sums.
constexpr u32 PAIRWISE_BLOCK = 128;

/// The sum of exp(l - top) of a row in numpy's order, for all lanes of its warp: blocks of up to 128 values in eight running sums,
/// halves beyond. Where a network is so sure that 1 - p is a few units in the last place, that order decides the score.
__device__ inline double pairwise_sum_of_exponentials(const double* logits, u32 classes, double top) {
    const u32 sum_number = threadIdx.x % 8;
    auto exponential = [&](u32 c) { return exp(load(logits + c) - top); };
    double left = 0.0;  // lane d keeps the sum of the left half of halving d
    u32 path = 0;  // bit d: whether the block lies in the right half of halving d
    for (;;) {
        u32 first = 0, count = classes, depth = 0;
        while (count > PAIRWISE_BLOCK) {
            const u32 half = count / 2 - count / 2 % 8;
            const bool right = path >> depth & 1;
            first += right ? half : 0;
            count = right ? count - half : half;
            ++depth;
        }
        double sum = 0.0;
        if (count < 8) {
            for (u32 i = 0; i < count; ++i) sum += exponential(first + i);
        } else {
            for (u32 i = sum_number; i < count - count % 8; i += 8) sum += exponential(first + i);
#pragma unroll
            for (int mask = 1; mask < 8; mask *= 2) sum += shuffle_xor(sum, mask);
            for (u32 i = count - count % 8; i < count; ++i) sum += exponential(first + i);
        }
        bool is_left = false;
        while (depth > 0 && !is_left) {
            --depth;
            is_left = !(path >> depth & 1);
            if (!is_left) sum = shuffle(left, depth) + sum;
            else if (threadIdx.x % 32 == depth) left = sum;
            path = is_left ? path | 1u << depth : path & ~(1u << depth);
        }
        if (!is_left) return sum;
    }
}

KERNEL(THREADS, row_generalised_entropy, GeneralisedEntropy) {
    const u32 lane = threadIdx.x % 32, row = warp_row();
    if (row < p.rows) {
        const double* logits = p.logits + u64(row) * p.classes;
        const double top = row_largest_value(logits, p.classes);
        const double total = pairwise_sum_of_exponentials(logits, p.classes, top);
        auto term = [&](double logit) {
            double q = exp(logit - top) / total;
            if (p.clamp > 0.0) q = q < p.clamp ? p.clamp : q > 1.0 - p.clamp ? 1.0 - p.clamp : q;
            return exp(p.gamma * (log(q) + log(1.0 - q)));
        };
        const bool all = p.m >= p.classes;
        const u64 bound = all ? 0 : warp_kth_largest<u64>(logits, p.classes, p.m);
        double sum = 0.0;
        u32 above = 0;
        for (u32 c = lane; c < p.classes; c += 32) {
            const double logit = load(logits + c);
            if (all || ordered(logit) > bound) {
                sum += term(logit);
                ++above;
            }
        }
        sum = warp_sum(sum);
        above = warp_sum(above);
        if (!all) sum += double(p.m - above) * term(value_of(bound));
        if (lane == 0) store(p.entropy + row, -sum);
    }
}

struct MarginSums {
    const double* logits;   // (rows, classes)
    const int* labels;      // (rows)
    const double* weights;  // (classes, classes)
    double* sums;           // (rows)
    u32 rows, classes;
};

KERNEL(THREADS, row_margin_sums, MarginSums) {
    const u32 lane = threadIdx.x % 32, row = warp_row();
    if (row < p.rows) {
        const double* logits = p.logits + u64(row) * p.classes;
        const u32 label = u32(load(p.labels + row));
        const double own = load(logits + label);
        const double* weights = p.weights + u64(label) * p.classes;
        double sum = 0.0;
        for (u32 c = lane; c < p.classes; c += 32) sum += fabs(own - load(logits + c)) * load(weights + c);
        sum = warp_sum(sum);
        if (lane == 0) store(p.sums + row, sum);
    }
}

struct Softmax {
    const double* logits;  // (rows, classes), as p
    double* p;
    double centre;
    u32 rows, classes;
};

KERNEL(THREADS, row_softmax, Softmax) {
    const u32 lane = threadIdx.x % 32, row = warp_row();
    if (row < p.rows) {
        const u64 first = u64(row) * p.classes;
        const double top = row_largest_value(p.logits + first, p.classes);
        double sum = 0.0;
        for (u32 c = lane; c < p.classes; c += 32) sum += exp(load(p.logits + first + c) - top);
        sum = warp_sum(sum);
        for (u32 c = lane; c < p.classes; c += 32) {
            store(p.p + first + c, exp(load(p.logits + first + c) - top) / sum - p.centre);
        }
    }
}

struct MeanProbability {
    const double* z;     // (rows, heads, classes)
    const double* bias;  // (classes)
    double* mean;        // (rows)
    u32 rows, heads, classes;
    u32 unused;
};

/// A lane takes every 32nd head.
KERNEL(THREADS, row_mean_probability, MeanProbability) {
    const u32 lane = threadIdx.x % 32, row = warp_row();
    if (row < p.rows) {
        double probabilities = 0.0;
        for (u32 head = lane; head < p.heads; head += 32) {
            const double* z = p.z + (u64(row) * p.heads + head) * p.classes;
            double top = load(z) + load(p.bias), sum = 0.0;
            for (u32 c = 1; c < p.classes; ++c) {
                const double logit = load(z + c) + load(p.bias + c);
                if (logit > top) top = logit;
            }
            for (u32 c = 0; c < p.classes; ++c) sum += exp(load(z + c) + load(p.bias + c) - top);
            probabilities += 1.0 / sum;
        }
        probabilities = warp_sum(probabilities);
        if (lane == 0) store(p.mean + row, probabilities / p.heads);
    }
}

struct OpenMax {
    const double* logits;  // (rows, classes), as revised
    const double* means;   // (classes, classes): mean logits of each class
    const double* tails;   // (classes, 4): shape (0: a step at the most), log scale, least, most
    double* revised;
    double* unknown;       // (rows)
    u32 rows, classes;
    u32 alpha;
    u32 unused;
};

/// Added to distances before the fit: shapes and scales are of (distance - least) / TAIL_SHIFT + 1.
constexpr double TAIL_SHIFT = 1e4;

/// The share of a Weibull distribution below a distance.
__device__ inline double share_below(const double* tail, double distance) {
    const double shape = load(tail);
    if (shape == 0.0) return distance > load(tail + 3) ? 1.0 : 0.0;
    const double beyond = (distance - load(tail + 2)) / TAIL_SHIFT;
    if (beyond <= -1.0) return 0.0;
    const double exponent = shape * (log1p(beyond) - load(tail + 1));
    return -expm1(-exp(exponent < 700.0 ? exponent : 700.0));
}

KERNEL(THREADS, row_open_max, OpenMax) {
    const u32 lane = threadIdx.x % 32, row = warp_row();
    if (row < p.rows) {
        const double* logits = p.logits + u64(row) * p.classes;
        double* revised = p.revised + u64(row) * p.classes;
        for (u32 c = lane; c < p.classes; c += 32) store(revised + c, load(logits + c));
        warp_sync();
        double moved = 0.0, before = 0.0;
        u32 class_before = 0;
        for (u32 rank = 0; rank < p.alpha; ++rank) {
            // The largest logit behind the one before, of equal ones the first.
            double best = 0.0;
            u32 best_class = p.classes;
            for (u32 c = lane; c < p.classes; c += 32) {
                const double logit = load(logits + c);
                const bool is_left = rank == 0 || logit < before || (logit == before && c > class_before);
                if (is_left && (best_class == p.classes || logit > best)) {
                    best = logit;
                    best_class = c;
                }
            }
#pragma unroll
            for (int mask = 16; mask > 0; mask /= 2) {
                const double other = shuffle_xor(best, mask);
                const u32 other_class = shuffle_xor(best_class, mask);
                const bool is_better = best_class == p.classes || other > best || (other == best && other_class < best_class);
                if (other_class < p.classes && is_better) {
                    best = other;
                    best_class = other_class;
                }
            }
            before = best;
            class_before = best_class;
            double square = 0.0;
            for (u32 c = lane; c < p.classes; c += 32) {
                const double difference = load(logits + c) - load(p.means + u64(best_class) * p.classes + c);
                square += difference * difference;
            }
            const double weight = double(p.alpha - rank) / double(p.alpha);
            const double outside = share_below(p.tails + 4 * best_class, sqrt(warp_sum(square)));
            const double lowered = best * (1.0 - weight * outside);
            moved += best - lowered;
            if (lane == 0) store(revised + best_class, lowered);
        }
        warp_sync();
        double top = row_largest_value(revised, p.classes);
        if (moved > top) top = moved;
        double sum = 0.0;
        for (u32 c = lane; c < p.classes; c += 32) sum += exp(load(revised + c) - top);
        const double own = exp(moved - top);
        sum = own + warp_sum(sum);
        if (lane == 0) store(p.unknown + row, own / sum);
    }
}
