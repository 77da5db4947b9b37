//! `residua monitor`: a stream of images or of rows of features; p-values, discoveries, a drift alarm.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::common::Common;
use super::compute::Compute;
use super::levels::{missing_head, open_networks};
use super::monitor_input::{Input, decode, numbers};
use super::output::{in_json, print_beside, say, tell, warn};
use super::stop;
use crate::checkpoint::Trained;
use crate::data::{self, DataSpec, RgbImage, Split};
use crate::error::{Error, Result};
use crate::features::{
    Extent, FeatureSet, ForeignLogits, Head, Matrix, SinglePass, check_logits, choose_head,
};
use crate::files;
use crate::monitor::{Answered, Given, Lines, Monitor, Session, State};
use crate::novelty::{Hierarchy, LevelEntry, ThresholdFile};
use crate::ood;
use crate::values::{Reals, Wholes, named, shown};

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua monitor --checkpoint runs/first \\
      --thresholds runs/first/thresholds.toml --data -
      A JSON line for every path of an image on standard input
  residua monitor --checkpoint runs/first \\
      --thresholds runs/first/thresholds.toml --data images:today \\
      --state camera.state --out camera.jsonl
      A folder a day, as one stream
  residua monitor --thresholds thresholds.toml --rows features/today \\
      --alpha 0.1 --alarm 0.001
      Rows of a feature cache, without the network

Lines: row, image, class, score, p_value (against the calibration
samples), novel (by the threshold), discovery, level (the level that
p_value was compared with), martingale (logarithm to base 10), alarm.
A row that cannot be answered has row, image, error.

Discoveries: LOND, levels alpha / (t H) (discoveries so far + 1), H the sum of
1/t over the horizon. At most the share alpha of them is false, in
expectation over calibration samples and stream, at any step, if samples of
known classes are independent and like the calibration samples, and scores
have no ties. No p-value is below 1 / (calibration samples + 1): the summary
says how far discoveries are possible.
Alarm: a conformal test martingale on ranks among the calibration samples
and all earlier ones; ties are broken by random numbers of the seed. Raised
at 1 / --alarm and kept; false at any time with probability --alarm at most.
It bets on lower and on higher scores. What it has seen for long becomes
usual to it: it tells of a change, not of a state.
Memory and state: 8 bytes a row; twice that now and then.";

named! {
    /// One of two levels.
    pub enum LevelName: "level" {
        /// The superclass head.
        Superclass = "superclass",
        /// The subclass head.
        Subclass = "subclass",
    }
}

/// Where rows come from: standard input, line by line, or something named.
#[derive(Debug, Clone)]
enum Origin<T> {
    StandardInput,
    Named(T),
}

impl<T: FromStr> FromStr for Origin<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Origin<T>, T::Err> {
        if text == "-" { Ok(Origin::StandardInput) } else { text.parse().map(Origin::Named) }
    }
}

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// Thresholds that `calibrate` has written
    #[arg(long, value_name = "FILE")]
    thresholds: PathBuf,
    /// The checkpoint that the thresholds are of; needed for images
    #[arg(long, value_name = "CHECKPOINT", required_unless_present = "rows")]
    checkpoint: Option<PathBuf>,
    /// Images: - for paths on standard input, a line each; or data, such as images:DIR. Each is answered as it comes
    #[arg(long, value_name = "-|DATA", required_unless_present = "rows", conflicts_with = "rows")]
    data: Option<Origin<DataSpec>>,
    /// Rows of features of the network, instead of images: a feature cache, an .npz, an .npy; or - for JSON arrays on standard input, a line
    /// each
    #[arg(long, value_name = "-|CACHE", value_hint = clap::ValueHint::AnyPath, conflicts_with = "checkpoint")]
    rows: Option<Origin<PathBuf>>,
    /// The last layer of the network, an .npz with W and b, for rows that come without it
    #[arg(long, value_name = "FILE.npz", conflicts_with = "data")]
    head: Option<PathBuf>,
    /// The level to monitor where the thresholds have two [default: superclass]
    #[arg(long, value_name = "LEVEL")]
    level: Option<LevelName>,
    /// JSON lines, a row each; - is standard output. A file is appended to where the state says that it is the stream's own; any other that is
    /// there is refused
    #[arg(long, value_name = "FILE.jsonl", default_value = "-")]
    out: PathBuf,
    /// The false discovery rate of `discovery` [default: 0.05]
    #[arg(long, value_parser = Reals::INNER_SHARE, value_name = "SHARE")]
    alpha: Option<f64>,
    /// Number of rows over which discoveries are possible; the more, the lower the level of each (by the logarithm)
    /// [default: 1000000]
    #[arg(long, value_parser = Wholes::<u64>::between(1, 1_000_000_000_000), value_name = "ROWS")]
    horizon: Option<u64>,
    /// The probability of a false alarm, over the whole stream [default: 0.01]
    #[arg(long, value_parser = Reals::INNER_SHARE, value_name = "SHARE")]
    alarm: Option<f64>,
    /// Seed of the random numbers that break ties [default: 0]
    #[arg(long, value_parser = Wholes::<u64>::ANY, value_name = "S")]
    seed: Option<u64>,
    /// Keep the stream in this file, and go on with the one that it holds: no row is lost or counted twice
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Write the state every N rows, and at the end
    #[arg(long, value_parser = Wholes::<u64>::POSITIVE, default_value_t = 1000, value_name = "N", requires = "state")]
    state_every: u64,
    /// The input begins where the stream began: pass over the rows that the state has answered
    #[arg(long, requires = "state")]
    skip_answered: bool,
    #[command(flatten)]
    compute: Compute,
}

/// The name of a row, where it has one, and a set of one sample, or why there is none.
type NamedRow = (Option<String>, Result<FeatureSet, String>);

/// Every how many rows the summary is told.
const TOLD_EVERY: u64 = 10_000;

pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let text = files::map(&arguments.thresholds)?;
    let hash = blake3::hash(&text).to_hex().to_string();
    let entry = level(arguments, ThresholdFile::read(&arguments.thresholds)?)?;
    let mut stream = Stream::open(arguments, common, &entry, hash)?;
    let done = stream.take_all();
    // What was answered before a failure is kept.
    let saved = stream.session.save();
    done.and(saved)?;
    if stream.stop.load(Ordering::Relaxed) {
        let rows = stream.session.state().monitor.counts().rows;
        let kept = match &arguments.state {
            Some(state) => {
                format!("{rows} rows are answered, and {} goes on with row {rows}", state.display())
            }
            None => format!("{rows} rows are answered; without --state the stream cannot go on"),
        };
        return Err(Error::Interrupted(kept));
    }
    stream.report()
}

/// The part of the thresholds that is monitored.
fn level(arguments: &Arguments, file: ThresholdFile) -> Result<LevelEntry> {
    let names: Vec<&str> = file.levels.iter().map(LevelEntry::name).collect();
    let wanted = arguments.level.map(|level| level.to_string());
    let at = match &wanted {
        None => 0,
        Some(wanted) => names.iter().position(|name| name == wanted).ok_or_else(|| {
            Error::usage(format!(
                "--level {wanted}: {} has no thresholds of that level; there is {}",
                arguments.thresholds.display(),
                names.join(" and ")
            ))
        })?,
    };
    if wanted.is_none() && names.len() > 1 {
        warn(&format!("the {} level is monitored; --level {} takes the other", names[0], names[1]));
    }
    Ok(file.levels.into_iter().nth(at).expect("a place among the levels"))
}

/// A stream, its input and its files.
struct Stream<'a> {
    arguments: &'a Arguments,
    common: &'a Common,
    entry: &'a LevelEntry,
    session: Session,
    /// Number of rows of the input to pass over.
    answered: u64,
    stop: &'static AtomicBool,
}

impl<'a> Stream<'a> {
    /// Begins a stream, or goes on with the one in the state's file.
    fn open(
        arguments: &'a Arguments,
        common: &'a Common,
        entry: &'a LevelEntry,
        hash: String,
    ) -> Result<Stream<'a>> {
        let Arguments { thresholds, out, alpha, horizon, alarm, seed, .. } = arguments;
        let given = Given { alpha: *alpha, horizon: *horizon, alarm: *alarm, seed: *seed };
        let inputs = arguments.inputs();
        let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
        files::check_output_file(out, &inputs)?;
        let mut resumed = None;
        if let Some(path) = &arguments.state {
            if !files::is_replaceable(path) || path == out {
                return Err(Error::usage(format!(
                    "--state {} is no file of its own; name one that the stream is kept in",
                    path.display()
                )));
            }
            files::check_output_file(path, &inputs)?;
            if path.exists() {
                let state = State::read(path)?;
                state.check(path, (thresholds, &hash), entry.name(), given)?;
                resumed = Some((path, state));
            }
        }
        let output = resumed.as_ref().and_then(|(_, state)| state.output.as_ref());
        let lines = Lines::open(out, output)?;
        let state = match resumed {
            Some((path, state)) => {
                let rows = state.monitor.counts().rows;
                say(Some(&format!("{} holds {rows} rows; the next is row {rows}", path.display())), common);
                if lines.cut() > 0 {
                    warn(&format!(
                        "{} had lines beyond these rows, {} bytes; they are cut off, and come anew with the rows",
                        out.display(),
                        lines.cut()
                    ));
                }
                state
            }
            None => {
                let monitor = Monitor::new(given.settings(), &entry.calibration);
                State { thresholds: hash, level: entry.name().to_string(), monitor, output: None }
            }
        };
        let answered = if arguments.skip_answered { state.monitor.counts().rows } else { 0 };
        let keep = arguments.state.clone().map(|path| (path, arguments.state_every));
        let session = Session::new(state, lines, keep);
        let stream = Stream { arguments, common, entry, session, answered, stop: stop::listen() };
        if let Some(note) = stream.too_few() {
            warn(&note);
        }
        Ok(stream)
    }

    /// A note where no discovery is possible from the start.
    fn too_few(&self) -> Option<String> {
        let monitor = &self.session.state().monitor;
        let (lond, count) = (monitor.lond(), monitor.calibration());
        if lond.tested() > 0 || lond.last_possible(count) > 0 {
            return None;
        }
        let way = match lond.longest_horizon(count) {
            0 => String::new(),
            horizon => format!(", or give --horizon {horizon} or less"),
        };
        Some(format!(
            "no discovery is possible: of {count} calibration samples the smallest p-value is 1/{}, and the first level is {}; \
             calibrate on at least {} samples{way}",
            count + 1,
            shown(lond.level()),
            lond.least_calibration(),
        ))
    }

    /// Answers the whole input, or what came of it before a signal.
    fn take_all(&mut self) -> Result<()> {
        let arguments = self.arguments;
        match (&arguments.data, &arguments.rows) {
            (Some(Origin::StandardInput), _) => self.take_paths(),
            (Some(Origin::Named(data)), _) => self.take_data(data),
            (_, Some(Origin::StandardInput)) => self.take_json(),
            (_, Some(Origin::Named(path))) => self.take_cache(path),
            (None, None) => unreachable!("clap demands --data or --rows"),
        }
    }

    fn network(&self) -> Result<Trained> {
        let checkpoint = self.arguments.checkpoint.clone().expect("clap demands it for images");
        let wanted = [self.entry.checkpoint.as_str()];
        let network = open_networks(&[checkpoint], &wanted, self.common)?.remove(0);
        ThresholdFile { hierarchy: Hierarchy::Independent, levels: vec![self.entry.clone()] }
            .entries_of(&network)?;
        Ok(network)
    }

    /// Paths on standard input.
    fn take_paths(&mut self) -> Result<()> {
        let (mut input, stop) = (Input::begin()?, self.stop);
        self.take_images(&mut || input.next(stop), &mut decode)
    }

    /// Named data.
    fn take_data(&mut self, spec: &DataSpec) -> Result<()> {
        // An image that is not decoded has a line that says so, as any other that cannot be read.
        let data = data::open_with_unreadable(spec, Split::Test)?;
        data.notes().iter().for_each(|note| warn(note));
        let mut rows = 0..data.len();
        let image = &mut |row| (data.sample_name(row), data.image(row).map_err(|error| error.to_string()));
        self.take_images(&mut || Ok(rows.next()), image)
    }

    /// Images, one by one through the network.
    fn take_images<R>(
        &mut self,
        next: &mut dyn FnMut() -> Result<Option<R>>,
        image: &mut dyn FnMut(R) -> (String, Result<RgbImage, String>),
    ) -> Result<()> {
        let trained = self.network()?;
        let transform = trained.transform.as_ref().expect("checked when the network was opened");
        let head = trained.heads.iter().position(|classes| *classes == self.entry.classes);
        let head = head.ok_or_else(|| missing_head(&self.arguments.thresholds, self.entry))?;
        let choice = self.arguments.compute.choice(self.common)?;
        choice.on_device(|device| {
            let mut pass = SinglePass::new(device, &trained, transform)?;
            let last = pass.head(head)?;
            self.take(&last, next, &mut |row| {
                let (name, image) = image(row);
                let set = match image {
                    Err(error) => Err(error),
                    Ok(image) => Ok(pass.run(&name, image)?.swap_remove(head)),
                };
                Ok((Some(name), set))
            })
        })
    }

    /// JSON arrays on standard input.
    fn take_json(&mut self) -> Result<()> {
        let Some(path) = &self.arguments.head else {
            return Err(Error::usage(
                "--rows - has features alone; name the last layer with --head: an .npz with W (classes, features) and b (classes)",
            ));
        };
        let head = Head::open(path)?;
        self.unknown_network("standard input");
        let (mut input, stop) = (Input::begin()?, self.stop);
        self.take(&head, &mut || input.next(stop), &mut |line| {
            let set = numbers(line, head.dimension()).and_then(|row| {
                let row = Matrix::from_f64(row, head.dimension(), "features")?;
                FeatureSet::from_parts("standard input", row, None, None)
            });
            Ok((None, set.map_err(|error| error.to_string())))
        })
    }

    /// The rows of a cache.
    fn take_cache(&mut self, path: &Path) -> Result<()> {
        let set = FeatureSet::open(path)?;
        match &set.meta().checkpoint {
            Some(other) if *other != self.entry.checkpoint => {
                return Err(Error::invalid(format!(
                    "{} is of checkpoint {other}, and the thresholds are of {}; extract the rows with that one, or calibrate for \
                     this one",
                    path.display(),
                    self.entry.checkpoint
                )));
            }
            Some(_) => {}
            None => self.unknown_network(&path.display().to_string()),
        }
        let chosen = choose_head(self.arguments.head.as_deref(), &[&set])?;
        set.check_shape(chosen.head.dimension(), chosen.head.classes())?;
        let notes = check_logits(&set, &chosen.head, Extent::Sample, ForeignLogits::Refuse)?;
        chosen.notes.iter().chain(&notes).for_each(|note| warn(note));
        let mut rows = 0..set.len();
        self.take(&chosen.head, &mut || Ok(rows.next()), &mut |row| Ok((None, Ok(set.sample(row)?))))
    }

    /// Every row of the input, or those before a signal: `next` gives a row, `set` makes a set of one sample of it or says why there is
    /// none. Each is scored alone, so that no digit of a score depends on the rows beside it, or on where a call began.
    fn take<R>(
        &mut self,
        head: &Head,
        next: &mut dyn FnMut() -> Result<Option<R>>,
        set: &mut dyn FnMut(R) -> Result<NamedRow>,
    ) -> Result<()> {
        let compute = &self.arguments.compute;
        compute.on_rows(self.common, |compute| self.take_on(compute, head, next, set))
    }

    fn take_on<R>(
        &mut self,
        compute: &mut dyn ood::Compute,
        head: &Head,
        next: &mut dyn FnMut() -> Result<Option<R>>,
        set: &mut dyn FnMut(R) -> Result<NamedRow>,
    ) -> Result<()> {
        let scorer = self.entry.scorer(head.clone())?;
        let mut passed = 0;
        while !self.stop.load(Ordering::Relaxed) && self.session.is_open() {
            let Some(row) = next()? else { return self.check_passed(passed) };
            if passed < self.answered {
                passed += 1;
                continue;
            }
            let (name, set) = set(row)?;
            let scored = set.map(|set| Answered::of(compute, self.entry, &scorer, head, &set));
            match scored {
                Ok(Ok(answer)) => self.answer(name.as_deref(), &answer)?,
                Ok(Err(error @ Error::Malformed { .. })) => {
                    self.session.fail(name.as_deref(), &error.to_string())?;
                }
                // Not the row's fault: the device failed.
                Ok(Err(error)) => return Err(error),
                Err(error) => self.session.fail(name.as_deref(), &error)?,
            }
            let rows = self.session.state().monitor.counts().rows;
            if rows.is_multiple_of(TOLD_EVERY) && !self.common.quiet {
                tell(&self.in_a_line());
            }
        }
        Ok(())
    }

    fn unknown_network(&self, rows: &str) {
        warn(&format!(
            "nothing says which network the rows of {rows} are of; they are taken to be of the thresholds' checkpoint, {}",
            self.entry.checkpoint
        ));
    }

    /// Refuses an input that ends before the rows that were to be passed over.
    fn check_passed(&self, passed: u64) -> Result<()> {
        if passed == self.answered || self.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "--skip-answered: the input ends after {passed} rows, and the state has answered {}; give the whole stream from its \
             beginning, or leave the flag out",
            self.answered
        )))
    }

    fn answer(&mut self, name: Option<&str>, answer: &Answered<'_>) -> Result<()> {
        let was_raised = self.session.state().monitor.counts().alarm.is_some();
        let observed = self.session.answer(name, answer)?;
        if observed.alarm && !was_raised {
            let limit = self.session.state().monitor.settings().alarm;
            let at = name.map_or_else(String::new, |name| format!(" ({name})"));
            warn(&format!(
                "alarm at row {}{at}: the stream is not like the calibration samples (false with probability {limit} at most)",
                observed.row
            ));
        }
        Ok(())
    }

    fn in_a_line(&self) -> String {
        let monitor = &self.session.state().monitor;
        let counts = monitor.counts();
        format!(
            "{} rows, {} novel, {} discoveries, log10 of the martingale {:.2}, {}",
            counts.rows,
            counts.novel,
            monitor.lond().discoveries(),
            monitor.martingale().log10(),
            counts.alarm.map_or_else(|| "no alarm".to_string(), |row| format!("alarm at row {row}")),
        )
    }

    fn report(&self) -> Result<()> {
        let out = Some(self.arguments.out.as_path());
        if !self.common.json {
            return print_beside(self.common, out, &self.summary());
        }
        let monitor = &self.session.state().monitor;
        let (counts, lond, settings) = (monitor.counts(), monitor.lond(), monitor.settings());
        let value = serde_json::json!({
            "out": in_json(&self.arguments.out), "level": self.entry.name(), "calibration": monitor.calibration(),
            "rows": counts.rows, "failed": counts.failed, "novel": counts.novel, "settings": settings,
            "discoveries": lond.discoveries(), "next_level": lond.level(),
            "discovery_possible_until": lond.last_possible(monitor.calibration()),
            "martingale": monitor.martingale().log10(), "alarm": counts.alarm,
        });
        print_beside(self.common, out, &format!("{value}\n"))
    }

    /// The summary for people.
    fn summary(&self) -> String {
        let monitor = &self.session.state().monitor;
        let (counts, lond, settings) = (monitor.counts(), monitor.lond(), monitor.settings());
        let count = monitor.calibration();
        let threshold = &self.entry.threshold;
        let mut text = String::new();
        let failed =
            if counts.failed == 0 { String::new() } else { format!(", {} without an answer", counts.failed) };
        let _ = writeln!(text, "rows         {}{failed}; {count} calibration samples", counts.rows);
        let rule = if threshold.flags_by_score() {
            format!("{} below {}", threshold.score, shown(threshold.tau))
        } else {
            format!("{} flags nothing", threshold.score)
        };
        let _ = writeln!(text, "novel        {} ({rule})", counts.novel);
        let _ = writeln!(
            text,
            "discoveries  {} (LOND, at most {} of them false in expectation)",
            lond.discoveries(),
            settings.alpha
        );
        let last = lond.last_possible(count);
        let share = 100.0 * lond.sustaining_share(count);
        let next = if last > lond.tested() {
            format!("the next is possible up to step {last}")
        } else {
            format!("no further one is possible, since step {last}")
        };
        let _ = writeln!(
            text,
            "             the smallest p-value is 1/{}: {next}; to go on, they must be {share:.2} % of the rows (horizon {})",
            count + 1,
            settings.horizon
        );
        let alarm = match counts.alarm {
            Some(row) => format!("at row {row}"),
            None => "none".to_string(),
        };
        let _ = writeln!(
            text,
            "alarm        {alarm} (false with probability {} at most); log10 of the martingale {:.2}",
            settings.alarm,
            monitor.martingale().log10()
        );
        text
    }
}

impl Arguments {
    /// Files that the stream is made from.
    fn inputs(&self) -> Vec<PathBuf> {
        let mut inputs = vec![self.thresholds.clone()];
        if let Some(Origin::Named(data)) = &self.data {
            inputs.extend(data.source.paths());
        }
        if let Some(Origin::Named(rows)) = &self.rows {
            inputs.push(rows.clone());
        }
        inputs.extend(self.head.clone());
        inputs
    }
}
