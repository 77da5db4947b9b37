//! Barriers: which threads have arrived, and which go on.

use super::abi::{BarrierOperands, Lane, WARP, WARPGROUP, state, warpgroup_operation};
use super::errors::Problem;
use super::running::{ALL_REGISTERS, Reach, Running};

/// Whether all of some threads wait at the same line.
fn same_place(lanes: &[Lane]) -> bool {
    let first = &lanes[0];
    lanes.iter().all(|lane| {
        (lane.state, lane.line, lane.what, lane.file) == (first.state, first.line, first.what, first.file)
    })
}

/// Operands of a thread at a named barrier, or of one that waits for its warpgroup.
///
/// # Safety
/// It waits there.
unsafe fn barrier_operands(lane: &Lane) -> BarrierOperands {
    // SAFETY: the intrinsic left its operands on the stack of a fiber that is suspended.
    unsafe { *lane.operands.cast::<BarrierOperands>() }
}

impl Running {
    /// After a warp ran: completes the collective operation that its threads have arrived at. Whether the whole warp goes on at once.
    pub fn synchronise_warp(&mut self, warp: usize, threads: usize) -> Result<bool, Problem> {
        let lanes = &mut self.lanes[warp * WARP..][..WARP];
        let at = lanes[0].state;
        if matches!(at, state::DONE | state::RUNNING | state::AT_MBARRIER) || !same_place(lanes) {
            return Ok(false);
        }
        match at {
            state::AT_COLLECTIVE => {
                if let Some(complete) = lanes[0].complete {
                    // SAFETY: all 32 lanes have left their operands.
                    unsafe { complete(lanes.as_mut_ptr()) };
                }
                lanes.iter_mut().for_each(|lane| lane.state = state::RUNNING);
                return Ok(true);
            }
            state::AT_NAMED_BARRIER => self.arrive_at_named_barrier(warp, threads)?,
            state::AT_WARPGROUP => self.arrive_at_warpgroup(warp * WARP / WARPGROUP, threads)?,
            // Thread blocks of a cluster do not wait for each other here: the first may be far ahead of the last.
            state::AT_BARRIER if self.cluster.len() > 1 && self.all_at(state::AT_BARRIER, threads) => {
                self.wake(0..threads as u32);
            }
            _ => {}
        }
        Ok(false)
    }

    /// A warp has arrived at a named barrier.
    fn arrive_at_named_barrier(&mut self, warp: usize, threads: usize) -> Result<(), Problem> {
        // SAFETY: all lanes of the warp wait there.
        let BarrierOperands { kind: id, value: wanted } =
            unsafe { barrier_operands(&self.lanes[warp * WARP]) };
        let lane = &self.lanes[warp * WARP];
        if !(1..16).contains(&id) {
            return Err(Problem::complaint(lane, format!("named barriers have numbers 1 to 15, not {id}")));
        }
        if wanted == 0 || !(wanted as usize).is_multiple_of(WARP) || wanted as usize > threads {
            return Err(Problem::complaint(
                lane,
                format!(
                    "a barrier of {wanted} threads in a block of {threads}; whole warps of the block are needed"
                ),
            ));
        }
        // SAFETY: every thread at a named barrier left its operands.
        let here = |lane: &&Lane| {
            lane.state == state::AT_NAMED_BARRIER && unsafe { barrier_operands(lane) }.kind == id
        };
        // SAFETY: as above.
        let other = self.lanes[..threads]
            .iter()
            .filter(here)
            .find(|lane| unsafe { barrier_operands(lane) }.value != wanted);
        if let Some(other) = other {
            // SAFETY: as above.
            let value = unsafe { barrier_operands(other) }.value;
            let text = format!(
                "barrier {id} for {wanted} threads, where thread {} waits for {value}",
                other.thread.x
            );
            return Err(Problem::complaint(lane, text));
        }
        self.at_named[id as usize] += WARP as u32;
        if self.at_named[id as usize] == wanted {
            self.at_named[id as usize] = 0;
            let go_on: Vec<u32> =
                self.lanes[..threads].iter().filter(here).map(|lane| lane.thread.x).collect();
            self.wake(go_on);
        }
        Ok(())
    }

    /// Arrivals at the named barrier where a thread waits.
    pub fn named_barrier(&self, lane: &Lane) -> String {
        // SAFETY: it waits there.
        let BarrierOperands { kind: id, value } = unsafe { barrier_operands(lane) };
        format!(": {} of {value} threads have come to barrier {id}", self.at_named[(id % 16) as usize])
    }

    /// A warp waits for its warpgroup.
    fn arrive_at_warpgroup(&mut self, group: usize, threads: usize) -> Result<(), Problem> {
        let first = group * WARPGROUP;
        if first + WARPGROUP > threads {
            let lane = &self.lanes[first];
            return Err(Problem::complaint(
                lane,
                format!("a block of {threads} threads has no warpgroup here"),
            ));
        }
        let lanes = &self.lanes[first..][..WARPGROUP];
        if !same_place(lanes) {
            return Ok(());
        }
        // SAFETY: all lanes of the warpgroup wait there.
        let BarrierOperands { kind, value } = unsafe { barrier_operands(&lanes[0]) };
        if kind == warpgroup_operation::WGMMA_WAIT {
            let shared = self.dynamic_shared();
            // SAFETY: the accumulators lie on the stacks of suspended fibers.
            let waited = unsafe { self.warpgroups[group].wait(value as usize, shared, &mut self.view) };
            waited.map_err(|(thread, text)| Problem::complaint(&self.lanes[first + thread], text))?;
        } else {
            let old = std::mem::replace(&mut self.warpgroups[group].registers, value);
            // The compiler decides how many registers a thread begins with; `old` is the most it can have been.
            if kind == warpgroup_operation::SETMAXNREG_DEC && value > old {
                let text = format!("{value} registers, and a thread of this warpgroup has at most {old}");
                return Err(Problem::complaint(&self.lanes[first], text));
            }
            if self.registers(threads) > ALL_REGISTERS {
                // Not yet: other warpgroups may release some.
                self.warpgroups[group].registers = old;
                return Ok(());
            }
        }
        self.wake(first as u32..(first + WARPGROUP) as u32);
        if kind == warpgroup_operation::SETMAXNREG_DEC {
            (0..threads / WARPGROUP).try_for_each(|other| self.take_registers(other, threads))?;
        }
        Ok(())
    }

    /// Tries again where a warpgroup waits for registers.
    fn take_registers(&mut self, group: usize, threads: usize) -> Result<(), Problem> {
        let lanes = &self.lanes[group * WARPGROUP..][..WARPGROUP];
        // SAFETY: every thread that waits for its warpgroup left its operands.
        let takes = |lane: &Lane| {
            lane.state == state::AT_WARPGROUP
                && unsafe { barrier_operands(lane) }.kind == warpgroup_operation::SETMAXNREG_INC
        };
        if lanes.iter().all(takes) { self.arrive_at_warpgroup(group, threads) } else { Ok(()) }
    }

    /// Whether all threads wait at barriers of this kind, lanes of a warp at the same.
    pub fn all_at(&self, at: u32, threads: usize) -> bool {
        let lanes = &self.lanes[..threads];
        lanes.iter().all(|lane| lane.state == at) && lanes.chunks(WARP).all(same_place)
    }

    /// State that a thread block must not leave behind when it ends.
    pub fn leftover(&self, threads: usize) -> Result<(), Problem> {
        if let Some(place) = self.shared.damage() {
            return Err(Problem::SharedMemoryDamaged { place });
        }
        let groups = self.warpgroups[..threads / WARPGROUP].iter();
        let reached = || self.reached.as_ref().map(Reach::leftover);
        let products = || groups.into_iter().find_map(|group| group.leftover());
        match self.mbarriers.leftover().or_else(products).or_else(reached) {
            Some(text) => Err(Problem::Leftover { text }),
            None => Ok(()),
        }
    }
}
