//! The parent of the child process: deadlines, and what goes on behind a culprit.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::child::{Event, Job, Outcome};
use super::trial::Trial;
use crate::error::{Error, Result, printable};

/// Until the child says its first word: it starts, loads the driver and takes memory.
const START: Duration = Duration::from_secs(120);
/// For the kernels of one trial to be compiled, and for the CPU to compute what one call should give.
const COMPILE: Duration = Duration::from_secs(600);
/// Beyond the child's own deadline for the device, which tells more.
const BEYOND: Duration = Duration::from_secs(5);
/// Trials that are worth a process which compiles for them.
const LEAST_OF_A_COMPILER: usize = 4;
/// Until a child that was killed is gone.
const AFTER_KILL: Duration = Duration::from_secs(10);
/// Kernels of one kind that fail to give a result, none of them right, before the kind is given up.
pub const ENOUGH: usize = 3;
/// Kinds of kernels that rest on hardware of their own, in the words of `--exclude`.
pub const KINDS: [&str; 2] = ["sm90", "cluster"];
/// Bytes of a child's standard error that are kept: the end.
const MOST_ERRORS: usize = 2000;

/// How to start a child.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// Receives the progress, and says whether to go on.
pub trait Watcher {
    /// A trial begins.
    fn begins(&mut self, trial: &Trial);
    /// Whether somebody asked to stop.
    fn is_stopped(&self) -> bool;
}

/// Carries out a job in as many children as it takes; an outcome for every trial, but for those that another's made needless: a kernel
/// that fails in one form is used in none, and kernels of a kind of which the first few fail and none is right are not tried.
///
/// # Errors
/// Nobody can be started, the device cannot be had at all, or somebody asked to stop.
pub fn supervise(program: &Program, job: &Job, watcher: &mut dyn Watcher) -> Result<Vec<Option<Outcome>>> {
    compile_ahead(program, job, watcher)?;
    let mut outcomes: Vec<Option<Outcome>> = vec![None; job.trials.len()];
    loop {
        let left: Vec<usize> = (0..outcomes.len())
            .filter(|&index| outcomes[index].is_none() && !is_needless(&job.trials, index, &outcomes))
            .collect();
        if left.is_empty() {
            return Ok(outcomes);
        }
        let trials = left.iter().map(|&index| job.trials[index].clone()).collect();
        let found = one_child(program, &Job { trials, ..job.clone() }, watcher)?;
        for (trial, outcome) in found {
            outcomes[left[trial]] = Some(outcome);
        }
    }
}

/// Compiles the kernels of all trials in as many processes as there are threads. What fails here is found again by a trial.
fn compile_ahead(program: &Program, job: &Job, watcher: &dyn Watcher) -> Result<()> {
    let threads = if job.threads == 0 { crate::threads::available() } else { job.threads };
    let parts = threads.min(job.trials.len().div_ceil(LEAST_OF_A_COMPILER));
    if parts < 2 {
        return Ok(());
    }
    let start = |part: usize| {
        let trials = job.trials.iter().skip(part).step_by(parts).cloned().collect();
        Running::start(program, &Job { trials, compile_only: true, threads: 1, ..job.clone() })
    };
    let mut compilers = (0..parts).map(start).collect::<Result<Vec<Running>>>()?;
    for compiler in &mut compilers {
        // It says nothing; its end is its last word.
        compiler.next(COMPILE, watcher)?;
    }
    Ok(())
}

/// Whether nothing depends any more on the outcome of a trial.
fn is_needless(trials: &[Trial], index: usize, outcomes: &[Option<Outcome>]) -> bool {
    let trial = &trials[index];
    // One for which there is no other decides that the CPU computes.
    let is_decided = |(other, outcome): (&Trial, &Option<Outcome>)| {
        other.word().is_none() && outcome.as_ref().is_some_and(|outcome| *outcome != Outcome::Right)
    };
    if trials.iter().zip(outcomes).any(is_decided) {
        return true;
    }
    let of = |has: &dyn Fn(&Trial) -> bool| -> Vec<&Outcome> {
        trials.iter().zip(outcomes).filter(|(other, _)| has(other)).filter_map(|(_, o)| o.as_ref()).collect()
    };
    if trial.kernel.is_some() {
        let same = of(&|other| other.kernel == trial.kernel);
        if same.iter().any(|outcome| **outcome != Outcome::Right) {
            return true;
        }
    }
    // Each may cost a deadline.
    KINDS.iter().any(|kind| {
        let alike = of(&|other| other.is_of(kind));
        let have_failed = alike.iter().all(|outcome| matches!(outcome, Outcome::Failed { .. }));
        trial.is_of(kind) && alike.len() >= ENOUGH && have_failed
    })
}

/// Carries out as many trials as one child gets through; at least one.
fn one_child(program: &Program, job: &Job, watcher: &mut dyn Watcher) -> Result<Vec<(usize, Outcome)>> {
    let mut running = Running::start(program, job)?;
    let mut found: Vec<(usize, Outcome)> = Vec::new();
    let mut current: Option<(usize, String)> = None;
    let mut deadline = START;
    let run = Duration::from_secs_f64(job.timeout) + BEYOND;
    loop {
        let culprit =
            |error: String| current.clone().map(|(trial, call)| (trial, Outcome::Failed { call, error }));
        match running.next(deadline, watcher)? {
            Said::Event(Event::Compiling { trial }) if trial < job.trials.len() => {
                watcher.begins(&job.trials[trial]);
                (current, deadline) = (Some((trial, "its kernels".into())), COMPILE);
            }
            Said::Event(Event::Running { trial, call }) => (current, deadline) = (Some((trial, call)), run),
            Said::Event(Event::Judging { .. }) => deadline = COMPILE,
            Said::Event(Event::Done { trial, outcome }) if trial < job.trials.len() => {
                found.push((trial, outcome));
                (current, deadline) = (None, COMPILE);
            }
            Said::Event(event) => {
                return Err(Error::invalid(format!("a process that tries kernels says {event:?}")));
            }
            Said::End(how) => {
                found.extend(culprit(how.clone()));
                return if found.is_empty() { Err(cannot_try(&how)) } else { Ok(found) };
            }
            Said::Nothing => {
                let seconds = deadline.as_secs_f64();
                running.kill()?;
                found.extend(culprit(format!("it hangs: nothing came of it in {seconds:.0} s")));
                let silent = format!("a process that tries kernels says nothing for {seconds:.0} s");
                return if found.is_empty() { Err(cannot_try(&silent)) } else { Ok(found) };
            }
        }
    }
}

fn cannot_try(how: &str) -> Error {
    Error::invalid(format!(
        "the device cannot be tried, and no kernel is to blame: {how}; --device cpu computes without it, --qualify skip uses it \
         untried"
    ))
}

/// What a child says next.
enum Said {
    Event(Event),
    /// It is gone; how.
    End(String),
    /// Not within the deadline.
    Nothing,
}

/// A child that is running.
struct Running {
    child: Child,
    lines: Receiver<String>,
    errors_told: Option<JoinHandle<String>>,
}

impl Running {
    fn start(program: &Program, job: &Job) -> Result<Running> {
        let refused = |e| Error::io("start", &program.path, e);
        let mut child = Command::new(&program.path)
            .args(&program.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(refused)?;
        let text = serde_json::to_string(job).expect("a job is plain values");
        let (mut input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // One that ends before it has read all says why on standard error.
        let _ = input.take().expect("a pipe").write_all(text.as_bytes());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output.expect("a pipe")).lines().map_while(std::result::Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let errors_told = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = errors.expect("a pipe").read_to_end(&mut bytes);
            let text =
                String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(MOST_ERRORS)..]).into_owned();
            printable(text.trim().trim_start_matches("error: "))
        });
        Ok(Running { child, lines, errors_told: Some(errors_told) })
    }

    /// Waits for the next word.
    fn next(&mut self, deadline: Duration, watcher: &dyn Watcher) -> Result<Said> {
        const LOOK_AROUND: Duration = Duration::from_millis(100);
        let started = Instant::now();
        loop {
            match self.lines.recv_timeout(LOOK_AROUND) {
                Ok(line) => {
                    return serde_json::from_str(&line).map(Said::Event).map_err(|error| {
                        Error::invalid(format!(
                            "a process that tries kernels says `{}`: {error}",
                            printable(&line)
                        ))
                    });
                }
                Err(RecvTimeoutError::Disconnected) => return self.end().map(Said::End),
                Err(RecvTimeoutError::Timeout) if watcher.is_stopped() => {
                    self.kill()?;
                    return Err(Error::Interrupted("no kernel had been used yet".into()));
                }
                Err(RecvTimeoutError::Timeout) if started.elapsed() > deadline => return Ok(Said::Nothing),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// How a child that said its last ended.
    fn end(&mut self) -> Result<String> {
        if !is_gone(|| Ok(self.child.try_wait()?.is_some()), AFTER_KILL) {
            self.kill()?;
        }
        let status =
            self.child.wait().map_err(|e| Error::io("wait for", "a process that tries kernels", e))?;
        let words = self.errors_told.take().and_then(|words| words.join().ok()).unwrap_or_default();
        let status =
            if status.success() { "it ended too early".to_string() } else { format!("it ended by {status}") };
        Ok(if words.is_empty() { status } else { words })
    }

    fn kill(&mut self) -> Result<()> {
        let _ = self.child.kill();
        if is_gone(|| Ok(self.child.try_wait()?.is_some()), AFTER_KILL) {
            return Ok(());
        }
        Err(Error::DeviceHangs(format!(
            "process {} hangs on the device and cannot be killed",
            self.child.id()
        )))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = is_gone(|| Ok(self.child.try_wait()?.is_some()), Duration::from_secs(1));
    }
}

/// Waits until something is gone, but not for ever.
fn is_gone(mut look: impl FnMut() -> std::io::Result<bool>, patience: Duration) -> bool {
    let started = Instant::now();
    loop {
        match look() {
            Ok(true) | Err(_) => return true,
            Ok(false) if started.elapsed() > patience => return false,
            Ok(false) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_killed_is_not_waited_for_for_ever() {
        assert!(!is_gone(|| Ok(false), Duration::from_millis(30)));
        let mut looks = 0;
        let gone = is_gone(
            || {
                looks += 1;
                Ok(looks == 3)
            },
            Duration::from_secs(60),
        );
        assert!(gone && looks == 3);
    }
}
