//! A score with the constants it was asked for with, as `knn:k=10`; lists of them, and sweeps, as `knn:k=10|50|200`.

use std::fmt;
use std::str::FromStr;

use super::method::Method;
use super::options::Options;
use super::parameters::{Parameter, Parameters, Value};
use crate::error::{Error, Result};
use crate::values::{did_you_mean, serde_as_text};

/// The most constants that a score has.
pub(super) const MOST_PARAMETERS: usize = 4;
/// The most scores of one list: sweeps multiply.
const MOST_SCORES: usize = 1000;

/// A score, and the constants that were given with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreSpec {
    method: Method,
    /// In the order in which the score's family declares them.
    given: [Option<Value>; MOST_PARAMETERS],
}

impl From<Method> for ScoreSpec {
    fn from(method: Method) -> ScoreSpec {
        ScoreSpec { method, given: [None; MOST_PARAMETERS] }
    }
}

impl ScoreSpec {
    /// The score.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The same with another constant.
    ///
    /// # Errors
    /// The score has no such constant, or not with this value.
    pub fn with(mut self, name: &str, value: &str) -> Result<ScoreSpec> {
        let (index, parameter) = parameter(self.method, name)?;
        let parsed = parameter.range.parse(value);
        self.given[index] =
            Some(parsed.map_err(|what| {
                Error::usage(format!("{}:{}={value}: {what}", self.method, parameter.name))
            })?);
        Ok(self)
    }

    /// All its constants.
    pub(super) fn parameters(&self, options: &Options) -> Parameters {
        Parameters::new(self.method.about(), &self.given, options)
    }

    /// A comma-separated list: names, with constants behind `:` and alternatives of these behind `|`; `all`; `cheap`.
    /// Repetitions count once.
    ///
    /// # Errors
    /// An unknown name, constant or value; the message lists the known ones. More than a thousand scores.
    pub fn parse_list(text: &str) -> Result<Vec<ScoreSpec>> {
        let mut specs: Vec<ScoreSpec> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let own = match part {
                "all" => Method::ALL.iter().map(|method| ScoreSpec::from(*method)).collect(),
                "cheap" => {
                    let cheap = Method::ALL.iter().filter(|method| method.is_cheap());
                    cheap.map(|method| ScoreSpec::from(*method)).collect()
                }
                _ => sweep(part)?,
            };
            for spec in own {
                if !specs.contains(&spec) {
                    specs.push(spec);
                }
            }
            if specs.len() > MOST_SCORES {
                return Err(Error::usage(format!(
                    "more than {MOST_SCORES} scores; sweeps (`|`) multiply, so ask for fewer alternatives"
                )));
            }
        }
        Ok(specs)
    }
}

/// The scores of `knn:k=10|50` or `gen:gamma=0.1|0.5:m=10`: every combination of the alternatives.
fn sweep(text: &str) -> Result<Vec<ScoreSpec>> {
    let mut parts = text.split(':');
    let method: Method = parts.next().unwrap_or_default().parse()?;
    let mut specs = vec![ScoreSpec::from(method)];
    for part in parts {
        let (name, values) = part.split_once('=').ok_or_else(|| {
            Error::usage(format!("`{text}`: write a constant as NAME=VALUE, as in knn:k=10, not `{part}`"))
        })?;
        let mut wider = Vec::new();
        for value in values.split('|') {
            for spec in &specs {
                wider.push(spec.with(name.trim(), value.trim())?);
            }
            if wider.len() > MOST_SCORES {
                return Err(Error::usage(format!(
                    "`{text}`: more than {MOST_SCORES} scores; ask for fewer alternatives"
                )));
            }
        }
        specs = wider;
    }
    Ok(specs)
}

fn parameter(method: Method, name: &str) -> Result<(usize, &'static Parameter)> {
    let declared = method.about().parameters;
    let found = declared.iter().enumerate().find(|(_, parameter)| parameter.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = declared.iter().map(|parameter| parameter.name).collect();
        let has = match names.is_empty() {
            true => "it has none".to_string(),
            false => format!("it has {}", names.join(", ")),
        };
        let meant = did_you_mean(name, names.iter().copied());
        Error::usage(format!("the score {method} has no constant `{name}`{meant}; {has}"))
    })
}

impl fmt::Display for ScoreSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.method.name())?;
        for (parameter, given) in self.method.about().parameters.iter().zip(&self.given) {
            if let Some(value) = given {
                write!(f, ":{}={value}", parameter.name)?;
            }
        }
        Ok(())
    }
}

impl FromStr for ScoreSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<ScoreSpec> {
        match sweep(text)?.as_slice() {
            [one] => Ok(*one),
            several => {
                Err(Error::usage(format!("`{text}` names {} scores; here is room for one", several.len())))
            }
        }
    }
}

serde_as_text!(ScoreSpec);

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<String> {
        ScoreSpec::parse_list(list).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_list_of_scores_has_constants_and_sweeps() {
        assert_eq!(names("msp, knn:k=10|50,msp"), ["msp", "knn:k=10", "knn:k=50"]);
        assert_eq!(
            names("gen:gamma=0.1|0.5:m=10|100"),
            ["gen:gamma=0.1:m=10", "gen:gamma=0.5:m=10", "gen:gamma=0.1:m=100", "gen:gamma=0.5:m=100"]
        );
        assert_eq!(names("all").len(), Method::ALL.len());
        let cheap = names("cheap");
        assert!(cheap.contains(&"ash_s".to_string()) && !cheap.contains(&"knn".to_string()));
        for name in cheap {
            assert_eq!(name.parse::<ScoreSpec>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn a_wrong_constant_is_refused_with_what_was_expected() {
        let says = |text: &str, part: &str| {
            let error = ScoreSpec::parse_list(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        };
        says("knn:kk=10", "it has k");
        says("knn:k=0", "expected");
        says("knn:10", "NAME=VALUE");
        says("vim:origin=x", "expected u or mean");
        says("mls:k=3", "it has none");
        says("", "no score is named");
        let many = (1..200).map(|k| k.to_string()).collect::<Vec<String>>().join("|");
        says(&format!("gen:gamma={many}:m={many}"), "fewer alternatives");
        assert!("knn:k=1|2".parse::<ScoreSpec>().is_err());
    }
}
