//! Learning rates against torch.optim.lr_scheduler.

use residua::train::{Schedule, ScheduleKind};

use crate::parity::golden::{Case, Golden, assert_close};

/// Rounding of a few operations; PyTorch's cosine is a recurrence over epochs.
const TOLERANCE: f64 = 1e-12;

fn schedule(case: &Case<'_>, kind: ScheduleKind, epochs: usize, steps_per_epoch: u64) -> Schedule {
    Schedule {
        kind,
        peak: case.get("rate").scalar(),
        epochs: epochs as u64,
        steps_per_epoch,
        warmup_epochs: case.find("warmup").map_or(0.0, |warmup| warmup.scalar()),
        milestones: case
            .find("milestones")
            .map_or(Vec::new(), |milestones| milestones.values.iter().map(|&epoch| epoch as u64).collect()),
        decay: case.find("gamma").map_or(0.1, |gamma| gamma.scalar()),
    }
}

fn check(case: &Case<'_>, schedule: &Schedule) {
    let expected = &case.get("rates").values;
    let steps = expected.len() as u64 * schedule.steps_per_epoch;
    let found: Vec<f64> = (0..steps).map(|step| schedule.learning_rate(step)).collect();
    let expected: Vec<f64> =
        (0..steps).map(|step| expected[(step / schedule.steps_per_epoch) as usize]).collect();
    // One rate at a time: the last ones are small, and a norm would hide them.
    for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_close(&format!("{} step {step}", case.name), &[*found], &[*expected], TOLERANCE);
    }
}

#[test]
fn learning_rates_are_pytorchs() {
    let golden = Golden::load("optimizers/schedules");
    let mut kinds = [0; 4];
    for case in golden.cases() {
        if case.name.starts_with("cosine") {
            kinds[0] += 1;
            for steps_per_epoch in [1, 3] {
                let epochs = case.get("epochs").count();
                check(&case, &schedule(&case, ScheduleKind::Cosine, epochs, steps_per_epoch));
            }
        } else if case.name.starts_with("multistep") {
            kinds[1] += 1;
            for steps_per_epoch in [1, 3] {
                let epochs = case.get("epochs").count();
                check(&case, &schedule(&case, ScheduleKind::MultiStep, epochs, steps_per_epoch));
            }
        } else if case.name.starts_with("onecycle") {
            kinds[2] += 1;
            let steps = case.get("total_steps").count();
            check(&case, &schedule(&case, ScheduleKind::OneCycle, steps, 1));
        } else {
            // Warm-up by epochs in PyTorch, by steps here: with one step per epoch they are the same.
            kinds[3] += 1;
            let epochs = case.get("epochs").count();
            check(&case, &schedule(&case, ScheduleKind::Cosine, epochs, 1));
        }
    }
    assert_eq!(kinds, [4, 1, 4, 3], "cases of cosine, multistep, one-cycle, warm-up");
}
