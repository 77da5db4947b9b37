//! Networks: which ResNets there are, their parameters, how they start, and how they are recorded on a tape.

mod architecture;
mod head;
mod inference;
mod initialise;
mod input;
mod model;
mod parameters;
mod resnet;

pub use architecture::{Architecture, Depth, Shortcut, Stem};
pub use head::{HeadKind, HeadOutput, HeadSpec, ONLY_HEAD, SUBCLASS_HEAD, SUPERCLASS_HEAD};
pub use inference::{HeadValues, Inference, InferenceReading};
pub use input::{ImageExtent, ImageInput, ImageSource, Images};
pub use model::{Model, compile};
pub use parameters::{Entry, Group, Kind, Parameters};
pub use resnet::{Learned, Network, Output};
