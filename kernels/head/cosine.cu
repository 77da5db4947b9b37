// The cosine classifier, in f32: x (batch, inputs), weight (outputs, inputs), rows contiguous.
//
//   r[n] = 1 / max(|x[n]|, epsilon), r[batch + o] = 1 / max(|weight[o]|, epsilon)
//   cosines[n, o] = r[n] r[batch + o] sum over i of x[n, i] weight[o, i],  y = s cosines,  s = softplus(scale) or scale
//   dx[n, i]      = s r[n] (sum over o of dy[n, o] r[batch + o] weight[o, i] - r[n] x[n, i] sum over o of dy[n, o] cosines[n, o])
//   dweight       = as dx, with x and weight exchanged
//   dscale        = s' sum over n, o of dy[n, o] cosines[n, o]
//
// The second term of a gradient is absent where epsilon replaced the norm. Sums along a row are taken in f64: they
// are few, and nearly equal vectors are subtracted afterwards.
#include "intrinsics/ptx.cuh"
#include "common/pairwise_tile.cuh"

struct Norms {
    const float* x;
    const float* weight;
    float* inverse_norms;
    u32 batch, outputs, inputs;
    float epsilon;
};

/// A warp for each row of x, then of weight.
KERNEL(THREADS, cosine_norms, Norms) {
    const u32 lane = threadIdx.x % 32;
    const u32 row = blockIdx.x * WARPS + threadIdx.x / 32;
    if (row < p.batch + p.outputs) {  // the same for all lanes of a warp
        const float* from = row < p.batch ? p.x + u64(row) * p.inputs : p.weight + u64(row - p.batch) * p.inputs;
        double square = 0.0;
        if (p.inputs % 4 == 0) {
            for (u32 i = lane; i < p.inputs / 4; i += 32) {
                const Vector<float, 4> values = load_vector<4>(from + 4 * i);
#pragma unroll
                for (int j = 0; j < 4; ++j) square += double(values[j]) * values[j];
            }
        } else {
            for (u32 i = lane; i < p.inputs; i += 32) {
                const double value = load(from + i);
                square += value * value;
            }
        }
        square = warp_sum(square);
        if (lane == 0) {
            const double norm = sqrt(square);
            store(p.inverse_norms + row, float(1.0 / (norm > p.epsilon ? norm : double(p.epsilon))));
        }
    }
}

/// The factor of the cosines.
__device__ inline float scale_of(const float* scale, u32 softplus) {
    const float raw = load(scale);
    // ln(1 + e^raw) without overflow.
    return softplus ? fmaxf(raw, 0.0f) + log1pf(expf(-fabsf(raw))) : raw;
}

struct Forward {
    const float* x;
    const float* weight;
    const float* scale;
    const float* inverse_norms;
    float* cosines;
    float* y;
    u32 batch, outputs, inputs;
    u32 softplus;
};

KERNEL(THREADS, cosine_forward, Forward) {
    SHARED(TileStage<float>, stage);
    const u32 first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    float sums[4][4] = {};
    tile_sums<true, true>(
        stage, sums, first_row, p.batch, first_column, p.outputs, p.inputs,
        [&](u32 n, u32 i) { return load(p.x + u64(n) * p.inputs + i); },
        [&](u32 o, u32 i) { return load(p.weight + u64(o) * p.inputs + i); }, Multiply());
    const float scale = scale_of(p.scale, p.softplus);
    each_sum(sums, first_row, p.batch, first_column, p.outputs, [&](u32 n, u32 o, float sum) {
        const float cosine = sum * load(p.inverse_norms + n) * load(p.inverse_norms + p.batch + o);
        store(p.cosines + u64(n) * p.outputs + o, cosine);
        store(p.y + u64(n) * p.outputs + o, scale * cosine);
    });
}

/// The gradient with respect to `rows`, whose cosines with `others` were taken; element (row, other) of cosines and dy lies at
/// row * row_stride + other * other_stride.
struct Gradient {
    const float* rows;          // (row_count, inputs)
    const float* others;        // (other_count, inputs)
    const float* row_norms;     // inverse, (row_count)
    const float* other_norms;   // inverse, (other_count)
    const float* cosines;
    const float* dy;
    const float* scale;
    float* gradient;            // (row_count, inputs)
    u32 row_count, other_count, inputs;
    u32 row_stride, other_stride;
    u32 softplus;
    float constant;  // 1 / epsilon: the inverse norm of a row whose norm epsilon replaced
    u32 unused;
};

struct alignas(16) GradientShared {
    TileStage<float> stage;
    float removed[TILE];
};

template <bool ROW_CONTIGUOUS>
__device__ void gradient(const Gradient& p, GradientShared& shared) {
    const u32 first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    const u32 lane = threadIdx.x % 32;
    auto at = [&](u32 row, u32 other) { return u64(row) * p.row_stride + u64(other) * p.other_stride; };

    // sum over others of dy cosines, for each row of the tile
    for (u32 local = threadIdx.x / 32; local < TILE; local += WARPS) {
        const u32 row = first_row + local;
        double along = 0.0;
        if (row < p.row_count) {
            for (u32 other = lane; other < p.other_count; other += 32) {
                along += double(load(p.dy + at(row, other))) * load(p.cosines + at(row, other));
            }
        }
        along = warp_sum(along);
        if (lane == 0) shared.removed[local] = float(along);
    }

    float sums[4][4] = {};
    tile_sums<!ROW_CONTIGUOUS, false>(
        shared.stage, sums, first_row, p.row_count, first_column, p.inputs, p.other_count,
        [&](u32 row, u32 other) { return load(p.dy + at(row, other)) * load(p.other_norms + other); },
        [&](u32 i, u32 other) { return load(p.others + u64(other) * p.inputs + i); }, Multiply());
    const float scale = scale_of(p.scale, p.softplus);
    each_sum(sums, first_row, p.row_count, first_column, p.inputs, [&](u32 row, u32 i, float sum) {
        const float norm = load(p.row_norms + row);
        const float removed = norm < p.constant ? norm * shared.removed[row - first_row] : 0.0f;
        const float value = load(p.rows + u64(row) * p.inputs + i);
        store(p.gradient + u64(row) * p.inputs + i, scale * norm * (sum - removed * value));
    });
}

KERNEL(THREADS, cosine_input_gradient, Gradient) {
    SHARED(GradientShared, shared);
    gradient<false>(p, shared);
}

KERNEL(THREADS, cosine_weight_gradient, Gradient) {
    SHARED(GradientShared, shared);
    gradient<true>(p, shared);
}

struct ScaleGradient {
    const float* cosines;
    const float* dy;
    const float* scale;
    float* dscale;
    u64 elements;
    u32 softplus;
    u32 unused;
};

struct ScaleSums {
    double values[THREADS];
};

/// One thread block, so that the sum has one order.
KERNEL(THREADS, cosine_scale_gradient, ScaleGradient) {
    SHARED(ScaleSums, shared);
    const u32 thread = threadIdx.x;
    double sum = 0.0;
    for (u64 at = thread; at < p.elements; at += THREADS) sum += double(load(p.dy + at)) * load(p.cosines + at);
    shared.values[thread] = sum;
    for (u32 half = THREADS / 2; half > 0; half /= 2) {
        block_sync();
        if (thread < half) shared.values[thread] += shared.values[thread + half];
    }
    if (thread == 0) {
        const float slope = p.softplus ? 1.0f / (1.0f + expf(-load(p.scale))) : 1.0f;
        store(p.dscale, float(slope * shared.values[0]));
    }
}
