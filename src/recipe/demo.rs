//! The demo: a whole experiment on the images inside the binary.

use crate::data::{Augment, Normalize, SharedDataset, Transform, demo as images};
use crate::error::Result;
use crate::nn::Depth;
use crate::ood::table::Group;
use crate::train::{Materials, ScheduleKind, TrainOptions};

use super::experiment::{CollapseOptions, EvaluateOptions, Recipe, ScoreOptions};
use super::sets::{NamedSet, Sets};

/// How much of the demo runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemoSize {
    /// All of it: about a minute on two cores.
    Full,
    /// A few hundred images and two epochs, to see that everything works, on the emulator too.
    Tiny,
}

/// The demo's recipe and data.
///
/// # Errors
/// The binary's images are damaged.
pub fn demo(size: DemoSize, seed: u64) -> Result<(Recipe, Sets)> {
    let train = TrainOptions {
        data: "demo:fashion-mnist".into(),
        holdout: 0.05,
        arch: Depth::ResNet20,
        width: 0.5,
        epochs: if size == DemoSize::Full { 8 } else { 2 },
        batch_size: 64,
        lr: 0.1,
        nesterov: true,
        schedule: ScheduleKind::OneCycle,
        checkpoint_every: if size == DemoSize::Full { 2 } else { 1 },
        normalize: "0.286/0.353".into(),
        ..TrainOptions::default()
    };
    let recipe = Recipe {
        name: "Demo: eight classes of Fashion-MNIST".into(),
        seed,
        precision: crate::backend::Precision::F32,
        evaluate: EvaluateOptions { id: "demo:fashion-mnist?split=test".into(), batch_size: 250 },
        scores: ScoreOptions { bootstrap: 200, ..ScoreOptions::default() },
        collapse: CollapseOptions::default(),
        ood: Vec::new(),
        train,
    };
    let cut = |data: SharedDataset, most: usize| -> SharedDataset {
        match size {
            DemoSize::Full => data,
            DemoSize::Tiny => {
                let step = data.len().div_ceil(most).max(1);
                let indices = (0..data.len() as u32).step_by(step).collect();
                std::sync::Arc::new(crate::data::Selected::new(data, indices))
            }
        }
    };
    let normalize: Normalize = recipe.train.normalize.parse()?;
    let mut transform = Transform::new(images::SIDE, normalize);
    transform.augment = Augment::CropFlip;
    let training = cut(images::train()?, 160);
    let materials = Materials::assemble(&recipe.train, training, None, transform, None, seed)?;
    let named = |name: &str, group, description: &str, data| NamedSet {
        name: name.into(),
        group,
        description: description.into(),
        data,
    };
    let sets = Sets {
        train: named(
            "train",
            None,
            "Fashion-MNIST, training images of eight classes",
            materials.data.clone(),
        ),
        calibrate: NamedSet::held_back(&materials),
        id: named("id", None, "Fashion-MNIST, test images of the same classes", cut(images::test()?, 96)),
        ood: vec![
            named(
                "held_out",
                Some(Group::Near),
                "Fashion-MNIST, the two classes never seen",
                cut(images::near()?, 64),
            ),
            named("digits", Some(Group::Far), "UCI handwritten digits", cut(images::far()?, 64)),
        ],
        materials,
        notes: Vec::new(),
    };
    Ok((recipe, sets))
}
