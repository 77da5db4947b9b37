//! The vector instructions that loops are compiled for, chosen when the program runs.

use std::sync::atomic::{AtomicBool, Ordering};

use pulp::Arch;

/// Whether instructions beyond AVX2 are left alone.
static ONLY_AVX2: AtomicBool = AtomicBool::new(false);

/// The widest vector instructions of this processor that may be used: AVX-512, AVX2, or the baseline.
#[inline(always)]
pub(crate) fn arch() -> Arch {
    #[cfg(target_arch = "x86_64")]
    if ONLY_AVX2.load(Ordering::Relaxed) {
        return pulp::x86::V3::try_new().map_or(Arch::Scalar, Arch::V3);
    }
    Arch::new()
}
