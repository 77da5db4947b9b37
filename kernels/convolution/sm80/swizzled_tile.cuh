// Tiles of operands in shared memory whose 16-byte reads and writes have no bank conflicts.
//
// Eight lanes access 16 bytes each at a time, without conflict if those lie at eight different positions of a 128-byte
// line. So the 16-byte chunks of a row are permuted (swizzled): rows of 64 bytes, two to a line, by the number of their
// line, longer rows by their own number. Reading eight rows at one column, or eight columns of a row, then
// accesses eight different positions.
#pragma once

template <int ROWS_, int COLUMNS_>
struct alignas(128) SwizzledTile {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_;
    static constexpr int CHUNK = MAX_VECTOR_SIZE<Real>;  // elements in 16 bytes
    static constexpr int CHUNKS = COLUMNS / CHUNK;
    static_assert(CHUNKS == 4 || CHUNKS % 8 == 0, "rows are 64 bytes or a multiple of 128");

    Real values[ROWS * COLUMNS];

    __device__ static int swizzled(int row, int chunk) {
        return row * COLUMNS + (chunk ^ (CHUNKS == 4 ? (row >> 1) & 3 : row & 7)) * CHUNK;
    }
    __device__ Real* at(int row, int column) { return values + swizzled(row, column / CHUNK) + column % CHUNK; }
    __device__ const Real* chunk(int row, int chunk) const { return values + swizzled(row, chunk); }
};

/// The epilogue tile: f32 accumulators on their way from registers to rows of global memory. Fragments are written as pairs of
/// columns in eight neighbouring rows: chunks of four are permuted by pairs, so that these have no bank conflicts either.
template <int ROWS, int COLUMNS>
struct EpilogueTile {
    float values[ROWS * COLUMNS];

    __device__ float* at(int row, int column) {
        return values + row * COLUMNS + ((column >> 2) ^ ((row & 3) << 1)) * 4 + (column & 3);
    }
};
