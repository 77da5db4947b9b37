//! Optimizers against torch.optim: parameters after every step, in f64.

use residua::backend::cpu::Cpu;
use residua::ops::{Adam, AdamStep, Call, Device, HYPER_ROW, HYPER_ROWS, Segment, Sgd, SgdStep};
use residua::tensor::{DType, HostValues, Span, aligned};
use residua::train::{Optimizer, OptimizerKind};

use crate::parity::golden::{Case, Golden, assert_close};

const TOLERANCE: f64 = 1e-12;

/// Numbers of an optimizer's `hyper`.
const HYPER_NUMBERS: usize = HYPER_ROWS * HYPER_ROW;

/// Places of the parameter, its gradient, two states and the numbers that change, one behind the other.
fn spans(elements: usize) -> [Span; 5] {
    let stride = aligned(8 * elements.max(HYPER_NUMBERS));
    let counts = [elements, elements, elements, elements, HYPER_NUMBERS];
    std::array::from_fn(|index| Span { offset: index * stride, elements: counts[index], dtype: DType::F64 })
}

fn check(case: &Case<'_>) {
    let kind = match case.name.split_once('_').map_or(case.name, |(first, _)| first) {
        "sgd" => OptimizerKind::Sgd,
        "adam" => OptimizerKind::Adam,
        "adamw" => OptimizerKind::AdamW,
        other => panic!("no optimizer is called {other}"),
    };
    let number = |name: &str| case.find(name).map_or(0.0, |value| value.scalar());
    let optimizer = Optimizer {
        kind,
        momentum: number("momentum"),
        nesterov: number("nesterov") == 1.0,
        weight_decay: number("weight_decay"),
        separate_heads: false,
    };
    let start = &case.get("start").values;
    let elements = start.len();
    let [parameters, gradients, first, second, hyper] = spans(elements);
    let mut device = Cpu::<f64>::new(1).expect("one thread");
    device.allocate(hyper.offset + aligned(hyper.bytes())).expect("a little memory");
    let nothing = Span { offset: 0, elements: 0, dtype: DType::F64 };
    let workspace = nothing;
    device.write(parameters, HostValues::F64(start)).expect("the parameter");

    let (rates, after) = (&case.get("rates").values, &case.get("parameters").values);
    let given = &case.get("gradients").values;
    for (step, &rate) in rates.iter().enumerate() {
        let now = step * elements..(step + 1) * elements;
        let numbers = optimizer.rates(rate, step as u64 + 1).network;
        // Nobody reads what is behind them.
        let mut row = [f64::NAN; HYPER_NUMBERS];
        row[..numbers.len()].copy_from_slice(&numbers);
        device.write(gradients, HostValues::F64(&given[now.clone()])).expect("the gradient");
        device.write(hyper, HostValues::F64(&row)).expect("the learning rate");
        let call: Call<Span> = if kind == OptimizerKind::Sgd {
            let Optimizer { momentum, nesterov, weight_decay, .. } = optimizer;
            let segments = Segment::alone(elements, weight_decay);
            let attributes = Sgd { segments, momentum, nesterov, copy: false };
            // Without momentum there is no velocity.
            let velocity = if momentum == 0.0 { nothing } else { first };
            SgdStep { attributes, parameters, gradients, velocity, hyper, copies: nothing }.into()
        } else {
            let attributes = Adam {
                segments: Segment::alone(elements, optimizer.weight_decay),
                beta1: number("beta1"),
                beta2: number("beta2"),
                epsilon: number("epsilon"),
                decoupled: kind == OptimizerKind::AdamW,
                copy: false,
            };
            AdamStep { attributes, parameters, gradients, first, second, hyper, copies: nothing }.into()
        };
        device.run(&call, workspace).expect("the step runs");
        let mut found = vec![0.0; elements];
        device.read_f64(parameters, &mut found).expect("the parameter");
        assert_close(&format!("{} after step {step}", case.name), &found, &after[now], TOLERANCE);
    }
}

#[test]
fn optimizers_step_as_pytorchs_do() {
    let golden = Golden::load("optimizers/steps");
    let cases = golden.cases();
    assert_eq!(cases.len(), 10);
    cases.iter().for_each(check);
}
