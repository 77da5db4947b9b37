//! The devices that carry operations out: each implements [`crate::ops::Backend`].

pub mod cpu;
