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
    let tell = |number, total| {
        if let Some(watcher) = WATCHER.get() {
            watcher(number, total);
        }
    };
    compile_missing(sources, |source| driver.is_compiled(source), |source| driver.compile(source), &mut {
        tell
    })
}

fn compile_missing<S>(
    sources: &[S],
    is_compiled: impl Fn(&S) -> bool,
    mut compile: impl FnMut(&S) -> Result<()>,
    tell: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    let missing: Vec<&S> = sources.iter().filter(|source| !is_compiled(source)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let compiled = missing.iter().enumerate().try_for_each(|(index, source)| {
        tell(index + 1, missing.len());
        compile(source)
    });
    tell(missing.len() + 1, missing.len());
    compiled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn kernels_that_are_not_compiled_yet_are_counted_and_the_end_is_told_also_of_a_failure() {
        let (mut compiled, mut told) = (Vec::new(), Vec::new());
        let is_compiled = |source: &u32| source.is_multiple_of(2);
        let mut tell = |number, total| told.push((number, total));
        let done = compile_missing(
            &[1, 2, 3, 4, 5],
            is_compiled,
            |&source| {
                compiled.push(source);
                if source == 5 { Err(Error::invalid("does not compile")) } else { Ok(()) }
            },
            &mut tell,
        );
        assert!(done.is_err());
        assert_eq!(compiled, [1, 3, 5]);
        assert_eq!(told, [(1, 3), (2, 3), (3, 3), (4, 3)]);

        let mut told = 0;
        compile_missing(&[2, 4], is_compiled, |_| Err(Error::invalid("never")), &mut |_, _| told += 1)
            .unwrap();
        assert_eq!(told, 0, "nothing to say where nothing is compiled");
    }
}
