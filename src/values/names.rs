//! Names that a user chooses from: one list for the command line, recipes, result files and messages.

use std::fmt;
use std::marker::PhantomData;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::nearest::{did_you_mean, nearest};
use crate::error::{Error, Result};

/// A choice by name; declared by the macro `named!` of this module.
pub trait Named: Copy + Eq + fmt::Debug + Send + Sync + 'static {
    /// The kind of thing that the names name: "optimizer".
    const WHAT: &'static str;
    /// Every choice, its name, and what it is.
    const NAMES: &'static [(Self, &'static str, &'static [&'static str])];

    /// The name, as it is written everywhere.
    fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(choice, ..)| *choice == self);
        found.map(|(_, name, _)| *name).expect("every variant is declared with its name")
    }

    /// The choice of a name. Capitals, hyphens and underscores make no difference: `AdamW`, `adam-w` and `adam_w` are
    /// `adamw`.
    fn find(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, name, _)| same_name(name, text)).map(|(choice, ..)| *choice)
    }

    /// As [`Named::find`].
    ///
    /// # Errors
    /// There is none; the message lists the names there are.
    fn named(text: &str) -> Result<Self> {
        Self::find(text).ok_or_else(|| {
            let names: Vec<&str> = Self::NAMES.iter().map(|(_, name, _)| *name).collect();
            Error::usage(format!(
                "no {} is called `{text}`{}; there are {}",
                Self::WHAT,
                did_you_mean(text, names.iter().copied()),
                listed(&names)
            ))
        })
    }
}

/// `a, b and c`.
fn listed(names: &[&str]) -> String {
    match names {
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        names => names.concat(),
    }
}

/// Whether two spellings are of one name.
pub fn same_name(a: &str, b: &str) -> bool {
    let plain = |name: &str| -> String {
        name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
    };
    plain(a) == plain(b)
}

/// Reads a name on the command line.
#[derive(Debug)]
pub struct NameParser<T>(PhantomData<T>);

impl<T> NameParser<T> {
    /// A parser.
    #[allow(clippy::new_without_default)]
    pub fn new() -> NameParser<T> {
        NameParser(PhantomData)
    }
}

impl<T> Clone for NameParser<T> {
    fn clone(&self) -> NameParser<T> {
        NameParser::new()
    }
}

impl<T: Named> TypedValueParser for NameParser<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> std::result::Result<T, clap::Error> {
        let text = value.to_string_lossy();
        T::find(&text).ok_or_else(|| {
            let mut error = clap::Error::new(ErrorKind::InvalidValue).with_cmd(command);
            let names = || T::NAMES.iter().map(|(_, name, _)| *name);
            let of_arg = arg.map_or_else(|| "...".to_string(), ToString::to_string);
            error.insert(ContextKind::InvalidArg, ContextValue::String(of_arg));
            error.insert(
                ContextKind::ValidValue,
                ContextValue::Strings(names().map(str::to_string).collect()),
            );
            if let Some(meant) = nearest(&text, names()) {
                error.insert(ContextKind::SuggestedValue, ContextValue::String(meant.to_string()));
            }
            error.insert(ContextKind::InvalidValue, ContextValue::String(text.into_owned()));
            error
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(T::NAMES.iter().map(|(_, name, lines)| {
            // The first paragraph of the documentation, without the full stop that `--help` does not write.
            let help = lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
            PossibleValue::new(*name).help(help.trim_end_matches('.').to_string())
        })))
    }
}

/// Declares an enum whose variants a user names, with the names: on the command line, in recipes and files, in print.
///
/// ```ignore
/// named! {
///     /// Which rule changes the parameters.
///     pub enum OptimizerKind: "optimizer" {
///         /// Adam with decoupled weight decay.
///         AdamW = "adamw",
///     }
///     default AdamW
/// }
/// ```
macro_rules! named {
    ($(#[$meta:meta])* $visibility:vis enum $enum:ident: $what:literal {
        $($(#[doc = $doc:literal])* $variant:ident = $name:literal),* $(,)?
    } $(default $default:ident)?) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $enum {
            $($(#[doc = $doc])* $variant,)*
        }

        $(impl Default for $enum {
            fn default() -> $enum {
                $enum::$default
            }
        })?

        impl $crate::values::Named for $enum {
            const WHAT: &'static str = $what;
            const NAMES: &'static [($enum, &'static str, &'static [&'static str])] =
                &[$(($enum::$variant, $name, &[$($doc),*])),*];
        }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($crate::values::Named::name(*self))
            }
        }

        impl std::str::FromStr for $enum {
            type Err = $crate::error::Error;

            fn from_str(text: &str) -> $crate::error::Result<$enum> {
                $crate::values::Named::named(text)
            }
        }

        $crate::values::serde_as_text!($enum);

        impl clap::builder::ValueParserFactory for $enum {
            type Parser = $crate::values::NameParser<$enum>;

            fn value_parser() -> Self::Parser {
                $crate::values::NameParser::new()
            }
        }
    };
}

pub(crate) use named;

#[cfg(test)]
mod tests {
    use super::*;

    named! {
        /// For the tests.
        enum Fruit: "fruit" {
            /// Red or green.
            Apple = "apple",
            /// Not an
            /// apple.
            PineApple = "pine-apple",
        }
    }

    #[test]
    fn a_name_is_found_whatever_its_capitals_and_hyphens_and_a_slip_is_answered() {
        for text in ["pine-apple", "PineApple", "pine_apple", "PINEAPPLE"] {
            assert_eq!(text.parse::<Fruit>().unwrap(), Fruit::PineApple);
        }
        let error = "aple".parse::<Fruit>().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert_eq!(
            error.to_string(),
            "no fruit is called `aple` (did you mean `apple`?); there are apple and pine-apple"
        );
        let values: Vec<_> = NameParser::<Fruit>::new().possible_values().unwrap().collect();
        assert_eq!(values[1].get_help().unwrap().to_string(), "Not an apple");
    }
}
