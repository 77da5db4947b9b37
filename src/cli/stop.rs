//! Signals that ask the program to end: Ctrl-C, and what `kill`, a closed terminal, `timeout` and Slurm send.
//!
//! Work that goes step by step ends at the next step and keeps what it has; a second signal ends the process at once. Other
//! work ends at once at the first. Temporary files are removed either way. A signal that was ignored when the process began
//! (`nohup`, a background job of a shell) stays ignored.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::output::tell;
use crate::error::{Error, Result};
use crate::files;

static STOP: AtomicBool = AtomicBool::new(false);
/// Whether work looks at [`STOP`].
static STEPWISE: AtomicBool = AtomicBool::new(false);

/// Signals that come together are one: a service manager sends SIGTERM and SIGHUP, a terminal's group and its parent both
/// deliver Ctrl-C.
const ONE_REQUEST: Duration = Duration::from_millis(200);

/// From now on the first signal sets a flag, which the caller looks at after every step.
pub fn listen() -> &'static AtomicBool {
    STEPWISE.store(true, Ordering::SeqCst);
    &STOP
}

/// Whether the work that looks at the flag of [`listen`] was asked to stop.
pub fn is_asked() -> bool {
    STOP.load(Ordering::SeqCst)
}

/// Reaction to signals.
#[derive(Default)]
struct Handler {
    first: Option<Instant>,
}

impl Handler {
    /// Handles the signal of a number and name.
    fn signal(&mut self, number: i32, name: &str) {
        if self.first.is_some_and(|first| first.elapsed() < ONE_REQUEST) {
            return;
        }
        if STEPWISE.load(Ordering::SeqCst) && self.first.is_none() {
            self.first = Some(Instant::now());
            STOP.store(true, Ordering::SeqCst);
            tell(&format!("\n{name}: stopping at the next step; once more ends at once"));
            return;
        }
        files::remove_temporaries();
        end(number);
    }
}

/// Starts listening to signals. To be called once, before any work.
///
/// # Errors
/// The system refuses a thread.
#[cfg(unix)]
pub fn watch() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    let named = [
        (SIGINT, "Ctrl-C"),
        (SIGTERM, "SIGTERM"),
        (SIGHUP, "SIGHUP"),
        // Batch systems are often told to send it before the time is up.
        (SIGUSR1, "SIGUSR1"),
    ];
    let heeded: Vec<_> = named.into_iter().filter(|(number, _)| !is_ignored(*number)).collect();
    let refused = |e| Error::invalid(format!("cannot listen to signals: {e}"));
    let mut signals =
        signal_hook::iterator::Signals::new(heeded.iter().map(|(number, _)| number)).map_err(refused)?;
    let listening = std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut handler = Handler::default();
        for number in &mut signals {
            let name = heeded.iter().find(|(known, _)| *known == number).map_or("signal", |(_, name)| name);
            handler.signal(number, name);
        }
    });
    listening.map(drop).map_err(refused)
}

/// Whether the process was started with a signal ignored.
#[cfg(unix)]
fn is_ignored(number: i32) -> bool {
    // SAFETY: no handler is installed; the call only tells which one there is.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(number, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Ends the process as a shell reports one that a signal has ended.
#[cfg(unix)]
fn end(number: i32) -> ! {
    signal_hook::low_level::exit(128 + number)
}

/// Ends the process with nothing more done: the libraries of a GPU that hangs would wait for it.
pub fn leave(code: u8) -> ! {
    files::remove_temporaries();
    #[cfg(unix)]
    signal_hook::low_level::exit(code.into());
    #[cfg(not(unix))]
    std::process::exit(code.into());
}

/// Starts listening to Ctrl-C. To be called once, before any work.
///
/// # Errors
/// The system refuses a handler.
#[cfg(not(unix))]
pub fn watch() -> Result<()> {
    const SIGINT: i32 = 2;
    let mut handler = Handler::default();
    ctrlc::set_handler(move || handler.signal(SIGINT, "Ctrl-C"))
        .map_err(|e| Error::invalid(format!("cannot listen to signals: {e}")))
}

#[cfg(not(unix))]
fn end(number: i32) -> ! {
    std::process::exit(128 + number)
}
