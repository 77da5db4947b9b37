//! Trains a small ResNet on the CPU, measures its accuracy on test images, and keeps checkpoint and features.
//!
//! ```sh
//! cargo run --release --example train_network -- runs/example        # half a minute on two cores
//! cargo run --release --example score_features -- runs/example/features
//! residua predict --help                                             # what else a checkpoint is good for
//! ```

use std::path::Path;
use std::sync::atomic::AtomicBool;

use residua::backend::{Choice, DeviceName};
use residua::checkpoint::{LabelsBy, Trained};
use residua::data::{self, DataSpec, Split};
use residua::features::{Request, extract_all};
use residua::nn::Depth;
use residua::train::{Metrics, Observer, RunFolder, TrainOptions, TrainingInputs, train};
use residua::{Error, Result};

/// Eight classes of Fashion-MNIST, and images of none of these classes: inside the binary, so that nothing has to be downloaded. Any name
/// of data serves, such as `cifar10:DIR`, `folder:DIR`; `residua::data::Dataset` is the trait for data of one's own.
const DATA: &str = "demo:fashion-mnist";
const OOD: [(&str, &str); 2] = [("unseen", "demo:unseen"), ("digits", "demo:digits")];

/// Prints the lines of the log.
struct Progress;

impl Observer for Progress {
    fn begin(&mut self, step: u64, total: u64) {
        println!("{} steps to do", total - step);
    }

    fn step(&mut self, _images: usize, _loss: f64) {}

    fn logged(&mut self, metrics: &Metrics) {
        let Metrics { epoch, split, loss, accuracy, .. } = metrics;
        println!("epoch {epoch:>5.2}  {split:<5}  loss {loss:.4}  accuracy {:.2} %", 100.0 * accuracy);
    }
}

/// Trains on the data of a name for some epochs, and runs the network over its test split and the OOD sets, by name. Returns the accuracy
/// on the test split, a fraction.
pub fn train_network(out: &Path, data: &str, ood: &[(&str, &str)], epochs: u64) -> Result<f64> {
    const SEED: u64 = 0;
    let device = || Choice { device: DeviceName::Cpu, ..Choice::default() }.device(); // `Auto` takes a GPU if there is one

    // Options are the flags of `residua train`, with the same defaults.
    let options = TrainOptions {
        data: data.into(),
        holdout: 0.05, // validated on after each epoch, and `best` is chosen by it; test images decide nothing
        normalize: "0.286/0.353".into(),
        arch: Depth::ResNet20,
        width: 0.5,
        epochs,
        batch_size: 64,
        checkpoint_every: 0, // the last and the best
        ..TrainOptions::default()
    };
    let inputs = TrainingInputs::open(&options, None, SEED)?;
    println!("{} on {} images", inputs.architecture, inputs.data.len());

    // The folder is locked: two programs cannot write into one run.
    let folder = RunFolder::lock(out)?;
    if folder.checkpoints().exists() {
        return Err(Error::invalid(format!(
            "{} holds a training already; name another folder",
            out.display()
        )));
    }
    // Setting `stop`, from a signal handler or another thread, ends the training at its next step, with a checkpoint.
    let stop = AtomicBool::new(false);
    let job = inputs.job(&options, SEED, &folder, false, &stop);
    let summary = train(device()?, &job, &mut Progress)?;
    println!("{} steps in {:.1} s", summary.steps, summary.seconds);

    // The checkpoint says everything about itself: architecture, weights, classes, normalisation.
    let trained = Trained::open(&folder.checkpoints().join("last"))?;
    let transform =
        trained.transform.clone().ok_or_else(|| Error::invalid("a checkpoint without its transform"))?;

    // One pass over each set, without augmentation; the caches are what `score_features` and `residua ood` read.
    let request = |name: &str, spec: &str, split| -> Result<Request> {
        let spec: DataSpec = spec.parse()?;
        let folder = out.join("features").join(name);
        Ok(Request {
            data: data::open(&spec, split)?,
            description: spec.to_string(),
            folder,
            labels: LabelsBy::Names,
        })
    };
    let mut requests = vec![request("id", data, Split::Test)?, request("train", data, Split::Train)?];
    for (name, spec) in ood {
        requests.push(request(&format!("ood/{name}"), spec, Split::Test)?);
    }
    let evaluations = extract_all(device()?, &trained, &transform, 250, &requests, &mut |_| Ok(()))?;
    // One evaluation of each head on each set: the network's one head on the test images.
    evaluations[0][0]
        .accuracy()
        .ok_or_else(|| Error::invalid(format!("{data}: the test images have no labels")))
}

fn main() -> Result<()> {
    let out = std::env::args_os().nth(1).ok_or_else(|| {
        Error::usage("name a folder for the results: cargo run --release --example train_network -- DIR")
    })?;
    let accuracy = train_network(Path::new(&out), DATA, &OOD, 4)?;
    println!(
        "test accuracy {:.2} %; checkpoint in {}",
        100.0 * accuracy,
        Path::new(&out).join("checkpoints/last").display()
    );
    Ok(())
}
