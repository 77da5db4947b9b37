// Clusters of thread blocks whose output tiles form a rectangle, CLUSTER_M tiles along GEMM M by CLUSTER_N along GEMM N.
//
// Thread blocks along N need the same rows of operand A, thread blocks along M the same columns of operand B. So each of them
// loads an equal part of what it needs, and multicasts it to all that need it too.
#pragma once
#include "intrinsics/ptx_sm90.cuh"

constexpr u32 CLUSTER = CLUSTER_M * CLUSTER_N;

/// Thread blocks that share an operand with a thread block, itself among them.
constexpr u32 MULTICAST_PEERS = CLUSTER_M + CLUSTER_N - 1;

/// A thread block's position in its cluster.
struct ClusterPosition {
    u32 m = 0, n = 0;

    __device__ ClusterPosition() {
        if constexpr (CLUSTER > 1) {
            const u32 rank = cluster_rank();
            m = rank / CLUSTER_N;
            n = rank % CLUSTER_N;
        }
    }
    /// The number of the cluster in the grid.
    __device__ u32 cluster() const { return blockIdx.x / CLUSTER; }
    /// Multicast mask of the thread blocks that need the same rows of operand A: a bit for each rank.
    __device__ u16 a_mask() const { return u16(((1 << CLUSTER_N) - 1) << m * CLUSTER_N); }
    /// Multicast mask of the thread blocks that need the same columns of operand B.
    __device__ u16 b_mask() const {
        u16 ranks = 0;
#pragma unroll
        for (u32 i = 0; i < CLUSTER_M; i++) ranks |= u16(1 << (i * CLUSTER_N + n));
        return ranks;
    }
    /// Rank of the i-th thread block that shares an operand with this one.
    __device__ u32 peer(u32 i) const {
        if (i < CLUSTER_N) return m * CLUSTER_N + i;
        const u32 other = i - CLUSTER_N;
        return (other + (other >= m)) * CLUSTER_N + n;
    }
};

/// Waits for all threads of the cluster, or of the thread block where the cluster is one.
__device__ inline void cluster_or_block_sync() {
    if constexpr (CLUSTER > 1) cluster_sync();
    else block_sync();
}

/// Loads a box for the thread blocks of `mask`, BLOCKS in number: a multicast where there are several.
template <u32 BLOCKS, class... Coordinates>
__device__ inline void tma_load_for(u16 mask, void* to, const TensorMap& map, Mbarrier& barrier, Coordinates... at) {
    if constexpr (BLOCKS == 1) tma_load(to, map, barrier, int(at)...);
    else tma_load_multicast(to, map, barrier, mask, int(at)...);
}
