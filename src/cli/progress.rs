//! Progress of long work: a bar with rate and remaining time on a terminal, plain lines otherwise.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::tell;
use crate::train::{Metrics, Observer};

/// How often a plain line is printed where there is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Shows how far some work is. Dropping it takes the bar away.
pub struct Progress {
    bar: ProgressBar,
    plain: bool,
    label: String,
    last_line: Instant,
    started: Instant,
    unit: &'static str,
}

impl Progress {
    /// Begins showing `total` units of work; nothing is shown when `quiet`.
    pub fn new(label: &str, total: u64, unit: &'static str, quiet: bool) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let target = if quiet || !terminal {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(8)
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let template = format!(
            "{{prefix:>14}} {{bar:30}} {{human_pos}}/{{human_len}} {unit}  {{per_sec:.dim}}  eta {{eta}} {{msg}}"
        );
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_prefix(label.to_string());
        let now = Instant::now();
        Progress {
            bar,
            plain: !quiet && !terminal,
            label: label.to_string(),
            last_line: now,
            started: now,
            unit,
        }
    }

    /// Some units are done.
    pub fn add(&mut self, units: u64) {
        self.bar.inc(units);
        if self.plain && self.last_line.elapsed() >= PLAIN_INTERVAL {
            self.last_line = Instant::now();
            let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let seconds = self.started.elapsed().as_secs_f64();
            let left = seconds / done.max(1) as f64 * total.saturating_sub(done) as f64;
            tell(&format!("{}: {done}/{total} {}, {left:.0} s left", self.label, self.unit));
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
            progress.add(step);
            progress.bar.reset_eta();
        }
        self.progress = Some(progress);
    }

    fn step(&mut self, _images: usize, loss: f64) {
        let smooth = self.smooth_loss.map_or(loss, |old| 0.95 * old + 0.05 * loss);
        self.smooth_loss = Some(smooth);
        if let Some(progress) = &mut self.progress {
            progress.message(format!("loss {smooth:.4}"));
            progress.add(1);
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
