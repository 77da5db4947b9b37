//! Whole narrow networks in f64: logits, loss, the gradient of every parameter, the running statistics, and the folded
//! network in inference afterwards.

use residua::autograd::{Mode, Tape};
use residua::backend::cpu::Cpu;
use residua::nn::{
    Architecture, Depth, ImageSource, Images, Inference, Model, Network, Shortcut, Stem, compile,
};
use residua::tensor::{DType, HostValues, Shape};

use crate::parity::golden::{Array, Golden, assert_close};

/// What rounding in f64 may do to the gradients of fifty layers.
const TOLERANCE: f64 = 1e-9;
/// Inference hands out single precision.
const SINGLE: f64 = 1e-6;

/// The narrow network whose first convolution and classifier are given.
pub fn architecture(
    depth: Depth,
    stem: Stem,
    shortcut: Shortcut,
    first: &Array,
    classifier: &Array,
) -> Architecture {
    let base = if depth.three_stages() { 16.0 } else { 64.0 };
    let width = first.shape[0] as f64 / base;
    let found = Architecture::new(depth, Some(stem), Some(shortcut), width, classifier.shape[0]);
    found.expect("a narrow network")
}

/// Fills a model with tensors found by name; what is not found keeps the start of running statistics.
pub fn fill<'a>(model: &mut Model, find: impl Fn(&str) -> Option<&'a Array>) {
    let entries = model.network().parameters().entries().to_vec();
    for entry in entries {
        let values = match find(&entry.name) {
            Some(array) => {
                let array = array.channels_last();
                assert_eq!(entry.parameter.shape, Shape::new(&array.shape), "{}", entry.name);
                array.values
            }
            None if entry.name.ends_with("running_mean") => vec![0.0; entry.parameter.shape.elements()],
            None if entry.name.ends_with("running_var") => vec![1.0; entry.parameter.shape.elements()],
            None => panic!("no values for {}", entry.name),
        };
        model.write(entry.parameter.value, HostValues::F64(&values)).expect("a parameter's place");
    }
}

fn check(name: &str, depth: Depth, stem: Stem, shortcut: Shortcut) {
    let golden = Golden::load(&format!("networks/{name}"));
    let initial = (!depth.three_stages()).then(|| Golden::load(&format!("trajectories/{depth}_init")));
    let find = |parameter: &str| {
        let own = golden.find(&format!("parameter.{parameter}"));
        own.or_else(|| initial.as_ref().and_then(|initial| initial.find(parameter)))
    };
    let first = find("conv1.weight").expect("a first convolution");
    let architecture = architecture(depth, stem, shortcut, first, find("fc.weight").expect("a classifier"));

    let device = Cpu::<f64>::new(2).expect("two threads");
    let network = Network::new(&architecture, DType::F64, Some(0));
    let input = golden.get("input").channels_last();
    let labels = golden.get("labels");
    let batch = labels.values.len();
    let [_, height, width, channels] = Shape::new(&input.shape).nhwc();

    let mut tape = Tape::new(DType::F64, Mode::Train);
    let images_in = tape.input("images", Shape::new(&input.shape), DType::F64);
    let labels_in = tape.input("labels", [batch], DType::I32);
    let output = network.forward(&mut tape, images_in);
    let logits = tape.keep(output.heads[0].logits);
    let loss = tape.softmax_cross_entropy(output.heads[0].logits, labels_in, 0.0);
    tape.backward(&loss, &[]);
    let step = compile(&network, &device, tape.finish());
    let extent = [height, width, channels];
    let given = Images { batch, extent, source: ImageSource::Numbers };
    let inference = Inference::new(&network, &device, &given);

    let bytes = step.bytes().max(inference.executable().bytes());
    let mut model = Model::new(network, Box::new(device), bytes).expect("memory for a narrow network");
    fill(&mut model, find);
    model.write(step.span(images_in.buffer), HostValues::F64(&input.values)).expect("images");
    model.write(step.span(labels_in.buffer), HostValues::I32(&labels.labels())).expect("labels");
    model.run(&step).expect("the step runs");

    let found = model.read_f64(step.span(logits)).expect("logits");
    assert_close(&format!("{name}: logits"), &found, &golden.get("logits").values, TOLERANCE);
    let losses = model.read_f64(step.span(loss.per_sample)).expect("losses");
    let mean = losses.iter().sum::<f64>() / batch as f64;
    assert_close(&format!("{name}: loss"), &[mean], &golden.get("loss").values, TOLERANCE);

    let mut gradients = 0;
    for entry in model.network().parameters().entries() {
        let what = format!("{name}: {}", entry.name);
        let (span, expected) = match entry.parameter.gradient {
            Some(gradient) => {
                gradients += 1;
                (gradient, golden.get(&format!("gradient.{}", entry.name)))
            }
            None => (entry.parameter.value, golden.get(&format!("running.{}", entry.name))),
        };
        let found = model.read_f64(span).expect("a parameter's place");
        assert_close(&what, &found, &expected.channels_last().values, TOLERANCE);
    }
    assert_eq!(gradients, golden.with_prefix("gradient.").count(), "{name}: parameters with gradients");

    inference.set_up(&mut model).expect("folding");
    let values = HostValues::F64(&input.values);
    inference.images().write_numbers(&mut model, inference.executable(), values).expect("images");
    let found = inference.run(&mut model).expect("inference");
    let found: Vec<f64> = found[0].logits.iter().map(|&logit| f64::from(logit)).collect();
    assert_close(&format!("{name}: logits, folded"), &found, &golden.get("logits_eval").values, SINGLE);
}

#[test]
fn resnet18_with_the_cifar_stem_is_pytorchs() {
    check("resnet18_cifar", Depth::ResNet18, Stem::Cifar, Shortcut::B);
}

#[test]
fn resnet18_with_the_imagenet_stem_is_pytorchs() {
    check("resnet18_imagenet", Depth::ResNet18, Stem::Imagenet, Shortcut::B);
}

#[test]
fn resnet50_with_the_cifar_stem_is_pytorchs() {
    check("resnet50_cifar", Depth::ResNet50, Stem::Cifar, Shortcut::B);
}

#[test]
fn resnet50_with_the_imagenet_stem_is_pytorchs() {
    check("resnet50_imagenet", Depth::ResNet50, Stem::Imagenet, Shortcut::B);
}

#[test]
fn resnet20_with_either_shortcut_is_pytorchs() {
    check("resnet20_option_a", Depth::ResNet20, Stem::Cifar, Shortcut::A);
    check("resnet20_option_b", Depth::ResNet20, Stem::Cifar, Shortcut::B);
}
