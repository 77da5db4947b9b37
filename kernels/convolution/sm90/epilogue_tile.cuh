// From a warpgroup's accumulators to whole rows of global memory, through epilogue tiles of 64 x 64 in shared memory.
#pragma once
#include "convolution/sm90/im2col.cuh"
#include "convolution/sm90/mainloop.cuh"

/// Rows and columns of an epilogue tile.
LAUNCHER_CONSTANT u32 EPILOGUE_SIDE = 64;

/// 64 x 64 accumulators of one warpgroup in shared memory. Chunks of four are permuted by the row, so that writing the fragments
/// of a tile or of a transposed one has no bank conflicts.
struct alignas(1024) EpilogueTile {
    static constexpr u32 SIDE = EPILOGUE_SIDE;
    float values[SIDE * SIDE];

    __device__ float* at(u32 row, u32 column) {
        const u32 swizzle = SWAP_AB ? row >> 1 & 3 : row & 3;
        return values + row * SIDE + (column >> 2 ^ swizzle << 1) * 4 + (column & 3);
    }
    __device__ Vector<float, 4> chunk(u32 row, u32 column) { return *reinterpret_cast<Vector<float, 4>*>(at(row, column)); }
};

/// Stores accumulators d of a 64 x N WGMMA to shared memory: the 64 columns from 64 * panel on.
template <u32 COUNT>
__device__ void store_accumulators(EpilogueTile& tile, const float (&d)[COUNT], u32 panel) {
    const u32 row = warpgroup_thread() / 32 * 16 + warpgroup_thread() % 32 / 4, column = warpgroup_thread() % 4 * 2;
#pragma unroll
    for (u32 j = 0; j < 8; j++) {
#pragma unroll
        for (u32 lower = 0; lower < 2; lower++) {
            const float* from = d + (panel * 8 + j) * 4 + lower * 2;
            const u32 n = 8 * j + column, m = row + 8 * lower;
            if constexpr (SWAP_AB) {
                *tile.at(n, m) = from[0];
                *tile.at(n + 1, m) = from[1];
            } else {
                *reinterpret_cast<Vector<float, 2>*>(tile.at(m, n)) = {from[0], from[1]};
            }
        }
    }
}

/// Of an epilogue tile a thread stores eight neighbours of each sixteenth row, so that eight threads store a row of 64 bf16.
constexpr u32 THREAD_ROWS = EpilogueTile::SIDE / 16;
constexpr u32 VECTOR_SIZE = 8;
typedef Vector<bf16, VECTOR_SIZE> Bf16Vector;

/// A thread's place in an epilogue tile: its columns, and the i-th of its rows.
__device__ inline u32 tile_column() { return warpgroup_thread() % 8 * VECTOR_SIZE; }
__device__ inline u32 tile_row(u32 i) { return warpgroup_thread() / 8 + 16 * i; }

/// Loads VECTOR_SIZE floats of a vector that has an element per column.
__device__ inline void load_columns(const float* from, u32 column, float (&values)[VECTOR_SIZE]) {
#pragma unroll
    for (u32 v = 0; v < VECTOR_SIZE; v += 4) {
        const Vector<float, 4> vector = load_vector<4>(from + column + v);
#pragma unroll
        for (u32 i = 0; i < 4; i++) values[v + i] = vector[i];
    }
}

/// The row of the result that is a pixel's. Without stride they are in the same order.
__device__ inline u32 result_row(const Arguments& p, const Phase& phase, u32 pixel) {
    return PASS == DGRAD && p.out_step > 1 ? out_row_of(p, phase, pixel) : pixel;
}

/// Rows whose operands are in flight before the first of them is used. A dgrad, which has three operands, would run out of registers
/// for all four rows.
constexpr u32 ROWS_AHEAD = PASS == DGRAD ? 2 : THREAD_ROWS;

/// A thread's elements of one row of the result.
struct ThreadRow {
    u32 row;                             // of the result, or NONE
    Bf16Vector addend, relu_y, bn_x;     // operands of the epilogue
    Vector<u32, VECTOR_SIZE / 2> pairs;  // the result, two bf16 in a register

    static constexpr u32 NONE = ~0u;
    __device__ bool exists() const { return row != NONE; }
    __device__ float value(u32 v) const { return to_float(bf16{u16(pairs[v / 2] >> v % 2 * 16)}); }
    __device__ i64 at(const Arguments& p, u32 column) const { return i64(row) * p.gemm_n + column; }

    /// Begins to load what belongs to a pixel.
    __device__ void load(const Arguments& p, const Phase& phase, u32 pixel, u32 column) {
        // Set in any case: a register that a predicated load may leave as it was would be occupied from the kernel's first instruction on.
        addend = relu_y = bn_x = {};
        row = NONE;
        if (pixel >= phase.pixels || column >= p.gemm_n) return;
        row = result_row(p, phase, pixel);
        const i64 at = this->at(p, column);
        if (p.addend) addend = load_vector<VECTOR_SIZE>(p.addend + at);
        if (PASS == DGRAD && p.relu_y) relu_y = load_vector<VECTOR_SIZE>(p.relu_y + at);
        if (PASS == DGRAD && p.bn_partial) bn_x = load_vector<VECTOR_SIZE>(p.bn_x + at);
    }

    /// Accumulators, in the i-th of the thread's rows of the epilogue tile, with bias, addend and ReLU applied, rounded to bf16.
    __device__ void finish(const Arguments& p, EpilogueTile& tile, u32 i, const float (&bias)[VECTOR_SIZE]) {
#pragma unroll
        for (u32 v = 0; v < VECTOR_SIZE; v += 4) {
            const Vector<float, 4> accumulators = tile.chunk(tile_row(i), tile_column() + v);
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                float value = accumulators[j];
                if (PASS == FPROP) value += bias[v + j];
                if (p.addend) value += to_float(addend[v + j]);
                // A comparison that NaN passes through.
                if (PASS == FPROP && p.relu) value = value < 0.0f ? 0.0f : value;
                if (PASS == DGRAD && p.relu_y) value = to_float(relu_y[v + j]) > 0.0f ? value : 0.0f;
                const u32 bits = from_float<bf16>(value).bits;
                pairs[(v + j) / 2] = j % 2 ? pairs[(v + j) / 2] | bits << 16 : bits;
            }
        }
    }

    __device__ void store(const Arguments& p, u32 column) const {
        store_vector<VECTOR_SIZE / 2>(reinterpret_cast<u32*>(static_cast<bf16*>(p.out) + at(p, column)), pairs);
    }
};

/// Stores an epilogue tile of wgrad to the f32 rows of a split-K slice. The columns of the tile are 64 channels of one tap; panel
/// `panel_n` of GEMM N.
__device__ inline void store_wgrad(const Arguments& p, EpilogueTile& tile, u32 split, u32 first_row, u32 panel_n) {
    const u32 tap = panel_n / p.chunks, first_channel = (panel_n - tap * p.chunks) * BLOCK_K;
    const u32 n = warpgroup_thread() % 16 * 4;
    if (tap >= p.phases[0].taps_h * p.phases[0].taps_w || first_channel + n >= p.channels) return;
    float* out = static_cast<float*>(p.out) + i64(split) * p.gemm_m * p.gemm_n + tap * p.channels + first_channel + n;
#pragma unroll
    for (u32 i = 0; i < EpilogueTile::SIDE / 8; i++) {
        const u32 m = warpgroup_thread() / 16 + 8 * i, row = first_row + m;
        if (row < p.gemm_m) store_vector<4>(out + i64(row) * p.gemm_n, tile.chunk(m, n));
    }
}
