//! Constants of scores: declared once, by the family of the score, with range, default and meaning.

use std::fmt;

use super::method::About;
use super::options::{Dimension, Options};
use crate::values::{Reals, Wholes, did_you_mean};

/// The value of a constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A number.
    Real(f64),
    /// A whole number.
    Whole(usize),
    /// One of some words.
    Word(&'static str),
    /// The dimension of a subspace.
    Dimension(Dimension),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Real(value) => write!(f, "{value}"),
            Value::Whole(value) => write!(f, "{value}"),
            Value::Word(word) => f.write_str(word),
            Value::Dimension(dimension) => write!(f, "{dimension}"),
        }
    }
}

/// Values that a constant may have.
#[derive(Debug)]
pub enum Range {
    /// Numbers.
    Real(Reals),
    /// Whole numbers.
    Whole(Wholes<usize>),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Dimensions of a subspace.
    Dimension,
}

impl Range {
    /// Reads a value.
    ///
    /// # Errors
    /// Says what was expected.
    pub(super) fn parse(&self, text: &str) -> Result<Value, String> {
        match self {
            Range::Real(range) => range.parse(text).map(Value::Real),
            Range::Whole(range) => range.parse(text).map(Value::Whole),
            Range::Dimension => text.parse().map(Value::Dimension).map_err(|error| format!("{error}")),
            Range::Word(words) => match words.iter().find(|word| **word == text) {
                Some(word) => Ok(Value::Word(word)),
                None => {
                    let meant = did_you_mean(text, words.iter().copied());
                    Err(format!("expected {}{meant}", words.join(" or ")))
                }
            },
        }
    }
}

/// A constant of a score.
#[derive(Debug)]
pub struct Parameter {
    /// Its name, as in `knn:k=10`.
    pub name: &'static str,
    /// Values it may have.
    pub range: Range,
    /// Its value where none is given.
    pub default: fn(&Options) -> Value,
    /// Values that tuning tries beside the default; none where the constant is left alone.
    pub grid: &'static [&'static str],
    /// What it does.
    pub meaning: &'static str,
}

/// The constants of a score, all with their values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parameters {
    names: Vec<&'static str>,
    values: Vec<Value>,
}

impl Parameters {
    /// The values that were given, and the defaults of the others.
    pub fn new(about: &'static About, given: &[Option<Value>], options: &Options) -> Parameters {
        let declared = about.parameters.iter().zip(given);
        Parameters {
            names: about.parameters.iter().map(|parameter| parameter.name).collect(),
            values: declared
                .map(|(parameter, given)| given.unwrap_or((parameter.default)(options)))
                .collect(),
        }
    }

    /// All of them by name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, Value)> {
        self.names.iter().copied().zip(self.values.iter().copied())
    }

    fn value(&self, name: &str) -> Value {
        let index = self.names.iter().position(|own| *own == name);
        self.values[index.unwrap_or_else(|| panic!("the score has no constant `{name}`"))]
    }

    /// A number.
    pub fn real(&self, name: &str) -> f64 {
        match self.value(name) {
            Value::Real(value) => value,
            other => panic!("`{name}` is {other}, no real number"),
        }
    }

    /// A whole number.
    pub fn whole(&self, name: &str) -> usize {
        match self.value(name) {
            Value::Whole(value) => value,
            other => panic!("`{name}` is {other}, no whole number"),
        }
    }

    /// A word.
    pub fn word(&self, name: &str) -> &'static str {
        match self.value(name) {
            Value::Word(word) => word,
            other => panic!("`{name}` is {other}, no word"),
        }
    }

    /// A dimension.
    pub fn dimension(&self, name: &str) -> Dimension {
        match self.value(name) {
            Value::Dimension(dimension) => dimension,
            other => panic!("`{name}` is {other}, no dimension"),
        }
    }
}
