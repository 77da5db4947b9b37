//! Tuning: every kernel that can compute a convolution, and agrees with the CPU, is measured, and the fastest goes into a table.

use std::path::Path;

use serde::Serialize;

use super::check::Reference;
use super::networks::NetworkName;
use super::table::{duration, headed};
use super::timing::{Patience, Timing, Until, time_call};
use crate::backend::cpu::Cpu;
use crate::backend::cuda::{Cuda, KernelTable, MeasuredOn, Pass, Products, TableRow};
use crate::error::{Error, Result, printable};
use crate::files;
use crate::ops::{Call, Conv2d, Conv2dDgrad, Conv2dFprop, Conv2dWgrad, Device, HardwareKind};
use crate::plan::Fusions;

/// Splits of a wgrad that are tried, as shares of the predicted number.
const SPLITS: [f64; 4] = [0.5, 0.75, 1.5, 2.0];

/// Images of the batch on which a kernel is held to the CPU: few, and no whole number of tiles.
const CHECKED_IMAGES: usize = 5;

/// A request to tune.
#[derive(Debug, Clone)]
pub struct TuneRequest<'a> {
    /// Networks whose convolutions are tuned; none: the standard ones of the device.
    pub networks: Vec<NetworkName>,
    /// Images in a batch; none: the standard one of the device.
    pub batches: Vec<usize>,
    /// How long to measure each candidate.
    pub patience: Patience,
    /// No further convolution is begun after this.
    pub until: Until,
    /// The table. One that is there, of the same device, keeps the rows that are not measured again.
    pub table: &'a Path,
}

/// A kernel that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// Its name.
    pub kernel: String,
    /// Split-K: the number of parts that the K loop of a wgrad is cut into.
    pub splits: usize,
    /// How long it took.
    #[serde(flatten)]
    pub timing: Timing,
}

/// A convolution that was tuned.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tuned {
    /// The pass: fprop, dgrad or wgrad.
    pub pass: Pass,
    /// Its extents in a word.
    pub shape: String,
    /// All that were measured; the predicted choice first, unless it was left out.
    pub candidates: Vec<Candidate>,
    /// Whether it is among them.
    pub has_predicted: bool,
    /// Which of them goes into the table: the fastest, or the first where the difference is noise.
    pub best: usize,
}

impl Tuned {
    fn new(pass: Pass, conv: &Conv2d, candidates: Vec<Candidate>, has_predicted: bool) -> Tuned {
        let seconds = |index: usize| candidates[index].timing.seconds;
        let fastest = (0..candidates.len()).min_by(|&a, &b| seconds(a).total_cmp(&seconds(b))).unwrap_or(0);
        let noise = candidates[0].timing.noise.max(candidates[fastest].timing.noise);
        let best = if seconds(0) > seconds(fastest) * (1.0 + noise) { fastest } else { 0 };
        Tuned { pass, shape: call(pass, *conv).shape(), candidates, has_predicted, best }
    }

    /// How many times faster the table's choice is than the predicted one.
    pub fn gain(&self) -> f64 {
        self.candidates[0].timing.seconds / self.candidates[self.best].timing.seconds
    }
}

/// A kernel whose results differ from the CPU's, and so is in no table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Refused {
    /// The pass: fprop, dgrad or wgrad.
    pub pass: Pass,
    /// The convolution's extents in a word.
    pub shape: String,
    /// The kernel's name.
    pub kernel: String,
    /// ‖out − reference‖ / ‖reference‖.
    pub error: Option<f64>,
    /// The device's error, where it gave no result.
    pub failure: Option<String>,
}

/// The results of tuning.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tuning {
    /// The device that was measured.
    pub device: MeasuredOn,
    /// A note on how far the times can be trusted.
    pub note: String,
    /// The convolutions that were tuned.
    pub tuned: Vec<Tuned>,
    /// Kernels that were left out, because they are wrong.
    pub refused: Vec<Refused>,
    /// Convolutions that were cut: time was short, the device failed, or no kernel agrees with the CPU.
    pub cut: usize,
    /// Hash of the table that was written.
    pub kernel_table_hash: String,
}

impl Tuning {
    /// The geometric mean of all gains over a predicted choice that agrees with the CPU.
    pub fn gain(&self) -> f64 {
        let gains: Vec<f64> =
            self.tuned.iter().filter(|tuned| tuned.has_predicted).map(|tuned| tuned.gain().ln()).collect();
        (gains.iter().sum::<f64>() / gains.len().max(1) as f64).exp()
    }

    /// For a terminal.
    pub fn table(&self, width: Option<usize>) -> String {
        let mut text = format!("{}: {}\n\n", printable(&self.device.name), self.note);
        let mut table =
            headed(&["convolution", "candidates", "predicted", "", "fastest", "", "times faster"]);
        let name = |candidate: &Candidate| match candidate.splits {
            1 => candidate.kernel.clone(),
            splits => format!("{}/{splits}", candidate.kernel),
        };
        for pass in [Pass::Fprop, Pass::Dgrad, Pass::Wgrad] {
            let of_pass: Vec<&Tuned> = self.tuned.iter().filter(|tuned| tuned.pass == pass).collect();
            if !of_pass.is_empty() {
                table.heading(pass.name());
            }
            for tuned in of_pass {
                let (first, best) = (&tuned.candidates[0], &tuned.candidates[tuned.best]);
                let predicted = if tuned.has_predicted {
                    [name(first), duration(first.timing.seconds)]
                } else {
                    ["left out".to_string(), String::new()]
                };
                let [predicted, predicted_time] = predicted;
                table.row([
                    format!("  {}", tuned.shape),
                    tuned.candidates.len().to_string(),
                    predicted,
                    predicted_time,
                    if tuned.best == 0 && tuned.has_predicted { "the same".into() } else { name(best) },
                    duration(best.timing.seconds),
                    if tuned.has_predicted { format!("{:.2}", tuned.gain()) } else { String::new() },
                ]);
            }
        }
        text += &table.render(width);
        text += &format!(
            "\n{} convolutions, {:.3} times faster than the predicted choice (geometric mean)\n",
            self.tuned.len(),
            self.gain()
        );
        if self.cut > 0 {
            text += &format!("{} convolutions were cut, for lack of time or of a correct kernel\n", self.cut);
        }
        for Refused { pass, shape, kernel, error, failure } in &self.refused {
            let why = match (failure, error) {
                (Some(failure), _) => printable(failure),
                (None, error) => format!("off by {:.1e}", error.unwrap_or(f64::INFINITY)),
            };
            text += &format!("left out: {kernel} for {} {shape}: {why}\n", pass.name());
        }
        text
    }
}

/// Measures on a device; `progress` is told how many convolutions there are and which is begun.
///
/// # Errors
/// The table that is there is of another device, the device failed, or the table cannot be written.
pub fn tune(
    mut cuda: Cuda,
    request: &TuneRequest<'_>,
    progress: &mut dyn FnMut(usize, &str),
) -> Result<Tuning> {
    let device = MeasuredOn::this(cuda.driver().properties());
    let earlier = earlier(request.table, &device)?;
    let note = match cuda.hardware().kind {
        HardwareKind::Emulator => "timed on the emulator, where times mean nothing: a rehearsal",
        _ => "medians on random data",
    };
    let mut table = KernelTable::new(device.clone(), note);
    let convolutions = convolutions(&cuda, request)?;
    let mut verdicts = Verdicts::new()?;
    let (mut tuned, mut cut) = (Vec::new(), 0);
    let late = || request.until.is_over();
    for &(pass, conv) in &convolutions {
        if late() || verdicts.device_failed {
            cut += 1;
            continue;
        }
        progress(convolutions.len(), &format!("{} {}", pass.name(), call(pass, conv).shape()));
        let correct;
        (cuda, correct) = verdicts.correct(cuda, pass, &conv)?;
        let mut candidates = Vec::new();
        let predicted = predicted(&cuda, pass, &conv).kernel;
        for (kernel, splits) in candidates_of(&cuda, pass, &conv) {
            if late() || !correct.contains(&kernel) {
                continue;
            }
            let one = only(&cuda, pass, &conv, kernel, splits)?;
            cuda = cuda.with_table(one)?;
            let timing = time_call(&mut cuda, &call(pass, conv), &request.patience)?;
            candidates.push(Candidate { kernel: kernel.to_string(), splits, timing });
            cuda = cuda.without_table();
        }
        if late() || candidates.is_empty() {
            // Half the candidates choose nothing.
            cut += 1;
            continue;
        }
        let found = Tuned::new(pass, &conv, candidates, correct.contains(&predicted));
        let best = &found.candidates[found.best];
        let microseconds = Some(1e6 * best.timing.seconds);
        table.push(row(&cuda, pass, &conv, &best.kernel, best.splits, microseconds))?;
        tuned.push(found);
        // Measured times are not lost if the program is stopped, or the device fails.
        if files::is_replaceable(request.table) {
            verdicts.with_earlier(&table, &earlier)?.write(request.table)?;
        }
    }
    let table = verdicts.with_earlier(&table, &earlier)?;
    table.write(request.table)?;
    let refused = verdicts.refused;
    Ok(Tuning { device, note: note.into(), tuned, refused, cut, kernel_table_hash: table.hash() })
}

/// Finds the kernels whose results agree with the CPU's.
struct Verdicts {
    reference: Cpu<f64>,
    /// Kernels that agree with the CPU, for a pass of a convolution of few images.
    known: Vec<((Pass, Conv2d), Vec<&'static str>)>,
    refused: Vec<Refused>,
    /// Whether a GPU has failed: every later call fails as well, and says nothing about the kernel.
    device_failed: bool,
}

impl Verdicts {
    fn new() -> Result<Verdicts> {
        let reference = Cpu::new(0)?;
        Ok(Verdicts { reference, known: Vec::new(), refused: Vec::new(), device_failed: false })
    }

    /// The kernels that agree with the CPU on a pass of a convolution, on few of its images.
    fn correct(&mut self, mut cuda: Cuda, pass: Pass, conv: &Conv2d) -> Result<(Cuda, Vec<&'static str>)> {
        let few = Conv2d { batch: conv.batch.min(CHECKED_IMAGES), ..*conv };
        if let Some((_, correct)) = self.known.iter().find(|(known, _)| *known == (pass, few)) {
            return Ok((cuda, correct.clone()));
        }
        let reference = Reference::new(&mut self.reference, call(pass, few), cuda.dtype())?;
        let mut correct = Vec::new();
        for (kernel, splits, _) in cuda.candidates(pass, &few) {
            let one = only(&cuda, pass, &few, kernel, splits)?;
            cuda = cuda.with_table(one)?;
            let check = reference.judge(&mut cuda, kernel.to_string());
            cuda = cuda.without_table();
            if check.passed {
                correct.push(kernel);
                continue;
            }
            self.device_failed = check.failure.is_some() && cuda.hardware().kind == HardwareKind::Gpu;
            let (shape, kernel) = (call(pass, few).shape(), kernel.to_string());
            self.refused.push(Refused { pass, shape, kernel, error: check.error, failure: check.failure });
            if self.device_failed {
                correct.clear();
                break;
            }
        }
        self.known.push(((pass, few), correct.clone()));
        Ok((cuda, correct))
    }

    /// A table, and those rows of an earlier one that it does not replace and whose kernel was not found wrong.
    fn with_earlier(&self, table: &KernelTable, earlier: &[TableRow]) -> Result<KernelTable> {
        let mut table = table.clone();
        for row in earlier {
            let wrong =
                self.refused.iter().any(|refused| (refused.pass, &refused.kernel) == (row.pass, &row.kernel));
            if !wrong && !table.has(row) {
                table.push(row.clone())?;
            }
        }
        Ok(table)
    }
}

/// The rows of a table that is there already, which must be of this device.
fn earlier(path: &Path, device: &MeasuredOn) -> Result<Vec<TableRow>> {
    if !files::is_replaceable(path) || !path.exists() {
        return Ok(Vec::new());
    }
    let table = KernelTable::read(path)?;
    if table.device() == device {
        return Ok(table.rows().to_vec());
    }
    Err(Error::invalid(format!(
        "{} is a table of {}, and this is {}; write another file",
        path.display(),
        table.device().name,
        device.name
    )))
}

/// Every convolution of the networks, in every pass, each once.
fn convolutions(cuda: &Cuda, request: &TuneRequest<'_>) -> Result<Vec<(Pass, Conv2d)>> {
    let (networks, batches) =
        NetworkName::or_standard(&request.networks, &request.batches, cuda.hardware().kind);
    let mut found: Vec<(Pass, Conv2d)> = Vec::new();
    for network in &networks {
        for &batch in &batches {
            for call in network.calls(cuda, batch, Fusions::ALL)? {
                let one = Pass::of(&call).map(|(pass, conv)| (pass, *conv));
                found.extend(one.filter(|one| !found.contains(one)));
            }
        }
    }
    found.sort_by_key(|(pass, _)| *pass);
    Ok(found)
}

/// The GEMM of the kernel that is chosen without measuring.
fn predicted(cuda: &Cuda, pass: Pass, conv: &Conv2d) -> Products {
    let call = call(pass, *conv);
    cuda.products(&call, &cuda.prepare(&call)).expect("a convolution has a kernel")
}

/// The predicted choice, then every other kernel, and for wgrads other numbers of splits with each.
fn candidates_of(cuda: &Cuda, pass: Pass, conv: &Conv2d) -> Vec<(&'static str, usize)> {
    let predicted = predicted(cuda, pass, conv);
    let mut all = vec![(predicted.kernel, predicted.splits)];
    for (kernel, splits, most) in cuda.candidates(pass, conv) {
        let around = SPLITS.map(|share| ((splits as f64 * share).round() as usize).clamp(1, most));
        for splits in [&[splits][..], &around].concat() {
            if !all.contains(&(kernel, splits)) {
                all.push((kernel, splits));
            }
        }
    }
    all
}

/// A table with one kernel for one convolution.
fn only(cuda: &Cuda, pass: Pass, conv: &Conv2d, kernel: &str, splits: usize) -> Result<KernelTable> {
    let mut table = KernelTable::new(MeasuredOn::this(cuda.driver().properties()), "");
    table.push(row(cuda, pass, conv, kernel, splits, None))?;
    Ok(table)
}

fn row(
    cuda: &Cuda,
    pass: Pass,
    conv: &Conv2d,
    kernel: &str,
    splits: usize,
    microseconds: Option<f64>,
) -> TableRow {
    let dtype = super::precision(cuda.dtype()).to_string();
    TableRow { pass, dtype, kernel: kernel.into(), splits, microseconds, convolution: *conv }
}

/// The call that computes a pass of a convolution.
fn call(pass: Pass, conv: Conv2d) -> Call<()> {
    match pass {
        Pass::Fprop => Conv2dFprop::new(conv, [(); 3]).into(),
        Pass::Dgrad => Conv2dDgrad::new(conv, [(); 3]).into(),
        Pass::Wgrad => Conv2dWgrad::new(conv, [(); 3]).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(kernel: &str, seconds: f64, noise: f64) -> Candidate {
        let timing = Timing { seconds, least_seconds: seconds, most_seconds: seconds, noise, samples: 6 };
        Candidate { kernel: kernel.into(), splits: 1, timing }
    }

    const CONV: Conv2d = Conv2d {
        batch: 1,
        height: 8,
        width: 8,
        in_channels: 8,
        out_channels: 8,
        filter_height: 1,
        filter_width: 1,
        stride: 1,
        padding: 0,
    };

    #[test]
    fn another_kernel_is_chosen_only_where_it_is_faster_by_more_than_noise() {
        let best = |seconds: [f64; 3], noise: f64| {
            let candidates =
                [("a", 0), ("b", 1), ("c", 2)].map(|(name, i)| candidate(name, seconds[i], noise));
            Tuned::new(Pass::Fprop, &CONV, candidates.to_vec(), true).best
        };
        assert_eq!(best([1.0, 0.8, 0.9], 0.01), 1);
        assert_eq!(best([1.0, 0.99, 1.1], 0.05), 0);
        assert_eq!(best([1.0, 1.2, 1.1], 0.0), 0);
    }
}
