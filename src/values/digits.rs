//! Numbers with as many digits as they mean, for people; files keep all of them.

/// Digits that a person reads as one number.
const ENOUGH: usize = 6;
/// Digits that tell two doubles apart.
const ALL: usize = 17;

/// A number with six digits that mean something; near one, where a probability saturates, so many that four of its distance from
/// one are among them.
pub fn shown(value: f64) -> String {
    with(value, ENOUGH)
}

/// Numbers as [`shown`], with more digits where two that differ would look the same.
pub fn shown_apart(values: &[f64]) -> Vec<String> {
    for digits in ENOUGH..ALL {
        let texts: Vec<String> = values.iter().map(|&value| with(value, digits)).collect();
        let mut pairs = values.iter().zip(&texts);
        let same = |(value, text): (&f64, &String)| {
            values.iter().zip(&texts).all(|(other, as_text)| other == value || as_text != text)
        };
        if pairs.all(same) {
            return texts;
        }
    }
    values.iter().map(|value| format!("{value:?}")).collect()
}

fn with(value: f64, digits: usize) -> String {
    if !value.is_finite() || value == 0.0 {
        return value.to_string();
    }
    let exponent = |value: f64| value.abs().log10().floor() as i32;
    let magnitude = exponent(value);
    if !(-5..15).contains(&magnitude) {
        return trimmed(&format!("{value:.*e}", digits - 1));
    }
    let mut decimals = digits as i32 - 1 - magnitude;
    let from_one = 1.0 - value;
    if from_one > 0.0 && from_one < 0.5 {
        decimals = decimals.max(digits as i32 - 3 - exponent(from_one));
    }
    trimmed(&format!("{value:.*}", decimals.clamp(0, 17) as usize))
}

/// Without zeros at the end of its fraction.
fn trimmed(text: &str) -> String {
    let (number, exponent) = text.split_once('e').map_or((text, None), |(number, e)| (number, Some(e)));
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    exponent.map_or_else(|| number.to_string(), |exponent| format!("{number}e{exponent}"))
}

/// A number in so many significant digits, in plain notation where that is short.
pub fn significant(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return value.to_string().replace('-', "−");
    }
    let digits = digits.clamp(1, ALL);
    let scientific = format!("{value:.*e}", digits - 1);
    // Rounding may carry into a further digit, so the exponent is that of the rounded number.
    let exponent: i32 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let text = if (-4..digits.max(6) as i32).contains(&exponent) {
        format!("{value:.*}", (digits as i32 - 1 - exponent).max(0) as usize)
    } else {
        scientific
    };
    text.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_six_digits_that_mean_something() {
        for (value, text) in [
            (0.512_345_678_912_345_6, "0.512346"),
            (12.345_678_9, "12.3457"),
            (-1_234_567.89, "-1234568"),
            (0.000_123_456_789, "0.000123457"),
            (1.25e-9, "1.25e-9"),
            (0.5, "0.5"),
            (3.0, "3"),
            (1.0, "1"),
            (0.0, "0"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(shown(value), text);
        }
    }

    #[test]
    fn a_probability_near_one_keeps_what_tells_it_from_one() {
        assert_eq!(shown(0.999_412_345_678_901_2), "0.9994123");
        assert_eq!(shown(0.999_999_876_543_21), "0.9999998765");
        assert_ne!(shown(0.9994), shown(0.9990));
    }

    #[test]
    fn thresholds_that_differ_look_different() {
        let near = 0.25;
        assert_eq!(shown_apart(&[near, near + 1e-9, near]), ["0.25", "0.250000001", "0.25"]);
        let next = f64::from_bits(near.to_bits() + 1);
        let texts = shown_apart(&[near, next, 0.999_999_876_543_21]);
        assert_ne!(texts[0], texts[1]);
    }

    #[test]
    fn significant_digits_carry_and_every_number_has_a_text() {
        let wild =
            [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -2.5e-320, 9.9999e-5, 99_999.6];
        let texts: Vec<String> = wild.iter().map(|value| significant(*value, 4)).collect();
        assert_eq!(texts[4..8], ["−inf", "1.000e300", "−2.500e−320", "0.0001000"]);
        assert_eq!(shown_apart(&wild).len(), wild.len());
    }
}
