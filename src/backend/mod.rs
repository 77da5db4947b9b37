//! The devices that carry operations out: each implements [`crate::ops::Backend`].

mod choice;
pub mod cpu;
pub mod cuda;

pub use choice::{Choice, Device, KernelWork, Precision, RowWork, Work};
