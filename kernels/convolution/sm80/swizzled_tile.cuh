// A matrix in shared memory whose reads and writes of 16 bytes do not collide.
//
// Eight lanes move 16 bytes each at a time, and are served at once if those lie at eight different places of a 128-byte
// line. So the 16-byte chunks of a row are permuted by its number: rows of 64 bytes (two to a line) by the
// number of their line, longer ones by their own. Reading eight rows at one column, or eight columns of a row, then
// touches eight different places.
#pragma once

template <int ROWS_, int COLUMNS_>
struct alignas(128) Tile {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_;
    static constexpr int CHUNK = WIDEST<Real>;  // elements in 16 bytes
    static constexpr int CHUNKS = COLUMNS / CHUNK;
    static_assert(CHUNKS == 4 || CHUNKS % 8 == 0, "rows are 64 bytes or a multiple of 128");

    Real values[ROWS * COLUMNS];

    __device__ static int place(int row, int chunk) {
        return row * COLUMNS + (chunk ^ (CHUNKS == 4 ? (row >> 1) & 3 : row & 7)) * CHUNK;
    }
    __device__ Real* at(int row, int column) { return values + place(row, column / CHUNK) + column % CHUNK; }
    __device__ const Real* chunk(int row, int chunk) const { return values + place(row, chunk); }
};

/// The result of a product, f32, on its way from registers to rows of memory. Fragments are written as pairs of columns
/// in eight neighbouring rows: chunks of four numbers are permuted by pairs, so that those do not collide either.
template <int ROWS, int COLUMNS>
struct Slab {
    float values[ROWS * COLUMNS];

    __device__ float* at(int row, int column) {
        return values + row * COLUMNS + ((column >> 2) ^ ((row & 3) << 1)) * 4 + (column & 3);
    }
};
