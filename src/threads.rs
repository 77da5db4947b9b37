//! Number of threads to compute with: the user's, else the number that the machine, the scheduler and the container allow.

use std::fmt;

use crate::error::{Error, Result};

/// Threads that a user may ask for, for each core that this process may use: beyond that a machine only drowns.
pub const MOST_PER_CORE: usize = 16;

/// Who decided the number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `--threads`.
    Flag,
    /// The environment variable that rayon's users know.
    Rayon,
    /// Slurm gave the job fewer cores than the process sees.
    Slurm,
    /// A control group's share of processor time.
    Quota,
    /// The cores that the process is bound to.
    Affinity,
    /// Nothing limits them.
    Cores,
}

/// Environment variables that are obeyed.
const RAYON: &str = "RAYON_NUM_THREADS";
const SLURM: &str = "SLURM_CPUS_PER_TASK";

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Flag => "--threads says so",
            Reason::Rayon => "RAYON_NUM_THREADS says so",
            Reason::Slurm => "SLURM_CPUS_PER_TASK says so",
            Reason::Quota => "the control group's processor time, fewer than the cores",
            Reason::Affinity => "the cores this process is bound to, of those there are",
            Reason::Cores => "every core",
        })
    }
}

/// A number of threads, and who decided it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// Number of threads.
    pub count: usize,
    /// Why.
    pub reason: Reason,
}

/// Limits of the machine on threads.
#[derive(Debug, Clone, Copy)]
struct Machine {
    /// Cores that are switched on.
    cores: usize,
    /// Cores that the process may run on.
    bound: usize,
    /// `bound`, or the cores that a control group's quota is worth where these are fewer.
    available: usize,
}

impl Machine {
    fn look() -> Machine {
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        let (cores, bound) = cores_and_bound().unwrap_or((available, available));
        Machine { cores: cores.max(available), bound: bound.max(available), available }
    }

    fn threads(self) -> Threads {
        let reason = if self.available < self.bound {
            Reason::Quota
        } else if self.bound < self.cores {
            Reason::Affinity
        } else {
            Reason::Cores
        };
        Threads { count: self.available, reason }
    }
}

/// Cores that are switched on, and those the process may run on.
#[cfg(target_os = "linux")]
fn cores_and_bound() -> Option<(usize, usize)> {
    // SAFETY: both calls only write what they are given: nothing, and a set of the size that is named.
    unsafe {
        let cores = usize::try_from(libc::sysconf(libc::_SC_NPROCESSORS_ONLN)).ok()?;
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let done = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
        let bound = usize::try_from(libc::CPU_COUNT(&set)).ok()?;
        (done == 0).then_some((cores, bound))
    }
}

#[cfg(not(target_os = "linux"))]
fn cores_and_bound() -> Option<(usize, usize)> {
    None
}

/// The threads to compute with where `--threads` says `flag` (0: nothing). `RAYON_NUM_THREADS` comes next, then the smaller
/// of `SLURM_CPUS_PER_TASK` and what affinity and control groups leave of the cores.
///
/// # Errors
/// More threads than [`MOST_PER_CORE`] for each core, or a variable that is no number.
pub fn threads(flag: usize) -> Result<Threads> {
    decide(flag, &|name| std::env::var(name).ok(), Machine::look())
}

/// Number of threads where neither flag nor environment says one, for code that is given none.
pub fn available() -> usize {
    threads(0).map_or(1, |threads| threads.count)
}

fn decide(flag: usize, variable: &dyn Fn(&str) -> Option<String>, machine: Machine) -> Result<Threads> {
    let most = MOST_PER_CORE * machine.available;
    let checked = |said: &str, count: usize, reason| {
        if count > most {
            return Err(Error::usage(format!(
                "{said}: this process may use {} cores, and there are at most {MOST_PER_CORE} threads for each, so \
                 {most}; results do not depend on the number",
                machine.available
            )));
        }
        Ok(Threads { count, reason })
    };
    let number = |name: &str| -> Result<Option<usize>> {
        let Some(text) = variable(name).filter(|text| !text.trim().is_empty()) else { return Ok(None) };
        let count = text.trim().parse().map_err(|_| {
            Error::usage(format!("{name}={text}: expected a number of threads; unset it, or set a number"))
        })?;
        // In either variable 0 means no number.
        Ok(Some(count).filter(|count| *count > 0))
    };
    if flag > 0 {
        return checked(&format!("--threads {flag}"), flag, Reason::Flag);
    }
    if let Some(count) = number(RAYON)? {
        return checked(&format!("{RAYON}={count}"), count, Reason::Rayon);
    }
    let threads = machine.threads();
    Ok(match number(SLURM)? {
        Some(count) if count < threads.count => Threads { count, reason: Reason::Slurm },
        _ => threads,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Machine = Machine { cores: 8, bound: 8, available: 8 };

    fn decided(flag: usize, variables: &[(&str, &str)], machine: Machine) -> Result<Threads> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_string())
        };
        decide(flag, &variable, machine)
    }

    #[test]
    fn the_flag_comes_before_the_environment_and_the_environment_before_the_machine() {
        let both = [("RAYON_NUM_THREADS", "3"), ("SLURM_CPUS_PER_TASK", "2")];
        let of = |flag, variables| {
            let Threads { count, reason } = decided(flag, variables, FREE).unwrap();
            (count, reason)
        };
        assert_eq!(of(5, &both), (5, Reason::Flag));
        assert_eq!(of(0, &both), (3, Reason::Rayon));
        assert_eq!(of(0, &both[1..]), (2, Reason::Slurm));
        assert_eq!(of(0, &[("RAYON_NUM_THREADS", "0"), ("SLURM_CPUS_PER_TASK", "64")]), (8, Reason::Cores));
    }

    #[test]
    fn a_control_group_and_an_affinity_are_told_apart() {
        let of = |machine| {
            let Threads { count, reason } = decided(0, &[], machine).unwrap();
            (count, reason)
        };
        assert_eq!(of(Machine { available: 2, ..FREE }), (2, Reason::Quota));
        assert_eq!(of(Machine { available: 2, bound: 2, ..FREE }), (2, Reason::Affinity));
    }

    #[test]
    fn more_threads_than_the_cores_can_bear_are_refused_with_the_bound() {
        for (flag, variables, said) in [
            (1_000_000, &[][..], "--threads 1000000"),
            (0, &[("RAYON_NUM_THREADS", "129")], "RAYON_NUM_THREADS=129"),
        ] {
            let error = decided(flag, variables, FREE).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with(said) && text.contains("8 cores") && text.contains("128"), "{text}");
            assert_eq!(error.exit_code(), 2);
        }
        assert_eq!(decided(128, &[], FREE).unwrap().count, 128);
        let error = decided(0, &[("SLURM_CPUS_PER_TASK", "four")], FREE).unwrap_err();
        assert!(error.to_string().contains("SLURM_CPUS_PER_TASK=four"), "{error}");
    }
}
