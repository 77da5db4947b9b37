//! The vector instructions that loops on the CPU use, chosen when the program runs.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

use pulp::Arch;

use crate::error::{Error, Result};

/// A set of vector instructions. The loops are compiled for each; sums of floating-point numbers are taken in an order that
/// depends on the width of a vector, so results differ between sets in the last digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Instructions {
    /// Those of every processor of this kind.
    Baseline,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512.
    #[default]
    Avx512,
}

/// The widest set that may be used.
static LIMIT: AtomicU8 = AtomicU8::new(Instructions::Avx512 as u8);

impl Instructions {
    /// Every set.
    pub const ALL: [Instructions; 3] = [Instructions::Baseline, Instructions::Avx2, Instructions::Avx512];

    /// The set in use: the widest that this processor has, within the limit.
    pub fn in_use() -> Instructions {
        match arch() {
            #[cfg(target_arch = "x86_64")]
            Arch::V4(_) => Instructions::Avx512,
            #[cfg(target_arch = "x86_64")]
            Arch::V3(_) => Instructions::Avx2,
            _ => Instructions::Baseline,
        }
    }

    /// Uses no wider set than this from now on, in the whole process.
    ///
    /// # Errors
    /// This processor does not have it.
    pub fn limit(self) -> Result<()> {
        let before = LIMIT.swap(self as u8, Ordering::Relaxed);
        let used = Instructions::in_use();
        if used == self {
            return Ok(());
        }
        LIMIT.store(before, Ordering::Relaxed);
        Err(Error::usage(format!("--instructions {self}: this processor has {used} at the most")))
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Instructions::Baseline => "baseline",
            Instructions::Avx2 => "avx2",
            Instructions::Avx512 => "avx512",
        })
    }
}

impl FromStr for Instructions {
    type Err = Error;

    fn from_str(text: &str) -> Result<Instructions> {
        Instructions::ALL
            .into_iter()
            .find(|instructions| instructions.to_string() == text)
            .ok_or_else(|| Error::usage("one of avx512, avx2 and baseline"))
    }
}

/// The set in use, as loops are handed to it.
#[inline(always)]
pub(crate) fn arch() -> Arch {
    #[cfg(target_arch = "x86_64")]
    {
        let limit = LIMIT.load(Ordering::Relaxed);
        if limit == Instructions::Baseline as u8 {
            return Arch::Scalar;
        }
        if limit == Instructions::Avx2 as u8 {
            return pulp::x86::V3::try_new().map_or(Arch::Scalar, Arch::V3);
        }
    }
    Arch::new()
}
