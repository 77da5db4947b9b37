//! The interface of whatever tries kernels before a device may use them.

use std::fmt::Debug;

use super::driver::Properties;
use super::{Cuda, Exclusions, Sources};
use crate::error::Result;
use crate::ops::Call;

/// Decides what a device may be used for, before it gets memory and thus before anything runs on it.
pub trait Qualifier: Debug + Send + Sync {
    /// What is left out on a device with kernels from these sources, as far as is known now.
    fn exclusions(&self, device: &Properties, sources: &Sources) -> Exclusions;

    /// Looks at calls that plans want to carry out. No context has been made on the device by this process yet.
    ///
    /// # Errors
    /// [`Error::PlanAgain`](crate::error::Error::PlanAgain) where more is left out than the plans know of,
    /// [`Error::DeviceUnfit`](crate::error::Error::DeviceUnfit) where the device has nothing for a call that is right.
    fn admit(&self, cuda: &Cuda, calls: &[Call<()>]) -> Result<()>;
}
