//! Ctrl-C: the first asks work to stop at the next step, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// Starts listening; the flag becomes true at the first Ctrl-C.
pub fn listen() -> &'static AtomicBool {
    // A second call in one process finds the handler in place, which is what is wanted.
    let _ = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::SeqCst) {
            // 130: the shell's convention for a process ended by SIGINT.
            std::process::exit(130);
        }
        eprintln!("\nstopping at the next step; Ctrl-C again ends at once");
    });
    &STOP
}
