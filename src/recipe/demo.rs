//! The demo: a whole experiment on the images inside the binary, as a recipe that `residua run` takes as well.

use super::keys::{CollapseOptions, EvaluateOptions, OneLevel, OodData, Recipe, ScoreOptions};
use crate::backend::Precision;
use crate::nn::Depth;
use crate::ood::table::Group;
use crate::train::{ScheduleKind, TrainOptions};

/// How much of the demo runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemoSize {
    /// All of it: about a minute on two cores.
    Full,
    /// A few hundred images and two epochs, to see that everything works, on the emulator too.
    Tiny,
}

/// Name of the demo's recipe.
const NAME: &str = "Demo: eight classes of Fashion-MNIST";

/// The demo's recipe.
pub fn demo(size: DemoSize, seed: u64, precision: Precision) -> Recipe {
    // A subset of every set, the same whatever the seed.
    let data = |name: &str, few: usize| match (size, name.contains('?')) {
        (DemoSize::Full, _) => format!("demo:{name}"),
        (DemoSize::Tiny, false) => format!("demo:{name}?sample={few}"),
        (DemoSize::Tiny, true) => format!("demo:{name},sample={few}"),
    };
    let train = TrainOptions {
        data: data("fashion-mnist", 160),
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
    let ood = |name: &str, data: String, group| OodData {
        name: name.into(),
        data,
        group: Some(group),
        optional: false,
        match_id_size: true,
    };
    Recipe::OneLevel(Box::new(OneLevel {
        name: NAME.into(),
        seed,
        precision,
        evaluate: EvaluateOptions { id: data("fashion-mnist?split=test", 96), batch_size: 250 },
        scores: ScoreOptions { bootstrap: 200, ..ScoreOptions::default() },
        collapse: CollapseOptions::default(),
        ood: vec![
            ood("held_out", data("unseen", 64), Group::Near),
            ood("digits", data("digits", 64), Group::Far),
        ],
        shifted: Vec::new(),
        train,
    }))
}

/// Whether a recipe is the demo's, of whichever size and seed.
pub fn is_demo(recipe: &Recipe) -> bool {
    matches!(recipe, Recipe::OneLevel(keys) if keys.name == NAME && keys.train.data.starts_with("demo:"))
}
