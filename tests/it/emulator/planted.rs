//! A correct kernel, and the same with one mistake planted: refused, or exposed by its results.

use residua::Result;
use residua::backend::cuda::driver::emulator::{Copies, Order};

use crate::emulator::MODES;

/// A kernel's text, and what it is to compute.
pub struct Planted {
    pub text: &'static str,
    /// Runs a text in one mode.
    pub run: fn((Order, Copies), &str) -> Result<Vec<f32>>,
    /// Result of the text without a mistake.
    pub expected: fn() -> Vec<f32>,
}

impl Planted {
    /// The text with the first of these exchanged for the second.
    #[track_caller]
    pub fn with(&self, old: &str, new: &str) -> String {
        assert_eq!(self.text.matches(old).count(), 1, "`{old}` stands once in the text");
        self.text.replace(old, new)
    }

    /// A text that is refused in every mode, with a message that holds all of `parts`.
    #[track_caller]
    pub fn refused(&self, text: &str, parts: &[&str]) {
        for mode in MODES {
            let error = (self.run)(mode, text).expect_err("the mistake is found").to_string();
            for part in parts {
                assert!(error.contains(part), "{mode:?}: `{part}` is missing in: {error}");
            }
        }
    }

    /// A text that is refused in at least one mode, with a message that holds all of `parts`.
    #[track_caller]
    pub fn refused_somewhere(&self, text: &str, parts: &[&str]) {
        let results = MODES.map(|mode| (self.run)(mode, text).map(|_| ()).map_err(|error| error.to_string()));
        let found = |result: &Result<(), String>| {
            result.as_ref().is_err_and(|error| parts.iter().all(|part| error.contains(part)))
        };
        assert!(results.iter().any(found), "{parts:?} are missing in: {results:?}");
    }

    /// A text whose results are wrong in at least one mode of these copies, or that is refused there.
    #[track_caller]
    pub fn exposed_by(&self, copies: Copies, text: &str) {
        let right = (self.expected)();
        let wrong = |mode: &(Order, Copies)| (self.run)(*mode, text).map_or(true, |result| result != right);
        assert!(MODES.iter().filter(|mode| mode.1 == copies).any(wrong), "{copies:?} shows nothing");
    }
}
