//! The devices that carry operations out: each implements [`crate::ops::Device`].

mod choice;
pub mod cpu;
#[doc(hidden)]
pub mod cuda;

pub use choice::{Choice, DeviceName, Precision};
