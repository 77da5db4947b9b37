// A block's place in a cluster whose tiles lie side by side and one below the other, CLUSTER_DOWN x CLUSTER_ACROSS of them.
//
// Tiles side by side need the same rows of the left operand, tiles one below the other the same columns of the right one. So
// each block has its share of what it needs copied, for all blocks that need it too.
#pragma once
#include "intrinsics/ptx_sm90.cuh"

constexpr u32 CLUSTER = CLUSTER_DOWN * CLUSTER_ACROSS;

/// Blocks that a block shares an operand with, itself among them.
constexpr u32 SHARERS = CLUSTER_DOWN + CLUSTER_ACROSS - 1;

struct ClusterPlace {
    u32 down = 0, across = 0;

    __device__ ClusterPlace() {
        if constexpr (CLUSTER > 1) {
            const u32 rank = cluster_rank();
            down = rank / CLUSTER_ACROSS;
            across = rank % CLUSTER_ACROSS;
        }
    }
    __device__ u32 number() const { return blockIdx.x / CLUSTER; }
    /// The blocks that need the same rows of the left operand, a bit for each rank.
    __device__ u16 left() const { return u16(((1 << CLUSTER_ACROSS) - 1) << down * CLUSTER_ACROSS); }
    /// Those that need the same columns of the right one.
    __device__ u16 right() const {
        u16 ranks = 0;
#pragma unroll
        for (u32 i = 0; i < CLUSTER_DOWN; i++) ranks |= u16(1 << (i * CLUSTER_ACROSS + across));
        return ranks;
    }
    /// The i-th of those that share either.
    __device__ u32 sharer(u32 i) const {
        if (i < CLUSTER_ACROSS) return down * CLUSTER_ACROSS + i;
        const u32 other = i - CLUSTER_ACROSS;
        return (other + (other >= down)) * CLUSTER_ACROSS + across;
    }
};

/// Waits for all threads of the cluster, or of the block where it is alone.
__device__ inline void everyone_sync() {
    if constexpr (CLUSTER > 1) cluster_sync();
    else block_sync();
}

/// A box for all blocks of so many ranks: a plain copy where there is one.
template <u32 BLOCKS, class... Coordinates>
__device__ inline void share_copy(u16 ranks, void* to, const TensorMap& map, Mbarrier& barrier, Coordinates... at) {
    if constexpr (BLOCKS == 1) tensor_copy(to, map, barrier, int(at)...);
    else tensor_multicast(to, map, barrier, ranks, int(at)...);
}
