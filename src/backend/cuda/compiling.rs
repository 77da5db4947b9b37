//! Compilation of all kernels of a plan before it first runs, so that it can be said how far that is.

use std::sync::{Arc, OnceLock};

use super::driver::Driver;
use super::source::Source;
use crate::error::Result;

/// Is told which kernel file of how many is being compiled; a number beyond the last says that all are done.
type Watcher = fn(usize, usize);

static WATCHER: OnceLock<Watcher> = OnceLock::new();

/// Has this process's compilations told to `watcher`, from the first call of this function on.
pub fn watch_compiling(watcher: Watcher) {
    WATCHER.get_or_init(|| watcher);
}

/// Compiles what is not compiled yet.
///
/// # Errors
/// A source does not compile.
pub(super) fn compile_all(driver: &dyn Driver, sources: &[Arc<Source>]) -> Result<()> {
    let missing: Vec<&Arc<Source>> = sources.iter().filter(|source| !driver.is_compiled(source)).collect();
    let tell = |number| {
        if let Some(watcher) = WATCHER.get().filter(|_| !missing.is_empty()) {
            watcher(number, missing.len());
        }
    };
    let compile = |(index, source): (usize, &&Arc<Source>)| {
        tell(index + 1);
        driver.compile(source)
    };
    let compiled = missing.iter().enumerate().try_for_each(compile);
    tell(missing.len() + 1);
    compiled
}
