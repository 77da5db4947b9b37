//! `residua completions SHELL`: the flags and named values by `clap_complete`, and around them what it cannot complete: data by name
//! (`folder:PATH`), lists, and values with a name or a level before them.

use std::fmt::Write;

use clap_complete::Shell;

use crate::backend::cuda::Exclusions;
use crate::bench::model::Card;
use crate::data;
use crate::error::Result;
use crate::files;
use crate::instructions::Instructions;
use crate::novelty::{Rule, Score};
use crate::ood::Method;
use crate::plan::Fusions;

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua completions bash > ~/.local/share/bash-completion/completions/residua
      For bash, from the next shell on
  residua completions zsh > ~/.zfunc/_residua
      For zsh, with ~/.zfunc in fpath
  residua completions fish > ~/.config/fish/completions/residua.fish
      For fish";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// The shell to complete for
    shell: Shell,
}

/// The functions that the scripts call, by shell.
const BASH: &str = include_str!("completions/residua.bash");
const ZSH: &str = include_str!("completions/residua.zsh");
const FISH: &str = include_str!("completions/residua.fish");

/// What stands behind a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Values {
    /// Data by name: a scheme, a path, options.
    Data,
    /// A path, behind a name.
    Path,
    /// Words, in lists and behind a level.
    Words(Vec<String>),
}

/// A flag of a verb; nothing for what has no flag.
struct Completed {
    verb: String,
    flag: Option<String>,
    values: Values,
}

pub fn run(arguments: &Arguments, command: &mut clap::Command) -> Result<()> {
    // A script stays as it is, also on a terminal.
    files::print(&script(arguments.shell, command))
}

fn script(shell: Shell, command: &mut clap::Command) -> String {
    command.build();
    let mut generated = Vec::new();
    clap_complete::generate(shell, command, "residua", &mut generated);
    let generated = String::from_utf8_lossy(&generated).into_owned();
    let completed = completed(command);
    match shell {
        Shell::Bash => bash(&generated, &completed),
        Shell::Zsh => zsh(&generated, &completed),
        Shell::Fish => fish(generated, &completed),
        _ => generated,
    }
}

/// Every flag whose values the shell's own script does not know.
fn completed(command: &clap::Command) -> Vec<Completed> {
    let mut found = Vec::new();
    for verb in command.get_subcommands() {
        let actions = verb.get_subcommands().flat_map(clap::Command::get_arguments);
        for arg in verb.get_arguments().chain(actions) {
            let flag = arg.get_long().map(|long| format!("--{long}"));
            let Some(values) = values(arg) else { continue };
            let verb = verb.get_name().to_string();
            if !found.iter().any(|other: &Completed| other.verb == verb && other.flag == flag) {
                found.push(Completed { verb, flag, values });
            }
        }
    }
    found
}

fn values(arg: &clap::Arg) -> Option<Values> {
    let named =
        |name: &str| arg.get_value_names().is_some_and(|names| names.iter().any(|n| n.contains(name)));
    let words = |words: &[&str]| Some(Values::Words(words.iter().map(ToString::to_string).collect()));
    match arg.get_id().as_str() {
        _ if named("DATA") => Some(Values::Data),
        _ if named("=CACHE") => Some(Values::Path),
        "device" => words(&["auto", "cpu", "cuda", "cuda:", "emulator"]),
        "instructions" => Some(Values::Words(Instructions::ALL.map(|set| set.to_string()).to_vec())),
        "methods" => Some(Values::Words(
            Method::ALL.iter().map(ToString::to_string).chain(["all".into(), "cheap".into()]).collect(),
        )),
        "score" => Some(Values::Words(Score::names())),
        "rule" => Some(Values::Words(
            Rule::DEFAULTS.iter().map(ToString::to_string).chain(["tau:".into()]).collect(),
        )),
        "normalize" => Some(Values::Words(data::Normalize::presets().map(String::from).to_vec())),
        "fuse" => {
            Some(Values::Words(["all", "none"].into_iter().chain(Fusions::NAMES).map(String::from).collect()))
        }
        "exclude" => Some(Values::Words(Exclusions::groups().map(String::from).collect())),
        "card" => Some(Values::Words(Card::names().map(String::from).collect())),
        "vim_dim" => words(&["paper"]),
        "neco_dim" => words(&["rule"]),
        "arch" if named("sm_") => words(&["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"]),
        _ => None,
    }
}

/// Lines of a shell's `case`: the pattern of verb and flag, the function that completes, its words.
fn cases(completed: &[Completed], indent: &str) -> String {
    let mut text = String::new();
    for Completed { verb, flag, values } in completed {
        let Some(flag) = flag else { continue };
        let call = match values {
            Values::Data => "_residua_data".to_string(),
            Values::Path => "_residua_path".to_string(),
            Values::Words(words) => format!("_residua_words {}", words.join(" ")),
        };
        let _ = writeln!(text, "{indent}'{verb} {flag}') {call}; return ;;");
    }
    text
}

fn schemes() -> String {
    data::SCHEMES.map(|scheme| format!("{scheme}:")).join(" ")
}

fn filled(template: &str, completed: &[Completed]) -> String {
    template.replace("@CASES@\n", &cases(completed, "        ")).replace("@SCHEMES@", &schemes())
}

/// The generated function completes what ours does not.
fn bash(generated: &str, completed: &[Completed]) -> String {
    let own = generated.replace("complete -F _residua ", "complete -F _residua_all ");
    let (functions, registered) =
        own.split_once("\nif [[ \"${BASH_VERSINFO[0]}\" -eq 4").unwrap_or((&own, ""));
    format!("{functions}\n{}\nif [[ \"${{BASH_VERSINFO[0]}}\" -eq 4{registered}", filled(BASH, completed))
}

fn zsh(generated: &str, completed: &[Completed]) -> String {
    let own = generated.replacen("\n_residua() {", "\n_residua_flags() {", 1);
    let (functions, tail) = own.split_once("\nif [ \"$funcstack[1]\"").unwrap_or((&own, ""));
    format!("{functions}\n{}\nif [ \"$funcstack[1]\"{tail}", filled(ZSH, completed))
}

fn fish(mut generated: String, completed: &[Completed]) -> String {
    generated += &FISH.replace("@SCHEMES@", &schemes());
    for Completed { verb, flag, values } in completed {
        let call = match values {
            Values::Data => "__residua_data".to_string(),
            Values::Path => "__residua_path".to_string(),
            Values::Words(words) => format!("__residua_words {}", words.join(" ")),
        };
        let flag = flag.as_ref().map_or("-f".to_string(), |flag| format!("-l {} -x", &flag[2..]));
        let condition = format!("__fish_residua_using_subcommand {verb}");
        let _ = writeln!(generated, "complete -c residua -n \"{condition}\" {flag} -a \"({call})\"");
    }
    generated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_our_functions_where_they_are_called() {
        for (shell, texts) in [
            (
                Shell::Bash,
                &["complete -F _residua_all", "'train --data') _residua_data", "_residua_words msp "][..],
            ),
            (Shell::Zsh, &["\n_residua_flags() {", "\n_residua() {", "'calibrate --seen') _residua_data"]),
            (Shell::Fish, &["subcommand train\" -l data -x -a \"(__residua_data)\"", "subcommand data\" -f"]),
        ] {
            let script = script(shell, &mut super::super::command());
            for text in texts {
                assert!(script.contains(text), "{shell}: {text}");
            }
            assert!(!script.contains('@') || !script.contains("@CASES@"), "{shell}");
        }
    }
}
