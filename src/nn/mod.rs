//! Networks: which ResNets there are, their parameters, how they start, and how they are recorded on a tape.

mod architecture;
mod inference;
mod initialise;
mod input;
mod model;
mod parameters;
mod resnet;

pub use architecture::{Architecture, Depth, Shortcut, Stem};
pub use inference::Inference;
pub use input::{ImageExtent, ImageInput, ImageSource, Images};
pub use model::{Model, prepare};
pub use parameters::{Entry, Kind, Parameters};
pub use resnet::{Network, Output};
