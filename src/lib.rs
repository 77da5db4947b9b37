//! Residua trains ResNets with its own kernels and says what the trained network does not know: out-of-distribution (OOD) scores, thresholds
//! for novelty, neural collapse. It is the library of the program `residua`; there is no Python and no deep-learning framework underneath.
//!
//! # Where to start
//!
//! | you have | and want | begin at |
//! |---|---|---|
//! | features and logits of any network | OOD scores, their AUROC and FPR95 | [`features::FeatureSet`], [`ood::Detectors`], [`ood::metrics`] |
//! | a result bundle | to know whether its numbers come out again | [`ood::bundle::verify`] |
//! | scores of samples of known classes | a threshold with a guarantee | [`novelty::p_values`], [`novelty::calibrate_level`] |
//! | images | a trained network | [`data::Dataset`], [`train::TrainingInputs`], [`train::train`] |
//! | a checkpoint, or weights from PyTorch | its features and predictions | [`checkpoint::Trained`], [`features::extract_all`] |
//! | feature caches over a training | neural collapse, NC1 to NC5 | [`collapse::measure`] |
//! | a computation | its gradient, on a CPU or a GPU | [`autograd::Tape`], [`plan::Executable`], [`backend::Choice`] |
//!
//! Three programs in `docs/examples` are meant to be copied from: `score_features.rs`, `train_network.rs`, `new_operation.rs`; run one by
//! `cargo run --release --example new_operation`.
//!
//! # Score features
//!
//! Features and logits may come from any framework, in memory or from `.npy` files ([`features::FeatureSet::open`]). Detectors are fitted once,
//! on the training set; of every score a larger value means more in-distribution.
//!
//! ```
//! use residua::features::{FeatureSet, Head, Matrix};
//! use residua::ood::metrics::OodMetrics;
//! use residua::ood::{Detectors, Method, Options};
//!
//! // A classifier of three classes on four features: logits = W f + b.
//! let weight = vec![1.0, 0.0, 0.0, 0.0,  0.0, 1.0, 0.0, 0.0,  0.0, 0.0, 1.0, 0.0];
//! let head = Head::new(weight, vec![0.0; 3], 4)?;
//!
//! // Samples lie around `height` times the axis of their class, moved a little so that all differ.
//! let samples = |name: &str, count: usize, height: f32| -> residua::Result<FeatureSet> {
//!     let jitter = |row: usize, column: usize| ((row * 37 + column * 11) % 23) as f32 / 23.0 - 0.5;
//!     let value = |row, column| jitter(row, column) + if row % 3 == column { height } else { 0.0 };
//!     let features: Vec<f32> = (0..count * 4).map(|i| value(i / 4, i % 4)).collect();
//!     let logits = features.chunks(4).flat_map(|f| f[..3].to_vec()).collect();
//!     let labels = (0..count as i64).map(|row| row % 3).collect();
//!     let (features, logits) = (Matrix::from_f32(features, 4, name)?, Matrix::from_f32(logits, 3, name)?);
//!     FeatureSet::from_parts(name, features, Some(logits), Some(labels))
//! };
//! let (train, test, ood) = (samples("train", 300, 4.0)?, samples("test", 90, 4.0)?, samples("ood", 60, 1.0)?);
//!
//! let options = Options::of(&[Method::Energy, Method::Mahalanobis, Method::Knn]);
//! let detectors = Detectors::fit(&train, &head, &options)?;
//! let (of_test, of_ood) = (detectors.score(&test)?, detectors.score(&ood)?);
//! for name in detectors.names() {
//!     let metrics = OodMetrics::evaluate(&of_test[&name], &of_ood[&name])?;
//!     println!("{name}: AUROC {:.3}, FPR95 with OOD positive {:.3}", metrics.auroc, metrics.fpr95);
//!     assert!(metrics.auroc > 0.99);
//! }
//!
//! // A sample with p <= 0.05 is called novel; of new samples of the known classes that happens to 5 % at most.
//! let mut known = of_test["knn"].clone();
//! known.sort_by(f64::total_cmp);
//! let p = residua::novelty::p_values(&known, of_ood["knn"].iter().copied());
//! assert!(p.iter().filter(|&&p| p <= 0.05).count() > 50, "most of the 60 samples");
//! # Ok::<(), residua::Error>(())
//! ```
//!
//! # Train a network
//!
//! Options are the flags of `residua train`, with the same defaults. Data is anything that implements [`data::Dataset`]; [`data::open`] opens
//! the formats that have a name. The run folder holds what the program reads as well.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::AtomicBool;
//!
//! use residua::backend::{Choice, DeviceName};
//! use residua::checkpoint::Trained;
//! use residua::data::{InMemory, Transform};
//! use residua::nn::Depth;
//! use residua::train::{RunFolder, TrainOptions, TrainingInputs, train};
//! # let folder = tempfile::tempdir().map_err(|error| residua::Error::io("create", "a folder", error))?;
//! # let out = folder.path();
//!
//! // 64 images of 8 x 8 pixels, of a dark and of a bright class.
//! let byte = |i: usize| (i * 31 % 97) as u8 + if i / (3 * 8 * 8) % 2 == 0 { 0 } else { 120 };
//! let pixels = (0..64 * 3 * 8 * 8).map(byte).collect();
//! let labels = (0..64).map(|i| i % 2).collect();
//! let data = Arc::new(InMemory::new(8, 8, pixels, labels, vec!["dark".into(), "bright".into()])?);
//!
//! let options =
//!     TrainOptions { arch: Depth::ResNet20, width: 0.25, epochs: 4, batch_size: 16, ..TrainOptions::default() };
//! let transform = Transform::new(8, "0.4/0.3".parse()?);
//! let inputs = TrainingInputs::assemble(&options, data, None, transform, None, 0)?;
//! let folder = RunFolder::lock(out)?;
//! let device = Choice { device: DeviceName::Cpu, ..Choice::default() }.device()?;
//! // Setting `stop`, from another thread or a signal handler, ends the training at its next step, with a checkpoint.
//! let stop = AtomicBool::new(false);
//! let summary = train(device, &inputs.job(&options, 0, &folder, false, &stop), &mut ())?;
//! assert!(summary.finished && summary.steps == 16);
//!
//! let trained = Trained::open(out)?;
//! assert_eq!(trained.classes, ["dark", "bright"]);
//! assert_eq!(trained.state["fc.weight"].shape, [2, 16]);
//! # Ok::<(), residua::Error>(())
//! ```
//!
//! # Record a computation, and differentiate it
//!
//! A [`autograd::Tape`] records calls of the list of operations ([`ops`]) into a [`plan::Plan`]; nothing is computed until the plan, laid out
//! as an [`plan::Executable`], runs on an [`ops::Device`], any number of times. An operation of one's own is recorded as those of
//! the tape are ([`autograd::Tape::record`]).
//!
//! ```
//! use residua::autograd::{Mode, Tape};
//! use residua::backend::cpu::Cpu;
//! use residua::ops::Device;
//! use residua::plan::Executable;
//! use residua::tensor::{DType, HostValues};
//!
//! // y = max(x, 0) + x, and its gradient.
//! let mut tape = Tape::new(DType::F64, Mode::Train);
//! let x = tape.differentiable_input("x", [1, 3]);
//! let rectified = tape.relu(x);
//! let y = tape.add(rectified, x);
//! let output = tape.keep(y);
//! let dy = tape.activation_input("gradient of y", [1, 3]);
//! let dx = tape.backward_from(y, dy.buffer, &[x])[0].expect("x is differentiable");
//!
//! let mut device = Cpu::<f64>::new(1)?;
//! let executable = Executable::new(tape.finish(), &device, 0);
//! device.allocate(executable.bytes())?;
//! device.write(executable.span(x.buffer), HostValues::F64(&[-1.0, 2.0, 3.0]))?;
//! device.write(executable.span(dy.buffer), HostValues::F64(&[1.0, 1.0, 10.0]))?;
//! executable.run(&mut device)?;
//!
//! let mut values = [0.0; 3];
//! device.read_f64(executable.span(output), &mut values)?;
//! assert_eq!(values, [-1.0, 4.0, 6.0]);
//! device.read_f64(executable.span(dx), &mut values)?;
//! assert_eq!(values, [1.0, 2.0, 20.0]);
//! # Ok::<(), residua::Error>(())
//! ```
//!
//! # Promises
//!
//! What this documentation shows is promised: within 0.1 it keeps its names, types and meaning, and a change to it comes with 0.2. Items that it
//! does not show are public for the program, its tests and its benchmarks alone, and may change at any time: the modules `bench`,
//! `cli`, `compare`, `linalg`, `pickle`, `recipe`, `rng`, `samples`, `values`, and `backend::cuda`. Beyond names:
//!
//! - **Files.** Checkpoints, feature caches and threshold files of an earlier 0.1 are read; tensors have torchvision's names and layout, arrays are
//!   numpy's. Recipes are files of the program, and their keys are promised as its flags are.
//! - **Bits.** The same version, seed and inputs give the same bits on one kind of device, whatever the number of threads, in one go or
//!   resumed. Another version may round otherwise.
//! - **Errors.** [`Error`] is one type, whose message says what was found, what was expected and what to do. Input that is wrong is an error;
//!   a panic is a mistake in the calling program, which the item's documentation names, or one of ours.
//! - **Memory.** Readers bound what they allocate by what a file really holds, and pickles are read by an interpreter that executes nothing.
//!
//! # Layers
//!
//! From the top down; a module uses only modules below it (`tests/it/architecture.rs` holds it so). Those in plain letters are not promised.
//!
//! | layer | modules |
//! |---|---|
//! | command line | `cli` |
//! | whole experiments, measurements | `recipe`, `bench` |
//! | runs beside each other | `compare` |
//! | tasks of a user | [`train`], [`features`], [`ood`], [`novelty`], [`collapse`], [`eval`], [`monitor`], [`report`]; `samples` |
//! | data and weights on disk | [`data`], [`checkpoint`] |
//! | networks | [`nn`] |
//! | gradients | [`autograd`] |
//! | execution of operations | [`plan`] |
//! | hardware | [`backend`] |
//! | operations | [`ops`] |
//! | common ground | [`error`], [`tensor`]; `archive`, `files`, `linalg`, `pickle`, `rng`, `text_table`, `threads`, `values` |

pub mod autograd;
pub mod backend;
pub mod checkpoint;
pub mod collapse;
pub mod data;
pub mod error;
pub mod eval;
pub mod features;
pub mod monitor;
pub mod nn;
pub mod novelty;
pub mod ood;
pub mod ops;
pub mod plan;
pub mod report;
pub mod tensor;
pub mod train;

// Public for the program, its tests and its benchmarks; not promised.
#[doc(hidden)]
pub mod bench;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod compare;
#[doc(hidden)]
pub mod linalg;
#[doc(hidden)]
pub mod pickle;
#[doc(hidden)]
pub mod recipe;
#[doc(hidden)]
pub mod rng;
#[doc(hidden)]
pub mod samples;
#[doc(hidden)]
pub mod values;

pub(crate) mod archive;
pub(crate) mod files;
pub(crate) mod instructions;
pub(crate) mod text_table;
pub(crate) mod threads;

pub use error::{Error, Result};
