// accumulators (TILE_M x TILE_N) += a * b on CUDA cores, for tiles of f32 in shared memory.
//
// A warp is 4 x 8 threads, the thread block WARPS_M x WARPS_N warps. Of a K-major tile a thread reads rows at a distance of the
// number of threads along it, four elements of GEMM K at a time; of an MN-major tile it reads chunks of four neighbouring
// columns. Both are reads of 16 bytes, and those of a warp have no bank conflicts.
#pragma once

template <bool A_K_MAJOR, bool B_K_MAJOR>
struct BlockMma {
    static constexpr int BLOCK_K = 16;
    static constexpr int THREADS_M = 4 * WARPS_M, THREADS_N = 8 * WARPS_N;
    static constexpr int THREAD_M = TILE_M / THREADS_M, THREAD_N = TILE_N / THREADS_N;

    float accumulators[THREAD_M][THREAD_N] = {};

    static __device__ int thread_row() { return threadIdx.x / 32 / WARPS_N * 4 + threadIdx.x % 32 / 8; }
    static __device__ int thread_column() { return threadIdx.x / 32 % WARPS_N * 8 + threadIdx.x % 8; }

    /// The row or column of the tile that belongs to a thread's index i.
    template <bool K_MAJOR>
    static __device__ int position(int thread, int threads, int i) {
        return K_MAJOR ? thread + threads * i : (thread + threads * (i / 4)) * 4 + i % 4;
    }

    /// to[i][k]: four elements of GEMM K, those of `quarter`, for each of a thread's rows (columns).
    template <bool K_MAJOR, int COUNT, class T>
    static __device__ void fetch(float (&to)[COUNT][4], const T& tile, int thread, int threads, int quarter) {
#pragma unroll
        for (int i = 0; i < (K_MAJOR ? COUNT : COUNT / 4); i++)
#pragma unroll
            for (int k = 0; k < (K_MAJOR ? 1 : 4); k++) {
                const float* from = K_MAJOR ? tile.chunk(thread + threads * i, quarter)
                                            : tile.chunk(quarter * 4 + k, thread + threads * i);
                const Vector<float, 4> four = *reinterpret_cast<const Vector<float, 4>*>(from);
#pragma unroll
                for (int v = 0; v < 4; v++) to[K_MAJOR ? i : 4 * i + v][K_MAJOR ? v : k] = four[v];
            }
    }

    template <class A, class B>
    __device__ void multiply(const A& a, const B& b) {
        // Not unrolled: the fragments of several quarters would not fit the registers.
#pragma unroll 1
        for (int quarter = 0; quarter < BLOCK_K / 4; quarter++) {
            float as[THREAD_M][4], bs[THREAD_N][4];
            fetch<A_K_MAJOR>(as, a, thread_row(), THREADS_M, quarter);
            fetch<B_K_MAJOR>(bs, b, thread_column(), THREADS_N, quarter);
#pragma unroll
            for (int k = 0; k < 4; k++)
#pragma unroll
                for (int i = 0; i < THREAD_M; i++)
#pragma unroll
                    for (int j = 0; j < THREAD_N; j++) accumulators[i][j] += as[i][k] * bs[j][k];
        }
    }

    __device__ void store_accumulators(EpilogueTile<TILE_M, TILE_N>& tile) const {
#pragma unroll
        for (int i = 0; i < THREAD_M; i++)
#pragma unroll
            for (int j = 0; j < THREAD_N; j++)
                *tile.at(position<A_K_MAJOR>(thread_row(), THREADS_M, i),
                         position<B_K_MAJOR>(thread_column(), THREADS_N, j)) = accumulators[i][j];
    }
};
