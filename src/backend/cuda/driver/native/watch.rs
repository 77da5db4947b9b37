//! Waiting for the GPU with a deadline, and the launches that a wait waits for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Seconds that any wait may take, whatever is queued.
const BASE_SECONDS: f64 = 60.0;
/// Seconds that a wait may take for each second that the queued work is predicted to take.
const PATIENCE: f64 = 100.0;
/// Launches and graphs that are remembered; of more, the newest.
const MOST_REMEMBERED: usize = 4096;
/// Names that a message tells from either end.
const MOST_TOLD: usize = 8;

/// The names of launches that are queued at once: of one, or of all in a captured graph.
pub type Names = Arc<[Arc<str>]>;

/// A place in the queue of work: behind so many launches and graphs, which are predicted to take so many seconds from the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Place {
    launches: u64,
    seconds: f64,
}

/// The launches in a stream, by name, as far as they are not known to have finished.
#[derive(Debug, Default)]
pub struct Watch {
    /// The seconds a wait may take where a user says so.
    timeout: Option<Duration>,
    names: VecDeque<Names>,
    queued: Place,
    finished: Place,
}

impl Watch {
    /// With a deadline of the user's.
    pub fn new(timeout: Option<Duration>) -> Watch {
        Watch { timeout, ..Watch::default() }
    }

    /// A launch, or a graph of them, was queued.
    pub fn launched(&mut self, names: Names) {
        if self.names.len() == MOST_REMEMBERED {
            self.names.pop_front();
        }
        self.names.push_back(names);
        self.queued.launches += 1;
    }

    /// Work that is predicted to take so long was queued.
    pub fn expect(&mut self, seconds: f64) {
        self.queued.seconds += seconds;
    }

    /// The end of the queue.
    pub fn place(&self) -> Place {
        self.queued
    }

    /// Everything up to a place is known to have finished.
    pub fn finished(&mut self, place: Place) {
        if place.launches >= self.finished.launches {
            self.finished = place;
            let left = (self.queued.launches - place.launches) as usize;
            while self.names.len() > left {
                self.names.pop_front();
            }
        }
    }

    /// How long a wait for a place may take.
    pub fn patience(&self, place: Place) -> Duration {
        let predicted = (place.seconds - self.finished.seconds).max(0.0);
        self.timeout.unwrap_or_else(|| Duration::from_secs_f64(BASE_SECONDS + PATIENCE * predicted))
    }

    /// The error of a wait for a place that took too long.
    pub fn too_late(&self, place: Place, waited: Duration) -> Error {
        let behind = (self.queued.launches - place.launches) as usize;
        let awaited = self.names.len().saturating_sub(behind);
        let names: Vec<&str> =
            self.names.iter().take(awaited).flat_map(|names| names.iter()).map(|name| &**name).collect();
        let told = if names.len() <= 2 * MOST_TOLD {
            names.join(", ")
        } else {
            let (first, last) = (&names[..MOST_TOLD], &names[names.len() - MOST_TOLD..]);
            format!("{}, … {} more …, {}", first.join(", "), names.len() - 2 * MOST_TOLD, last.join(", "))
        };
        Error::DeviceHangs(format!(
            "the GPU has not finished within {:.0} s what it was given; queued since the last launch that is known to have finished: \
             {}. One of these hangs, most likely the first. `residua doctor --full` finds out which, --exclude leaves a kernel \
             out, --launches serial does without programmatic dependent launches, and --device-timeout allows more time",
            waited.as_secs_f64(),
            if told.is_empty() { "no launch, only copies" } else { &told }
        ))
    }
}

/// Polls until something is done: without a pause at first, then with pauses that are short against the time waited. `Ok(false)`:
/// not within the patience.
pub fn poll(patience: Duration, mut is_done: impl FnMut() -> Result<bool>) -> Result<bool> {
    const SPIN: Duration = Duration::from_micros(100);
    const LONGEST_PAUSE: Duration = Duration::from_millis(1);
    let started = Instant::now();
    loop {
        if is_done()? {
            return Ok(true);
        }
        let waited = started.elapsed();
        if waited > patience {
            return Ok(false);
        }
        if waited < SPIN {
            std::hint::spin_loop();
        } else {
            std::thread::sleep((waited / 20).min(LONGEST_PAUSE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str) -> Names {
        [Arc::from(name)].into()
    }

    fn watch(launches: usize) -> Watch {
        let mut watch = Watch::default();
        (0..launches).for_each(|index| watch.launched(one(&format!("kernel_{index}"))));
        watch
    }

    #[test]
    fn a_wait_that_is_too_long_names_the_launches_it_waited_for_and_no_others() {
        let mut watch = watch(2);
        let before = watch.place();
        watch.launched(one("kernel_2"));
        watch.launched(one("kernel_3"));
        let middle = watch.place();
        watch.launched(one("kernel_4"));
        watch.finished(before);
        let text = watch.too_late(middle, Duration::from_secs(7)).to_string();
        assert!(text.contains("finished: kernel_2, kernel_3. One") && text.contains("within 7 s"), "{text}");
        // An older moment that is looked at later changes nothing.
        watch.finished(middle);
        watch.finished(before);
        let text = watch.too_late(watch.place(), Duration::ZERO).to_string();
        assert!(text.contains("finished: kernel_4. One"), "{text}");
        watch.finished(watch.place());
        assert!(watch.too_late(watch.place(), Duration::ZERO).to_string().contains("only copies"));
    }

    #[test]
    fn of_many_launches_the_first_and_the_last_are_named() {
        let watch = watch(2 * MOST_REMEMBERED);
        let text = watch.too_late(watch.place(), Duration::ZERO).to_string();
        let first = format!("finished: kernel_{MOST_REMEMBERED}, ");
        assert!(
            text.contains(&first) && text.contains("4080 more") && text.contains("kernel_8191. One"),
            "{text}"
        );
    }

    #[test]
    fn patience_grows_with_the_work_that_is_waited_for_unless_it_is_given() {
        let mut watch = watch(1);
        watch.expect(2.0);
        let first = watch.place();
        watch.expect(3.0);
        assert_eq!(watch.patience(first).as_secs_f64(), BASE_SECONDS + 2.0 * PATIENCE);
        watch.finished(first);
        assert_eq!(watch.patience(watch.place()).as_secs_f64(), BASE_SECONDS + 3.0 * PATIENCE);
        let given = Watch::new(Some(Duration::from_secs(3)));
        assert_eq!(given.patience(given.place()), Duration::from_secs(3));
    }

    #[test]
    fn polling_ends_when_something_is_done_when_it_fails_and_when_patience_does() {
        let mut left = 3;
        let done = poll(Duration::from_secs(60), || {
            left -= 1;
            Ok(left == 0)
        });
        assert!(done.unwrap() && left == 0);
        assert!(!poll(Duration::ZERO, || Ok(false)).unwrap());
        assert!(poll(Duration::from_secs(60), || Err(Error::invalid("failed"))).is_err());
    }
}
