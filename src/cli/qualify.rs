//! `residua qualify`: the process in which kernels are tried. Nobody calls it but this program.

use crate::bench::qualify::carry_out;
use crate::error::Result;

pub fn run() -> Result<()> {
    carry_out(std::io::stdin().lock(), std::io::stdout().lock())
}
