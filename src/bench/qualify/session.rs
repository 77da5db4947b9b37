//! What a process knows of its device, and how it comes to know more.

use std::collections::BTreeSet;
use std::fmt::{self, Debug, Formatter};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::child::Job;
use super::record::{Failure, Record, Subject};
use super::supervise::{ENOUGH, KINDS, Program, Watcher, supervise};
use super::trial::{Mechanism, Planner, Trial};
use crate::backend::Precision;
use crate::backend::cuda::driver::Properties;
use crate::backend::cuda::driver::cache::Cache;
use crate::backend::cuda::{Cuda, Exclusions, GRAPHS, PDL, Qualifier, Sources};
use crate::bench::configurations::{on_paper, subject};
use crate::bench::precision;
use crate::error::{Error, Result, printable};
use crate::ops::{Call, Device};
use crate::tensor::DType;
use crate::values::named;

/// How long a call of a trial may take on a GPU, unless the user says.
const GPU_SECONDS: f64 = 15.0;
/// The same on the emulator.
const EMULATOR_SECONDS: f64 = 300.0;

named! {
    /// When kernels are tried before they are used.
    pub enum Qualify: "way of qualification" {
        /// What has no record yet on this card, driver, compiler and program; on the emulator nothing.
        Auto = "auto",
        /// Everything, whatever the record says; also on the emulator.
        Again = "again",
        /// Nothing, and the record is not looked at.
        Skip = "skip",
    }
    default Auto
}

/// How to qualify.
pub struct Settings {
    /// When.
    pub when: Qualify,
    /// The device, as `--device` names it.
    pub device: String,
    /// The folder of edited kernels, if there is one.
    pub kernels: Option<PathBuf>,
    /// A folder of kernels that were compiled elsewhere, if there is one.
    pub kernel_cache: Option<PathBuf>,
    /// CPU threads; 0 means one per core.
    pub threads: usize,
    /// How long to wait for the device, where a user says.
    pub timeout: Option<Duration>,
    /// How to start a child.
    pub program: Program,
    /// Tells the user something that may be left out.
    pub note: fn(&str),
    /// Tells the user something that must not.
    pub warn: fn(&str),
    /// Whether somebody asked to stop.
    pub is_stopped: fn() -> bool,
}

/// Tries kernels before a device uses them, and remembers.
pub struct Qualification {
    settings: Settings,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    record: Option<Record>,
    /// Why nothing can be tried any more.
    hangs: Option<String>,
    /// What the user was told.
    told: BTreeSet<String>,
}

impl Debug for Qualification {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Qualification").field("when", &self.settings.when).finish_non_exhaustive()
    }
}

impl Qualification {
    /// Nothing is known yet.
    pub fn new(settings: Settings) -> Qualification {
        Qualification { settings, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of a device: what this process knows, else what is kept.
    fn record<'s>(
        &self,
        state: &'s mut State,
        device: &Properties,
        sources: &Sources,
    ) -> Result<&'s mut Record> {
        if state.record.is_none() {
            let subject = Subject::of(device, sources, &self.settings.program.path)?;
            let cache = Cache::of_user().ok();
            let kept = cache.as_ref().filter(|_| self.settings.when != Qualify::Again);
            let kept = kept.and_then(|cache| Record::kept(cache, &subject));
            state.record = Some(kept.unwrap_or_else(|| Record::new(subject)));
            if let (Qualify::Again, Some(cache), Some(record)) = (self.settings.when, &cache, &state.record) {
                record.forget_kept(cache)?;
            }
        }
        Ok(state.record.as_mut().expect("set above"))
    }

    /// Carries out trials; their outcomes are in the record afterwards. What failed.
    fn try_all(&self, state: &mut State, cuda: &Cuda, trials: Vec<Trial>) -> Result<Vec<Failure>> {
        let Settings { device, kernels, kernel_cache, threads, timeout, program, .. } = &self.settings;
        let is_emulator = is_emulator(cuda.driver().properties());
        let longest = if is_emulator { EMULATOR_SECONDS } else { GPU_SECONDS };
        let name = printable(&cuda.driver().properties().name);
        let kind = if trials.iter().all(|trial| trial.mechanism.is_some()) {
            "ways of launching"
        } else {
            "kernels"
        };
        (self.settings.note)(&format!(
            "{name}: {} {kind} have not been used here by this program yet, and are tried first, against the CPU",
            trials.len()
        ));
        let job = Job {
            device: device.clone(),
            precision: if cuda.dtype() == DType::Bf16 { Precision::Bf16 } else { Precision::F32 },
            kernels: kernels.clone(),
            kernel_cache: kernel_cache.clone(),
            threads: *threads,
            timeout: timeout.map_or(longest, |timeout| timeout.as_secs_f64()),
            exclusions: cuda.exclusions().clone(),
            compile_only: false,
            trials,
        };
        let started = Instant::now();
        let Settings { note, is_stopped, .. } = self.settings;
        let mut told = Told { note, is_stopped, begun: 0, all: job.trials.len(), last: started };
        let outcomes = supervise(program, &job, &mut told)?;
        let seconds = started.elapsed().as_secs_f64();
        let record = state.record.as_mut().expect("the caller has looked");
        record.seconds += seconds;
        let mut failures = Vec::new();
        for (trial, outcome) in job.trials.iter().zip(outcomes) {
            if let Some(outcome) = outcome {
                failures.extend(record.add(trial, outcome)?.cloned());
            }
        }
        give_up_kinds(record)?;
        let result = match failures.len() {
            0 => format!("all {} are right", job.trials.len()),
            1 => "one failed".to_string(),
            failed => format!("{failed} failed"),
        };
        (self.settings.note)(&format!("{name}: {result} ({seconds:.1} s)"));
        match Cache::of_user() {
            Ok(cache) => record.keep(&cache)?,
            Err(error) => (self.settings.note)(&format!("this is not remembered: {error}")),
        }
        Ok(failures)
    }

    /// Tells of failures, and what it costs to do without.
    fn tell(&self, cuda: &Cuda, failures: &[Failure], left_out: &Exclusions, calls: &[Call<()>]) {
        let name = printable(&cuda.driver().properties().name);
        for Failure { subject, left_out, call, how } in failures {
            let consequence = match left_out {
                Some(word) => format!("`{word}` is not used on this card"),
                None => "there is no other".to_string(),
            };
            (self.settings.warn)(&format!("{name}: {subject} fails on {call}: {how}; {consequence}"));
        }
        let seconds = |exclusions: &Exclusions| -> Option<f64> {
            let (paper, _) = on_paper(cuda).ok()?;
            let paper = paper.without(exclusions.clone());
            Some(
                calls
                    .iter()
                    .filter_map(|call| paper.convolution_kernel(call))
                    .map(|kernel| kernel.seconds)
                    .sum(),
            )
        };
        if !cuda.exclusions().same_kernels(left_out)
            && let (Some(before), Some(after)) = (seconds(cuda.exclusions()), seconds(left_out))
            && before > 0.0
        {
            (self.settings.warn)(&format!(
                "{name}: without them the convolutions of this plan are predicted to take {:.2} times as long; `residua doctor` \
                 shows the record, --qualify again tries anew",
                after / before
            ));
        }
    }
}

/// Leaves out a whole kind of kernels of which several failed and none is right.
fn give_up_kinds(record: &mut Record) -> Result<()> {
    for kind in KINDS {
        let failed =
            record.failed.iter().filter(|failure| Exclusions::covers(kind, &failure.subject)).count();
        if failed >= ENOUGH && !record.right.iter().any(|subject| Exclusions::covers(kind, subject)) {
            record.exclusions.insert(kind)?;
        }
    }
    Ok(())
}

fn is_emulator(device: &Properties) -> bool {
    device.architecture == "host"
}

/// Says now and then how far the trials are.
struct Told {
    note: fn(&str),
    is_stopped: fn() -> bool,
    begun: usize,
    all: usize,
    last: Instant,
}

impl Watcher for Told {
    fn begins(&mut self, trial: &Trial) {
        const EVERY: Duration = Duration::from_secs(5);
        self.begun += 1;
        if self.last.elapsed() > EVERY {
            self.last = Instant::now();
            (self.note)(&format!("trying {} of {}: {}", self.begun, self.all, trial.subject));
        }
    }

    fn is_stopped(&self) -> bool {
        (self.is_stopped)()
    }
}

impl Qualifier for Qualification {
    fn exclusions(&self, device: &Properties, sources: &Sources) -> Exclusions {
        let mut state = self.state();
        let known = match self.record(&mut state, device, sources) {
            Ok(record) => record.exclusions.clone(),
            Err(error) => {
                (self.settings.warn)(&format!("what is known of this card is not looked at: {error}"));
                Exclusions::default()
            }
        };
        if !known.is_empty() && state.told.insert(known.to_string()) {
            let name = printable(&device.name);
            (self.settings.note)(&format!(
                "{name}: left out on this card, as `residua doctor` explains: {known}"
            ));
        }
        known
    }

    fn admit(&self, cuda: &Cuda, calls: &[Call<()>]) -> Result<()> {
        let properties = cuda.driver().properties();
        if is_emulator(properties) && self.settings.when == Qualify::Auto {
            return Ok(());
        }
        let mut state = self.state();
        let state = &mut *state;
        self.record(state, properties, cuda.sources())?;
        let planner = Planner::new(cuda);
        self.check_fit(state, cuda, calls)?;
        let known = state.known();
        let trials = planner.trials(calls, &|subject| known.knows(subject))?;
        let mut failures = self.attempt(state, cuda, trials)?;
        if failures.is_empty() {
            // Passes over rows are another kind of plan than networks.
            let is_network = calls.iter().any(|call| cuda.convolution_kernel(call).is_some());
            let dtype = if is_network { precision(cuda.dtype()) } else { "rows" };
            let mut wanted = vec![(Mechanism::Graphs, format!("{GRAPHS}.{dtype}"))];
            if properties.overlaps_launches() {
                wanted.push((Mechanism::Pdl, format!("{PDL}.{dtype}")));
            }
            let known = state.known();
            wanted.retain(|(_, subject)| !known.knows(subject));
            let trials =
                planner.mechanisms(calls, &wanted, &|call| known.right.contains(&subject(cuda, call)));
            failures = self.attempt(state, cuda, trials)?;
        }
        if failures.is_empty() {
            return Ok(());
        }
        let left_out = cuda.exclusions().and(&state.known().exclusions);
        self.tell(cuda, &failures, &left_out, calls);
        self.check_fit(state, cuda, calls)?;
        Err(Error::PlanAgain)
    }
}

impl State {
    fn known(&self) -> &Record {
        self.record.as_ref().expect("a record is looked up before anything else")
    }
}

impl Qualification {
    /// Carries out trials, if there are any; a device on which one cannot be ended is not used.
    fn attempt(&self, state: &mut State, cuda: &Cuda, trials: Vec<Trial>) -> Result<Vec<Failure>> {
        if trials.is_empty() {
            return Ok(Vec::new());
        }
        self.try_all(state, cuda, trials).map_err(|error| match error {
            Error::DeviceHangs(why) => {
                state.hangs = Some(why.clone());
                self.refuse(state, &why)
            }
            other => other,
        })
    }

    /// Whether the device has something that is not known to fail for every call.
    fn check_fit(&self, state: &mut State, cuda: &Cuda, calls: &[Call<()>]) -> Result<()> {
        let mut why = state.hangs.clone();
        for call in calls {
            let known = || state.known().without_other(&subject(cuda, call));
            // A kernel that is used although it is left out is one for which there is no other.
            let kernel = cuda.convolution_kernel(call).filter(|kernel| kernel.is_excluded);
            why = why
                .or_else(|| {
                    known().map(|failure| format!("{} fails, and there is no other", failure.subject))
                })
                .or_else(|| {
                    kernel.map(|kernel| format!("{} fails, and there is no other", kernel.full_name))
                });
        }
        why.map_or(Ok(()), |why| Err(self.refuse(state, &why)))
    }

    /// The refusal of the device, which the user is told of once.
    fn refuse(&self, state: &mut State, why: &str) -> Error {
        if state.told.insert(why.to_string()) {
            let device = &self.settings.device;
            (self.settings.warn)(&format!("{device} is not used, the CPU computes instead (in f32): {why}"));
        }
        Error::DeviceUnfit(why.to_string())
    }
}
