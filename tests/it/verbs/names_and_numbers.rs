//! Promises about names and numbers that a user gives: one spelling for the command line, recipes and print; a wrong
//! number is answered with the range.

use residua::backend::Precision;
use residua::backend::cuda::driver::Launches;
use residua::checkpoint::LabelsBy;
use residua::collapse::GlobalMean;
use residua::data::Augment;
use residua::nn::{Depth, HeadKind, Shortcut, Stem};
use residua::novelty::{Hierarchy, ImageNames};
use residua::ood::{Method, ScoreSpec};
use residua::recipe::Approach;
use residua::train::{
    ClassWeights, FineTune, KlDetach, KlDirection, OptimizerKind, OutlierLoss, Sampler, ScheduleKind, Shuffle,
};
use residua::values::Named;

use crate::support::program;

/// Holds one list to its promise.
fn check<T>()
where
    T: Named + std::fmt::Display + std::str::FromStr + serde::Serialize + serde::de::DeserializeOwned,
    T: clap::builder::ValueParserFactory,
    T::Parser: clap::builder::TypedValueParser<Value = T>,
{
    use clap::builder::TypedValueParser;
    for (choice, name, _) in T::NAMES {
        assert_eq!(choice.to_string(), *name, "print");
        assert_eq!(serde_json::to_value(choice).unwrap(), *name, "files");
        for spelling in
            [name.to_string(), name.to_uppercase(), name.replace('-', "_"), name.replace('_', "-")]
        {
            assert_eq!(spelling.parse::<T>().ok(), Some(*choice), "{spelling}");
            let read: T = serde_json::from_value(spelling.clone().into()).unwrap();
            assert_eq!(read, *choice, "recipes: {spelling}");
            let parser = T::value_parser();
            let parsed = parser.parse_ref(&clap::Command::new("x"), None, spelling.as_ref()).unwrap();
            assert_eq!(parsed, *choice, "command line: {spelling}");
        }
    }
    let names: Vec<_> =
        T::value_parser().possible_values().unwrap().map(|v| v.get_name().to_string()).collect();
    assert_eq!(names, T::NAMES.iter().map(|(_, name, _)| *name).collect::<Vec<_>>(), "--help");
}

#[test]
fn every_name_has_one_spelling_on_the_command_line_in_recipes_and_in_print() {
    check::<OptimizerKind>();
    check::<ScheduleKind>();
    check::<Shuffle>();
    check::<Sampler>();
    check::<FineTune>();
    check::<ClassWeights>();
    check::<OutlierLoss>();
    check::<KlDirection>();
    check::<KlDetach>();
    check::<Augment>();
    check::<ImageNames>();
    check::<LabelsBy>();
    check::<Stem>();
    check::<Shortcut>();
    check::<Depth>();
    check::<HeadKind>();
    check::<Precision>();
    check::<GlobalMean>();
    check::<Hierarchy>();
    check::<Approach>();
    check::<Launches>();
    for &method in Method::ALL {
        assert_eq!(serde_json::to_value(ScoreSpec::from(method)).unwrap(), method.name());
        assert_eq!(method.name().to_uppercase().replace('_', "-").parse::<Method>().unwrap(), method);
    }
    assert_eq!("adam-w".parse::<OptimizerKind>().unwrap().to_string(), "adamw");
}

#[test]
fn a_wrong_name_is_answered_with_the_names_and_the_nearest() {
    for (flag, value, meant) in [
        ("--optimizer", "adamm", "'adam'"),
        ("--arch", "resnet19", "'resnet18'"),
        ("--schedule", "cosin", "'cosine'"),
        ("--augment", "crop-flop", "'crop-flip'"),
    ] {
        let (code, said) = program::said(&["train", "--data", "x", flag, value]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(&format!("a similar value exists: {meant}")), "{said}");
        assert!(said.contains("possible values: "), "{said}");
    }
}

/// Every flag with a number, of every verb.
fn numeric_flags(command: &clap::Command, verb: &[String], found: &mut Vec<(Vec<String>, String)>) {
    use clap::builder::ValueParser;
    let whole = |parser: &ValueParser| {
        let numeric = [
            ValueParser::from(clap::value_parser!(u64)).type_id(),
            ValueParser::from(clap::value_parser!(u32)).type_id(),
            ValueParser::from(clap::value_parser!(usize)).type_id(),
            ValueParser::from(clap::value_parser!(f64)).type_id(),
        ];
        numeric.contains(&parser.type_id())
    };
    for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
        if let (Some(long), true) = (arg.get_long(), whole(arg.get_value_parser())) {
            found.push((verb.to_vec(), format!("--{long}")));
        }
    }
    for sub in command.get_subcommands() {
        numeric_flags(sub, &[verb, &[sub.get_name().to_string()]].concat(), found);
    }
}

#[test]
fn every_flag_with_a_number_says_its_range_to_a_word_and_to_a_negative_number() {
    let command = residua::cli::command();
    let mut flags = Vec::new();
    numeric_flags(&command, &[], &mut flags);
    assert!(
        flags.len() > 45,
        "only {} flags found; is this test still looking at the command line?",
        flags.len()
    );
    for (verb, flag) in flags {
        for value in ["abc", "-1", "1.5.2"] {
            // A number that may be negative has no range to say.
            if value == "-1" && flag == "--energy-margins" {
                continue;
            }
            let arguments =
                [vec!["residua".to_string()], verb.clone(), vec![flag.clone(), value.to_string()]].concat();
            let error = command.clone().try_get_matches_from(&arguments).unwrap_err();
            let text = error.to_string();
            assert_eq!(error.kind(), clap::error::ErrorKind::ValueValidation, "{arguments:?}: {text}");
            let range = ["expected a number", "expected a whole number", "expected a finite number"];
            assert!(range.iter().any(|range| text.contains(range)), "{arguments:?}: {text}");
        }
    }
}
