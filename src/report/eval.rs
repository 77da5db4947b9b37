//! Labelled data: figures of an evaluation.

use std::path::Path;

use super::plots::{reliability_diagram, risk_coverage_curve};
use crate::error::Result;
use crate::eval::Evaluated;
use crate::files;

/// Writes the figures of an evaluation into a folder.
///
/// # Errors
/// A file cannot be written.
pub fn write_evaluation_figures(evaluated: &Evaluated, folder: &Path) -> Result<()> {
    let panels = [
        ("reliability", reliability_diagram(&evaluated.results)),
        ("risk_coverage", risk_coverage_curve(&evaluated.results)),
    ];
    for (name, panel) in panels {
        files::write(&folder.join(format!("{name}.svg")), panel.figure()?.standalone())?;
    }
    Ok(())
}
