//! Where threads wait for each other: who has come, and who goes on.

use super::abi::{Lane, Meeting, WARP, WARPGROUP, state, together};
use super::errors::Problem;
use super::running::{ALL_REGISTERS, Reach, Running};

/// Whether all of some threads wait at the same place.
fn same_place(lanes: &[Lane]) -> bool {
    let first = &lanes[0];
    lanes.iter().all(|lane| {
        (lane.state, lane.line, lane.what, lane.file) == (first.state, first.line, first.what, first.file)
    })
}

/// What a thread at a named barrier or one that waits for its warpgroup left.
///
/// # Safety
/// It waits there.
unsafe fn meeting(lane: &Lane) -> Meeting {
    // SAFETY: the word left its operands on the stack of a fiber that is suspended.
    unsafe { *lane.operands.cast::<Meeting>() }
}

impl Running {
    /// After a warp ran: does what its threads came together for. Whether the whole warp goes on at once.
    pub fn meet(&mut self, warp: usize, threads: usize) -> Result<bool, Problem> {
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
            state::AT_NAMED_BARRIER => self.come_to_named_barrier(warp, threads)?,
            state::AT_WARPGROUP => self.come_to_warpgroup(warp * WARP / WARPGROUP, threads)?,
            // Blocks of a cluster do not wait for each other here: the first may be far ahead of the last.
            state::AT_BARRIER if self.cluster.len() > 1 && self.all_at(state::AT_BARRIER, threads) => {
                self.wake(0..threads as u32);
            }
            _ => {}
        }
        Ok(false)
    }

    /// A warp has come to a named barrier.
    fn come_to_named_barrier(&mut self, warp: usize, threads: usize) -> Result<(), Problem> {
        // SAFETY: all lanes of the warp wait there.
        let Meeting { kind: id, value: wanted } = unsafe { meeting(&self.lanes[warp * WARP]) };
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
        // SAFETY: whoever waits at a named barrier left its operands.
        let here =
            |lane: &&Lane| lane.state == state::AT_NAMED_BARRIER && unsafe { meeting(lane) }.kind == id;
        // SAFETY: as above.
        let other =
            self.lanes[..threads].iter().filter(here).find(|lane| unsafe { meeting(lane) }.value != wanted);
        if let Some(other) = other {
            // SAFETY: as above.
            let value = unsafe { meeting(other) }.value;
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

    /// Who has come to the named barrier where a thread waits.
    pub fn named_barrier(&self, lane: &Lane) -> String {
        // SAFETY: it waits there.
        let Meeting { kind: id, value } = unsafe { meeting(lane) };
        format!(": {} of {value} threads have come to barrier {id}", self.at_named[(id % 16) as usize])
    }

    /// A warp waits for its warpgroup.
    fn come_to_warpgroup(&mut self, group: usize, threads: usize) -> Result<(), Problem> {
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
        let Meeting { kind, value } = unsafe { meeting(&lanes[0]) };
        if kind == together::WGMMA_WAIT {
            let shared = self.dynamic_shared();
            // SAFETY: the sums lie on the stacks of suspended fibers.
            let waited = unsafe { self.warpgroups[group].wait(value as usize, shared, &mut self.view) };
            waited.map_err(|(thread, text)| Problem::complaint(&self.lanes[first + thread], text))?;
        } else {
            let old = std::mem::replace(&mut self.warpgroups[group].registers, value);
            // How many a thread began with is the compiler's affair; `old` is the most it can have been.
            if kind == together::REGISTERS_GIVE && value > old {
                let text =
                    format!("a thread of this warpgroup has at most {old} registers, and would keep {value}");
                return Err(Problem::complaint(&self.lanes[first], text));
            }
            if self.registers(threads) > ALL_REGISTERS {
                // Not yet: others may give some.
                self.warpgroups[group].registers = old;
                return Ok(());
            }
        }
        self.wake(first as u32..(first + WARPGROUP) as u32);
        if kind == together::REGISTERS_GIVE {
            (0..threads / WARPGROUP).try_for_each(|other| self.take_registers(other, threads))?;
        }
        Ok(())
    }

    /// Tries again where a warpgroup waits for registers.
    fn take_registers(&mut self, group: usize, threads: usize) -> Result<(), Problem> {
        let lanes = &self.lanes[group * WARPGROUP..][..WARPGROUP];
        // SAFETY: whoever waits for its warpgroup left its operands.
        let takes = |lane: &Lane| {
            lane.state == state::AT_WARPGROUP && unsafe { meeting(lane) }.kind == together::REGISTERS_TAKE
        };
        if lanes.iter().all(takes) { self.come_to_warpgroup(group, threads) } else { Ok(()) }
    }

    /// Whether all threads wait at barriers of this kind, lanes of a warp at the same.
    pub fn all_at(&self, at: u32, threads: usize) -> bool {
        let lanes = &self.lanes[..threads];
        lanes.iter().all(|lane| lane.state == at) && lanes.chunks(WARP).all(same_place)
    }

    /// What a block that has ended may not leave behind.
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
