// Batch normalisation (Ioffe & Szegedy 2015) over x (rows, channels), channels fastest: NHWC with all pixels as rows.
//
//   statistics         mean, biased variance -> inverse_std = 1 / sqrt(variance + epsilon), scale = gamma inverse_std,
//                      bias = beta - mean scale; running statistics move towards the mean and the unbiased variance
//   frozen             scale and bias from running statistics
//   fold               weight[k, ..] scale[k] for the convolution before it
//   scale_bias         y = act(scale x + bias [+ residual])
//   reduce             dbeta = sum of d, dgamma = sum of d (x - mean) inverse_std, where d is dy where the ReLU passed x, else 0
//   input_gradient     dx = scale (d - dbeta / rows - (x - mean) inverse_std dgamma / rows); frozen: dx = scale d
//
// Sums over rows have two stages. In the first a thread block takes partial sums over a chunk of rows, of some channels: a thread
// holds VECTOR_SIZE neighbouring channels, `columns` threads lie side by side along channels, the others are lanes along rows, so
// that a warp reads whole lines. The second stage merges the partial sums of all chunks, in order; they may also come from the
// epilogue of the convolution that has just computed x or dy. Moments are taken of x less a pivot, the first row, and merged by
// Chan's formula: neither a large mean nor a long column loses digits.
#include "intrinsics/ptx.cuh"
#include "common/reduce.cuh"

constexpr int VECTOR_SIZE = MAX_VECTOR_SIZE<Real>;

/// The threads of a thread block over a chunk.
struct Chunks {
    Cut cut;
    u32 columns;  // threads side by side, a power of two
    u32 vectorized;  // whether a thread holds VECTOR_SIZE channels, or one
};

/// The part of a chunk that belongs to a thread: rows first, first + lanes, .. below end, of N channels.
template <int N>
struct Part {
    u64 first, end;
    u32 lanes, channel;
    bool inside;

    __device__ explicit Part(const Chunks& s) {
        lanes = THREADS / s.columns;
        channel = (blockIdx.x * s.columns + threadIdx.x % s.columns) * N;
        inside = channel < s.cut.channels;
        const u64 begin = blockIdx.y * s.cut.rows_per_chunk;
        end = begin + s.cut.rows_per_chunk < s.cut.rows ? begin + s.cut.rows_per_chunk : s.cut.rows;
        first = begin + threadIdx.x / s.columns;
    }

    /// Whether this thread writes the thread block's result.
    __device__ bool writes(const Chunks& s) const { return inside && threadIdx.x < s.columns; }
};

/// Threads of the second stage side by side along channels; the others are lanes along chunks.
LAUNCHER_CONSTANT u32 FINALIZE_COLUMNS = 8;

// ---- statistics ----

struct StatisticsArguments {
    const Real* x;
    float* partial;  // (2, chunks, channels): means less the pivot, squared deviations
    Chunks chunks;
};

/// Adds ROWS rows, `stride` elements apart, to a thread's moments.
template <int ROWS, int N>
__device__ void take_rows(const Real* x, u64 stride, const float (&pivot)[N], Moments<N>& moments) {
    float values[ROWS][N];
#pragma unroll
    for (int row = 0; row < ROWS; ++row) load_floats(x + row * stride, values[row]);
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
#pragma unroll
        for (int i = 0; i < N; ++i) values[row][i] -= pivot[i];
    }
    moments.take(values);
}

template <int N>
__device__ void chunk_moments(const StatisticsArguments& p, SharedMoments<VECTOR_SIZE>& shared) {
    const Part<N> part(p.chunks);
    const u32 channels = p.chunks.cut.channels;
    Moments<N> moments;
    if (part.inside) {
        constexpr int ROWS = 4;
        float pivot[N];
        load_floats(p.x + part.channel, pivot);
        const u64 stride = u64(part.lanes) * channels;
        u64 row = part.first;
        for (; row + (ROWS - 1) * part.lanes < part.end; row += ROWS * part.lanes) {
            take_rows<ROWS>(p.x + row * channels + part.channel, stride, pivot, moments);
        }
        for (; row < part.end; row += part.lanes) {
            take_rows<1>(p.x + row * channels + part.channel, stride, pivot, moments);
        }
    }
    merge_lanes(shared, moments, p.chunks.columns);
    if (part.writes(p.chunks)) {
        const u64 at = u64(blockIdx.y) * channels + part.channel;
        store_floats(p.partial + at, moments.mean);
        store_floats(p.partial + u64(p.chunks.cut.chunks) * channels + at, moments.deviations);
    }
}

KERNEL(THREADS, batch_norm_moments, StatisticsArguments) {
    SHARED(SharedMoments<VECTOR_SIZE>, shared);
    if (p.chunks.vectorized) chunk_moments<VECTOR_SIZE>(p, shared);
    else chunk_moments<1>(p, shared);
}

struct FinalizeStatisticsArguments {
    const Real* pivot;  // whose first row was subtracted before the means were taken; or null
    const float* partial;
    const float* gamma;
    const float* beta;
    float* mean;
    float* inverse_std;
    float* scale;
    float* bias;
    float* running_mean;
    float* running_variance;
    Cut cut;
    float epsilon;
    float momentum;
    float keep;  // 1 - momentum
    u32 unused;
};

KERNEL(THREADS, batch_norm_statistics, FinalizeStatisticsArguments) {
    SHARED(SharedMoments<1>, shared);
    const u32 channel = blockIdx.x * FINALIZE_COLUMNS + threadIdx.x % FINALIZE_COLUMNS;
    const u32 channels = p.cut.channels;
    Moments<1> moments;
    if (channel < channels) {
#pragma unroll 4
        for (u32 chunk = threadIdx.x / FINALIZE_COLUMNS; chunk < p.cut.chunks; chunk += THREADS / FINALIZE_COLUMNS) {
            const u64 at = u64(chunk) * channels + channel;
            const float mean[1] = {load(p.partial + at)};
            const float deviations[1] = {load(p.partial + u64(p.cut.chunks) * channels + at)};
            moments.merge(p.cut.rows_of(chunk), mean, deviations);
        }
    }
    merge_lanes(shared, moments, FINALIZE_COLUMNS);
    if (channel < channels && threadIdx.x < FINALIZE_COLUMNS) {
        const u64 rows = p.cut.rows;
        const float mean = moments.mean[0] + (p.pivot ? to_float(load(p.pivot + channel)) : 0.0f);
        const float deviations = moments.deviations[0];
        const float inverse_std = 1.0f / sqrtf(deviations / float(rows) + p.epsilon);
        const float scale = load(p.gamma + channel) * inverse_std;
        // A single row has no spread: its unbiased variance would be 0 / 0.
        const float unbiased = deviations / float(rows > 1 ? rows - 1 : 1);
        store(p.mean + channel, mean);
        store(p.inverse_std + channel, inverse_std);
        store(p.scale + channel, scale);
        store(p.bias + channel, load(p.beta + channel) - mean * scale);
        store(p.running_mean + channel, p.keep * load(p.running_mean + channel) + p.momentum * mean);
        store(p.running_variance + channel, p.keep * load(p.running_variance + channel) + p.momentum * unbiased);
    }
}

// ---- running statistics ----

struct FrozenArguments {
    const float* gamma;
    const float* beta;
    const float* running_mean;
    const float* running_variance;
    float* inverse_std;
    float* scale;
    float* bias;
    u32 channels;
    float epsilon;
};

KERNEL(THREADS, batch_norm_frozen, FrozenArguments) {
    const u64 channel = thread_in_grid();
    if (channel < p.channels) {
        const float inverse_std = 1.0f / sqrtf(load(p.running_variance + channel) + p.epsilon);
        const float scale = load(p.gamma + channel) * inverse_std;
        store(p.inverse_std + channel, inverse_std);
        store(p.scale + channel, scale);
        store(p.bias + channel, load(p.beta + channel) - load(p.running_mean + channel) * scale);
    }
}

struct FoldArguments {
    const float* weight;
    const float* gamma;
    const float* beta;
    const float* running_mean;
    const float* running_variance;
    Real* folded;
    float* bias;
    u64 filter;  // elements of a filter
    float epsilon;
    u32 vectorized;  // whether a filter is whole vectors
};

template <int N>
__device__ void fold_filter(const FoldArguments& p, float scale) {
    const u64 filter = blockIdx.x * p.filter;
    for (u64 at = u64(threadIdx.x) * N; at < p.filter; at += THREADS * N) {
        float values[N];
        load_floats(p.weight + filter + at, values);
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] *= scale;
        store_floats(p.folded + filter + at, values);
    }
}

/// One thread block per filter.
KERNEL(THREADS, batch_norm_fold, FoldArguments) {
    const u32 channel = blockIdx.x;
    const float scale = load(p.gamma + channel) / sqrtf(load(p.running_variance + channel) + p.epsilon);
    if (threadIdx.x == 0) store(p.bias + channel, load(p.beta + channel) - load(p.running_mean + channel) * scale);
    if (p.vectorized) fold_filter<VECTOR_SIZE>(p, scale);
    else fold_filter<1>(p, scale);
}

// ---- elementwise passes with coefficients per channel ----

/// A grid-stride loop over vectors of N elements: the number of threads in the grid is a multiple of the vectors in a row, so a
/// thread keeps its channels, and their coefficients in registers.
template <int N>
struct GridStride {
    u64 first, step, vectors;
    u32 channel;

    __device__ GridStride(u64 rows, u32 channels) {
        const u32 groups = channels / N;
        first = thread_in_small_grid();
        step = u64(gridDim.x) * THREADS;
        vectors = rows * groups;
        channel = thread_in_small_grid() % groups * N;
    }
};

/// Vectors of each operand that a thread has in flight at a time.
constexpr int IN_FLIGHT = 2;

struct ScaleBiasArguments {
    const Real* x;
    const float* scale;
    const float* bias;
    const Real* residual;  // or null
    Real* y;
    u64 rows;
    u32 channels;
    u32 relu;
    u32 vectorized;  // whether channels are whole vectors
    u32 unused;
};

template <int N, bool RESIDUAL>
__device__ void scale_bias_vectors(const ScaleBiasArguments& p) {
    const GridStride<N> loop(p.rows, p.channels);
    float scale[N], bias[N];
    load_floats(p.scale + loop.channel, scale);
    load_floats(p.bias + loop.channel, bias);
    for (u64 vector = loop.first; vector < loop.vectors; vector += IN_FLIGHT * loop.step) {
        Vector<Real, N> x[IN_FLIGHT], residual[IN_FLIGHT];
#pragma unroll
        for (int u = 0; u < IN_FLIGHT; ++u) {
            const u64 at = vector + u * loop.step;
            if (at >= loop.vectors) break;
            x[u] = load_vector<N>(p.x + at * N);
            if (RESIDUAL) residual[u] = load_vector<N>(p.residual + at * N);
        }
#pragma unroll
        for (int u = 0; u < IN_FLIGHT; ++u) {
            const u64 at = vector + u * loop.step;
            if (at >= loop.vectors) break;
#pragma unroll
            for (int i = 0; i < N; ++i) {
                float y = fmaf(scale[i], to_float(x[u][i]), bias[i]);
                if (RESIDUAL) y += to_float(residual[u][i]);
                x[u][i] = from_float<Real>(p.relu ? rectified(y) : y);
            }
            store_vector<N>(p.y + at * N, x[u]);
        }
    }
}

KERNEL(THREADS, scale_bias, ScaleBiasArguments) {
    if (p.vectorized) scale_bias_vectors<VECTOR_SIZE, false>(p);
    else scale_bias_vectors<1, false>(p);
}

KERNEL(THREADS, scale_bias_residual, ScaleBiasArguments) {
    if (p.vectorized) scale_bias_vectors<VECTOR_SIZE, true>(p);
    else scale_bias_vectors<1, true>(p);
}

// ---- gradient ----

/// ReLU backward: dy where `scale x + bias`, rounded as in the forward pass, is positive.
__device__ inline float gated(float dy, float x, float scale, float bias, bool relu) {
    return relu && !(fmaf(scale, x, bias) > 0.0f) ? 0.0f : dy;
}

struct ReduceArguments {
    const Real* dy;
    const Real* x;
    const float* scale;
    const float* bias;
    const float* mean;
    float* partial;  // (2, chunks, channels): sums of d, of d (x - mean)
    Chunks chunks;
    u64 relu;
};

/// Shared memory for the sums of all threads of a thread block.
struct SharedSums {
    float values[2 * VECTOR_SIZE][THREADS];
};

/// Adds ROWS rows, `stride` elements apart, to the sums of d and of d (x - mean).
template <int ROWS, int N>
__device__ void reduce_rows(const ReduceArguments& p, u64 at, u64 stride, const float (&scale)[N], const float (&bias)[N],
                            const float (&mean)[N], float (&sums)[2 * N]) {
    Vector<Real, N> dy[ROWS], x[ROWS];
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
        dy[row] = load_vector<N>(p.dy + at + row * stride);
        x[row] = load_vector<N>(p.x + at + row * stride);
    }
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const float input = to_float(x[row][i]);
            const float d = gated(to_float(dy[row][i]), input, scale[i], bias[i], p.relu);
            sums[i] += d;
            sums[N + i] += d * (input - mean[i]);
        }
    }
}

template <int N>
__device__ void reduce_chunk(const ReduceArguments& p, SharedSums& shared) {
    const Part<N> part(p.chunks);
    const u32 channels = p.chunks.cut.channels;
    float sums[2 * N] = {};
    if (part.inside) {
        constexpr int ROWS = 2;
        float scale[N], bias[N], mean[N];
        load_floats(p.scale + part.channel, scale);
        load_floats(p.bias + part.channel, bias);
        load_floats(p.mean + part.channel, mean);
        const u64 stride = u64(part.lanes) * channels;
        u64 row = part.first;
        for (; row + (ROWS - 1) * part.lanes < part.end; row += ROWS * part.lanes) {
            reduce_rows<ROWS>(p, row * channels + part.channel, stride, scale, bias, mean, sums);
        }
        for (; row < part.end; row += part.lanes) {
            reduce_rows<1>(p, row * channels + part.channel, stride, scale, bias, mean, sums);
        }
    }
    sum_lanes(shared.values, sums, p.chunks.columns);
    if (part.writes(p.chunks)) {
        float d[N], dx[N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            d[i] = sums[i];
            dx[i] = sums[N + i];
        }
        const u64 at = u64(blockIdx.y) * channels + part.channel;
        store_floats(p.partial + at, d);
        store_floats(p.partial + u64(p.chunks.cut.chunks) * channels + at, dx);
    }
}

KERNEL(THREADS, batch_norm_sums, ReduceArguments) {
    SHARED(SharedSums, shared);
    if (p.chunks.vectorized) reduce_chunk<VECTOR_SIZE>(p, shared);
    else reduce_chunk<1>(p, shared);
}

struct FinalizeReduceArguments {
    const float* partial;
    const float* inverse_std;
    float* dgamma;
    float* dbeta;
    Cut cut;
};

KERNEL(THREADS, batch_norm_reduce, FinalizeReduceArguments) {
    SHARED(SharedSums, shared);
    const u32 channel = blockIdx.x * FINALIZE_COLUMNS + threadIdx.x % FINALIZE_COLUMNS;
    const u32 channels = p.cut.channels;
    float sums[2] = {};
    if (channel < channels) {
#pragma unroll 4
        for (u32 chunk = threadIdx.x / FINALIZE_COLUMNS; chunk < p.cut.chunks; chunk += THREADS / FINALIZE_COLUMNS) {
            const u64 at = u64(chunk) * channels + channel;
            sums[0] += load(p.partial + at);
            sums[1] += load(p.partial + u64(p.cut.chunks) * channels + at);
        }
    }
    sum_lanes(shared.values, sums, FINALIZE_COLUMNS);
    if (channel < channels && threadIdx.x < FINALIZE_COLUMNS) {
        store(p.dbeta + channel, sums[0]);
        store(p.dgamma + channel, sums[1] * load(p.inverse_std + channel));
    }
}

struct InputGradientArguments {
    const Real* dy;
    const Real* x;
    const float* scale;
    const float* bias;
    const float* mean;
    const float* inverse_std;
    const float* dgamma;
    const float* dbeta;
    Real* dx;
    u64 rows;
    u32 channels;
    u32 relu;
    u32 frozen;
    u32 vectorized;  // whether channels are whole vectors
};

template <int N>
__device__ void input_gradient_vectors(const InputGradientArguments& p) {
    // dx = scale d + slope (x - mean) + offset
    const GridStride<N> loop(p.rows, p.channels);
    float scale[N], bias[N], mean[N], slope[N], offset[N];
    load_floats(p.scale + loop.channel, scale);
    load_floats(p.bias + loop.channel, bias);
    if (!p.frozen) {
        const float share = 1.0f / float(p.rows);
        float inverse_std[N];
        load_floats(p.mean + loop.channel, mean);
        load_floats(p.inverse_std + loop.channel, inverse_std);
        load_floats(p.dgamma + loop.channel, slope);
        load_floats(p.dbeta + loop.channel, offset);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            slope[i] *= -scale[i] * inverse_std[i] * share;
            offset[i] *= -scale[i] * share;
        }
    }
    for (u64 vector = loop.first; vector < loop.vectors; vector += IN_FLIGHT * loop.step) {
        Vector<Real, N> dy[IN_FLIGHT], x[IN_FLIGHT];
#pragma unroll
        for (int u = 0; u < IN_FLIGHT; ++u) {
            const u64 at = vector + u * loop.step;
            if (at >= loop.vectors) break;
            dy[u] = load_vector<N>(p.dy + at * N);
            x[u] = load_vector<N>(p.x + at * N);
        }
#pragma unroll
        for (int u = 0; u < IN_FLIGHT; ++u) {
            const u64 at = vector + u * loop.step;
            if (at >= loop.vectors) break;
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const float input = to_float(x[u][i]);
                const float through = scale[i] * gated(to_float(dy[u][i]), input, scale[i], bias[i], p.relu);
                // Frozen statistics have no gradient: not even 0 times infinity.
                const float dx = p.frozen ? through : through + fmaf(slope[i], input - mean[i], offset[i]);
                dy[u][i] = from_float<Real>(dx);
            }
            store_vector<N>(p.dx + at * N, dy[u]);
        }
    }
}

KERNEL(THREADS, batch_norm_input_gradient, InputGradientArguments) {
    if (p.vectorized) input_gradient_vectors<VECTOR_SIZE>(p);
    else input_gradient_vectors<1>(p);
}
