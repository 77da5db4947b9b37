//! The devices that carry operations out: each implements [`crate::ops::Device`].

mod choice;
pub mod cpu;
pub mod cuda;

pub use choice::{Choice, DeviceName, Precision};
