//! Numbers that a user gives: each with its range, which every message about it says.

use std::fmt;
use std::marker::PhantomData;

use clap::builder::TypedValueParser;

/// A range of real numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reals {
    least: f64,
    most: f64,
    /// Whether the ends themselves are outside.
    open: bool,
}

impl Reals {
    /// Any finite number.
    pub const FINITE: Reals = Reals { least: f64::NEG_INFINITY, most: f64::INFINITY, open: true };
    /// 0 and everything above.
    pub const NOT_NEGATIVE: Reals = Reals::between(0.0, f64::MAX);
    /// Everything above 0.
    pub const POSITIVE: Reals = Reals { least: 0.0, most: f64::INFINITY, open: true };
    /// A share that may be nothing and may be all.
    pub const SHARE: Reals = Reals::between(0.0, 1.0);
    /// A share that is neither.
    pub const INNER_SHARE: Reals = Reals { least: 0.0, most: 1.0, open: true };

    /// From one number to another, both included.
    pub const fn between(least: f64, most: f64) -> Reals {
        Reals { least, most, open: false }
    }

    /// Whether a number is in the range; what is not finite never is.
    pub fn contains(&self, value: f64) -> bool {
        let inside = if self.open {
            self.least < value && value < self.most
        } else {
            self.least <= value && value <= self.most
        };
        inside && value.is_finite()
    }

    /// Refuses a number outside the range.
    ///
    /// # Errors
    /// Says the range.
    pub fn check(&self, value: f64) -> Result<(), String> {
        if self.contains(value) { Ok(()) } else { Err(format!("expected {self}")) }
    }

    /// Reads a number.
    ///
    /// # Errors
    /// It is none, or outside the range; says the range.
    pub fn parse(&self, text: &str) -> Result<f64, String> {
        let value = text.trim().parse().map_err(|_| format!("expected {self}"))?;
        self.check(value).map(|()| value)
    }
}

impl fmt::Display for Reals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Reals { least, most, open } = self;
        match (least > f64::MIN, most < f64::MAX, open) {
            (false, false, _) => f.write_str("a finite number"),
            (true, false, true) => write!(f, "a number above {least}"),
            (true, false, false) => write!(f, "a number of at least {least}"),
            (false, true, true) => write!(f, "a number below {most}"),
            (false, true, false) => write!(f, "a number of at most {most}"),
            (true, true, true) => write!(f, "a number above {least} and below {most}"),
            (true, true, false) => write!(f, "a number from {least} to {most}"),
        }
    }
}

impl TypedValueParser for Reals {
    type Value = f64;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<f64, clap::Error> {
        let range = *self;
        (move |text: &str| range.parse(text)).parse_ref(command, arg, value)
    }
}

/// A range of whole numbers of a type.
#[derive(Debug, PartialEq)]
pub struct Wholes<T> {
    least: u64,
    most: u64,
    of: PhantomData<T>,
}

impl<T> Clone for Wholes<T> {
    fn clone(&self) -> Wholes<T> {
        Wholes { ..*self }
    }
}

impl<T> Wholes<T> {
    /// 0 and everything above.
    pub const ANY: Wholes<T> = Wholes::between(0, u64::MAX);
    /// 1 and everything above.
    pub const POSITIVE: Wholes<T> = Wholes::between(1, u64::MAX);

    /// From one number to another, both included.
    pub const fn between(least: u64, most: u64) -> Wholes<T> {
        Wholes { least, most, of: PhantomData }
    }
}

impl<T: TryFrom<u64>> Wholes<T> {
    /// Refuses a number outside the range.
    ///
    /// # Errors
    /// Says the range.
    pub fn check(&self, value: u64) -> Result<(), String> {
        let inside = (self.least..=self.most).contains(&value) && T::try_from(value).is_ok();
        if inside { Ok(()) } else { Err(format!("expected {self}")) }
    }

    /// Reads a number.
    ///
    /// # Errors
    /// It is none, or outside the range; says the range.
    pub fn parse(&self, text: &str) -> Result<T, String> {
        let refused = || format!("expected {self}");
        let value: u64 = text.trim().parse().map_err(|_| refused())?;
        self.check(value)?;
        T::try_from(value).map_err(|_| refused())
    }

    /// The largest number, where one was named or the type has one that a user may reach.
    fn limit(&self) -> Option<u64> {
        if self.most < u64::MAX {
            return Some(self.most);
        }
        T::try_from(u64::MAX).is_err().then(|| (1u64 << (8 * size_of::<T>())) - 1)
    }
}

impl<T: TryFrom<u64>> fmt::Display for Wholes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.least, self.limit()) {
            (0, None) => f.write_str("a whole number of at least 0"),
            (least, None) => write!(f, "a whole number of at least {least}"),
            (least, Some(most)) => write!(f, "a whole number from {least} to {most}"),
        }
    }
}

impl<T: TryFrom<u64> + Clone + Send + Sync + 'static> TypedValueParser for Wholes<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<T, clap::Error> {
        let range = self.clone();
        (move |text: &str| range.parse(text)).parse_ref(command, arg, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_says_itself_and_holds_its_ends() {
        for (range, text, inside, outside) in [
            (Reals::NOT_NEGATIVE, "a number of at least 0", "0", "-1e-300"),
            (Reals::POSITIVE, "a number above 0", "1e-300", "0"),
            (Reals::SHARE, "a number from 0 to 1", "1", "1.0001"),
            (Reals::INNER_SHARE, "a number above 0 and below 1", "0.5", "1"),
            (Reals::FINITE, "a finite number", "-3", "inf"),
            (Reals::between(1e-3, 1e3), "a number from 0.001 to 1000", "1e3", "NaN"),
        ] {
            assert_eq!(range.to_string(), text);
            assert!(range.parse(inside).is_ok(), "{inside} is {text}");
            for wrong in [outside, "abc", "", "inf"] {
                assert_eq!(range.parse(wrong), Err(format!("expected {text}")), "{wrong}");
            }
        }
        assert_eq!(Wholes::<u64>::POSITIVE.to_string(), "a whole number of at least 1");
        assert_eq!(Wholes::<u32>::ANY.to_string(), "a whole number from 0 to 4294967295");
        assert_eq!(
            Wholes::<u32>::between(1, 8192).parse("8193").unwrap_err(),
            "expected a whole number from 1 to 8192"
        );
        assert_eq!(Wholes::<u32>::ANY.parse("4294967295"), Ok(u32::MAX));
        for wrong in ["4294967296", "-1", "1.5", "x"] {
            assert!(Wholes::<u32>::ANY.parse(wrong).is_err(), "{wrong}");
        }
    }
}
