//! What several tests share.

pub mod browser;
pub mod data_files;
pub mod program;
pub mod synthetic;
#[cfg(unix)]
pub mod terminal;
