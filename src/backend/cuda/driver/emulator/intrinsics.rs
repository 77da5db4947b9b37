//! The host side of the intrinsics: functions that a kernel's thread calls while it runs, on its own fiber.
//!
//! An intrinsic that refuses its operands leaves the reason, and suspends its thread for good. Nothing on the stack of a suspended
//! thread may own anything: it may never be resumed.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use super::abi::{self, Block, Failure, Lane, WARPGROUP, mbarrier as operation, state, wrong};
use super::cluster;
use super::cp_async::Copies;
use super::running::Running;
use super::tma::TmaLoad;
use super::wgmma::Site;

pub(super) unsafe extern "C-unwind" fn suspend(block: *mut Block) {
    // SAFETY: called by the running lane's fiber, which stored its yielder before it entered the kernel.
    unsafe { (*(*(*block).lane).yielder).suspend(()) }
}

/// The running thread block with all its state.
///
/// # Safety
/// Called from the fiber that runs; the reference ends before the fiber is suspended.
unsafe fn running<'a>(block: *mut Block) -> &'a mut Running {
    // SAFETY: the block is the first field of a `Running`, and only this fiber runs.
    unsafe { &mut *block.cast::<Running>() }
}

/// Number of the thread that runs.
///
/// # Safety
/// Called from its fiber.
unsafe fn thread(block: *mut Block) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { (*(*block).lane).thread.x }
}

/// Stops the running thread.
///
/// # Safety
/// Called from its fiber.
unsafe fn fail(block: *mut Block, failure: Failure) -> ! {
    // SAFETY: the caller's promise.
    unsafe {
        (*block).failure = failure;
        loop {
            suspend(block);
        }
    }
}

/// Stops the running thread where its intrinsic's body returns an error.
///
/// # Safety
/// Called from its fiber.
unsafe fn agree<T>(block: *mut Block, result: Result<T, String>) -> T {
    match result {
        Ok(value) => value,
        // SAFETY: the caller's promise.
        Err(text) => unsafe {
            running(block).complaint = Some(text);
            let Lane { file, what, line, .. } = *(*block).lane;
            fail(block, Failure { wrong: wrong::COMPLAINT, line, file, what, address: 0, bytes: 0 })
        },
    }
}

pub(super) unsafe extern "C-unwind" fn declare_shared(
    block: *mut Block,
    key: *const c_void,
    name: *const c_char,
    bytes: u64,
    file: *const c_char,
    line: u32,
) -> *mut u8 {
    // SAFETY: called by the running lane's fiber.
    unsafe {
        let shared = &mut running(block).shared;
        match shared.declare(key, name, bytes) {
            Ok(address) => {
                let extent = shared.declared_extent();
                (*block).static_bytes = extent;
                address
            }
            Err(total) => fail(
                block,
                Failure { wrong: wrong::STATIC_SHARED, line, file, what: name, address: 0, bytes: total },
            ),
        }
    }
}

// ---- cp.async ----

/// # Safety
/// Called from the running lane's fiber; the reference ends before the fiber is suspended.
unsafe fn copies<'a>(block: *mut Block) -> &'a mut Copies {
    // SAFETY: as in `running`; a lane's `thread` is its index.
    unsafe { &mut running(block).copies[thread(block) as usize] }
}

pub(super) unsafe extern "C-unwind" fn cp_async(
    block: *mut Block,
    to: *mut u8,
    from: *const u8,
    bytes: u32,
    valid: u32,
) {
    let from = if valid != 0 { from } else { ptr::null() };
    // SAFETY: both addresses were checked by the intrinsic; memory and shared memory outlive the launch.
    unsafe {
        let lazy = running(block).lazy;
        copies(block).issue(to, from, bytes as usize, lazy);
    }
}

pub(super) unsafe extern "C-unwind" fn cp_async_commit(block: *mut Block) {
    // SAFETY: called by the running lane's fiber.
    unsafe { copies(block).commit() }
}

pub(super) unsafe extern "C-unwind" fn cp_async_wait(block: *mut Block, pending: u32) {
    // SAFETY: called by the running lane's fiber; see `cp_async`.
    unsafe { copies(block).wait(pending as usize) }
}

// ---- mbarriers, TMA loads ----

pub(super) unsafe extern "C-unwind" fn mbarrier(block: *mut Block, kind: u32, word: *mut u64, value: u32) {
    // SAFETY: called by the running lane's fiber; the intrinsic checked that the barrier lies in shared memory.
    unsafe {
        let own = thread(block);
        let barriers = &mut running(block).mbarriers;
        match kind {
            operation::INIT => agree(block, barriers.init(word, value, own)),
            operation::INIT_FENCE => barriers.init_fence(own),
            operation::WAIT => {
                // A thread that goes on checks again: by the time it runs, the barrier may be in a phase of this parity once more.
                while agree(block, running(block).mbarriers.wait(word, value, own)) {
                    (*(*block).lane).state = state::AT_MBARRIER;
                    suspend(block);
                }
            }
            operation::ARRIVE => {
                let threads = agree(block, barriers.arrive(word, 0, own));
                running(block).wake(threads);
            }
            operation::ARRIVE_REMOTE => agree(block, cluster::arrive(block, word, value)),
            operation::ARRIVE_EXPECT_TX => {
                let threads = agree(block, barriers.arrive(word, value, own));
                running(block).wake(threads);
            }
            _ => {}
        }
    }
}

pub(super) unsafe extern "C-unwind" fn tma_load(block: *mut Block, asked: *const abi::TmaLoad) {
    // SAFETY: called by the running lane's fiber, which keeps `asked` and the map on its stack or in its arguments.
    unsafe {
        let (asked, own) = (&*asked, thread(block));
        let copy = agree(block, TmaLoad::new(asked, own, place(block)));
        if asked.to.is_null() {
            return;
        }
        let checked = check_target(block, &copy, asked.to);
        let outside = copy.reads().find_map(|(first, bytes)| unreadable(block, first, bytes));
        if checked.is_err() || outside.is_some() {
            drop(copy);
            agree(block, checked);
            let Lane { file, what, line, .. } = *(*block).lane;
            let (address, bytes) = outside.unwrap_or_default();
            fail(block, Failure { wrong: wrong::GLOBAL_READ, line, file, what, address, bytes });
        }
        if asked.ranks != 0 {
            let sent = cluster::multicast(block, asked, &copy);
            drop(copy);
            return agree(block, sent);
        }
        let whole = running(block);
        let threads = agree(block, whole.mbarriers.copy(asked.barrier, copy, whole.lazy, &mut whole.view));
        running(block).wake(threads);
    }
}

/// The line of the intrinsic that runs.
unsafe fn place(block: *mut Block) -> String {
    // SAFETY: called by the running lane's fiber, whose intrinsic noted its line.
    unsafe {
        let lane = &*(*block).lane;
        format!("{} line {}", CStr::from_ptr(lane.file).to_string_lossy(), lane.line)
    }
}

/// Checks that a load's target lies in shared memory, aligned to the swizzle's period.
unsafe fn check_target(block: *mut Block, copy: &TmaLoad, to: *mut u8) -> Result<(), String> {
    // SAFETY: called by the running lane's fiber.
    let block = unsafe { &*block };
    let inside = |first: *mut u8, bytes: u64| {
        let offset = (to as u64).wrapping_sub(first as u64);
        offset < bytes && bytes - offset >= copy.bytes() as u64
    };
    if !inside(block.dynamic_shared, block.dynamic_bytes) && !inside(block.static_shared, block.static_bytes)
    {
        return Err(format!(
            "{} bytes are loaded to address {:#x}, which is not in the block's shared memory, or not wholly",
            copy.bytes(),
            to as u64
        ));
    }
    if !(to as usize).is_multiple_of(1024) {
        return Err(format!(
            "the target lies {} bytes behind a multiple of 1024; swizzled tiles begin at such multiples",
            to as usize % 1024
        ));
    }
    Ok(())
}

/// The first element of a row that lies in no operand of the launch, and its bytes.
unsafe fn unreadable(block: *mut Block, first: u64, bytes: u64) -> Option<(u64, u64)> {
    // SAFETY: called by the running lane's fiber; the launch's operands outlive it.
    let operands = unsafe { std::slice::from_raw_parts((*block).operand, (*block).operands as usize) };
    let readable = |first: u64, bytes: u64| {
        operands.iter().any(|operand| {
            first >= operand.first && first.saturating_add(bytes) <= operand.first + operand.bytes
        })
    };
    if readable(first, bytes) {
        return None;
    }
    (first..first + bytes).step_by(2).find(|&element| !readable(element, 2)).map(|element| (element, 2))
}

// ---- WGMMA ----

pub(super) unsafe extern "C-unwind" fn wgmma(block: *mut Block, asked: *const abi::Wgmma) {
    // SAFETY: called by the running lane's fiber; its accumulators stay on its stack until it has waited for them.
    unsafe {
        let site = Site { file: (*(*block).lane).file, line: (*(*block).lane).line };
        let (own, whole) = (thread(block) as usize, running(block));
        let (shared, at_once) = (whole.dynamic_shared(), whole.lazy);
        let group = &mut whole.warpgroups[own / WARPGROUP];
        let result = group.multiply(own % WARPGROUP, &*asked, site, shared, &mut whole.view, at_once);
        agree(block, result);
    }
}

pub(super) unsafe extern "C-unwind" fn wgmma_fence(block: *mut Block) {
    // SAFETY: called by the running lane's fiber.
    unsafe {
        let own = thread(block) as usize;
        running(block).warpgroups[own / WARPGROUP].fence(own % WARPGROUP);
    }
}

pub(super) unsafe extern "C-unwind" fn wgmma_commit(block: *mut Block) {
    // SAFETY: called by the running lane's fiber.
    unsafe {
        let own = thread(block) as usize;
        let site = Site { file: (*(*block).lane).file, line: (*(*block).lane).line };
        let result = running(block).warpgroups[own / WARPGROUP].commit(own % WARPGROUP, site);
        agree(block, result);
    }
}

pub(super) unsafe extern "C-unwind" fn fence_proxy_async(block: *mut Block) {
    // SAFETY: called by the running lane's fiber.
    unsafe { running(block).view.fence() }
}
