//! A trained network from any file that holds one: a checkpoint folder says everything about itself; of a bare weights
//! file the architecture is recognised from names and shapes, and the transform has to be given.

use std::path::{Path, PathBuf};

use super::import::refuse_key;
use super::{HeadClasses, Meta, StateDict, folder, guess_architecture, network, read_weights};
use crate::data::{Taxonomy, Transform};
use crate::error::{Error, Result};
use crate::nn::{Architecture, Model, Network};
use crate::ops::Device;

/// A trained network on the host.
#[derive(Debug, Clone)]
pub struct Trained {
    /// Where it comes from.
    pub path: PathBuf,
    /// Which network.
    pub architecture: Architecture,
    /// Its parameters.
    pub state: StateDict,
    /// The transform from image to network input; `None` in a bare weights file.
    pub transform: Option<Transform>,
    /// Names of the classes, by label; empty in a bare weights file.
    pub classes: Vec<String>,
    /// Meaning of each head's logits; empty in a bare weights file.
    pub heads: Vec<HeadClasses>,
    /// Both levels of the training data's classes, where it has two.
    pub taxonomy: Option<Taxonomy>,
    /// Finished epochs, where stored.
    pub epoch: Option<u64>,
    /// BLAKE3 hash of the parameters' file, and of the choice where a key chose among several networks in it.
    pub hash: String,
    /// The choice among the checkpoints of a run folder, or among the networks of a weights file, for people.
    pub note: Option<String>,
}

impl Trained {
    /// Opens a checkpoint folder, a run folder (its best checkpoint, or its last where none was validated) or a weights file.
    ///
    /// # Errors
    /// Nothing usable there, or an architecture this program does not know.
    pub fn open(path: &Path) -> Result<Trained> {
        Trained::open_by_key(path, None)
    }

    /// The same, with the key of the network in a weights file that holds several; checkpoint folders hold one.
    ///
    /// # Errors
    /// As [`Trained::open`], and a key that means nothing there.
    pub fn open_by_key(path: &Path, key: Option<&str>) -> Result<Trained> {
        if path.is_dir() {
            refuse_key(path, key)?;
            let hash = super::hash(path)?;
            let resolved = folder::resolve(path)?;
            let saved = folder::load(&resolved)?;
            let Meta { architecture, transform, classes, mut heads, taxonomy, epoch, .. } = saved.meta;
            if heads.is_empty() {
                heads.push(HeadClasses::single(classes.clone()));
            }
            let broken = |what: &str, e: serde_json::Error| {
                Error::invalid(format!("{}: the {what} in its meta.json is not one: {e}", resolved.display()))
            };
            let architecture: Architecture =
                serde_json::from_value(architecture).map_err(|e| broken("architecture", e))?;
            architecture.check()?;
            let transform = serde_json::from_value(transform).map_err(|e| broken("transform", e))?;
            return Ok(Trained {
                note: folder::note(path, &resolved),
                path: resolved,
                architecture,
                state: saved.model,
                transform: Some(transform),
                classes,
                heads,
                taxonomy,
                epoch: Some(epoch),
                hash,
            });
        }
        let imported = read_weights(path, key)?;
        let (hash, note) = (imported.hash()?, imported.note());
        let architecture = guess_architecture(&imported.state)
            .map_err(|error| Error::invalid(format!("{}: {error}", path.display())))?;
        Ok(Trained {
            path: path.to_path_buf(),
            architecture,
            epoch: imported.training.epoch(),
            state: imported.state,
            transform: None,
            classes: Vec::new(),
            heads: Vec::new(),
            taxonomy: None,
            hash,
            note,
        })
    }

    /// Puts the network into a device's memory, with room for plans of `plan_bytes`.
    ///
    /// # Errors
    /// The parameters do not fit the architecture.
    pub fn load(&self, network: Network, device: Box<dyn Device>, plan_bytes: usize) -> Result<Model> {
        let mut model = Model::new(network, device, plan_bytes)?;
        network::load(&mut model, &self.state, &self.path)?;
        Ok(model)
    }
}
