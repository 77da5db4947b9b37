//! Kernel files for Rust, made of `kernels/` by `build.rs`: their texts, and for each file a module of that path with the structs that its kernels
//! take and the constants that launchers share (`LAUNCHER_CONSTANT`).
//!
//! A struct is `#[repr(C)]` with the fields of the kernel's, in their order; pointers are device addresses.

// A family of kernels is one file in a folder of its name.
#![allow(clippy::module_inception)]

// build.rs uses the rest of it.
#[allow(dead_code)]
pub(super) mod declarations;

include!(concat!(env!("OUT_DIR"), "/kernel_files.rs"));
