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

/// Of an epilogue tile a thread stores eight neighbours of each sixteenth row, so that eight threads store a row of 64 bf16. A
/// dgrad, which reads more, takes two rounds for a thread's four rows, or it would run out of registers.
constexpr u32 THREAD_ROWS = PASS == DGRAD ? 2 : 4;
constexpr u32 ROUNDS = EpilogueTile::SIDE / 16 / THREAD_ROWS;
constexpr u32 VECTOR_SIZE = 8;
typedef Vector<bf16, VECTOR_SIZE> Bf16Vector;

/// The elements of the result that a thread stores in a round.
struct ThreadRows {
    u32 column;            // of the result
    u32 row[THREAD_ROWS];  // of the result, or NONE
    Vector<u32, VECTOR_SIZE / 2> pairs[THREAD_ROWS];  // two bf16 in a register

    static constexpr u32 NONE = ~0u;
    __device__ bool has(u32 i) const { return row[i] != NONE; }
    __device__ float value(u32 i, u32 v) const { return to_float(bf16{u16(pairs[i][v / 2] >> v % 2 * 16)}); }
    __device__ i64 at(const Arguments& p, u32 i) const { return i64(row[i]) * p.gemm_n + column; }
};

/// Loads VECTOR_SIZE floats of a vector that has an element per column.
__device__ inline void load_columns(const float* from, u32 column, float (&values)[VECTOR_SIZE]) {
#pragma unroll
    for (u32 v = 0; v < VECTOR_SIZE; v += 4) {
        const Vector<float, 4> vector = load_vector<4>(from + column + v);
#pragma unroll
        for (u32 i = 0; i < 4; i++) values[v + i] = vector[i];
    }
}

/// A thread's rows of a round, from row first_row of the tile on: accumulators with bias, addend and ReLU applied, rounded to bf16.
__device__ inline ThreadRows epilogue_rows(const Arguments& p, const Phase& phase, EpilogueTile& tile, u32 first_row,
                                           u32 first_column, u32 round) {
    ThreadRows rows;
    const u32 n = warpgroup_thread() % 8 * VECTOR_SIZE, m = warpgroup_thread() / 8 + 16 * THREAD_ROWS * round;
    rows.column = first_column + n;
    const bool inside = rows.column < p.gemm_n;
    float bias[VECTOR_SIZE] = {};
    if (PASS == FPROP && p.bias && inside) load_columns(p.bias, rows.column, bias);
    // All loads are in flight before the first result is used.
    Bf16Vector addend[THREAD_ROWS], relu_y[THREAD_ROWS];
#pragma unroll
    for (u32 i = 0; i < THREAD_ROWS; i++) {
        const u32 row = first_row + m + 16 * i;
        rows.row[i] = ThreadRows::NONE;
        if (row >= phase.pixels || !inside) continue;
        rows.row[i] = PASS == DGRAD ? out_row_of(p, phase, row) : row;
        if (p.addend) addend[i] = load_vector<VECTOR_SIZE>(p.addend + rows.at(p, i));
        if (PASS == DGRAD && p.relu_y) relu_y[i] = load_vector<VECTOR_SIZE>(p.relu_y + rows.at(p, i));
    }
#pragma unroll
    for (u32 i = 0; i < THREAD_ROWS; i++) {
        if (!rows.has(i)) continue;
#pragma unroll
        for (u32 v = 0; v < VECTOR_SIZE; v += 4) {
            const Vector<float, 4> accumulators = tile.chunk(m + 16 * i, n + v);
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                float value = accumulators[j];
                if (PASS == FPROP) value += bias[v + j];
                if (p.addend) value += to_float(addend[i][v + j]);
                // A comparison that NaN passes through.
                if (PASS == FPROP && p.relu) value = value < 0.0f ? 0.0f : value;
                if (PASS == DGRAD && p.relu_y) value = to_float(relu_y[i][v + j]) > 0.0f ? value : 0.0f;
                const u32 bits = from_float<bf16>(value).bits;
                rows.pairs[i][(v + j) / 2] = j % 2 ? rows.pairs[i][(v + j) / 2] | bits << 16 : bits;
            }
        }
    }
    return rows;
}

__device__ inline void store_rows(const Arguments& p, const ThreadRows& rows) {
    bf16* out = static_cast<bf16*>(p.out);
#pragma unroll
    for (u32 i = 0; i < THREAD_ROWS; i++)
        if (rows.has(i)) store_vector<VECTOR_SIZE / 2>(reinterpret_cast<u32*>(out + rows.at(p, i)), rows.pairs[i]);
}

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
