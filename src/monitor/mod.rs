//! Monitoring a stream of scores: conformal p-values, online control of the false discovery rate, an anytime-valid drift alarm.
//!
//! | file | holds |
//! |---|---|
//! | `stream` | a stream step by step: [`Monitor`] |
//! | `lond` | discoveries, with the false discovery rate controlled online |
//! | `ranks` | ranks among all earlier scores, for online p-values |
//! | `martingale` | the evidence against exchangeability |
//! | `state` | a stream in a file, and back |
//! | `line` | answers as JSON lines |
//! | `session` | lines and state on disk, which never contradict each other |
//! | `input` | lines of standard input, bounded |
//!
//! The two parts ask different p-values. A discovery is about one sample, against the calibration samples alone, p = (1 + #{calibration ≤
//! score}) / (n + 1); such p-values share a calibration set and depend on each other, which LOND allows. The alarm is about the stream: its
//! p-values are smoothed ranks among calibration and all earlier samples, which are independent and uniform while the stream is like the
//! calibration samples.

mod input;
mod line;
mod lond;
mod martingale;
mod ranks;
mod session;
mod state;
mod stream;

pub use input::{InputLine, LONGEST_LINE, next_line};
pub use line::{Answered, Failed};
pub use lond::{Lond, Tested};
pub use martingale::Martingale;
pub use ranks::{Place, Ranks};
pub use session::{Lines, Session};
pub use state::{Given, Output, State};
pub use stream::{Counts, Monitor, Observed, Settings};
