//! One launch: checked as CUDA would, then its thread blocks spread over threads of the host.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::abi::{Entry, MOST_THREADS, Operand, WARP};
use super::compiler::Module;
use super::errors::Stop;
use super::order::Scheduler;
use super::runner::{Job, with_runner};
use super::shared::MOST_BYTES;
use super::{Options, Order};
use crate::backend::cuda::driver::{Launch, MOST_ARGUMENT_BYTES};
use crate::error::{Error, Result};
use crate::ops::Access;

/// Checks what CUDA would check; gives the kernel.
pub(super) fn check(module: &Module, launch: &Launch<'_>, memory_bytes: usize) -> Result<Entry> {
    let entry = module.entry(launch.entry)?;
    let refuse = |what: String| Err(Error::invalid(format!("kernel `{}`: {what}", launch.entry)));
    let [x, y, z] = launch.config.grid;
    if x == 0 || y == 0 || z == 0 || x > i32::MAX as u32 || y > 65535 || z > 65535 {
        return refuse(format!(
            "a grid of {x} x {y} x {z} blocks; every extent is at least 1, the first at most 2147483647, the others at \
             most 65535"
        ));
    }
    if let Some(wrong) = launch.config.wrong_cluster() {
        return refuse(wrong);
    }
    let threads = launch.config.threads;
    if threads == 0 || !(threads as usize).is_multiple_of(WARP) || threads as usize > MOST_THREADS {
        return refuse(format!(
            "{threads} threads in a block; a multiple of {WARP}, at most {MOST_THREADS}, is needed"
        ));
    }
    if threads > entry.most_threads {
        return refuse(format!(
            "{threads} threads in a block; it is declared for at most {}",
            entry.most_threads
        ));
    }
    if launch.config.shared_bytes as usize > MOST_BYTES {
        return refuse(format!(
            "{} bytes of dynamic shared memory; a block may have {MOST_BYTES}",
            launch.config.shared_bytes
        ));
    }
    let given = launch.arguments.len();
    if given != entry.argument_bytes as usize || given > MOST_ARGUMENT_BYTES {
        return refuse(format!(
            "{given} bytes of arguments were given; its struct has {}, and at most {MOST_ARGUMENT_BYTES} are allowed",
            entry.argument_bytes
        ));
    }
    for (name, span, _) in launch.operands {
        if span.offset.checked_add(span.bytes()).is_none_or(|end| end > memory_bytes) {
            return refuse(format!(
                "operand `{name}`, {} bytes at byte {}, leaves the memory of {memory_bytes} bytes",
                span.bytes(),
                span.offset
            ));
        }
    }
    Ok(entry)
}

/// A copy of a launch's arguments, aligned for any struct.
#[repr(C, align(64))]
struct Arguments([u8; MOST_ARGUMENT_BYTES]);

/// Runs a launch that was checked, on memory whose first byte has the address `base`.
///
/// # Safety
/// The bytes that were checked can be read and written at `base`, and nothing else does so meanwhile.
pub(super) unsafe fn run(
    pool: Option<&rayon::ThreadPool>,
    options: Options,
    patience: u64,
    module: &Module,
    entry: Entry,
    launch: &Launch<'_>,
    base: u64,
) -> Result<()> {
    let mut arguments = Arguments([0; MOST_ARGUMENT_BYTES]);
    arguments.0[..launch.arguments.len()].copy_from_slice(launch.arguments);
    // Operands that may be written come first.
    let (writable, readable): (Vec<_>, Vec<_>) =
        launch.operands.iter().partition(|(_, _, access)| *access != Access::Read);
    let operands: Vec<Operand> = writable
        .iter()
        .chain(&readable)
        .map(|(_, span, _)| Operand { first: base + span.offset as u64, bytes: span.bytes() as u64 })
        .collect();
    let job = Job {
        entry,
        enter: module.enter,
        arguments: (&raw const arguments).cast::<c_void>(),
        config: launch.config,
        operands: &operands,
        writable: writable.len(),
        order: options.order,
        copies: options.copies,
        patience,
    };
    let blocks: u64 = launch.config.grid.iter().map(|&n| u64::from(n)).product();
    let clusters = blocks / u64::from(launch.config.cluster);
    let stopped = match pool {
        Some(pool) if clusters > 1 => spread(pool, &job, clusters)?,
        _ => alone(&job, clusters)?,
    };
    stopped.map_or(Ok(()), |stop| Err(stop.error(launch, base)))
}

/// The positions of clusters in the order they run in.
fn positions(order: Order, clusters: u64) -> impl Fn(u64) -> u64 {
    let mut random = Vec::new();
    if matches!(order, Order::Random(_)) {
        random.extend(0..clusters as u32);
        Scheduler::new(order, u64::MAX).arrange(&mut random);
    }
    move |i| match order {
        Order::Forward => i,
        Order::Reverse => clusters - 1 - i,
        Order::Random(_) => u64::from(random[i as usize]),
    }
}

/// Runs all clusters on this thread.
fn alone(job: &Job<'_>, clusters: u64) -> Result<Option<Box<Stop>>> {
    let position = positions(job.order, clusters);
    with_runner(|runner| {
        runner.begin_launch(job)?;
        Ok((0..clusters).find_map(|i| runner.run(job, position(i)).err()))
    })?
}

/// Runs clusters on all threads of a pool. Of several that go wrong, the first in order counts: all before it have run.
fn spread(pool: &rayon::ThreadPool, job: &Job<'_>, clusters: u64) -> Result<Option<Box<Stop>>> {
    let position = positions(job.order, clusters);
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let first: Mutex<Option<(u64, Box<Stop>)>> = Mutex::new(None);
    let outcomes = pool.broadcast(|_| {
        with_runner(|runner| {
            runner.begin_launch(job)?;
            while !stop.load(Ordering::Relaxed) {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= clusters {
                    break;
                }
                if let Err(found) = runner.run(job, position(i)) {
                    stop.store(true, Ordering::Relaxed);
                    let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                    if first.as_ref().is_none_or(|(earlier, _)| i < *earlier) {
                        *first = Some((i, found));
                    }
                }
            }
            Ok(())
        })?
    });
    outcomes.into_iter().collect::<Result<Vec<()>>>()?;
    Ok(first.into_inner().unwrap_or_else(PoisonError::into_inner).map(|(_, stop)| stop))
}
