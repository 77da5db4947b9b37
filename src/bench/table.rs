//! How rows, checks, comparisons and merged results print.

use std::fmt::Write;

use super::check::{Check, Checks};
use super::compare::Comparison;
use super::merge::Merged;
use super::results::{CallTime, Kind, Results, Row};
use crate::error::printable;
use crate::text_table::{Column, TextTable};

/// A table with these titles: text in its first column, numbers in the others.
pub(super) fn headed(titles: &[&str]) -> TextTable {
    let (first, others) = titles.split_first().expect("titles are written here");
    let columns = others.iter().map(|title| Column::number(*title));
    TextTable::new(std::iter::once(Column::text(*first)).chain(columns))
}

/// Seconds with three digits and the unit that suits.
pub(super) fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s "),
        s if s >= 1e-3 => (1e3 * s, "ms"),
        s => (1e6 * s, "µs"),
    };
    format!("{} {unit}", digits(value))
}

/// Three digits that mean something.
pub(super) fn digits(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

pub(super) fn or_dash(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "-".to_string(), show)
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

impl Results {
    /// Everything a person wants to see.
    pub fn table(&self, width: Option<usize>) -> String {
        let mut text = format!("{}, {}\n", printable(&self.card), printable(&self.program));
        if !self.driver.is_empty() {
            let _ = writeln!(text, "{}", printable(&self.driver));
        }
        if let Some(rates) = &self.rates {
            let rate = |rate: Option<f64>, of: &str| {
                rate.map(|rate| format!("{of} {} TFLOP/s", digits(rate / 1e12)))
            };
            let all = [
                rate(rates.bf16, "bf16"),
                rate(rates.f32, "f32"),
                Some(format!("{:.0} GB/s", rates.bandwidth / 1e9)),
            ];
            let all: Vec<String> = all.into_iter().flatten().collect();
            let _ = writeln!(text, "floors: {} ({})", all.join(", "), printable(&rates.source));
        }
        for (kind, head) in [(Kind::Step, STEP_HEAD), (Kind::Operation, OPERATION_HEAD)] {
            let rows = self.rows.iter().filter(|row| row.kind == kind);
            let mut table = headed(head);
            rows.for_each(|row| table.row(row.cells()));
            if !table.is_empty() {
                let _ = write!(text, "\n{}", table.render(width));
            }
        }
        for row in self.rows.iter().filter(|row| !row.calls.is_empty()) {
            let mut table = headed(CALLS_HEAD);
            let total = row.calls.iter().map(|call| call.seconds).sum();
            row.calls.iter().for_each(|call| table.row(call.cells(total)));
            let _ = write!(
                text,
                "\n{}, call by call, {} in all\n{}",
                printable(&row.name),
                duration(total).trim_end(),
                table.render(width)
            );
        }
        for row in &self.rows {
            if let Some(error) = &row.error {
                let _ = writeln!(text, "failed: {}: {}", row.name, printable(error));
            }
        }
        cut(&self.cut, &mut text);
        text
    }
}

fn cut(cut: &[String], text: &mut String) {
    if let [first, ..] = cut {
        let _ = writeln!(text, "{} were cut for lack of time, from {} on", cut.len(), printable(first));
    }
}

/// Rows that only one run has, as far as they are printed.
const MOST_MISSING: usize = 20;

const STEP_HEAD: &[&str] = &["step", "images/s", "time", "noise", "floor", "share", "first step"];
const OPERATION_HEAD: &[&str] =
    &["operation", "time", "noise", "TFLOP/s", "GB/s", "by FLOP", "by bytes", "share"];

const CALLS_HEAD: &[&str] = &["calls", "n", "time", "of all", "GFLOP/s", "GB/s", "floor", "share"];

impl CallTime {
    fn cells(&self, total: f64) -> Vec<String> {
        vec![
            printable(&self.name),
            self.count.to_string(),
            duration(self.seconds),
            format!("{:.1} %", 100.0 * self.seconds / total),
            if self.flop > 0.0 { digits(self.flop / self.seconds / 1e9) } else { "-".to_string() },
            digits(self.bytes / self.seconds / 1e9),
            or_dash(self.floor_seconds, duration),
            or_dash(self.floor_seconds.map(|floor| floor / self.seconds), percent),
        ]
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let name = printable(&self.name);
        let Some(timing) = self.timing else { return vec![name, "failed".to_string()] };
        let noise = format!("{:.1} %", 100.0 * timing.noise);
        let share = or_dash(self.share(), percent);
        match self.kind {
            Kind::Step => vec![
                name,
                or_dash(self.images_per_second, digits),
                duration(timing.seconds),
                noise,
                or_dash(self.floor_seconds, duration),
                share,
                or_dash(self.first_step_seconds, duration),
            ],
            Kind::Operation => vec![
                name,
                duration(timing.seconds),
                noise,
                or_dash(self.teraflops(), digits),
                or_dash(self.gigabytes_per_second(), digits),
                or_dash(self.floor_arithmetic_seconds, duration),
                or_dash(self.floor_memory_seconds, duration),
                share,
            ],
        }
    }
}

impl Comparison {
    /// Rows beside each other, and the rows missing in either run.
    pub fn table(&self, width: Option<usize>) -> String {
        let mut text = String::new();
        for warning in &self.warnings {
            let _ = writeln!(text, "warning: {}", printable(warning));
        }
        let mut columns = Column::with_numbers("row", ["before", "now", "times faster"]);
        columns.push(Column::text(""));
        let mut table = TextTable::new(columns);
        for change in &self.changes {
            let note = if change.noise { "within noise" } else { "" };
            table.row([
                &change.name,
                &duration(change.before),
                &duration(change.after),
                &format!("{:.3}", change.ratio),
                note,
            ]);
        }
        text += &table.render(width);
        if let Some(mean) = self.mean_ratio() {
            let _ = writeln!(text, "geometric mean of {} rows: {mean:.3} times faster", self.changes.len());
        }
        for (names, where_) in [(&self.only_before, "the earlier run"), (&self.only_after, "this run")] {
            for name in names.iter().take(MOST_MISSING) {
                let _ = writeln!(text, "only in {where_}: {}", printable(name));
            }
            if names.len() > MOST_MISSING {
                let _ = writeln!(
                    text,
                    "and {} more only in {where_}; --json names all",
                    names.len() - MOST_MISSING
                );
            }
        }
        text
    }
}

impl Check {
    fn cells(&self) -> Vec<String> {
        let verdict = if self.passed { "passed" } else { "WRONG" };
        vec![
            self.name.clone(),
            or_dash(self.error, |error| format!("{error:.1e}")),
            format!("{:.0e}", self.limit),
            verdict.to_string(),
            or_dash(self.timing.map(|timing| timing.seconds), duration),
            or_dash(self.teraflops, digits),
            or_dash(self.gigabytes_per_second, digits),
            or_dash(self.share, percent),
        ]
    }
}

impl Check {
    /// What is wrong, in words.
    pub fn what_is_wrong(&self) -> String {
        match (&self.failure, self.error) {
            (Some(failure), _) => printable(failure),
            (None, error) => format!(
                "`{}` is off by {:.1e}, and {:.0e} is allowed",
                self.operand,
                error.unwrap_or(f64::NAN),
                self.limit
            ),
        }
    }
}

impl Checks {
    /// Every check in a line, and the wrong ones once more at the end.
    pub fn table(&self, width: Option<usize>) -> String {
        let mut text = format!("{}, {}\n", printable(&self.card), printable(&self.program));
        let mut table =
            headed(&["operation", "error", "limit", "", "time", "TFLOP/s", "GB/s", "of roofline"]);
        self.checks.iter().for_each(|check| table.row(check.cells()));
        text += &table.render(width);
        if let Some(stopped) = &self.stopped {
            let _ = writeln!(text, "stopped: {}", printable(stopped));
        }
        cut(&self.cut, &mut text);
        for check in self.checks.iter().filter(|check| !check.passed) {
            let what = check.what_is_wrong();
            let _ = writeln!(text, "wrong: {}: {what}", check.name);
        }
        let _ = writeln!(text, "{} of {} passed", self.checks.len() - self.wrong(), self.checks.len());
        text
    }
}

impl Merged {
    /// Whole steps beside PyTorch's.
    pub fn table(&self, width: Option<usize>) -> String {
        let mut text = format!("{}, {}\n", printable(&self.card), printable(&self.program));
        let mut table = headed(&["step", "images/s", "at best", "PyTorch", "its mode", "ratio"]);
        for (name, step) in &self.summary {
            table.row([
                name.clone(),
                or_dash(step.images_per_second, digits),
                or_dash(step.ideal_images_per_second, digits),
                or_dash(step.pytorch_images_per_second, digits),
                step.pytorch_mode.as_deref().map_or_else(|| "-".to_string(), printable),
                or_dash(step.ratio, |ratio| format!("{ratio:.2}")),
            ]);
        }
        text += &table.render(width);
        for (name, seconds) in &self.first_step_seconds {
            let _ = writeln!(text, "first step, {}: {}", printable(name), duration(*seconds));
        }
        let operations = self.rows.iter().filter(|row| row.kind == Kind::Operation).count();
        let _ = writeln!(
            text,
            "{operations} operations, {} documents of checks, {} of training",
            self.checks.len(),
            self.training.len()
        );
        cut(&self.cut, &mut text);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let shown: Vec<String> = [2.0, 0.012_34, 1.5e-3, 123.4e-6].map(duration).to_vec();
        assert_eq!(shown, ["2.00 s ", "12.3 ms", "1.50 ms", "123 µs"]);
    }
}
