//! How predictions print: calls with their floors, the kernels of convolutions, the cost of each operation in all, and the calls that would
//! gain most; within a hundred columns.

use std::fmt::Write;

use super::super::table::{digits, duration, headed, or_dash, percent};
use super::{CallModel, LaunchModel, Model, StepModel};
use crate::backend::cuda::driver::Launches;
use crate::error::printable;

/// Number of calls listed by their gain.
const RANKED: usize = 12;

impl Model {
    /// Everything a person wants to see.
    pub fn table(&self, width: Option<usize>) -> String {
        let card = &self.card;
        let mut text = format!("{}: {}, {}\n", self.note, printable(&card.name), printable(&self.program));
        let rate = |rate: Option<f64>| or_dash(rate, |rate| digits(rate / 1e12));
        let _ = writeln!(
            text,
            "floors: bf16 {} TFLOP/s, f32 {} TFLOP/s, {:.0} GB/s\n        ({})",
            rate(card.rates.bf16),
            rate(card.rates.f32),
            card.rates.bandwidth / 1e9,
            printable(&card.rates.source)
        );
        let _ = writeln!(
            text,
            "assumed: L2 {:.1} TB/s, {:.2} for an SM; {} launch {:.1} µs;\n         \
             of an output tile, begin {:.1} µs, end {:.1} µs",
            card.cache_rate / 1e12,
            card.port_rate / 1e12,
            match card.launches {
                Launches::Overlapped => "overlapped",
                Launches::Serial => "serial",
            },
            1e6 * card.launch_seconds,
            1e6 * card.prologue_seconds,
            1e6 * card.epilogue_seconds
        );
        let _ = writeln!(text, "registers and shared memory: {}", self.resources);
        if let (Some(kernels), Some(note)) = (&self.kernels, self.kernels_note) {
            let _ = writeln!(text, "{}\n        ({note})", kernels.in_words());
        }
        if let Some(hash) = &self.kernel_table_hash {
            let _ = writeln!(text, "kernels chosen by the table of hash {hash}");
        }
        for step in &self.steps {
            text += &step.table(width);
        }
        if !self.passes.is_empty() {
            let _ = write!(text, "\npasses over rows of features\n\n{}", self.passes_table(width));
        }
        text
    }
}

impl Model {
    fn passes_table(&self, width: Option<usize>) -> String {
        let mut table = headed(&["pass", "GFLOP", "MB", "by FLOP", "by bytes", "predicted", "share"]);
        for pass in &self.passes {
            table.row([
                format!("  {}", pass.name),
                if pass.flop > 0.0 { digits(pass.flop / 1e9) } else { "-".into() },
                digits(pass.bytes / 1e6),
                or_dash(pass.floor_arithmetic_seconds, duration),
                duration(pass.floor_memory_seconds),
                duration(pass.predicted_seconds),
                percent(pass.floor_seconds / pass.predicted_seconds),
            ]);
        }
        table.render(width)
    }
}

impl StepModel {
    fn table(&self, width: Option<usize>) -> String {
        let mut text = format!("\n{}\n\n{}", self.name, self.calls_table(width));
        if self.calls.iter().flat_map(|call| &call.launches).any(|launch| launch.tile.is_some()) {
            let _ = write!(text, "\nkernels of convolutions\n{}", self.kernels_table(width));
        }
        let _ = write!(text, "\nby operation\n{}", self.operations_table(width));
        let _ = write!(text, "\nwhat would pay most\n{}", self.ranking(width));
        let _ = writeln!(
            text,
            "\n{}: {} images/s predicted ({} a step, {} launches)\n{} images/s if every call took its floor",
            self.name,
            thousands(self.predicted_images_per_second),
            duration(self.predicted_seconds),
            self.launches,
            thousands(self.floor_images_per_second)
        );
        if let Some(ideal) = self.ideal_images_per_second {
            let [unfused, passes, sums, applied] = ideal.map(thousands);
            let _ = writeln!(
                text,
                "counting bytes allows {unfused} unfused, {passes} with passes fused, {sums} with BN reductions and ReLU\n\
                 backward in epilogues, {applied} with normalisation applied where it is read"
            );
        }
        if let Some(seconds) = self.measured_seconds {
            let _ = writeln!(
                text,
                "measured: {} images/s, {} a step: {} of the prediction",
                thousands(self.batch as f64 / seconds),
                duration(seconds),
                percent(self.predicted_seconds / seconds)
            );
        }
        text
    }

    /// The operations, in the order of their first appearance.
    fn operations(&self) -> Vec<String> {
        let mut operations: Vec<String> = Vec::new();
        for call in &self.calls {
            let (operation, _) = call.heading_and_shape();
            if !operations.contains(&operation) {
                operations.push(operation);
            }
        }
        operations
    }

    fn of<'a>(&'a self, operation: &'a str) -> impl Iterator<Item = &'a CallModel> {
        self.calls.iter().filter(move |call| call.heading_and_shape().0 == operation)
    }

    fn calls_table(&self, width: Option<usize>) -> String {
        let mut table =
            headed(&["call", "n", "GFLOP", "MB", "by FLOP", "by bytes", "predicted", "measured", "share"]);
        for operation in self.operations() {
            table.heading(&operation);
            for call in self.of(&operation) {
                let seconds = call.measured_seconds.unwrap_or(call.predicted_seconds);
                table.row([
                    format!("  {}", call.heading_and_shape().1),
                    call.count.to_string(),
                    if call.flop > 0.0 { digits(call.flop / 1e9) } else { "-".into() },
                    digits(call.bytes / 1e6),
                    or_dash(call.floor_arithmetic_seconds, duration),
                    duration(call.floor_memory_seconds),
                    duration(call.predicted_seconds),
                    or_dash(call.measured_seconds, duration),
                    percent(call.floor_seconds / seconds),
                ]);
            }
        }
        table.render(width)
    }

    fn kernels_table(&self, width: Option<usize>) -> String {
        let head = ["convolution", "kernel", "items", "held", "waves", "tail", "waits for", ""];
        let mut table = headed(&head);
        for operation in self.operations() {
            let of_products = |launch: &&LaunchModel| launch.tile.is_some();
            let mut headed = false;
            for call in self.of(&operation) {
                for launch in call.launches.iter().filter(of_products) {
                    if !std::mem::replace(&mut headed, true) {
                        table.heading(&operation);
                    }
                    let cells = launch.cells(&call.heading_and_shape().1);
                    // An accumulating call is another call, but the same kernel.
                    if table.last_row() != Some(&cells) {
                        table.row(cells);
                    }
                }
            }
        }
        table.render(width)
    }

    fn operations_table(&self, width: Option<usize>) -> String {
        let mut table = headed(&["operation", "calls", "predicted", "floor", "share of step"]);
        let mut rows: Vec<(f64, Vec<String>)> = self
            .operations()
            .into_iter()
            .map(|operation| {
                let sum = |seconds: &dyn Fn(&CallModel) -> f64| -> f64 {
                    self.of(&operation).map(|call| call.count as f64 * seconds(call)).sum()
                };
                let predicted = sum(&|call| call.predicted_seconds);
                let cells = vec![
                    operation.clone(),
                    self.of(&operation).map(|call| call.count).sum::<usize>().to_string(),
                    duration(predicted),
                    duration(sum(&|call| call.floor_seconds)),
                    percent(predicted / self.predicted_seconds),
                ];
                (predicted, cells)
            })
            .collect();
        rows.sort_by(|a, b| b.0.total_cmp(&a.0));
        rows.into_iter().for_each(|(_, cells)| table.row(cells));
        table.render(width)
    }

    /// The calls that lose most against their floors.
    fn ranking(&self, width: Option<usize>) -> String {
        let mut calls: Vec<&CallModel> = self.calls.iter().collect();
        calls.sort_by(|a, b| b.to_gain().total_cmp(&a.to_gain()));
        let mut table = headed(&["call", "n", "to gain", "of step", "waits for"]);
        let step = self.measured_seconds.unwrap_or(self.predicted_seconds);
        for call in calls.into_iter().take(RANKED) {
            let longest =
                call.launches.iter().max_by(|a, b| a.predicted.seconds.total_cmp(&b.predicted.seconds));
            table.row([
                format!("{}.{}", call.operation, call.shape),
                call.count.to_string(),
                duration(call.to_gain()),
                percent(call.to_gain() / step),
                longest.map_or_else(|| "-".into(), |launch| format!("{:?}", launch.bound).to_lowercase()),
            ]);
        }
        table.render(width)
    }
}

impl CallModel {
    /// The operation with its fused prologue and epilogue, a heading for calls that are alike; and the shape with the rest: whether
    /// it adds, or rectifies.
    fn heading_and_shape(&self) -> (String, String) {
        let form = self.call.form();
        let mut shape = self.shape.strip_suffix(&form).unwrap_or(&self.shape).to_string();
        let mut heading = self.operation.clone();
        for word in form.split('-').skip(1) {
            let to = if ["add", "relu"].contains(&word) { &mut shape } else { &mut heading };
            to.push('-');
            to.push_str(word);
        }
        (heading, shape)
    }
}

impl LaunchModel {
    /// A line about a kernel of a convolution: its output tiles, how many blocks an SM holds, and the longest part of its
    /// time. Its shape is without the batch, which is that of the step.
    fn cells(&self, shape: &str) -> Vec<String> {
        let shape = shape.split_once('x').map_or(shape, |(_, rest)| rest);
        let shape = shape.trim_end_matches("-relu").trim_end_matches("-add");
        let splits =
            self.splits.filter(|&splits| splits > 1).map_or(String::new(), |splits| format!("/{splits}"));
        vec![
            format!("  {shape}"),
            self.kernel.clone() + &splits,
            self.work_items.to_string(),
            self.blocks_per_sm.to_string(),
            digits(self.predicted.waves),
            digits(self.predicted.tail),
            format!("{:?}", self.bound).to_lowercase(),
            duration(self.predicted.longest()),
        ]
    }
}

/// A whole number with its thousands apart.
fn thousands(value: f64) -> String {
    let figures = format!("{:.0}", value.max(0.0));
    let mut text = String::new();
    for (index, figure) in figures.chars().enumerate() {
        if index > 0 && (figures.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(figure);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        let texts = [0.4, 999.0, 1000.0, 90_000.0, 1_234_567.0].map(thousands);
        assert_eq!(texts, ["0", "999", "1,000", "90,000", "1,234,567"]);
    }
}
