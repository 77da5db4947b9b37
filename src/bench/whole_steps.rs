//! Checks of whole training steps: against the CPU in f64, and that overlapped launches (PDL) compute the same as serial ones, compared
//! bit by bit.

use super::check::{Check, relative_error};
use super::networks::{NetworkName, OPTIMIZER, Recorded};
use super::steps::Batches;
use crate::backend::cuda::driver::Launches;
use crate::backend::{Choice, DeviceName, Precision};
use crate::error::Result;
use crate::nn::Model;
use crate::plan::Fusions;
use crate::tensor::{DType, HostValues, Span};
use crate::train::{BatchTargets, StepInputs};

/// The first step launches kernel by kernel, the second is captured, the others are replayed.
const STEPS: usize = 6;
/// A low learning rate, and a low weight of every residual branch: else a narrow network on a few images amplifies roundings from step to
/// step until nothing can be compared.
const RATE: f64 = 1e-3;
const BRANCH_WEIGHT: f64 = 0.2;

/// The largest error of the losses of some steps. Steps amplify roundings: these bounds are ten times and more what the emulator shows
/// (2.4e-3 in bf16, 1.6e-7 in f32).
fn limit(dtype: DType) -> f64 {
    if dtype == DType::Bf16 { 3e-2 } else { 1e-5 }
}

/// Trains a network on a device and on the CPU in f64, and compares the losses.
pub(super) fn compare_with_cpu(choice: &Choice, network: &NetworkName, batch: usize, name: String) -> Check {
    let mut check = Check::new(name, choice.dtype(), limit(choice.dtype()));
    let cpu = Choice {
        device: DeviceName::Cpu,
        precision: Precision::F64,
        threads: choice.threads,
        ..Choice::default()
    };
    check.operand = "losses";
    match train(choice, network, batch).and_then(|found| Ok((found, train(&cpu, network, batch)?))) {
        Ok((found, expected)) => check.found(relative_error(&found[0].1, &expected[0].1)),
        Err(error) => check.failure = Some(error.to_string()),
    }
    check
}

/// Trains a network both ways, and tells whether the same is left. A device that overlaps nothing does the same twice.
pub(super) fn compare_launches(choice: &Choice, network: &NetworkName, batch: usize, name: String) -> Check {
    let check = Check::new(name, choice.dtype(), 0.0);
    let trained = |launches| {
        let choice = Choice { launches, ..choice.clone() };
        train(&choice, network, batch)
    };
    match trained(Launches::Serial).and_then(|serial| Ok((serial, trained(Launches::Overlapped)?))) {
        Ok((serial, overlapped)) => judge(check, &serial, &overlapped),
        Err(error) => Check { failure: Some(error.to_string()), ..check },
    }
}

/// A tensor's name, and its values after the steps.
type Left = (String, Vec<f64>);

/// Some steps of a training from the same start, on the same images.
fn train(choice: &Choice, network: &NetworkName, batch: usize) -> Result<Vec<Left>> {
    let device = choice.device()?;
    let Recorded { network, plan, pixels, images } = network.training(&*device, batch, Fusions::ALL)?;
    let mut model = Model::new(network, device, plan.executable().bytes())?;
    model.initialise(0)?;
    calm(&mut model)?;
    let batches = Batches::new(&mut model, pixels, images, batch)?;
    for step in 0..STEPS {
        let (placement, labels) = batches.next(step);
        let (targets, rates) = (BatchTargets::plain(labels), OPTIMIZER.rates(RATE, 1));
        let slot = step % plan.slots();
        let inputs = StepInputs { pixels: &[], placement, targets: &targets, rates: &rates, slot };
        plan.load(&mut model, &inputs)?;
        plan.queue(&mut model)?;
    }
    let mut left = vec![("losses".to_string(), plan.losses(&model)?)];
    for entry in model.network().parameters().entries() {
        left.push((entry.name.clone(), model.parameter(entry)?));
    }
    Ok(left)
}

/// Gives every residual branch a low weight, by the last normalisation in it.
fn calm(model: &mut Model) -> Result<()> {
    let network = model.network();
    let last = if network.architecture().arch.bottleneck() { "bn3.weight" } else { "bn2.weight" };
    let entries = network.parameters().entries().iter().filter(|entry| entry.name.ends_with(last));
    let places: Vec<Span> = entries.map(|entry| entry.parameter.value).collect();
    for place in places {
        model.write(place, HostValues::F64(&vec![BRANCH_WEIGHT; place.elements]))?;
    }
    Ok(())
}

/// No bit may differ.
fn judge(mut check: Check, serial: &[Left], overlapped: &[Left]) -> Check {
    let names =
        |left: &[Left]| left.iter().map(|(name, values)| (name.clone(), values.len())).collect::<Vec<_>>();
    assert_eq!(names(serial), names(overlapped), "the same steps leave the same tensors");
    let (mut differing, mut all, mut first) = (0, 0, None);
    for ((tensor, expected), (_, found)) in serial.iter().zip(overlapped) {
        let here = expected.iter().zip(found).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        first = first.or((here > 0).then_some(tensor));
        (differing, all) = (differing + here, all + expected.len());
    }
    check.operand = "parameters";
    check.found(differing as f64 / all as f64);
    check.failure = first.map(|tensor| {
        format!(
            "after {STEPS} training steps {differing} of {all} losses and parameters have other bits where launches overlap \
             than where they are serial, the first in `{tensor}`; compute with --launches serial, train with it as \
             well, and please report this with the card and the versions above"
        )
    });
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_steps_leave_the_same_bits_and_one_that_differs_is_told_with_a_way_out() {
        let choice = Choice { device: DeviceName::Cpu, threads: 1, ..Choice::default() };
        let network = "resnet18-cifar.8.w0.0625".parse().unwrap();
        let check = compare_launches(&choice, &network, 2, "steps".to_string());
        assert!(check.passed && check.error == Some(0.0), "{check:?}");

        let serial = train(&choice, &network, 2).unwrap();
        assert!(serial.iter().all(|(_, values)| values.iter().all(|value| value.is_finite())));
        let mut overlapped = serial.clone();
        let (tensor, values) = overlapped.last_mut().unwrap();
        let tensor = tensor.clone();
        values[0] = f64::from_bits(values[0].to_bits() ^ 1);
        let wrong = judge(Check::new("steps".to_string(), DType::F32, 0.0), &serial, &overlapped);
        let failure = wrong.failure.unwrap();
        assert!(
            !wrong.passed && failure.contains(&tensor) && failure.contains("--launches serial"),
            "{failure}"
        );
    }
}
