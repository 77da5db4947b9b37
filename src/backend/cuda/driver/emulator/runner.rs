//! Runs one block after another: a fiber for every thread, resumed until all have ended.
//!
//! Between two meeting points the threads of a warp run one after the other, in the chosen [`Order`](super::Order), and
//! a warp runs until none of its threads can. Threads of a warp may go separate ways; every mistake in how they meet shows
//! at the moment when no thread of the block can run.

use std::ffi::c_void;
use std::io;
use std::sync::{Mutex, PoisonError};

use corosensei::Coroutine;
use corosensei::stack::DefaultStack;

use super::abi::{Enter, Entry, Failure, Index, Operand, WARP, state, wrong};
use super::errors::{Problem, Stop};
use super::order::Scheduler;
use super::running::Running;
use super::{Copies as Time, Order};
use crate::backend::cuda::driver::Geometry;
use crate::error::{Error, Result};

/// Bytes of a fiber's stack, four times the largest frame that compiles. A guard page lies below it.
const STACK_BYTES: usize = 128 << 10;

/// What all blocks of a launch have in common.
pub(super) struct Job<'a> {
    pub entry: Entry,
    pub enter: Enter,
    pub arguments: *const c_void,
    pub geometry: Geometry,
    pub operands: &'a [Operand],
    pub writable: usize,
    pub order: Order,
    pub copies: Time,
    /// Steps after which a block is taken for one that never ends.
    pub patience: u64,
}

// SAFETY: the pointer is to constant bytes that outlive the launch.
unsafe impl Sync for Job<'_> {}

type Fiber = Coroutine<(), (), (), DefaultStack>;

/// Fibers, shared memory and all else that one block needs, used again for the next.
pub(super) struct Runner {
    running: *mut Running,
    fibers: Vec<Fiber>,
    /// Lanes of a warp, in the order they run in.
    lanes: [u32; WARP],
    /// Warps that can run, lowest first.
    ready: Vec<usize>,
}

// SAFETY: a runner changes threads only between blocks, when every fiber is parked at the top of its loop, in frames of
// this file that hold nothing of a thread.
unsafe impl Send for Runner {}

/// Runners that nobody uses at the moment.
static PARKED: Mutex<Vec<Runner>> = Mutex::new(Vec::new());

/// Lends a runner to `use_it`.
pub(super) fn with_runner<T>(use_it: impl FnOnce(&mut Runner) -> T) -> Result<T> {
    let parked = || PARKED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut runner = match parked().pop() {
        Some(runner) => runner,
        None => Runner::new().map_err(no_memory)?,
    };
    let result = use_it(&mut runner);
    parked().push(runner);
    Ok(result)
}

fn no_memory(e: io::Error) -> Error {
    Error::invalid(format!("no memory for the emulator's threads: {e}; run fewer at once, or smaller blocks"))
}

impl Runner {
    fn new() -> io::Result<Runner> {
        let mut lanes = [0; WARP];
        (0..).zip(&mut lanes).for_each(|(i, lane)| *lane = i);
        Ok(Runner { running: Box::into_raw(Running::new()?), fibers: Vec::new(), lanes, ready: Vec::new() })
    }

    /// Takes up a launch, on the thread of the host that will run its blocks.
    pub fn begin_launch(&mut self, job: &Job<'_>) -> Result<()> {
        while self.fibers.len() < job.geometry.threads as usize {
            let stack = DefaultStack::new(STACK_BYTES).map_err(no_memory)?;
            self.fibers.push(self.fiber(stack, self.fibers.len()));
        }
        let [x, y, z] = job.geometry.grid;
        // SAFETY: no fiber runs, so nobody else uses what `running` points to.
        let running = unsafe { &mut *self.running };
        running.run = Some(job.entry.run);
        running.arguments = job.arguments;
        running.lazy = job.copies == Time::Lazy;
        running.shared.begin_launch(job.geometry.shared_bytes as usize);
        let block = &mut running.block;
        block.threads = Index { x: job.geometry.threads, y: 1, z: 1 };
        block.blocks = Index { x, y, z };
        block.operand = job.operands.as_ptr();
        block.operands = job.operands.len() as u32;
        block.writable = job.writable as u32;
        block.dynamic_bytes = u64::from(job.geometry.shared_bytes);
        block.static_bytes = 0;
        // SAFETY: the library keeps the pointer for this thread only and uses it while a kernel runs.
        unsafe { (job.enter)(&raw mut running.block) };
        Ok(())
    }

    /// Runs one block to its end.
    pub fn run(&mut self, job: &Job<'_>, position: u64) -> Result<(), Box<Stop>> {
        let [x, y, _] = job.geometry.grid.map(u64::from);
        let block =
            Index { x: (position % x) as u32, y: (position / x % y) as u32, z: (position / (x * y)) as u32 };
        let threads = job.geometry.threads as usize;
        // SAFETY: no fiber runs.
        unsafe { &mut *self.running }.begin_block(block, threads, job.patience);
        let mut scheduler = Scheduler::new(job.order, position);
        let result = self.until_all_end(threads, &mut scheduler).and_then(|()| {
            // SAFETY: all fibers are parked.
            unsafe { &*self.running }.leftover(threads)
        });
        result.map_err(|problem| {
            self.abandon(threads);
            Box::new(Stop { block, problem })
        })
    }

    fn until_all_end(&mut self, threads: usize, scheduler: &mut Scheduler) -> Result<(), Problem> {
        self.ready.clear();
        self.ready.extend(0..threads / WARP);
        loop {
            while !self.ready.is_empty() {
                let next = scheduler.pick(self.ready.len());
                let warp = self.ready[next];
                self.run_warp(warp, scheduler)?;
                // SAFETY: no fiber runs.
                let running = unsafe { &mut *self.running };
                if !running.meet(warp, threads)? {
                    self.ready.remove(next);
                }
                self.take_woken();
                running.block.fuse = running.block.fuse.saturating_sub(WARP as u64);
                if running.block.fuse == 0 {
                    return Err(Problem::endless(&running.lanes[warp * WARP..][..WARP]));
                }
            }
            // SAFETY: no fiber runs.
            let running = unsafe { &mut *self.running };
            if running.lanes[..threads].iter().all(|lane| lane.state == state::DONE) {
                return Ok(());
            }
            running.move_on(threads, scheduler)?;
            self.take_woken();
        }
    }

    /// Warps that were woken are ready.
    fn take_woken(&mut self) {
        // SAFETY: no fiber runs.
        for warp in unsafe { &mut *self.running }.woken.drain(..) {
            if let Err(place) = self.ready.binary_search(&warp) {
                self.ready.insert(place, warp);
            }
        }
    }

    /// Runs every thread of a warp that can run to where it must wait.
    fn run_warp(&mut self, warp: usize, scheduler: &mut Scheduler) -> Result<(), Problem> {
        scheduler.arrange(&mut self.lanes);
        let running = self.running;
        // SAFETY: `running` is alive; fibers and this function use it in turns, through raw pointers.
        unsafe {
            let first = (&raw mut (*running).lanes).as_mut().unwrap_unchecked().as_mut_ptr().add(warp * WARP);
            for &lane in &self.lanes {
                let lane = first.add(lane as usize);
                if (*lane).state != state::RUNNING {
                    continue;
                }
                (*running).block.lane = lane;
                self.fibers[(*lane).thread.x as usize].resume(());
                let failure = (*running).block.failure;
                if failure.wrong != wrong::NOTHING {
                    let complaint = (&raw mut (*running).complaint).replace(None);
                    return Err(Problem::Failure { failure, complaint, thread: (*lane).thread.x });
                }
            }
        }
        Ok(())
    }

    /// A fiber that runs the launch's kernel once each time it is resumed from its parking place.
    fn fiber(&self, stack: DefaultStack, thread: usize) -> Fiber {
        let running = self.running;
        Coroutine::with_stack(stack, move |yielder, ()| {
            loop {
                // SAFETY: `running` outlives the fiber, and `run` was set before the fiber was resumed. The kernel
                // checks its accesses to global memory; nothing here needs to be dropped if it never returns.
                unsafe {
                    let lane =
                        (&raw mut (*running).lanes).as_mut().unwrap_unchecked().as_mut_ptr().add(thread);
                    (*lane).yielder = yielder;
                    if let Some(run) = (*running).run {
                        run((*running).arguments);
                    }
                    (*lane).state = state::DONE;
                }
                yielder.suspend(());
            }
        })
    }

    /// Gives up fibers that stopped in the middle of a kernel: new ones take over their stacks.
    fn abandon(&mut self, threads: usize) {
        let rest = self.fibers.split_off(threads);
        let stopped = std::mem::replace(&mut self.fibers, Vec::with_capacity(threads + rest.len()));
        for (thread, mut fiber) in stopped.into_iter().enumerate() {
            // SAFETY: on its stack are frames of kernels, which have nothing to drop, and of this file, which
            // hold only pointers.
            unsafe { fiber.force_reset() };
            let fiber = self.fiber(fiber.into_stack(), thread);
            self.fibers.push(fiber);
        }
        self.fibers.extend(rest);
        // SAFETY: no fiber runs.
        unsafe { (*self.running).block.failure = Failure::NONE };
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        for mut fiber in self.fibers.drain(..) {
            // SAFETY: as in `abandon`.
            unsafe { fiber.force_reset() };
        }
        // SAFETY: made by Box::into_raw in `new`; no fiber is left.
        drop(unsafe { Box::from_raw(self.running) });
    }
}
