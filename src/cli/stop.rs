//! Signals that ask the program to end: Ctrl-C, and what `kill`, a closed terminal, `timeout` and Slurm send.
//!
//! Work that goes step by step ends at the next step and keeps what it has; a second signal ends the process at once. Other
//! work ends at once at the first. Temporary files are removed either way. A signal that was ignored when the process began
//! (`nohup`, a background job of a shell) stays ignored.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use super::output::{in_shell, tell};
use crate::error::{Error, Result};
use crate::files;

static STOP: AtomicBool = AtomicBool::new(false);
/// The number of the signal that asked.
static SIGNAL: AtomicI32 = AtomicI32::new(INTERRUPT);
/// Whether work looks at [`STOP`].
static STEPWISE: AtomicBool = AtomicBool::new(false);

/// SIGINT, which Ctrl-C sends.
const INTERRUPT: i32 = 2;
/// How long a last word may take: nobody may be reading.
const LAST_WORD: Duration = Duration::from_millis(200);

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

/// The exit code of work that was stopped, as a shell reports a process that a signal has ended: 130 after Ctrl-C.
pub fn exit_code() -> u8 {
    u8::try_from(128 + SIGNAL.load(Ordering::SeqCst)).unwrap_or(1)
}

/// The command line of this process, to be given once more.
pub fn same_command() -> String {
    let words = std::env::args_os().skip(1).map(|word| in_shell(Path::new(&word)));
    std::iter::once("residua".to_string()).chain(words).collect::<Vec<_>>().join(" ")
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
            SIGNAL.store(number, Ordering::SeqCst);
            STOP.store(true, Ordering::SeqCst);
            tell(&format!("\n{name}: stopping at the next step; once more ends at once"));
            return;
        }
        files::remove_temporaries();
        last_word(format!(
            "\n{name}: ended at once; files are written whole or not at all, and those that were written stay"
        ));
        end(number);
    }
}

/// Says something, unless nobody reads it.
fn last_word(text: String) {
    let (done, wait) = std::sync::mpsc::channel();
    let telling = std::thread::Builder::new().spawn(move || {
        tell(&text);
        let _ = done.send(());
    });
    if telling.is_ok() {
        let _ = wait.recv_timeout(LAST_WORD);
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
    let mut handler = Handler::default();
    ctrlc::set_handler(move || handler.signal(INTERRUPT, "Ctrl-C"))
        .map_err(|e| Error::invalid(format!("cannot listen to signals: {e}")))
}

#[cfg(not(unix))]
fn end(number: i32) -> ! {
    std::process::exit(128 + number)
}
