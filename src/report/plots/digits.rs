//! Numbers for people: as many significant digits as tell them apart, no more.

/// Digits of a number that stands alone, and of each of several where that is enough.
const FEWEST: usize = 4;
/// What an f64 can hold.
const MOST: usize = 17;

/// A number in so many significant digits, in plain notation where that is short.
pub fn significant(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return value.to_string().replace('-', "−");
    }
    let digits = digits.clamp(1, MOST);
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

/// Each number in four significant digits, or in as many more as set it apart from the others. Numbers that differ by
/// rounding only (less than 1e-13 of their size) count as the same.
pub fn told_apart(values: &[f64]) -> Vec<String> {
    let same = |a: f64, b: f64| a == b || (a - b).abs() <= 1e-13 * a.abs().max(b.abs());
    let text = |value: &f64| {
        let alone = |digits: usize| {
            let own = significant(*value, digits);
            !values.iter().any(|other| !same(*value, *other) && significant(*other, digits) == own)
        };
        significant(*value, (FEWEST..MOST).find(|digits| alone(*digits)).unwrap_or(MOST))
    };
    values.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_tell_them_apart_and_no_more() {
        let values = [0.999_412_345, 0.999_031, 0.999_03, 0.25, 0.25 + 1e-16, -3.0, 12_345.678, 1.0];
        let expected = ["0.9994", "0.999031", "0.999030", "0.2500", "0.2500", "−3.000", "12346", "1.000"];
        assert_eq!(told_apart(&values), expected);
        assert_eq!(told_apart(&[1.0, 1.0 - 1e-9]), ["1.00000000", "0.999999999"]);
    }

    #[test]
    fn every_number_has_a_text() {
        let wild =
            [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -2.5e-320, 9.9999e-5, 99_999.6];
        let texts: Vec<String> = wild.iter().map(|value| significant(*value, 4)).collect();
        assert_eq!(texts[4..8], ["−inf", "1.000e300", "−2.500e−320", "0.0001000"]);
        assert_eq!(told_apart(&wild).len(), wild.len());
    }
}
