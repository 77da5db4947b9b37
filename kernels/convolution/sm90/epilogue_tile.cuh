// From a warpgroup's sums in registers to whole rows of memory, 64 x 64 at a time through shared memory.
#pragma once
#include "convolution/sm90/problem.cuh"

/// 64 x 64 sums of one warpgroup. Chunks of four numbers are permuted by the row, so that neither the fragments of a product
/// nor those of a transposed one collide.
struct alignas(1024) Slab {
    static constexpr u32 SIDE = 64;
    float values[SIDE * SIDE];

    __device__ float* at(u32 row, u32 column) {
        const u32 turn = SWAP ? row >> 1 & 3 : row & 3;
        return values + row * SIDE + (column >> 2 ^ turn << 1) * 4 + (column & 3);
    }
    __device__ Pack<float, 4> chunk(u32 row, u32 column) { return *reinterpret_cast<Pack<float, 4>*>(at(row, column)); }
};

/// A thread's number in its warpgroup.
__device__ inline u32 member() { return threadIdx.x % 128; }

/// Waits for the warpgroup that consumes.
__device__ inline void warpgroup_sync(u32 consumer) { named_barrier_sync(1 + consumer, 128); }

/// Sums d of a product of 64 x N: the 64 columns from 64 * block on go to the slab.
template <u32 COUNT>
__device__ void put_fragments(Slab& slab, const float (&d)[COUNT], u32 block) {
    const u32 row = member() / 32 * 16 + member() % 32 / 4, column = member() % 4 * 2;
#pragma unroll
    for (u32 j = 0; j < 8; j++) {
#pragma unroll
        for (u32 lower = 0; lower < 2; lower++) {
            const float* from = d + (block * 8 + j) * 4 + lower * 2;
            const u32 along = 8 * j + column, down = row + 8 * lower;
            if constexpr (SWAP) {
                *slab.at(along, down) = from[0];
                *slab.at(along + 1, down) = from[1];
            } else {
                *reinterpret_cast<Pack<float, 2>*>(slab.at(down, along)) = {from[0], from[1]};
            }
        }
    }
}

/// What a thread stores of a slab: of each sixteenth row eight neighbours, so that eight threads lie along a row of bf16. An
/// input gradient, which reads more, takes two rounds for its four rows, or it would run out of registers.
constexpr u32 OWN_ROWS = PASS == INPUT_GRADIENT ? 2 : 4;
constexpr u32 ROUNDS = Slab::SIDE / 16 / OWN_ROWS;
constexpr u32 WIDE = 8;
typedef Pack<bf16, WIDE> Wide;

struct OwnRows {
    u32 column;         // of the result
    u32 row[OWN_ROWS];  // of the result, or NOWHERE
    Pack<u32, WIDE / 2> pairs[OWN_ROWS];  // two numbers each, so that they take half the registers

    static constexpr u32 NOWHERE = ~0u;
    __device__ bool has(u32 i) const { return row[i] != NOWHERE; }
    __device__ float value(u32 i, u32 v) const { return to_float(bf16{u16(pairs[i][v / 2] >> v % 2 * 16)}); }
    __device__ i64 at(const Arguments& p, u32 i) const { return i64(row[i]) * p.columns + column; }
};

/// Loads WIDE floats of a row with an element for each column.
__device__ inline void load_columns(const float* from, u32 column, float (&values)[WIDE]) {
#pragma unroll
    for (u32 v = 0; v < WIDE; v += 4) {
        const Pack<float, 4> pack = load_pack<4>(from + column + v);
#pragma unroll
        for (u32 i = 0; i < 4; i++) values[v + i] = pack[i];
    }
}

/// A thread's part of the rows from first_row on in a round, rounded, once everything is added that there is to add.
__device__ inline OwnRows finished_rows(const Arguments& p, const Walk& walk, Slab& slab, u32 first_row, u32 first_column,
                                        u32 round) {
    OwnRows rows;
    const u32 along = member() % 8 * WIDE, down = member() / 8 + 16 * OWN_ROWS * round;
    rows.column = first_column + along;
    const bool inside = rows.column < p.columns;
    float bias[WIDE] = {};
    if (PASS == FORWARD && p.bias && inside) load_columns(p.bias, rows.column, bias);
    // All that is read is under way before the first of it is needed.
    Wide addend[OWN_ROWS], mask[OWN_ROWS];
#pragma unroll
    for (u32 i = 0; i < OWN_ROWS; i++) {
        const u32 row = first_row + down + 16 * i;
        rows.row[i] = OwnRows::NOWHERE;
        if (row >= walk.pixels || !inside) continue;
        rows.row[i] = PASS == INPUT_GRADIENT ? out_row_of(p, walk, row) : row;
        if (p.addend) addend[i] = load_pack<WIDE>(p.addend + rows.at(p, i));
        if (PASS == INPUT_GRADIENT && p.mask) mask[i] = load_pack<WIDE>(p.mask + rows.at(p, i));
    }
#pragma unroll
    for (u32 i = 0; i < OWN_ROWS; i++) {
        if (!rows.has(i)) continue;
#pragma unroll
        for (u32 v = 0; v < WIDE; v += 4) {
            const Pack<float, 4> sums = slab.chunk(down + 16 * i, along + v);
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                float value = sums[j];
                if (PASS == FORWARD) value += bias[v + j];
                if (p.addend) value += to_float(addend[i][v + j]);
                // A comparison that NaN passes through.
                if (PASS == FORWARD && p.relu) value = value < 0.0f ? 0.0f : value;
                if (PASS == INPUT_GRADIENT && p.mask) value = to_float(mask[i][v + j]) > 0.0f ? value : 0.0f;
                const u32 bits = from_float<bf16>(value).bits;
                rows.pairs[i][(v + j) / 2] = j % 2 ? rows.pairs[i][(v + j) / 2] | bits << 16 : bits;
            }
        }
    }
    return rows;
}

__device__ inline void store_rows(const Arguments& p, const OwnRows& rows) {
    bf16* out = static_cast<bf16*>(p.out);
#pragma unroll
    for (u32 i = 0; i < OWN_ROWS; i++)
        if (rows.has(i)) store_pack<WIDE / 2>(reinterpret_cast<u32*>(out + rows.at(p, i)), rows.pairs[i]);
}

/// From the slab to a split's rows of f32; the slab's columns are channels of one tap.
__device__ inline void store_filters(const Arguments& p, Slab& slab, u32 split, u32 first_row, u32 column_block) {
    const u32 tap = column_block / p.chunks, first_channel = (column_block - tap * p.chunks) * STEP;
    const u32 along = member() % 16 * 4;
    if (tap >= p.walks[0].taps_down * p.walks[0].taps_across || first_channel + along >= p.channels) return;
    float* out = static_cast<float*>(p.out) + i64(split) * p.rows * p.columns + tap * p.channels + first_channel + along;
#pragma unroll
    for (u32 i = 0; i < Slab::SIDE / 8; i++) {
        const u32 own = member() / 16 + 8 * i, row = first_row + own;
        if (row < p.rows) store_pack<4>(out + i64(row) * p.columns, slab.chunk(own, along));
    }
}
