//! Progress of long work: a bar as wide as the terminal with rate and remaining time, plain lines where there is no terminal.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::output::tell;
use crate::train::{Metrics, Observer};

/// How often a plain line is printed where there is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);
/// The time over which a rate is measured, at the least.
const RATE_INTERVAL: Duration = Duration::from_secs(2);
/// The characters of a bar: done, the tip, to do.
const CHARACTERS: &str = "━╸─";

/// The bar that stands on the terminal, for what interrupts its work; and whether anything is to be shown.
static SHOWN: Mutex<Shown> = Mutex::new(Shown { bar: None, last_line: None });

struct Shown {
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

/// Images per second over the last seconds.
struct Rate {
    images: u64,
    marks: [(Instant, u64); 2],
    /// Shown beside the bar; 0 while it is unknown.
    shown: Arc<AtomicU64>,
}

impl Rate {
    fn new() -> Rate {
        Rate { images: 0, marks: [(Instant::now(), 0); 2], shown: Arc::default() }
    }

    fn add(&mut self, images: u64) {
        self.images += images;
        let now = Instant::now();
        let [(then, before), (newer, _)] = self.marks;
        let seconds = now.duration_since(then).as_secs_f64();
        self.shown.store(((self.images - before) as f64 / seconds.max(1e-3)) as u64, Ordering::Relaxed);
        if now.duration_since(newer) >= RATE_INTERVAL {
            self.marks = [self.marks[1], (now, self.images)];
        }
    }

    fn in_words(images_per_second: u64) -> String {
        if images_per_second == 0 { String::new() } else { format!("  {images_per_second} images/s") }
    }
}

/// Shows how far some work is. Dropping it takes the bar away.
pub struct Progress {
    bar: ProgressBar,
    plain: bool,
    label: String,
    last_line: Instant,
    started: Instant,
    /// Units that were done before this began.
    before: u64,
    unit: &'static str,
    rate: Rate,
}

impl Progress {
    /// Begins showing `total` units of work; nothing is shown when `quiet`.
    pub fn new(label: &str, total: u64, unit: &'static str, quiet: bool) -> Progress {
        Progress::with_style(label, total, unit, quiet, "  {msg}")
    }

    /// The same for work whose units have names, which are shown in a line of their own.
    pub fn of_named(label: &str, total: u64, unit: &'static str, quiet: bool) -> Progress {
        Progress::with_style(label, total, unit, quiet, "\n  {wide_msg}")
    }

    fn with_style(label: &str, total: u64, unit: &'static str, quiet: bool, message: &str) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let target = if quiet || !terminal {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(8)
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let rate = Rate::new();
        let template =
            format!("{{prefix}} {{wide_bar}} {{human_pos}}/{{human_len}} {unit}{{rate}}{{left}}{message}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            let shown = rate.shown.clone();
            let rate = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&Rate::in_words(shown.load(Ordering::Relaxed)));
            };
            bar.set_style(style.progress_chars(CHARACTERS).with_key("rate", rate).with_key("left", left));
        }
        bar.set_prefix(label.to_string());
        if !bar.is_hidden() {
            shown().bar = Some(bar.clone());
        }
        let now = Instant::now();
        let plain = !quiet && !terminal;
        Progress { bar, plain, label: label.to_string(), last_line: now, started: now, before: 0, unit, rate }
    }

    /// Some units were done before this began.
    pub fn begin_at(&mut self, units: u64) {
        self.before = units;
        self.bar.set_position(units);
        self.bar.reset_eta();
    }

    /// Some units are done.
    pub fn add(&mut self, units: u64) {
        let images = if self.unit == "images" { units } else { 0 };
        self.add_with_images(units, images);
    }

    /// Some units are done, on so many images.
    pub fn add_with_images(&mut self, units: u64, images: u64) {
        self.rate.add(images);
        self.bar.inc(units);
        if self.plain && self.last_line.elapsed() >= PLAIN_INTERVAL {
            self.last_line = Instant::now();
            let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let now_done = done.saturating_sub(self.before).max(1) as f64;
            let seconds = self.started.elapsed().as_secs_f64();
            let left = seconds / now_done * total.saturating_sub(done) as f64;
            let rate = Rate::in_words(self.rate.shown.load(Ordering::Relaxed)).replace("  ", ", ");
            tell(&format!("{}: {done}/{total} {}{rate}, {left:.0} s left", self.label, self.unit));
        }
    }

    /// Whether all units are done.
    pub fn is_done(&self) -> bool {
        self.bar.length() == Some(self.bar.position())
    }

    /// What is about to be done, where it may never end: beside the bar if there is one, else in a line of its own, also where
    /// nothing else is shown.
    pub fn announce(&self, text: &str) {
        if self.bar.is_hidden() {
            tell(&format!("{}: {text}", self.label));
        } else {
            self.bar.set_message(text.to_string());
            self.bar.force_draw();
        }
    }

    /// A result, where what follows may never end: in a line of its own where there is no bar.
    pub fn found(&self, text: &str) {
        if self.bar.is_hidden() {
            tell(&format!("{}: {text}", self.label));
        }
    }

    /// A failure, where what follows may never end: above the bar, or in a line of its own.
    pub fn failed(&self, text: &str) {
        if self.bar.is_hidden() {
            self.found(text);
        } else {
            self.bar.println(text);
        }
    }

    /// A word beside the bar.
    pub fn message(&self, text: String) {
        self.bar.set_message(text);
    }

    /// A line above the bar, or a plain line.
    pub fn line(&self, text: &str) {
        if self.plain { tell(text) } else { self.bar.println(text) }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        if !self.bar.is_hidden() || self.bar.is_finished() {
            shown().bar = None;
        }
    }
}

fn shown() -> std::sync::MutexGuard<'static, Shown> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time that is left, once something is known of it.
fn left(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    let seconds = state.eta().as_secs();
    if state.pos() == 0 || state.is_finished() {
        return;
    }
    let _ = match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => write!(out, "  {seconds} s left"),
        (0, minutes, seconds) => write!(out, "  {minutes} min {seconds} s left"),
        (hours, minutes, _) => write!(out, "  {hours} h {minutes} min left"),
    };
}

/// Shows that the `number`th of `total` kernels is compiled, for which other work waits; and takes that away again when all are.
pub fn compiling_kernels(number: usize, total: usize) {
    let text = format!("compiling kernels {number}/{total}");
    let mut shown = shown();
    if let Some(bar) = &shown.bar {
        bar.set_message(if number > total { String::new() } else { text });
        bar.force_draw();
        return;
    }
    let stream = console::Term::stderr();
    if stream.is_term() {
        let _ = stream.clear_line();
        if number <= total {
            let _ = stream.write_str(&text);
        }
    } else if number <= total && shown.last_line.is_none_or(|last| last.elapsed() >= PLAIN_INTERVAL) {
        shown.last_line = Some(Instant::now());
        tell(&text);
    }
}

/// Shows a training.
pub struct TrainProgress {
    quiet: bool,
    label: String,
    progress: Option<Progress>,
    smooth_loss: Option<f64>,
}

impl TrainProgress {
    /// Shows nothing when `quiet`.
    pub fn new(label: &str, quiet: bool) -> TrainProgress {
        TrainProgress { quiet, label: label.to_string(), progress: None, smooth_loss: None }
    }
}

impl Observer for TrainProgress {
    fn begin(&mut self, step: u64, total: u64) {
        let mut progress = Progress::new(&self.label, total, "steps", self.quiet);
        if step > 0 {
            progress.line(&format!("continuing at step {step} of {total}"));
            progress.begin_at(step);
        }
        self.progress = Some(progress);
    }

    fn step(&mut self, images: usize, loss: f64) {
        let smooth = self.smooth_loss.map_or(loss, |old| 0.95 * old + 0.05 * loss);
        self.smooth_loss = Some(smooth);
        if let Some(progress) = &mut self.progress {
            progress.message(format!("loss {smooth:.4}"));
            progress.add_with_images(1, images as u64);
        }
    }

    fn note(&mut self, text: &str) {
        if let Some(progress) = &self.progress
            && !self.quiet
        {
            progress.line(&format!("note: {text}"));
        }
    }

    fn logged(&mut self, metrics: &Metrics) {
        if let Some(progress) = &self.progress {
            progress.line(&format!(
                "epoch {:>4}  {:<5}  loss {:.4}  accuracy {:6.2} %  {:>7.0} images/s  lr {:.2e}",
                metrics.epoch.round(),
                metrics.split,
                metrics.loss,
                100.0 * metrics.accuracy,
                metrics.images_per_second,
                metrics.lr
            ));
        }
    }
}

impl TrainProgress {
    /// Takes the bar away.
    pub fn finish(&mut self) {
        self.progress = None;
    }
}
