//! A pass over a data set keeps several batches on the device; what it hands out is what each batch gives on its own.

use std::sync::Arc;

use residua::backend::cuda::driver::emulator::{Emulator, Options};
use residua::backend::cuda::driver::native::Native;
use residua::data::{InMemory, Loader, LoaderOptions, Normalize, SharedDataset, Transform};
use residua::error::Error;
use residua::features::{Pass, PassBatch};
use residua::nn::{
    Architecture, Depth, HeadKind, HeadSpec, HeadValues, ImageSource, Images, Inference, Model, Network,
    SUBCLASS_HEAD, SUPERCLASS_HEAD, Stem,
};
use residua::ops::Device;
use residua::rng::{Purpose, Stream};
use residua::tensor::{DType, HostValues};

use crate::ops::kernels;

const SIDE: u32 = 8;
const BATCH: usize = 2;
/// More batches than are under way at once, and a short one behind them.
const SAMPLES: usize = 11;

fn data() -> SharedDataset {
    let stream = Stream::for_purpose(21, Purpose::Synthetic, &[]);
    let bytes = SAMPLES * (SIDE * SIDE * 3) as usize;
    let pixels = (0..bytes as u64).map(|i| stream.below(i, 256) as u8).collect();
    let labels = (0..SAMPLES as i64).map(|i| i % 4 - 1).collect();
    Arc::new(InMemory::new(SIDE, SIDE, pixels, labels, vec!["a".into(), "b".into(), "c".into()]).unwrap())
}

fn transform() -> Transform {
    Transform::new(SIDE, "0.5/0.25".parse::<Normalize>().unwrap())
}

fn network(dtype: DType) -> Network {
    let plain = Architecture::new(Depth::ResNet18, Some(Stem::Cifar), None, 0.0625, 3).unwrap();
    let head = |name: &str, kind, classes| HeadSpec { name: name.into(), kind, classes };
    let heads = vec![head(SUPERCLASS_HEAD, HeadKind::Linear, 3), head(SUBCLASS_HEAD, HeadKind::Cosine, 5)];
    Network::new(&plain.with_heads(heads).unwrap(), dtype, None)
}

/// The batches that a pass hands out.
fn pass(device: Box<dyn Device>) -> Vec<PassBatch> {
    let network = network(device.dtype());
    let pass = Pass::new(&network, &*device, BATCH, SAMPLES, SIDE as usize);
    let mut model = Model::new(network, device, pass.bytes()).unwrap();
    model.initialise(3).unwrap();
    let mut batches = Vec::new();
    let consume = |batch| {
        batches.push(batch);
        Ok(())
    };
    pass.run(&mut model, &data(), &transform(), consume).unwrap();
    batches
}

/// The same batches, each alone on a device that does nothing else.
fn alone(device: impl Fn() -> Box<dyn Device>) -> Vec<(Vec<HeadValues>, Vec<i64>)> {
    let loader = Loader::new(data(), &transform(), LoaderOptions::evaluation(BATCH)).unwrap();
    let batches = loader.map(|batch| {
        let (batch, device) = (batch.unwrap(), device());
        let network = network(device.dtype());
        let extent = [SIDE as usize, SIDE as usize, 3];
        let images = Images { batch: batch.labels.len(), extent, source: ImageSource::Bytes };
        let inference = Inference::new(&network, &*device, &images);
        let table = network.parameters().image_table();
        let mut model = Model::new(network, device, inference.executable().bytes()).unwrap();
        model.initialise(3).unwrap();
        model.write(table, HostValues::F32(&transform().table())).unwrap();
        inference.set_up(&mut model).unwrap();
        let executable = inference.executable();
        inference.images().write_bytes(&mut model, executable, &batch.pixels, &batch.placement).unwrap();
        (inference.run(&mut model).unwrap(), batch.labels)
    });
    batches.collect()
}

fn check(device: impl Fn() -> Box<dyn Device>) {
    let (found, expected) = (pass(device()), alone(&device));
    assert_eq!(found.len(), SAMPLES.div_ceil(BATCH));
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
    for (index, (found, (heads, labels))) in found.iter().zip(&expected).enumerate() {
        assert_eq!(&found.labels, labels, "batch {index}");
        assert_eq!(found.heads.len(), 2);
        for (found, expected) in found.heads.iter().zip(heads) {
            assert!(expected.logits.iter().all(|logit| logit.is_finite()), "batch {index}");
            assert_eq!(bits(&found.features), bits(&expected.features), "batch {index}");
            assert_eq!(bits(&found.logits), bits(&expected.logits), "batch {index}");
        }
    }
}

#[test]
fn batches_under_way_together_give_the_bits_that_each_gives_alone() {
    for dtype in [DType::F32, DType::Bf16] {
        let emulator = || Emulator::new(Options::default()).expect("a C++ compiler");
        check(|| kernels(emulator(), dtype));
        if Native::if_present(0).is_some() {
            check(|| kernels(Native::if_present(0).unwrap(), dtype));
        }
    }
}

#[test]
fn a_batch_that_is_refused_ends_the_pass_whatever_is_under_way_behind_it() {
    let emulator = Emulator::new(Options::default()).expect("a C++ compiler");
    let device = kernels(emulator, DType::F32);
    let network = network(DType::F32);
    let pass = Pass::new(&network, &*device, BATCH, SAMPLES, SIDE as usize);
    let mut model = Model::new(network, device, pass.bytes()).unwrap();
    model.initialise(3).unwrap();
    let mut seen = 0;
    let consume = |_| {
        seen += 1;
        if seen < 2 { Ok(()) } else { Err(Error::invalid("the disk is full")) }
    };
    let error = pass.run(&mut model, &data(), &transform(), consume).unwrap_err();
    assert_eq!((error.to_string().as_str(), seen), ("the disk is full", 2));
}
