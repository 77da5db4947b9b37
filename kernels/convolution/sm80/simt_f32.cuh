// sums (TILE_M x TILE_N) += a * b on ordinary cores, for tiles of f32 in shared memory.
//
// A warp is 4 x 8 threads, the block WARPS_M x WARPS_N warps. Of a tile with the reduction along its rows a thread takes
// every so-manieth row, four numbers of the sum at a time; of one with the reduction down its columns it takes chunks of
// four neighbouring columns. Both are reads of 16 bytes, and a warp's do not collide.
#pragma once

template <bool A_ALONG, bool B_ALONG>
struct Product {
    static constexpr int STEP = 16;
    static constexpr int THREADS_M = 4 * WARPS_M, THREADS_N = 8 * WARPS_N;
    static constexpr int DOWN = TILE_M / THREADS_M, ACROSS = TILE_N / THREADS_N;

    float sums[DOWN][ACROSS] = {};

    static __device__ int thread_row() { return threadIdx.x / 32 / WARPS_N * 4 + threadIdx.x % 32 / 8; }
    static __device__ int thread_column() { return threadIdx.x / 32 % WARPS_N * 8 + threadIdx.x % 8; }

    /// The row or column of the product that a thread's i-th is.
    template <bool ALONG>
    static __device__ int position(int thread, int threads, int i) {
        return ALONG ? thread + threads * i : (thread + threads * (i / 4)) * 4 + i % 4;
    }

    /// to[i][k]: four numbers of the sum, from the `quarter`-th four of the step, for each of a thread's rows (columns).
    template <bool ALONG, int COUNT, class T>
    static __device__ void fetch(float (&to)[COUNT][4], const T& tile, int thread, int threads, int quarter) {
#pragma unroll
        for (int i = 0; i < (ALONG ? COUNT : COUNT / 4); i++)
#pragma unroll
            for (int k = 0; k < (ALONG ? 1 : 4); k++) {
                const float* from = ALONG ? tile.chunk(thread + threads * i, quarter)
                                          : tile.chunk(quarter * 4 + k, thread + threads * i);
                const Pack<float, 4> four = *reinterpret_cast<const Pack<float, 4>*>(from);
#pragma unroll
                for (int v = 0; v < 4; v++) to[ALONG ? i : 4 * i + v][ALONG ? v : k] = four[v];
            }
    }

    template <class A, class B>
    __device__ void multiply(const A& a, const B& b) {
        // Not unrolled: the fragments of several quarters would not fit the registers.
#pragma unroll 1
        for (int quarter = 0; quarter < STEP / 4; quarter++) {
            float as[DOWN][4], bs[ACROSS][4];
            fetch<A_ALONG>(as, a, thread_row(), THREADS_M, quarter);
            fetch<B_ALONG>(bs, b, thread_column(), THREADS_N, quarter);
#pragma unroll
            for (int k = 0; k < 4; k++)
#pragma unroll
                for (int i = 0; i < DOWN; i++)
#pragma unroll
                    for (int j = 0; j < ACROSS; j++) sums[i][j] += as[i][k] * bs[j][k];
        }
    }

    __device__ void write(Slab<TILE_M, TILE_N>& slab) const {
#pragma unroll
        for (int i = 0; i < DOWN; i++)
#pragma unroll
            for (int j = 0; j < ACROSS; j++)
                *slab.at(position<A_ALONG>(thread_row(), THREADS_M, i),
                         position<B_ALONG>(thread_column(), THREADS_N, j)) = sums[i][j];
    }
};
