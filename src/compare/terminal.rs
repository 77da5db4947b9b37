//! The comparison in plain text: a block a run, readable from 60 columns on. FPR95 with ID positive is in the files and on the page.

use std::fmt::Write;

use super::rows::{Covers, Difference, Metric, Row, Section};
use super::{Comparison, RecipeKey};
use crate::text_table::{Column, TextTable, wrap};

/// Samples listed in a terminal; the page and the JSON have more.
const FEW_SAMPLES: usize = 8;
/// Fewest columns that text is laid out for.
const NARROWEST: usize = 60;
/// Longest name at the head of a line or of a recipe's column.
const LONGEST_NAME: usize = 24;
/// Columns that a line needs beside the names of two runs at the head of their numbers, which share the others.
const BESIDE_HEADINGS: usize = 64;
/// Shortest that such a name is cut to.
const SHORTEST_HEADING: usize = 8;

/// The whole text.
pub(super) fn text(comparison: &Comparison, columns: usize) -> String {
    let columns = columns.max(NARROWEST);
    let mut out = String::new();
    legend(comparison, columns, &mut out);
    recipe(comparison, columns, &mut out);
    for (run, _) in comparison.others() {
        differences(comparison, run, columns, &mut out);
        disagreement(comparison, run, columns, &mut out);
    }
    let notes: Vec<&String> = comparison.notes.iter().collect();
    if !notes.is_empty() {
        out.push('\n');
    }
    notes.into_iter().for_each(|note| wrapped(&format!("note: {note}"), columns, &mut out));
    out
}

fn legend(comparison: &Comparison, columns: usize, out: &mut String) {
    for (index, run) in comparison.runs.iter().enumerate() {
        let role = if index == 0 { "baseline" } else { "run" };
        let title = run.title.as_ref().map_or(String::new(), |title| format!(", \"{title}\""));
        let seeds: Vec<String> = run.seeds.iter().map(u64::to_string).collect();
        let seeds = if seeds.is_empty() { String::new() } else { format!(", seeds {}", seeds.join(", ")) };
        wrapped(&format!("{role}: {}{title}{seeds}", run.name), columns, out);
    }
}

fn recipe(comparison: &Comparison, columns: usize, out: &mut String) {
    let Some(keys) = &comparison.recipe else { return };
    if keys.is_empty() {
        out.push_str("\nrecipes: equal\n");
        return;
    }
    let mut lines: Vec<Vec<String>> = vec![vec!["recipe".to_string()]];
    lines[0].extend(comparison.runs.iter().map(|run| cut(&run.name, LONGEST_NAME)));
    lines.extend(keys.iter().map(recipe_line));
    out.push('\n');
    table(&lines, &vec![false; comparison.runs.len() + 1], columns, out);
}

fn recipe_line(key: &RecipeKey) -> Vec<String> {
    let value = |value: &Option<String>| value.as_deref().map_or("–".to_string(), |value| cut(value, 40));
    std::iter::once(key.key.clone()).chain(key.values.iter().map(value)).collect()
}

/// The differences of one run: a block for the test set, for each OOD set, for the training's end and for collapse.
fn differences(comparison: &Comparison, run: usize, columns: usize, out: &mut String) {
    let rows: Vec<&Row> = comparison.rows.iter().filter(|row| row.differences[run - 1].is_some()).collect();
    let (base, own) = (&comparison.runs[0].name, &comparison.runs[run].name);
    if rows.is_empty() {
        wrapped(&format!("\n{own} − {base}: no numbers in common"), columns, out);
        return;
    }
    out.push('\n');
    wrapped(&format!("{own} − {base}, in percent (points) where the number is a share"), columns, out);
    let covers: Vec<Covers> =
        rows.iter().filter_map(|row| row.differences[run - 1]).map(|d| d.covers).collect();
    wrapped(&covered(&covers), columns, out);
    let longest = (columns.saturating_sub(BESIDE_HEADINGS) / 2).clamp(SHORTEST_HEADING, LONGEST_NAME);
    let names = [cut(base, longest), cut(own, longest)];
    for block in rows.chunk_by(|a, b| (a.section, &a.set) == (b.section, &b.set)) {
        if block[0].section == Section::Ood {
            for metric in [Metric::Auroc, Metric::Fpr95] {
                let of_metric: Vec<&Row> = block.iter().filter(|row| row.metric == metric).copied().collect();
                let heading = format!("{}, {}", heading(block[0]), metric.name());
                let name =
                    |row: &Row| row.score.as_deref().map_or(String::new(), |score| cut(score, LONGEST_NAME));
                rows_of(&heading, &of_metric, run, (&names, name), columns, out);
            }
        } else {
            let name = |row: &Row| row.metric.name().to_string();
            rows_of(&heading(block[0]), block, run, (&names, name), columns, out);
        }
    }
}

/// One block: a heading, and a line for each row.
fn rows_of(
    heading: &str,
    rows: &[&Row],
    run: usize,
    (names, name): (&[String; 2], impl Fn(&Row) -> String),
    columns: usize,
    out: &mut String,
) {
    if rows.is_empty() {
        return;
    }
    out.push('\n');
    wrapped(heading, columns, out);
    let [base, own] = names.clone();
    let rest = ["diff", "95 % interval", ""].map(str::to_string);
    let mut lines = vec![[vec![String::new(), base, own], rest.to_vec()].concat()];
    lines.extend(rows.iter().map(|row| line(name(row), row, run)));
    table(&lines, &[false, true, true, true, true, false], columns, out);
}

/// What intervals cover, in a sentence.
pub(super) fn covered(covers: &[Covers]) -> String {
    let text = match (covers.contains(&Covers::Samples), covers.contains(&Covers::Seeds)) {
        (true, true) => "intervals cover the choice of test samples, or the seed where a run has several",
        (false, true) => {
            "means over seeds; intervals cover the seed of the training, not the choice of test samples"
        }
        _ => "intervals cover the choice of test samples, not the seed of the training",
    };
    text.to_string()
}

pub(super) fn heading(row: &Row) -> String {
    let set = row.set.as_deref().unwrap_or_default();
    match row.section {
        Section::Id => format!("test set {set}"),
        Section::Ood => format!("OOD set {set}"),
        Section::Training => format!("last epoch, {set}"),
        Section::Collapse => "neural collapse, last checkpoint".to_string(),
    }
}

fn line(name: String, row: &Row, run: usize) -> Vec<String> {
    let value = |value: Option<f64>| value.map_or("–".to_string(), |value| shown(row.metric, value));
    let found = row.differences[run - 1];
    let mut cells = vec![name, value(row.values[0]), value(row.values[run])];
    cells.extend(match found {
        Some(found) => {
            [signed(row.metric, found.value), interval(row.metric, &found), found.verdict.word().to_string()]
        }
        None => ["–", "–", ""].map(str::to_string),
    });
    cells
}

/// A number for people: percent with two digits, others with four significant ones.
pub(super) fn shown(metric: Metric, value: f64) -> String {
    if metric.is_share() {
        return format!("{:.2}", 100.0 * value);
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e6).contains(&size) {
        return format!("{value:.3e}");
    }
    let digits = if size >= 100.0 {
        1
    } else if size >= 10.0 {
        2
    } else {
        4
    };
    format!("{value:.digits$}")
}

/// A difference with its sign; what rounds to nothing has none.
pub(super) fn signed(metric: Metric, value: f64) -> String {
    let text = shown(metric, value);
    let is_nothing = text.chars().all(|c| "-0.".contains(c));
    match (is_nothing, text.strip_prefix('-')) {
        (true, Some(rest)) => rest.to_string(),
        (true, None) => text,
        (false, Some(rest)) => format!("−{rest}"),
        (false, None) => format!("+{text}"),
    }
}

pub(super) fn interval(metric: Metric, found: &Difference) -> String {
    found.interval95.map_or("–".to_string(), |[low, high]| {
        format!("[{}, {}]", signed(metric, low), signed(metric, high))
    })
}

/// A chance for people.
pub(super) fn chance(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_string() } else { format!("{p:.3}") }
}

fn disagreement(comparison: &Comparison, run: usize, columns: usize, out: &mut String) {
    let Some(found) = comparison.disagreements.iter().find(|found| found.run == run) else { return };
    let counts = &found.counts;
    out.push('\n');
    let seeds = found.seeds.map_or(String::new(), |[base, own]| match base == own {
        true => format!(" (seed {base} of both)"),
        false => format!(" (seeds {base} and {own})"),
    });
    wrapped(
        &format!(
            "answers{seeds}: {} both right, {} the baseline alone, {} the run alone, {} neither; {} answers differ; McNemar p {}",
            counts.both,
            counts.first,
            counts.second,
            counts.neither,
            found.different_answers,
            chance(found.mcnemar_p)
        ),
        columns,
        out,
    );
    if found.samples.is_empty() {
        return;
    }
    let mut lines = vec![["sample", "label", "baseline", "", "run", ""].map(str::to_string).to_vec()];
    for sample in found.samples.iter().take(FEW_SAMPLES) {
        let name = sample.name.as_ref().map_or(sample.row.to_string(), |name| cut(name, LONGEST_NAME));
        let sure = sample.confidences.map(|confidence| format!("{:.1} %", 100.0 * confidence));
        let [first, second] = [0, 1].map(|network| cut(&sample.answers[network], 16));
        let [sure_first, sure_second] = sure;
        lines.push(vec![name, cut(&sample.label, 16), first, sure_first, second, sure_second]);
    }
    table(&lines, &[false, false, false, true, false, true], columns, out);
    let more = (counts.first + counts.second).saturating_sub((lines.len() - 1) as u64);
    if more > 0 {
        wrapped(
            &format!("and {more} more on which one alone is right, those above with the surest mistakes"),
            columns,
            out,
        );
    }
}

/// Lines in columns, the first of them titles; columns of numbers stand to the right.
fn table(lines: &[Vec<String>], right: &[bool], columns: usize, out: &mut String) {
    let Some((titles, rows)) = lines.split_first() else { return };
    let column =
        |(title, right): (&String, &bool)| if *right { Column::number(title) } else { Column::text(title) };
    let mut table = TextTable::new(titles.iter().zip(right).map(column));
    rows.iter().for_each(|row| table.row(row));
    out.push_str(&table.render(Some(columns)));
}

/// At most so many characters, the last an ellipsis where some were cut.
fn cut(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_string();
    }
    text.chars().take(length.saturating_sub(1)).chain(['…']).collect()
}

/// Words in lines of at most so many columns; further lines are indented.
fn wrapped(text: &str, columns: usize, out: &mut String) {
    let paragraph = text.trim_start_matches('\n');
    out.push_str(&text[..text.len() - paragraph.len()]);
    for (number, line) in wrap(paragraph, columns.saturating_sub(2)).iter().enumerate() {
        let _ = writeln!(out, "{}{line}", if number > 0 { "  " } else { "" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_signs_and_the_digits_that_say_something() {
        assert_eq!(signed(Metric::Accuracy, 0.0123), "+1.23");
        assert_eq!(signed(Metric::Accuracy, -0.0123), "−1.23");
        assert_eq!(signed(Metric::Accuracy, -1e-9), "0.00");
        assert_eq!(signed(Metric::Nll, 0.12345), "+0.1235");
        assert_eq!(shown(Metric::Nc1, 1.5e-7), "1.500e-7");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let long = "x".repeat(70);
        let line = |name: &str| vec![name.to_string(), "81.25".into(), "[−1.25, +3.50]".into()];
        let mut out = String::new();
        table(&[line(&long), line("short")], &[false, true, true], 80, &mut out);
        wrapped(&"word ".repeat(60), 80, &mut out);
        assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
        assert!(out.contains("[−1.25, +3.50]"), "{out}");
    }
}
