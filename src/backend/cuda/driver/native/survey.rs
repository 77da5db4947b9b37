//! Devices and compilers of this machine, for people: nothing is taken hold of, and nothing is an error.

use std::path::PathBuf;

use super::context::Gpu;
use super::library::Library;
use super::nvrtc::{Nvrtc, Version};
use crate::error::Result;

/// The parts that a GPU needs, each as found or with the sentence that says how to get it.
#[derive(Debug)]
pub struct Survey {
    /// The newest CUDA whose code the driver loads.
    pub driver: Result<Version>,
    /// The driver's own number (580.65.06), where the system tells it.
    pub driver_release: Option<String>,
    /// The GPUs, by number.
    pub gpus: Vec<Result<Gpu>>,
    /// Where NVRTC lies, and its version.
    pub nvrtc: Result<(PathBuf, Version)>,
}

impl Survey {
    /// Looks.
    pub fn new() -> Survey {
        let library = Library::find();
        let driver = library.as_ref().ok().map(|library| library.version());
        let gpus = library.as_ref().map_or_else(
            |_| Vec::new(),
            |&library| {
                let count = library.devices().unwrap_or(0);
                (0..count).map(|ordinal| Gpu::ask(library, ordinal)).collect()
            },
        );
        Survey {
            driver: library.map(Library::version),
            driver_release: release(),
            gpus,
            nvrtc: Nvrtc::find(driver).map(|nvrtc| (nvrtc.path().to_path_buf(), nvrtc.version())),
        }
    }
}

impl Default for Survey {
    fn default() -> Survey {
        Survey::new()
    }
}

/// The kernel module's number: `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul ...`.
pub(super) fn release() -> Option<String> {
    release_in(&std::fs::read_to_string("/proc/driver/nvidia/version").ok()?)
}

fn release_in(text: &str) -> Option<String> {
    let is_release = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines().next()?.split_whitespace().find(is_release).map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_number_is_read_from_both_kinds_of_kernel_module() {
        let closed =
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC";
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build";
        assert_eq!(release_in(closed).as_deref(), Some("535.104.05"));
        assert_eq!(release_in(open).as_deref(), Some("580.65.06"));
        assert_eq!(release_in("something else"), None);
    }
}
