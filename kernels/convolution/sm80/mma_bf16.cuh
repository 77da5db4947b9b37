// accumulators (TILE_M x TILE_N, f32) += a * b on tensor cores, for tiles of bf16 in shared memory.
//
// The thread block's warps are a grid of WARPS_M x WARPS_N; each owns a rectangle of 16x8 fragments. A tile is either K-major
// (the chunks of a row are neighbours in GEMM K: plain ldmatrix) or MN-major (GEMM K runs down its columns: ldmatrix
// transposes on the way).
#pragma once

template <bool A_K_MAJOR, bool B_K_MAJOR>
struct BlockMma {
    static constexpr int BLOCK_K = 32;
    static constexpr int FRAGMENTS_M = TILE_M / WARPS_M / 16, FRAGMENTS_N = TILE_N / WARPS_N / 8;
    static_assert(FRAGMENTS_N % 2 == 0, "b is loaded for two fragments at a time");

    float accumulators[FRAGMENTS_M][FRAGMENTS_N][4] = {};

    static __device__ int lane() { return threadIdx.x % 32; }
    static __device__ int first_row() { return threadIdx.x / 32 / WARPS_N * (TILE_M / WARPS_M); }
    static __device__ int first_column() { return threadIdx.x / 32 % WARPS_N * (TILE_N / WARPS_N); }

    template <class A, class B>
    __device__ void multiply(const A& a, const B& b) {
        // The row and the chunk of a 16x16 matrix that this lane addresses: matrices 0, 1 and 2, 3 differ in one, 0, 2 and 1, 3
        // in the other.
        const int low = lane() % 8 + (lane() >> 3 & 1) * 8, high = lane() >> 4;
        const int half = lane() % 8 + (lane() >> 4) * 8, odd = lane() >> 3 & 1;
#pragma unroll
        for (int k = 0; k < BLOCK_K; k += 16) {
            u32 as[FRAGMENTS_M][4], bs[FRAGMENTS_N / 2][4];
#pragma unroll
            for (int i = 0; i < FRAGMENTS_M; i++) {
                const int row = first_row() + 16 * i;
                if (A_K_MAJOR) ldmatrix_x4(as[i], a.chunk(row + low, k / 8 + high));
                else ldmatrix_x4_transposed(as[i], a.chunk(k + half, row / 8 + odd));
            }
#pragma unroll
            for (int j = 0; j < FRAGMENTS_N / 2; j++) {
                const int column = first_column() + 16 * j;
                if (B_K_MAJOR) ldmatrix_x4(bs[j], b.chunk(column + half, k / 8 + odd));
                else ldmatrix_x4_transposed(bs[j], b.chunk(k + low, column / 8 + high));
            }
#pragma unroll
            for (int i = 0; i < FRAGMENTS_M; i++)
#pragma unroll
                for (int j = 0; j < FRAGMENTS_N; j++)
                    mma_16x8x16(accumulators[i][j], as[i], bs[j / 2][j % 2 * 2], bs[j / 2][j % 2 * 2 + 1]);
        }
    }

    __device__ void store_accumulators(EpilogueTile<TILE_M, TILE_N>& tile) const {
#pragma unroll
        for (int i = 0; i < FRAGMENTS_M; i++)
#pragma unroll
            for (int j = 0; j < FRAGMENTS_N; j++)
#pragma unroll
                for (int lower = 0; lower < 2; lower++) {
                    const int row = first_row() + 16 * i + 8 * lower + lane() / 4;
                    const int column = first_column() + 8 * j + 2 * (lane() % 4);
                    *reinterpret_cast<Vector<float, 2>*>(tile.at(row, column)) = {accumulators[i][j][2 * lower],
                                                                                  accumulators[i][j][2 * lower + 1]};
                }
    }
};
