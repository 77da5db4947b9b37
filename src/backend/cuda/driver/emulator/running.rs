//! The thread block that runs, as kernels see it and as the host side of the intrinsics needs it.

use std::ffi::{c_char, c_void};
use std::io;
use std::ptr;

use super::abi::{Block, Failure, Index, Lane, MOST_THREADS, WARP, WARPGROUP, state};
use super::async_proxy::AsyncProxyView;
use super::cp_async::Copies;
use super::intrinsics;
use super::mbarriers::Mbarriers;
use super::shared::SharedMemory;
use super::wgmma::{Shared, Warpgroup};

/// Registers of an SM.
const REGISTERS: u32 = 1 << 16;

/// Most registers of a thread.
const MOST_REGISTERS: u32 = 255;

/// The thread block and all its state. It stays at one address: fibers point to it.
#[repr(C)]
pub(super) struct Running {
    /// First: kernels hold a pointer to it, and intrinsics get back to the whole by it.
    pub block: Block,
    pub run: Option<unsafe extern "C-unwind" fn(*const c_void)>,
    pub arguments: *const c_void,
    pub lanes: Vec<Lane>,
    pub copies: Vec<Copies>,
    pub mbarriers: Mbarriers,
    pub warpgroups: Vec<Warpgroup>,
    pub view: AsyncProxyView,
    /// Threads that wait at each named barrier: whole warps have arrived.
    pub at_named: [u32; 16],
    /// Warps with threads that go on.
    pub woken: Vec<usize>,
    /// The text of an intrinsic that stopped a thread.
    pub complaint: Option<String>,
    pub lazy: bool,
    pub shared: SharedMemory,
    /// The thread blocks of its cluster by rank, itself among them.
    pub cluster: Vec<*mut Running>,
    /// The last access since `cluster_sync` of another thread block to its shared memory.
    pub reached: Option<Reach>,
}

/// An access of a thread of another thread block of the cluster to shared memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    pub from: Index,
    pub thread: u32,
    pub file: *const c_char,
    pub what: *const c_char,
    pub line: u32,
}

impl Running {
    pub fn new() -> io::Result<Box<Running>> {
        let mut shared = SharedMemory::new()?;
        let [static_shared, dynamic_shared] = shared.addresses();
        Ok(Box::new(Running {
            block: Block {
                lane: ptr::null_mut(),
                block: Index::default(),
                threads: Index::default(),
                blocks: Index::default(),
                writable: 0,
                operands: 0,
                cluster: 1,
                operand: ptr::null(),
                dynamic_shared,
                dynamic_bytes: 0,
                static_shared,
                static_bytes: 0,
                steps_left: 0,
                failure: Failure::NONE,
                suspend: intrinsics::suspend,
                declare_shared: intrinsics::declare_shared,
                cp_async: intrinsics::cp_async,
                cp_async_commit: intrinsics::cp_async_commit,
                cp_async_wait: intrinsics::cp_async_wait,
                mbarrier: intrinsics::mbarrier,
                tma_load: intrinsics::tma_load,
                wgmma: intrinsics::wgmma,
                wgmma_fence: intrinsics::wgmma_fence,
                wgmma_commit: intrinsics::wgmma_commit,
                fence_proxy_async: intrinsics::fence_proxy_async,
            },
            run: None,
            arguments: ptr::null(),
            lanes: (0..MOST_THREADS).map(lane).collect(),
            copies: (0..MOST_THREADS).map(|_| Copies::default()).collect(),
            mbarriers: Mbarriers::default(),
            warpgroups: (0..MOST_THREADS / WARPGROUP).map(|_| Warpgroup::new()).collect(),
            view: AsyncProxyView::default(),
            at_named: [0; 16],
            woken: Vec::new(),
            complaint: None,
            lazy: false,
            shared,
            cluster: Vec::new(),
            reached: None,
        }))
    }

    /// Begins a thread block of `threads` threads, which may take a limited number of steps.
    pub fn begin_block(&mut self, block: Index, threads: usize, steps: u64) {
        self.block.block = block;
        self.block.steps_left = steps;
        self.shared.begin_block();
        self.copies[..threads].iter_mut().for_each(Copies::clear);
        self.lanes[..threads].iter_mut().for_each(|lane| lane.state = state::RUNNING);
        self.mbarriers.clear();
        self.view.clear(self.block.dynamic_shared);
        let registers = (REGISTERS / threads as u32 / 8 * 8).min(MOST_REGISTERS);
        self.warpgroups.iter_mut().for_each(|group| group.clear(registers));
        self.at_named = [0; 16];
        self.woken.clear();
        self.reached = None;
    }

    /// Whether all of its threads have ended.
    pub fn has_ended(&self) -> bool {
        self.lanes[..self.block.threads.x as usize].iter().all(|lane| lane.state == state::DONE)
    }

    /// Lets threads go on.
    pub fn wake(&mut self, threads: impl IntoIterator<Item = u32>) {
        for thread in threads {
            self.lanes[thread as usize].state = state::RUNNING;
            self.woken.push(thread as usize / WARP);
        }
    }

    /// Dynamic shared memory.
    pub fn dynamic_shared(&self) -> Shared {
        Shared { first: self.block.dynamic_shared, bytes: self.block.dynamic_bytes }
    }

    /// Registers that all warpgroups of a thread block have.
    pub fn registers(&self, threads: usize) -> u32 {
        self.warpgroups[..threads / WARPGROUP].iter().map(|group| group.registers * WARPGROUP as u32).sum()
    }
}

/// Most registers that the warpgroups of a thread block may have together.
pub(super) const ALL_REGISTERS: u32 = REGISTERS;

fn lane(thread: usize) -> Lane {
    Lane {
        thread: Index { x: thread as u32, y: 0, z: 0 },
        state: state::DONE,
        file: ptr::null(),
        what: ptr::null(),
        line: 0,
        unused: 0,
        complete: None,
        operands: ptr::null_mut(),
        yielder: ptr::null(),
    }
}
