//! Comparing what a bundle holds with what was computed anew.

use serde::Serialize;
use serde_json::Value;

use crate::values::shown_apart;

/// Differences that are kept; of more, their number is.
const MOST_KEPT: usize = 1000;
/// Numbers in tables below this are compared as if they were this large.
const SMALLEST: f64 = 1e-6;

/// A place where a bundle differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Entry, key, sample.
    pub place: String,
    /// Content of the bundle.
    pub bundle: String,
    /// What belongs there.
    pub expected: String,
}

/// The largest difference of numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Largest {
    /// As a share of the size.
    pub share: f64,
    /// Entry, key, sample.
    pub place: String,
}

/// Counts comparisons and keeps what they found.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Comparisons.
    pub compared: u64,
    /// The largest difference of numbers, whether or not it holds.
    pub largest: Option<Largest>,
    /// The first differences that do not hold.
    pub differences: Vec<Difference>,
    /// All of them.
    pub count: u64,
}

impl Tally {
    /// Notes a difference.
    pub fn differs(&mut self, place: String, bundle: impl ToString, expected: impl ToString) {
        self.count += 1;
        if self.differences.len() < MOST_KEPT {
            let (bundle, expected) = (bundle.to_string(), expected.to_string());
            self.differences.push(Difference { place, bundle, expected });
        }
    }

    /// Two values that have to be equal.
    pub fn same<T: PartialEq + ToString>(&mut self, place: &str, bundle: &T, expected: &T) {
        self.compared += 1;
        if bundle != expected {
            self.differs(place.to_string(), bundle.to_string(), expected.to_string());
        }
    }

    /// Notes that numbers differ by a share of their size.
    fn note_share(&mut self, share: f64, place: impl Fn() -> String) {
        if self.largest.as_ref().is_none_or(|largest| share > largest.share) {
            self.largest = Some(Largest { share, place: place() });
        }
    }

    /// Two numbers, compared by the larger of both; `allowed` is a share.
    pub fn numbers(&mut self, place: &str, bundle: f64, expected: f64, allowed: f64) {
        self.compared += 1;
        let share = share(bundle, expected, bundle.abs().max(expected.abs()).max(SMALLEST));
        self.note_share(share, || place.to_string());
        if share > allowed {
            let [bundle, expected] = &shown_apart(&[bundle, expected])[..] else { return };
            self.differs(place.to_string(), bundle, expected);
        }
    }

    /// Two rows of numbers of one length, compared by the largest absolute value in the bundle's; the worst of them is named with its
    /// number behind `unit`.
    pub fn rows(&mut self, place: &str, unit: &str, (bundle, expected): (&[f64], &[f64]), allowed: f64) {
        if bundle.len() != expected.len() {
            return self.differs(place.to_string(), format!("{} numbers", bundle.len()), expected.len());
        }
        self.compared += bundle.len() as u64;
        let size = bundle.iter().map(|value| value.abs()).fold(0.0, f64::max);
        let shares = bundle.iter().zip(expected).map(|(a, b)| share(*a, *b, size));
        let (mut worst, mut many) = ((0, 0.0), 0u64);
        for (index, share) in shares.enumerate() {
            many += u64::from(share > allowed);
            if share > worst.1 {
                worst = (index, share);
            }
        }
        if bundle.is_empty() {
            return;
        }
        let place = || format!("{place} {unit} {}", worst.0);
        self.note_share(worst.1, place);
        if many > 0 {
            let [bundle, expected] = &shown_apart(&[bundle[worst.0], expected[worst.0]])[..] else { return };
            let more = if many > 1 { format!(" (the worst of {many})") } else { String::new() };
            self.differs(format!("{}{more}", place()), bundle, expected);
        }
    }

    /// Two values of JSON, number by number.
    pub fn json(&mut self, place: &str, bundle: &Value, expected: &Value, allowed: f64) {
        match (bundle, expected) {
            (Value::Object(own), Value::Object(other)) => {
                for (key, value) in own {
                    match other.get(key) {
                        Some(other) => self.json(&format!("{place} {key}"), value, other, allowed),
                        None => self.differs(format!("{place} {key}"), brief(value), "nothing"),
                    }
                }
                for (key, value) in other.iter().filter(|(key, _)| !own.contains_key(*key)) {
                    self.differs(format!("{place} {key}"), "nothing", brief(value));
                }
            }
            (Value::Array(own), Value::Array(other)) if own.len() == other.len() => {
                for (index, (own, other)) in own.iter().zip(other).enumerate() {
                    self.json(&format!("{place} {index}"), own, other, allowed);
                }
            }
            (Value::Number(own), Value::Number(other)) if own.is_f64() || other.is_f64() => {
                let number = |number: &serde_json::Number| number.as_f64().unwrap_or(f64::NAN);
                self.numbers(place, number(own), number(other), allowed);
            }
            _ => {
                self.compared += 1;
                if bundle != expected {
                    self.differs(place.to_string(), brief(bundle), brief(expected));
                }
            }
        }
    }
}

/// The difference as a share of a size; infinite where it cannot be one.
fn share(a: f64, b: f64, size: f64) -> f64 {
    let difference = (a - b).abs();
    if difference == 0.0 {
        return 0.0;
    }
    let share = difference / size;
    if share.is_finite() { share } else { f64::INFINITY }
}

/// A value of JSON in a message.
fn brief(value: &Value) -> String {
    const LONGEST: usize = 100;
    let text = match value {
        Value::Object(object) => format!("an object of {} keys", object.len()),
        Value::Array(array) => format!("a list of {}", array.len()),
        plain => plain.to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The first place where a value of JSON has what another one has not; what the other one has beside does not count.
pub(super) fn unlike(value: &Value, other: &Value) -> Option<String> {
    let below = |key: String, rest: String| if rest.is_empty() { key } else { format!("{key}.{rest}") };
    match (value, other) {
        (Value::Object(own), Value::Object(other)) => own.iter().find_map(|(key, value)| {
            let Some(other) = other.get(key) else { return Some(key.clone()) };
            unlike(value, other).map(|rest| below(key.clone(), rest))
        }),
        (Value::Array(own), Value::Array(other)) if own.len() == other.len() => {
            own.iter().zip(other).enumerate().find_map(|(index, (value, other))| {
                unlike(value, other).map(|rest| below(index.to_string(), rest))
            })
        }
        _ => (value != other).then(String::new),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ood::bundle::TOLERANCE;

    fn compared(bundle: &Value, expected: &Value) -> Tally {
        let mut tally = Tally::default();
        tally.json("metrics.json", bundle, expected, TOLERANCE);
        tally
    }

    #[test]
    fn shares_up_to_the_tolerance_hold_and_larger_ones_are_named() {
        let value = |auroc: f64| json!({"ood": {"a": {"msp": {"auroc": auroc, "n_id": 80}}}});
        let near = compared(&value(0.9), &value(0.9 * (1.0 + 0.9e-9)));
        assert!(near.count == 0 && near.compared == 2, "{near:?}");
        let largest = near.largest.unwrap();
        assert_eq!(largest.place, "metrics.json ood a msp auroc");
        assert!((largest.share - 0.9e-9).abs() < 1e-13, "{largest:?}");
        let far = compared(&value(0.9), &value(0.9 * (1.0 + 1.1e-9)));
        assert_eq!(far.differences[0].place, "metrics.json ood a msp auroc");
        assert_ne!(far.differences[0].bundle, far.differences[0].expected);
        // Fractions carry roundings of 1e-16, whatever remains of them.
        assert_eq!(compared(&json!(1e-16), &json!(0.0)).count, 0);
        assert_eq!(compared(&json!(1e-9), &json!(0.0)).count, 1);
    }

    #[test]
    fn counts_texts_and_keys_have_to_be_equal() {
        for (bundle, expected, place) in [
            (json!({"n": 80}), json!({"n": 81}), "metrics.json n"),
            (json!({"n": "a"}), json!({"n": "b"}), "metrics.json n"),
            (json!({"n": 80, "m": 1.0}), json!({"n": 80}), "metrics.json m"),
            (json!({}), json!({"m": 1.0}), "metrics.json m"),
            (json!([1.0]), json!([1.0, 2.0]), "metrics.json"),
            (json!({"n": null}), json!({"n": 0.5}), "metrics.json n"),
        ] {
            let tally = compared(&bundle, &expected);
            assert_eq!((tally.count, tally.differences[0].place.as_str()), (1, place), "{bundle} {expected}");
        }
    }

    #[test]
    fn rows_are_compared_by_their_largest_value_and_the_worst_sample_is_named() {
        let mut tally = Tally::default();
        tally.rows("scores/a.npz msp", "sample", (&[1000.0, 1.0], &[1000.0, 1.0 + 0.9e-6]), TOLERANCE);
        assert_eq!(tally.count, 0);
        tally.rows("scores/a.npz msp", "sample", (&[1000.0, 1.0, 2.0], &[1000.0, 1.1, 2.2]), TOLERANCE);
        assert_eq!(tally.differences[0].place, "scores/a.npz msp sample 2 (the worst of 2)");
        tally.rows("zero", "sample", (&[0.0], &[0.0]), TOLERANCE);
        assert_eq!(tally.count, 1);
        tally.rows("zero", "sample", (&[0.0], &[1e-300]), TOLERANCE);
        tally.rows("short", "sample", (&[0.0], &[]), TOLERANCE);
        assert_eq!(tally.count, 3);
    }
}
