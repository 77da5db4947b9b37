//! `residua data inspect|verify`: what a data set holds, and whether all of it can be read.

use std::fmt::Write;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::common::Common;
use super::output::print_result;
use super::progress::Progress;
use crate::data::{DataSpec, Inspection, Split, inspect, open_with_unreadable};
use crate::error::{Error, Result, printable};

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua data inspect demo:fashion-mnist
      Counts, classes, sizes, checksum, duplicates
  residua data verify 'cifar10:data/cifar-10-batches-bin?split=test' \\
      --expect CHECKSUM
      Whether these are the images that they were";

/// Arguments of `data`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print counts, classes (with `?labels=both` superclasses too), image sizes, colours, checksum, duplicates, and images
    /// that are unreadable or damaged
    Inspect(Sets),
    /// The same, and fail if an image cannot be read or a checksum differs
    Verify {
        #[command(flatten)]
        sets: Sets,
        /// The BLAKE3 checksum that `inspect` printed for the (single) set when it was known to be good
        #[arg(long, value_name = "CHECKSUM")]
        expect: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Sets {
    /// Data sets, for instance cifar10:DIR?split=test, or demo:fashion-mnist, demo:unseen, demo:digits inside the binary; of
    /// several, images they share are counted too
    #[arg(required = true, value_name = "DATA")]
    data: Vec<String>,
}

/// One set's part of the JSON output.
#[derive(Serialize)]
struct Entry {
    data: String,
    #[serde(flatten)]
    inspection: Inspection,
}

/// Images that two sets share.
#[derive(Serialize)]
struct Shared {
    first: String,
    second: String,
    /// Pairs of indices, one in each.
    samples: Vec<(usize, usize)>,
}

#[derive(Serialize)]
struct Output {
    sets: Vec<Entry>,
    shared: Vec<Shared>,
}

/// Runs the verb.
///
/// # Errors
/// Data that cannot be opened; for `verify` also images that cannot be read and a checksum that differs.
pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let (sets, expect, verify) = match &arguments.what {
        What::Inspect(sets) => (sets, &None, false),
        What::Verify { sets, expect } => (sets, expect, true),
    };
    if expect.is_some() && sets.data.len() > 1 {
        return Err(Error::usage("--expect is the checksum of one data set; name one"));
    }
    let entries = sets.data.iter().map(|name| look_at(name, common)).collect::<Result<Vec<_>>>()?;
    let output = Output { shared: shared_images(&entries), sets: entries };
    print_result(common, None, &output, || human(&output))?;
    if verify { judge(&output, expect.as_deref()) } else { Ok(()) }
}

fn look_at(name: &str, common: &Common) -> Result<Entry> {
    let spec: DataSpec = name.parse()?;
    let dataset = open_with_unreadable(&spec, Split::Train)?;
    let mut progress = Progress::new("reading", dataset.len() as u64, "images", common.quiet);
    let mut before = 0;
    let inspection = inspect(&*dataset, &mut |done| {
        progress.add((done - before) as u64);
        before = done;
    });
    drop(progress);
    Ok(Entry { data: spec.to_string(), inspection })
}

fn shared_images(entries: &[Entry]) -> Vec<Shared> {
    let mut shared = Vec::new();
    for (position, first) in entries.iter().enumerate() {
        for second in &entries[position + 1..] {
            let samples = first.inspection.shared_with(&second.inspection);
            shared.push(Shared { first: first.data.clone(), second: second.data.clone(), samples });
        }
    }
    shared
}

fn judge(output: &Output, expect: Option<&str>) -> Result<()> {
    for entry in &output.sets {
        if let Some(first) = entry.inspection.unreadable.first() {
            let count = entry.inspection.unreadable.len();
            return Err(Error::invalid(format!(
                "{}: {count} of {} images cannot be read; the first: {}",
                entry.data, entry.inspection.samples, first.error
            )));
        }
        if let Some(expected) =
            expect.filter(|expected| !expected.eq_ignore_ascii_case(&entry.inspection.checksum))
        {
            return Err(Error::invalid(format!(
                "{}: expected the checksum {expected}, found {}; images, labels or their order differ",
                entry.data, entry.inspection.checksum
            )));
        }
    }
    Ok(())
}

/// Unreadable or damaged images that are listed by name; the rest are counted.
const LISTED: usize = 20;

fn human(output: &Output) -> String {
    let mut text = String::new();
    for Entry { data, inspection } in &output.sets {
        // Writing to a string cannot fail.
        let _ = describe(&mut text, data, inspection);
    }
    for Shared { first, second, samples } in &output.shared {
        let _ = writeln!(
            text,
            "{} images of {} are in {} too",
            samples.len(),
            printable(first),
            printable(second)
        );
    }
    text
}

fn describe(text: &mut String, data: &str, found: &Inspection) -> std::fmt::Result {
    writeln!(text, "{}", printable(data))?;
    writeln!(text, "  samples     {}{}", found.samples, unlabelled(found))?;
    for note in &found.notes {
        writeln!(text, "  note        {}", printable(note))?;
    }
    if !found.classes.is_empty() {
        let counts = found.classes.iter().map(|class| class.count);
        let (least, most) = (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0));
        let names: Vec<String> =
            found.classes.iter().map(|class| format!("{} {}", class.name, class.count)).collect();
        let samples =
            if least == most { format!("{most} samples each") } else { format!("{least} to {most} samples") };
        writeln!(text, "  classes     {}, with {samples}", found.classes.len())?;
        writeln!(text, "              {}", printable(&names.join(", ")))?;
    }
    if !found.superclasses.is_empty() {
        let names: Vec<String> = found
            .superclasses
            .iter()
            .map(|class| format!("{} {} ({} subclasses)", class.name, class.count, class.subclasses))
            .collect();
        writeln!(text, "  superclass  {}, of which the classes above are the subclasses", names.len())?;
        writeln!(text, "              {}", printable(&names.join(", ")))?;
    }
    let sizes: Vec<String> =
        found.sizes.iter().map(|s| format!("{} x {} ({})", s.width, s.height, s.count)).collect();
    writeln!(text, "  sizes       {}", printable(&sizes.join(", ")))?;
    let numbers = |values: [f64; 3]| values.map(|value| format!("{value:.4}")).join(",");
    writeln!(text, "  mean/std    {}/{}", numbers(found.mean), numbers(found.std))?;
    let extra: usize = found.duplicates.iter().map(|group| group.len() - 1).sum();
    writeln!(
        text,
        "  duplicates  {extra} images repeat an earlier one, {} groups contradict in their labels",
        found.contradicting_duplicates
    )?;
    writeln!(text, "  unreadable  {}", found.unreadable.len())?;
    list(text, found.unreadable.iter().map(|sample| sample.error.clone()))?;
    if !found.damaged.is_empty() {
        let count = found.damaged.len();
        writeln!(
            text,
            "  damaged     {count}; they are decoded, as Pillow decodes them, but parts are made up"
        )?;
        list(text, found.damaged.iter().map(|sample| format!("{}: {}", sample.name, sample.warning)))?;
    }
    writeln!(text, "  checksum    {}", found.checksum)
}

/// The first lines of a list, and how many more there are.
fn list(text: &mut String, mut lines: impl ExactSizeIterator<Item = String>) -> std::fmt::Result {
    for line in lines.by_ref().take(LISTED) {
        writeln!(text, "              {}", printable(&line))?;
    }
    match lines.len() {
        0 => Ok(()),
        more => writeln!(text, "              and {more} more (--json lists all)"),
    }
}

fn unlabelled(found: &Inspection) -> String {
    if found.unlabelled == 0 {
        String::new()
    } else {
        format!(", {} of them without a label", found.unlabelled)
    }
}
