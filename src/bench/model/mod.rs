//! The performance model: the predicted time of every call of a network's step, on a card that need not be there.
//!
//! A [`Recorder`] runs the very plans that train, so kernels, tiles and grids are the ones that a card would get. Their times are
//! predictions by the cost model that chose them, made of the numbers in `backend/cuda/card.rs`; on a GPU the measured ones stand beside them.
//!
//! | file | holds |
//! |---|---|
//! | `occupancy` | how many blocks fit on an SM |
//! | `resources` | registers and shared memory of kernels |
//! | `ideal` | the limit by counting bytes at four levels of fusion |
//! | `table` | how it prints |

mod ideal;
mod occupancy;
mod resources;
mod table;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

pub use crate::backend::cuda::card::Card;
pub use crate::backend::cuda::cost::{Bound, Predicted};
pub use occupancy::LimitedBy;

use super::networks::NetworkName;
use super::row_scores::measured;
use super::stage::Stage;
use super::steps::{StepKind, StepWork};
use super::suite::{Filter, PASSES_ON_A_GPU};
use super::timing::{Patience, time_call};
use super::work::{computes_in, work};
use crate::backend::cuda::cost::Traffic;
use crate::backend::cuda::driver::native::Native;
use crate::backend::cuda::driver::recorder::{RecordedLaunch, Recorder};
use crate::backend::cuda::driver::{Driver, Properties};
use crate::backend::cuda::{Cuda, KernelTable, TakenSources, cost};
use crate::backend::{Choice, DeviceName, Precision};
use crate::error::{Error, Result};
use crate::files;
use crate::ops::{Access, Call, CallConfig, Device, HardwareKind};
use crate::plan::{Executable, Fusions};
use crate::tensor::{DType, Span};
use occupancy::{Limits, Uses, resident_blocks};
use resources::Library;

/// A request to predict.
#[derive(Debug, Clone)]
pub struct ModelRequest {
    /// Networks; none: the standard ones of a GPU.
    pub networks: Vec<NetworkName>,
    /// Images in a batch; none: the standard one of a GPU.
    pub batches: Vec<usize>,
    /// The fusions of their plans.
    pub fusions: Fusions,
    /// The card; none: the GPU that is there, else an H200.
    pub card: Option<Card>,
    /// How long to measure each call on the GPU that is there.
    pub patience: Patience,
    /// The passes over rows of features that are wanted, by name; none: no pass.
    pub passes: Option<Filter>,
}

/// A kernel's launch within a call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LaunchModel {
    /// The kernel: of a convolution by its name among them, else its entry.
    pub kernel: String,
    /// Rows and columns of an output tile, in a convolution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tile: Option<[usize; 2]>,
    /// Split-K: the number of parts that the K loop of a wgrad is cut into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub splits: Option<usize>,
    /// Output tiles times their splits in a convolution, else thread blocks.
    pub work_items: usize,
    /// Threads of a block.
    pub threads: u32,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of shared memory of a block.
    pub shared_bytes: u32,
    /// Blocks that one SM holds.
    #[serde(rename = "blocks_per_multiprocessor")]
    pub blocks_per_sm: u32,
    /// The limit that keeps further blocks out.
    pub limited_by: LimitedBy,
    /// Bytes of its operands.
    pub bytes: f64,
    /// Its predicted time.
    pub predicted: Predicted,
    /// The longest part of that time.
    pub bound: Bound,
}

/// Equal calls of a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallModel {
    /// The operation.
    pub operation: String,
    /// Its extents.
    pub shape: String,
    /// How often the step makes it.
    pub count: usize,
    /// Floating-point operations of one call.
    pub flop: f64,
    /// Bytes that one call must move.
    pub bytes: f64,
    /// The least seconds by operations, where there are any.
    pub floor_arithmetic_seconds: Option<f64>,
    /// The least seconds by bytes.
    pub floor_memory_seconds: f64,
    /// The larger of the two.
    pub floor_seconds: f64,
    /// The predicted seconds of one call.
    pub predicted_seconds: f64,
    /// The measured seconds of one call on the GPU that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_seconds: Option<f64>,
    /// Its kernels.
    pub launches: Vec<LaunchModel>,
    #[serde(skip)]
    call: Call<()>,
}

impl CallModel {
    /// Seconds of a step that would be gained if these calls took no longer than their floor.
    pub fn to_gain(&self) -> f64 {
        let seconds = self.measured_seconds.unwrap_or(self.predicted_seconds);
        self.count as f64 * (seconds - self.floor_seconds).max(0.0)
    }
}

/// A step: training, or extraction.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepModel {
    /// `train.resnet18-cifar.32.b512.bf16`, as its row in `bench`.
    pub name: String,
    /// Images in a batch.
    pub batch: usize,
    /// Launches of kernels.
    pub launches: usize,
    /// The sum of all floors.
    pub floor_seconds: f64,
    /// The sum of all predictions.
    pub predicted_seconds: f64,
    /// The measured seconds of a whole step on the GPU that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_seconds: Option<f64>,
    /// Images a second, if every call took its floor.
    pub floor_images_per_second: f64,
    /// Images a second that counting operations and bytes allows with nothing fused; with the passes of batch normalisation, rectifier
    /// and residual fused; with their BN reductions and ReLU backward in epilogues as well; and with all of it there. Of networks and
    /// cards it was counted for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ideal_images_per_second: Option<[f64; 4]>,
    /// Images a second, predicted.
    pub predicted_images_per_second: f64,
    /// Its distinct calls, in the order of their first appearance.
    pub calls: Vec<CallModel>,
}

/// A pass over rows of features, or the passes of several scores together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PassModel {
    /// As its row in `bench`: `row_project.1000000x512-k100.f64`.
    pub name: String,
    /// Floating-point operations of products.
    pub flop: f64,
    /// Bytes that must be moved.
    pub bytes: f64,
    /// The least seconds by operations, where there are any.
    pub floor_arithmetic_seconds: Option<f64>,
    /// The least seconds by bytes.
    pub floor_memory_seconds: f64,
    /// The larger of the two, of each call.
    pub floor_seconds: f64,
    /// The predicted seconds. Exponentials and the passes of a selection over values in cache are not counted.
    pub predicted_seconds: f64,
    /// Launches of kernels.
    pub launches: usize,
}

/// Everything that was predicted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    /// Program and version.
    pub program: String,
    /// A note that the numbers are predictions.
    pub note: &'static str,
    /// When it was made, in UTC.
    pub date: String,
    /// The card, and the numbers that the predictions rest on.
    pub card: Card,
    /// Where registers and shared memory come from.
    pub resources: String,
    /// The folder that kernels were taken from, where it is not the binary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernels: Option<TakenSources>,
    /// The part of those kernels that the predictions see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernels_note: Option<&'static str>,
    /// Hash of the table of measured kernels, where one chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_table_hash: Option<String>,
    /// The steps.
    pub steps: Vec<StepModel>,
    /// Passes over a million rows of features.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passes: Vec<PassModel>,
}

impl Model {
    /// Writes it as JSON.
    ///
    /// # Errors
    /// The disk failed.
    pub fn write(&self, path: &Path) -> Result<()> {
        files::write_json(path, self)
    }
}

/// Predicts, and measures beside it where the device is a GPU.
///
/// # Errors
/// A precision that kernels do not have, a card without rates, a table of another card, kernels that do not compile.
pub fn model(choice: &Choice, request: &ModelRequest) -> Result<Model> {
    let dtype = match choice.precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::Bf16,
        Precision::F64 => return Err(Error::usage("--precision f64: kernels compute in f32 and bf16")),
    };
    let present = if request.card.is_none() { present(choice)? } else { None };
    let measures = present.is_some();
    let card = match request.card.clone().or(present) {
        Some(card) => card,
        None => Card::named("H200")?,
    }
    .with_launches(choice.launches);
    let recorder = Arc::new(Recorder::new(properties(&card)));
    let mut cuda = Cuda::new(recorder.clone(), dtype, choice.kernels.clone())?;
    if let Some(table) = &choice.kernel_table {
        cuda = cuda.with_table(KernelTable::read(table)?)?;
    }
    let mut modeller = Modeller {
        library: Library::find(&card.architecture),
        fusions: request.fusions,
        recorder,
        cuda,
        card,
    };
    let (networks, batches) =
        NetworkName::or_standard(&request.networks, &request.batches, HardwareKind::Gpu);
    let mut steps = Vec::new();
    for network in &networks {
        for &batch in &batches {
            for kind in [StepKind::Train, StepKind::Extract] {
                let mut step = modeller.step(kind, network, batch)?;
                if measures {
                    step.measure(choice, kind, network, (request.fusions, request.patience))?;
                }
                steps.push(step);
            }
        }
    }
    let mut passes = Vec::new();
    if let Some(wanted) = &request.passes {
        let [rows, columns, classes] = PASSES_ON_A_GPU;
        for (name, calls) in measured(rows, columns, classes) {
            if wanted.wants(&name) {
                passes.push(modeller.pass(name, calls)?);
            }
        }
    }
    Ok(Model {
        program: format!("residua {}", env!("RESIDUA_VERSION")),
        note: "predicted, not measured",
        date: super::results::now(),
        resources: modeller.library.source(),
        kernels_note: choice.kernels.edited().map(|_| modeller.library.sees()),
        kernels: choice.kernels_taken(),
        kernel_table_hash: modeller.cuda.kernel_table_hash(),
        card: modeller.card,
        steps,
        passes,
    })
}

/// The card of the GPU that is there and asked for.
fn present(choice: &Choice) -> Result<Option<Card>> {
    let gpu = match choice.device {
        DeviceName::Auto => Native::if_present(0),
        DeviceName::Cuda(number) => Some(Native::new(number)?),
        DeviceName::Cpu | DeviceName::Emulator => None,
    };
    let Some(gpu) = gpu else { return Ok(None) };
    Card::of_device(gpu.properties()).map(Some).ok_or_else(|| {
        Error::usage(format!(
            "the model knows no rates of {}; say by --card which one it shall predict for",
            gpu.properties().name
        ))
    })
}

/// The device that a recorder stands in for.
fn properties(card: &Card) -> Properties {
    Properties {
        name: card.name.clone(),
        architecture: card.architecture.clone(),
        capability: card.capability,
        sms: card.sms,
        memory_bytes: usize::MAX,
        shared_bytes_per_block: Limits::of(card.capability).shared_per_block as usize,
        red_zone: 0,
        versions: String::new(),
    }
}

impl StepModel {
    /// Sets measured times beside the predicted ones.
    fn measure(
        &mut self,
        choice: &Choice,
        kind: StepKind,
        network: &NetworkName,
        (fusions, patience): (Fusions, Patience),
    ) -> Result<()> {
        let mut device = choice.device()?;
        for call in &mut self.calls {
            call.measured_seconds = Some(time_call(&mut *device, &call.call, &patience)?.seconds);
        }
        drop(device);
        let started = Instant::now();
        let work = StepWork {
            kind,
            network,
            batch: self.batch,
            fusions,
            patience,
            rates: None,
            calls: false,
            started,
        };
        self.measured_seconds = work.run(choice)?.seconds();
        Ok(())
    }
}

/// Predicts step after step.
struct Modeller {
    card: Card,
    fusions: Fusions,
    recorder: Arc<Recorder>,
    cuda: Cuda,
    library: Library,
}

impl Modeller {
    fn step(&mut self, kind: StepKind, network: &NetworkName, batch: usize) -> Result<StepModel> {
        let name = kind.row(network, batch, self.cuda.dtype());
        let calls = match kind {
            StepKind::Train => distinct(network.training(&self.cuda, batch, self.fusions)?.plan.executable()),
            StepKind::Extract => {
                distinct(network.inference(&self.cuda, batch, self.fusions)?.plan.executable())
            }
        };
        let calls = calls
            .into_iter()
            .map(|(call, config, count)| self.call(call, &config, count))
            .collect::<Result<Vec<CallModel>>>()?;
        let sum = |of: &dyn Fn(&CallModel) -> f64| -> f64 {
            calls.iter().map(|call| call.count as f64 * of(call)).sum()
        };
        let floor_seconds = sum(&|call| call.floor_seconds);
        let predicted_seconds = sum(&|call| call.predicted_seconds);
        Ok(StepModel {
            name,
            batch,
            launches: calls.iter().map(|call| call.count * call.launches.len()).sum(),
            floor_seconds,
            predicted_seconds,
            measured_seconds: None,
            floor_images_per_second: batch as f64 / floor_seconds,
            ideal_images_per_second: ideal::images_per_second(&self.card, kind, &network.to_string()),
            predicted_images_per_second: batch as f64 / predicted_seconds,
            calls,
        })
    }

    fn pass(&mut self, name: String, calls: Vec<Call<()>>) -> Result<PassModel> {
        let of = |call: Call<()>| {
            let config = self.cuda.prepare(&call);
            self.call(call, &config, 1)
        };
        let calls = calls.into_iter().map(of).collect::<Result<Vec<CallModel>>>()?;
        let sum = |of: &dyn Fn(&CallModel) -> f64| -> f64 { calls.iter().map(of).sum() };
        let arithmetic = sum(&|call| call.floor_arithmetic_seconds.unwrap_or(0.0));
        Ok(PassModel {
            name,
            flop: sum(&|call| call.flop),
            bytes: sum(&|call| call.bytes),
            floor_arithmetic_seconds: (arithmetic > 0.0).then_some(arithmetic),
            floor_memory_seconds: sum(&|call| call.floor_memory_seconds),
            floor_seconds: sum(&|call| call.floor_seconds),
            predicted_seconds: sum(&|call| call.predicted_seconds),
            launches: calls.iter().map(|call| call.launches.len()).sum(),
        })
    }

    fn call(&mut self, call: Call<()>, config: &CallConfig, count: usize) -> Result<CallModel> {
        let work = work(&call, self.cuda.dtype());
        let floors = self.card.rates.floors(&work);
        self.recorder.take();
        Stage::new(&mut self.cuda, std::slice::from_ref(&call), 1)?.run(0)?;
        let recorded = self.recorder.take();
        let mut launches = Vec::with_capacity(recorded.len());
        for (index, launch) in recorded.iter().enumerate() {
            // A lone kernel moves what the call must; of several, each moves its own operands.
            let mut bytes = traffic(launch, &recorded[..index]);
            if recorded.len() == 1 {
                bytes.read = (work.bytes - bytes.written).max(0.0);
            }
            let flop = if index == 0 { work.flop } else { 0.0 };
            launches.push(self.launch((&call, config), launch, bytes, flop)?);
        }
        Ok(CallModel {
            operation: call.name().to_string(),
            shape: call.shape(),
            count,
            flop: work.flop,
            bytes: work.bytes,
            floor_arithmetic_seconds: floors.arithmetic,
            floor_memory_seconds: floors.memory,
            floor_seconds: floors.larger(),
            predicted_seconds: launches.iter().map(|launch| launch.predicted.seconds).sum(),
            measured_seconds: None,
            launches,
            call,
        })
    }

    fn launch(
        &mut self,
        (call, config): (&Call<()>, &CallConfig),
        launch: &RecordedLaunch,
        bytes: Traffic,
        flop: f64,
    ) -> Result<LaunchModel> {
        let used = self.library.resources(&launch.source, &launch.entry)?;
        let uses = Uses {
            threads: launch.config.threads,
            registers: used.registers,
            shared: used.shared + launch.config.shared_bytes,
        };
        let (resident, limited_by) = resident_blocks(&Limits::of(self.card.capability), &uses);
        let blocks = launch.config.grid.iter().map(|&extent| extent as usize).product();
        // A kernel that finishes a convolution, or adds up its splits, is a pass.
        let products = self.cuda.products(call, config).filter(|products| products.entry == launch.entry);
        let all = bytes.read + bytes.written + bytes.just_written;
        let predicted = match &products {
            Some(products) => cost::products(&self.card, products, resident, all),
            None => cost::pass(&self.card, bytes, (flop, computes_in(call, self.cuda.dtype())), blocks),
        };
        Ok(LaunchModel {
            kernel: products.as_ref().map_or(launch.entry.clone(), |products| products.kernel.to_string()),
            tile: products.as_ref().map(|products| products.tile),
            splits: products.as_ref().map(|products| products.splits),
            work_items: products
                .map_or(blocks, |products| products.items.iter().map(|items| items.count).sum()),
            threads: uses.threads,
            registers: uses.registers,
            shared_bytes: uses.shared,
            blocks_per_sm: resident,
            limited_by,
            bytes: all,
            bound: predicted.bound(),
            predicted,
        })
    }
}

/// The distinct calls of a plan's step, how each is carried out, and how often it is made.
fn distinct(executable: &Executable) -> Vec<(Call<()>, CallConfig, usize)> {
    let mut distinct: Vec<(Call<()>, CallConfig, usize)> = Vec::new();
    for (call, config) in executable.calls() {
        let call = call.map(|_| ());
        match distinct.iter_mut().find(|(known, ..)| *known == call) {
            Some((.., count)) => *count += 1,
            None => distinct.push((call, config.clone(), 1)),
        }
    }
    distinct
}

/// Bytes of a launch's operands, those it reads and writes both ways. What an earlier launch of the call has read, later ones only
/// look something up in: the first row, as a pivot.
fn traffic(launch: &RecordedLaunch, earlier: &[RecordedLaunch]) -> Traffic {
    let before = |span: &Span, reads: bool| {
        let mut operands = earlier.iter().flat_map(|launch| &launch.operands);
        operands.any(|(_, other, access)| other == span && (*access == Access::Read) == reads)
    };
    let mut traffic = Traffic::default();
    for (_, span, access) in &launch.operands {
        let bytes = span.bytes() as f64;
        if *access != Access::Write {
            match span {
                span if before(span, true) && *access == Access::Read => {}
                span if before(span, false) => traffic.just_written += bytes,
                _ => traffic.read += bytes,
            }
        }
        if *access != Access::Read {
            traffic.written += bytes;
        }
    }
    traffic
}
