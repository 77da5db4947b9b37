//! Runs one thread block after another, or those of one cluster together: a fiber for every thread, resumed until all have ended.
//!
//! Between two barriers the threads of a warp run one after the other, in the chosen [`Order`](super::Order), and
//! a warp runs until none of its threads can. Threads of a warp may diverge; every mistake in their synchronisation shows
//! at the moment when no thread can run.

use std::ffi::c_void;
use std::io;
use std::sync::{Mutex, PoisonError};

use corosensei::Coroutine;
use corosensei::stack::DefaultStack;

use super::abi::{Enter, Entry, Failure, Index, Operand, WARP, state, wrong};
use super::cluster;
use super::errors::{Problem, Stop};
use super::order::Scheduler;
use super::running::Running;
use super::{Copies as Time, Order};
use crate::backend::cuda::driver::LaunchConfig;
use crate::error::{Error, Result};

/// Bytes of a fiber's stack, four times the largest frame that compiles. A guard page lies below it.
const STACK_BYTES: usize = 128 << 10;

/// Properties that all thread blocks of a launch have in common.
pub(super) struct Job<'a> {
    pub entry: Entry,
    pub enter: Enter,
    pub arguments: *const c_void,
    pub config: LaunchConfig,
    pub operands: &'a [Operand],
    pub writable: usize,
    pub order: Order,
    pub copies: Time,
    /// Steps after which a thread block is taken for one that never ends.
    pub patience: u64,
}

// SAFETY: the pointer is to constant bytes that outlive the launch.
unsafe impl Sync for Job<'_> {}

type Fiber = Coroutine<(), (), (), DefaultStack>;

/// Fibers, shared memory and all other state of one thread block.
struct Place {
    running: *mut Running,
    fibers: Vec<Fiber>,
}

/// Places for the thread blocks of a cluster, which run together, used again for the next.
pub(super) struct Runner {
    places: Vec<Place>,
    /// The thread block whose intrinsics the kernel calls now.
    entered: usize,
    /// Lanes of a warp, in the order they run in.
    lanes: [u32; WARP],
    /// Warps that can run, lowest first: the thread block's rank and the warp.
    ready: Vec<(usize, usize)>,
}

// SAFETY: a runner changes threads only between clusters, when every fiber is parked at the top of its loop, in frames of
// this file that hold nothing of a thread.
unsafe impl Send for Runner {}

/// Runners that are not in use.
static PARKED: Mutex<Vec<Runner>> = Mutex::new(Vec::new());

/// Lends a runner to `use_it`.
pub(super) fn with_runner<T>(use_it: impl FnOnce(&mut Runner) -> T) -> Result<T> {
    let parked = || PARKED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut runner = match parked().pop() {
        Some(runner) => runner,
        None => Runner::new(),
    };
    let result = use_it(&mut runner);
    parked().push(runner);
    Ok(result)
}

fn no_memory(e: io::Error) -> Error {
    Error::invalid(format!("no memory for the emulator's threads: {e}; run fewer at once, or smaller blocks"))
}

impl Place {
    fn new() -> io::Result<Place> {
        Ok(Place { running: Box::into_raw(Running::new()?), fibers: Vec::new() })
    }

    /// Takes up a launch, as one of the thread blocks of a cluster.
    fn begin_launch(&mut self, job: &Job<'_>, cluster: &[*mut Running]) -> io::Result<()> {
        while self.fibers.len() < job.config.threads as usize {
            let stack = DefaultStack::new(STACK_BYTES)?;
            self.fibers.push(fiber(self.running, stack, self.fibers.len()));
        }
        let [x, y, z] = job.config.grid;
        // SAFETY: no fiber runs, so nobody else uses what `running` points to.
        let running = unsafe { &mut *self.running };
        running.run = Some(job.entry.run);
        running.arguments = job.arguments;
        running.lazy = job.copies == Time::Lazy;
        running.shared.begin_launch(job.config.shared_bytes as usize);
        running.cluster.clear();
        running.cluster.extend(cluster);
        let block = &mut running.block;
        block.threads = Index { x: job.config.threads, y: 1, z: 1 };
        block.blocks = Index { x, y, z };
        block.cluster = job.config.cluster;
        block.operand = job.operands.as_ptr();
        block.operands = job.operands.len() as u32;
        block.writable = job.writable as u32;
        block.dynamic_bytes = u64::from(job.config.shared_bytes);
        block.static_bytes = 0;
        Ok(())
    }

    /// Gives up fibers that stopped in the middle of a kernel: new ones take over their stacks.
    fn abandon(&mut self, threads: usize) {
        let rest = self.fibers.split_off(threads);
        let stopped = std::mem::replace(&mut self.fibers, Vec::with_capacity(threads + rest.len()));
        for (thread, mut stopped) in stopped.into_iter().enumerate() {
            // SAFETY: on its stack are frames of kernels, which have nothing to drop, and of this file, which
            // hold only pointers.
            unsafe { stopped.force_reset() };
            self.fibers.push(fiber(self.running, stopped.into_stack(), thread));
        }
        self.fibers.extend(rest);
        // SAFETY: no fiber runs.
        unsafe { (*self.running).block.failure = Failure::NONE };
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for mut fiber in self.fibers.drain(..) {
            // SAFETY: as in `abandon`.
            unsafe { fiber.force_reset() };
        }
        // SAFETY: made by Box::into_raw in `new`; no fiber is left.
        drop(unsafe { Box::from_raw(self.running) });
    }
}

/// A fiber that runs the launch's kernel once each time it is resumed from its parking place.
fn fiber(running: *mut Running, stack: DefaultStack, thread: usize) -> Fiber {
    Coroutine::with_stack(stack, move |yielder, ()| {
        loop {
            // SAFETY: `running` outlives the fiber, and `run` was set before the fiber was resumed. The kernel
            // checks its accesses to global memory; nothing here needs to be dropped if it never returns.
            unsafe {
                let lane = (&raw mut (*running).lanes).as_mut().unwrap_unchecked().as_mut_ptr().add(thread);
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

impl Runner {
    fn new() -> Runner {
        let mut lanes = [0; WARP];
        (0..).zip(&mut lanes).for_each(|(i, lane)| *lane = i);
        Runner { places: Vec::new(), entered: 0, lanes, ready: Vec::new() }
    }

    /// Takes up a launch, on the thread of the host that will run its clusters.
    pub fn begin_launch(&mut self, job: &Job<'_>) -> Result<()> {
        let size = job.config.cluster as usize;
        while self.places.len() < size {
            self.places.push(Place::new().map_err(no_memory)?);
        }
        let places = &mut self.places[..size];
        let cluster: Vec<*mut Running> = places.iter().map(|place| place.running).collect();
        places.iter_mut().try_for_each(|place| place.begin_launch(job, &cluster)).map_err(no_memory)?;
        self.entered = size;
        Ok(())
    }

    /// Runs the thread blocks of one cluster to their ends.
    pub fn run(&mut self, job: &Job<'_>, cluster: u64) -> Result<(), Box<Stop>> {
        let [x, y, _] = job.config.grid.map(u64::from);
        let (threads, first) = (job.config.threads as usize, cluster * u64::from(job.config.cluster));
        for (position, running) in (first..).zip(self.blocks(job)) {
            let block = Index {
                x: (position % x) as u32,
                y: (position / x % y) as u32,
                z: (position / (x * y)) as u32,
            };
            running.begin_block(block, threads, job.patience);
        }
        let mut scheduler = Scheduler::new(job.order, first);
        let result = self.until_all_end(job, &mut scheduler).and_then(|()| {
            self.blocks(job).try_for_each(|block| {
                block
                    .leftover(threads)
                    .map_err(|problem| Box::new(Stop { block: block.block.block, problem }))
            })
        });
        if result.is_err() {
            self.places[..job.config.cluster as usize].iter_mut().for_each(|place| place.abandon(threads));
        }
        result
    }

    /// The thread blocks of the cluster, while no fiber runs.
    fn blocks(&mut self, job: &Job<'_>) -> impl Iterator<Item = &mut Running> {
        // SAFETY: no fiber runs, and each points to a block of its own.
        self.places[..job.config.cluster as usize].iter_mut().map(|place| unsafe { &mut *place.running })
    }

    fn until_all_end(&mut self, job: &Job<'_>, scheduler: &mut Scheduler) -> Result<(), Box<Stop>> {
        let (threads, size) = (job.config.threads as usize, job.config.cluster as usize);
        self.ready.clear();
        self.ready.extend((0..size).flat_map(|rank| (0..threads / WARP).map(move |warp| (rank, warp))));
        loop {
            while !self.ready.is_empty() {
                let next = scheduler.pick(self.ready.len());
                let (rank, warp) = self.ready[next];
                let ran = self.run_warp(job, rank, warp, scheduler);
                // SAFETY: no fiber runs.
                let running = unsafe { &mut *self.places[rank].running };
                let goes_on =
                    ran.and_then(|()| running.synchronise_warp(warp, threads)).and_then(|goes_on| {
                        running.block.steps_left = running.block.steps_left.saturating_sub(WARP as u64);
                        if running.block.steps_left == 0 {
                            return Err(Problem::endless(&running.lanes[warp * WARP..][..WARP]));
                        }
                        Ok(goes_on)
                    });
                let stop = |problem| Box::new(Stop { block: running.block.block, problem });
                if !goes_on.map_err(stop)? {
                    self.ready.remove(next);
                }
                self.take_woken(size);
            }
            let mut blocks: Vec<&mut Running> = self.blocks(job).collect();
            if blocks.iter().all(|block| block.has_ended()) {
                return Ok(());
            }
            cluster::move_on(&mut blocks, threads, scheduler)?;
            self.take_woken(size);
        }
    }

    /// Warps that were woken are ready.
    fn take_woken(&mut self, size: usize) {
        for (rank, place) in self.places[..size].iter().enumerate() {
            // SAFETY: no fiber runs.
            for warp in unsafe { &mut *place.running }.woken.drain(..) {
                if let Err(at) = self.ready.binary_search(&(rank, warp)) {
                    self.ready.insert(at, (rank, warp));
                }
            }
        }
    }

    /// Runs every thread of a warp that can run to where it must wait.
    fn run_warp(
        &mut self,
        job: &Job<'_>,
        rank: usize,
        warp: usize,
        scheduler: &mut Scheduler,
    ) -> Result<(), Problem> {
        scheduler.arrange(&mut self.lanes);
        let Place { running, fibers } = &mut self.places[rank];
        let running = *running;
        if self.entered != rank {
            // SAFETY: the library keeps the pointer for this thread only and uses it while a kernel runs.
            unsafe { (job.enter)(&raw mut (*running).block) };
            self.entered = rank;
        }
        // SAFETY: `running` is alive; fibers and this function use it in turns, through raw pointers.
        unsafe {
            let first = (&raw mut (*running).lanes).as_mut().unwrap_unchecked().as_mut_ptr().add(warp * WARP);
            for &lane in &self.lanes {
                let lane = first.add(lane as usize);
                if (*lane).state != state::RUNNING {
                    continue;
                }
                (*running).block.lane = lane;
                fibers[(*lane).thread.x as usize].resume(());
                let failure = (*running).block.failure;
                if failure.wrong != wrong::NOTHING {
                    let complaint = (&raw mut (*running).complaint).replace(None);
                    return Err(Problem::Failure { failure, complaint, thread: (*lane).thread.x });
                }
            }
        }
        Ok(())
    }
}
