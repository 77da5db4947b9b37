//! One image at a time: a network that stays in a device's memory and answers as images come.

use std::sync::Arc;

use super::extract::{check_finite, head};
use super::{FeatureSet, Head, Matrix, Pass};
use crate::checkpoint::Trained;
use crate::data::{Dataset, RgbImage, SharedDataset, Transform, UNKNOWN_LABEL};
use crate::error::Result;
use crate::nn::{Model, Network};
use crate::ops::Device;

/// A trained network in a device's memory, with a plan for one image.
pub struct SinglePass<'a> {
    trained: &'a Trained,
    transform: &'a Transform,
    model: Model,
    pass: Pass,
}

/// An image as a data set.
#[derive(Debug)]
struct Single {
    name: String,
    image: RgbImage,
}

impl Dataset for Single {
    fn len(&self) -> usize {
        1
    }

    fn class_names(&self) -> &[String] {
        &[]
    }

    fn label(&self, _index: usize) -> i64 {
        UNKNOWN_LABEL
    }

    fn image(&self, _index: usize) -> Result<RgbImage> {
        Ok(self.image.clone())
    }

    fn sample_name(&self, _index: usize) -> String {
        self.name.clone()
    }
}

impl<'a> SinglePass<'a> {
    /// Loads the network.
    ///
    /// # Errors
    /// The device failed.
    pub fn new(
        device: Box<dyn Device>,
        trained: &'a Trained,
        transform: &'a Transform,
    ) -> Result<SinglePass<'a>> {
        let network = Network::new(&trained.architecture, device.dtype(), None);
        let pass = Pass::new(&network, &*device, 1, 1, transform.size as usize);
        let model = trained.load(network, device, pass.bytes())?;
        Ok(SinglePass { trained, transform, model, pass })
    }

    /// The last linear map of one of the network's heads.
    ///
    /// # Errors
    /// The device failed.
    pub fn head(&self, index: usize) -> Result<Head> {
        head(&self.model, index)
    }

    /// Features and logits of an image, as a set of one sample for each head.
    ///
    /// # Errors
    /// The device failed, or the network gives a number that is not finite; `name` is the image's in the message.
    pub fn run(&mut self, name: &str, image: RgbImage) -> Result<Vec<FeatureSet>> {
        let data: SharedDataset = Arc::new(Single { name: name.to_string(), image });
        let heads = &self.trained.architecture.heads;
        let mut sets = Vec::with_capacity(heads.len());
        self.pass.run(&mut self.model, &data, self.transform, |batch| {
            for (values, spec) in batch.heads.iter().zip(heads) {
                check_finite(values, 1, 0, &data)?;
                let features = Matrix::from_f32(values.features.clone(), values.features.len(), "features")?;
                let logits = Matrix::from_f32(values.logits.clone(), spec.classes, "logits")?;
                sets.push(FeatureSet::from_parts(name, features, Some(logits), None)?);
            }
            Ok(())
        })?;
        Ok(sets)
    }
}
