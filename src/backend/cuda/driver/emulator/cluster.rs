//! Clusters: thread blocks that run together, access each other's shared memory, and synchronise. A launch without clusters has
//! clusters of one thread block.

use super::abi::{Block, Index, Lane, MULTICAST, TmaLoad as Asked, state};
use super::errors::{self, Problem, Stop};
use super::mbarriers::REMOTE;
use super::order::Scheduler;
use super::running::{Reach, Running};
use super::tma::TmaLoad;

/// When no warp can run: completes a barrier of thread blocks or of the cluster, or performs a load that a thread waits for.
pub(super) fn move_on(
    blocks: &mut [&mut Running],
    threads: usize,
    scheduler: &mut Scheduler,
) -> Result<(), Box<Stop>> {
    let mut moved = false;
    for block in blocks.iter_mut().filter(|block| block.all_at(state::AT_BARRIER, threads)) {
        block.wake(0..threads as u32);
        moved = true;
    }
    if moved {
        return Ok(());
    }
    if blocks.iter().all(|block| block.all_at(state::AT_CLUSTER, threads)) {
        for block in blocks {
            block.wake(0..threads as u32);
            block.reached = None;
        }
        return Ok(());
    }
    let of_block = |(rank, block): (usize, &&mut Running)| {
        block.mbarriers.landable().into_iter().map(move |barrier| (rank, barrier))
    };
    let landable: Vec<(usize, usize)> = blocks.iter().enumerate().flat_map(of_block).collect();
    if landable.is_empty() {
        return Err(errors::stuck(blocks, threads));
    }
    let (rank, barrier) = landable[scheduler.pick(landable.len())];
    let block = &mut *blocks[rank];
    let go_on = block.mbarriers.land(barrier, &mut block.view).map_err(|(copy, text)| {
        let text = copy.sender.map_or(text.clone(), |_| format!("in {}: {text}", block.block.block));
        let sender = copy.sender.unwrap_or(block.block.block);
        let problem = Problem::Copy { thread: copy.thread, place: copy.place, text };
        Box::new(Stop { block: sender, problem })
    })?;
    block.wake(go_on);
    Ok(())
}

/// The thread block of the cluster with this rank, and the address there that corresponds to `own` in the running thread block.
///
/// # Safety
/// Called from the fiber that runs; the reference ends before the fiber is suspended.
unsafe fn counterpart<'a>(
    block: *mut Block,
    rank: u32,
    own: *mut u8,
) -> Result<(&'a mut Running, *mut u8), String> {
    // SAFETY: the block is the first field of a `Running`, all thread blocks of the cluster outlive the launch, and only this fiber runs.
    unsafe {
        let Block { cluster, dynamic_shared, dynamic_bytes, .. } = *block;
        let blocks = &(*block.cast::<Running>()).cluster;
        let other = blocks.get(rank as usize).copied();
        let other = &mut *other.ok_or_else(|| format!("rank {rank} in a cluster of {cluster}"))?;
        let offset = (own as usize).wrapping_sub(dynamic_shared as usize);
        if offset as u64 >= dynamic_bytes {
            return Err("of another block's shared memory only the dynamic part can be reached here".into());
        }
        if other.has_ended() {
            return Err(format!(
                "{} has ended; a block that others reach into must wait for them at cluster_sync",
                other.block.block
            ));
        }
        if other.block.block != (*block).block {
            let Lane { file, what, line, thread, .. } = *(*block).lane;
            other.reached = Some(Reach { from: (*block).block, thread: thread.x, file, what, line });
        }
        let there = other.block.dynamic_shared.add(offset);
        Ok((other, there))
    }
}

/// One arrival at another thread block's barrier.
///
/// # Safety
/// Called from the fiber that runs.
pub(super) unsafe fn arrive(block: *mut Block, own: *mut u64, rank: u32) -> Result<(), String> {
    // SAFETY: the caller's promise.
    let (other, word) = unsafe { counterpart(block, rank, own.cast()) }?;
    let name = other.block.block;
    let threads =
        other.mbarriers.arrive(word.cast(), 0, REMOTE).map_err(|text| format!("in {name}: {text}"))?;
    other.wake(threads);
    Ok(())
}

/// Sends a load that was checked for the sender's own thread block to all thread blocks of its multicast mask.
///
/// # Safety
/// Called from the fiber that runs.
pub(super) unsafe fn multicast(block: *mut Block, asked: &Asked, copy: &TmaLoad) -> Result<(), String> {
    let ranks = asked.ranks & !MULTICAST;
    if ranks == 0 {
        return Err("the multicast has no destination: its mask is 0".into());
    }
    for rank in (0..u32::BITS).filter(|rank| ranks >> rank & 1 == 1) {
        // SAFETY: the caller's promise; of the two references to the other block the first ends here.
        let (sender, word, (other, to)) = unsafe {
            let (_, word) = counterpart(block, rank, asked.barrier.cast())?;
            ((*block).block, word, counterpart(block, rank, asked.to)?)
        };
        let (name, lazy) = (other.block.block, other.lazy);
        let copy = if name == sender { copy.clone() } else { copy.to_other(to, sender) };
        let landed = other.mbarriers.copy(word.cast(), copy, lazy, &mut other.view);
        let threads = landed.map_err(|text| format!("in {name}: {text}"))?;
        other.wake(threads);
    }
    Ok(())
}

impl std::fmt::Display for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "block ({}, {}, {})", self.x, self.y, self.z)
    }
}
