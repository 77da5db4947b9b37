//! A kernel file specialised by constants, and the limits that the compile gate holds its machine code to.

use super::source::Variant;

/// One kernel of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Registers a thread may use.
    pub registers: u32,
    /// Whether its products must run on tensor cores (HMMA or better).
    pub tensor_cores: bool,
    /// Whether it is bound by memory and must load 16 bytes at a time.
    pub wide_loads: bool,
}

/// A kernel file specialised by constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// File and constants.
    pub variant: Variant,
    /// Its kernels; the file has no others.
    pub entries: &'static [Entry],
}

impl Module {
    /// Whether it is written in the instructions of sm_90a, which nothing else runs: the folder of its file says so.
    pub fn is_for_hopper(&self) -> bool {
        self.variant.file.split('/').any(|folder| folder == "sm90")
    }

    /// Whether its blocks form clusters and multicast the tiles that they load.
    pub fn has_clusters(&self) -> bool {
        self.variant.constants.iter().any(|(name, value)| name.starts_with("CLUSTER_") && *value > 1)
    }
}
