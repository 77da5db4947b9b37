//! How many blocks of a kernel fit on one SM, by NVIDIA's published rules (CUDA C++ programming guide, compute
//! capabilities; the occupancy calculator's allocation granularities).
//!
//! A cluster must find room within a group of SMs that stand together. Those come in pairs, so that clusters of two, all
//! that there are, find it wherever their blocks do; larger ones would leave some SMs empty.

use serde::Serialize;

use crate::backend::cuda::card::shared_bytes_per_sm;

/// Limits of one SM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Warps that are resident at most.
    pub warps: u32,
    /// Blocks that are resident at most.
    pub blocks: u32,
    /// Bytes of shared memory for all blocks.
    pub shared: u32,
    /// Bytes of shared memory that one block can have.
    pub shared_per_block: u32,
}

/// Registers of an SM, and its four parts, each of which holds whole warps.
const REGISTERS: u32 = 1 << 16;
const PARTS: u32 = 4;
/// Registers are handed out to warps in multiples of this.
const REGISTER_UNIT: u32 = 256;
/// Shared memory is handed out in multiples of this, and the system keeps some for itself in every block.
const SHARED_UNIT: u32 = 128;
const SHARED_OF_SYSTEM: u32 = 1024;

impl Limits {
    /// Of a compute capability.
    pub(super) fn of(capability: (u32, u32)) -> Limits {
        let (warps, blocks) = match capability {
            (8, 0) => (64, 32),
            (8, 9) | (12, _) => (48, 24),
            (8, _) => (48, 16),
            _ => (64, 32),
        };
        let shared = shared_bytes_per_sm(capability) as u32;
        Limits { warps, blocks, shared, shared_per_block: shared - (1 << 10) }
    }
}

/// Resources of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Uses {
    /// Threads.
    pub threads: u32,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of shared memory, static and dynamic.
    pub shared: u32,
}

/// The limit that keeps further blocks out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitedBy {
    /// Warps or blocks.
    Threads,
    /// Registers.
    Registers,
    /// Shared memory.
    Shared,
}

/// Blocks on one SM, and the limit that keeps further ones out.
pub(super) fn resident_blocks(limits: &Limits, uses: &Uses) -> (u32, LimitedBy) {
    let warps = uses.threads.div_ceil(32).max(1);
    let by_threads = limits.blocks.min(limits.warps / warps);
    let of_warp = (uses.registers.max(1) * 32).next_multiple_of(REGISTER_UNIT);
    let by_registers = REGISTERS / PARTS / of_warp * PARTS / warps;
    let of_block = (uses.shared + SHARED_OF_SYSTEM).next_multiple_of(SHARED_UNIT);
    let by_shared =
        if of_block > limits.shared_per_block + SHARED_OF_SYSTEM { 0 } else { limits.shared / of_block };
    let all = [
        (by_threads, LimitedBy::Threads),
        (by_registers, LimitedBy::Registers),
        (by_shared, LimitedBy::Shared),
    ];
    all.into_iter().min_by_key(|(blocks, _)| *blocks).expect("three limits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident(capability: (u32, u32), threads: u32, registers: u32, shared: u32) -> (u32, LimitedBy) {
        resident_blocks(&Limits::of(capability), &Uses { threads, registers, shared })
    }

    #[test]
    fn blocks_of_an_sm_are_as_the_published_rules_count_them() {
        use LimitedBy::{Registers, Shared, Threads};
        // 64 warps of 32 registers a thread fill the registers exactly; a 33rd makes it 40.
        assert_eq!(resident((9, 0), 256, 32, 0), (8, Threads));
        assert_eq!(resident((9, 0), 256, 33, 0), (6, Registers));
        // 32 blocks at the most, however small.
        assert_eq!(resident((8, 0), 32, 16, 0), (32, Threads));
        // 255 registers: 8192 a warp of 32, two warps in each of four parts.
        assert_eq!(resident((8, 0), 128, 255, 0), (2, Registers));
        assert_eq!(resident((8, 0), 256, 255, 0), (1, Registers));
        // 168 registers are 5376 a warp, three in a part: one block of twelve warps.
        assert_eq!(resident((9, 0), 384, 168, 0), (1, Registers));
        assert_eq!(resident((9, 0), 384, 176, 0), (0, Registers));
        // 64 KiB and one for the system: two in 164 KiB, three in 228.
        assert_eq!(resident((8, 0), 128, 64, 64 << 10), (2, Shared));
        assert_eq!(resident((9, 0), 128, 64, 64 << 10), (3, Shared));
        // The most that one block can have, and a byte more.
        assert_eq!(resident((9, 0), 128, 64, 227 << 10), (1, Shared));
        assert_eq!(resident((9, 0), 128, 64, (227 << 10) + 1), (0, Shared));
        assert_eq!(resident((8, 9), 512, 32, 0), (3, Threads));
    }
}
