//! `residua calibrate`: choose novelty thresholds, and say what they are worth.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::compute::Compute;
use super::levels::{NamedData, PerLevel, extract_heads, open_networks};
use super::output::width;
use super::{Common, print};
use crate::checkpoint::{HeadLabels, LabelsBy, Trained};
use crate::data::{DataSpec, Split};
use crate::error::{Error, Result};
use crate::files;
use crate::novelty::{
    CalibrationSets, Dashboard, Gathered, HeadSets, Hierarchy, LevelChoice, LevelEntry, LevelThreshold,
    Novel, PERCENTILES, ReportSets, Rule, Score, Summary, ThresholdFile, Verdicts, calibrate_level,
    candidates, level_name, report,
};
use crate::report::plots::{ScoreAxis, threshold_histogram};
use crate::text_table::{Column, TextTable};
use crate::values::{Wholes, shown, shown_apart};

/// Replicates behind the intervals of AUROC.
const REPLICATES: u32 = 1000;

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua calibrate --checkpoint runs/first \\
      --seen 'demo:fashion-mnist?split=test' --novel demo:unseen \\
      --out runs/first/thresholds.toml
      A threshold, and what it is worth on the samples that chose it
  residua calibrate --checkpoint runs/first --seen folder:seen \\
      --novel folder:held-out --score energy --rule quantile:0.05 \\
      --report-seen folder:seen-2 --report-novel folder:held-out-2 \\
      --out thresholds.toml
      Another score and rule, measured on samples that chose nothing";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// The network, with one head or two; twice for a superclass and a subclass model
    #[arg(long, value_name = "CHECKPOINT", required = true)]
    checkpoint: Vec<PathBuf>,
    /// Images of known classes that the network was not trained on
    #[arg(long, value_name = "DATA")]
    seen: DataSpec,
    /// Images of other classes, best of classes that were held out from training
    #[arg(long, value_name = "DATA")]
    novel: Option<DataSpec>,
    /// Images of no superclass at all (outliers), for the superclass head instead of --novel: an unknown dog is novel as a
    /// subclass, but a dog
    #[arg(long, value_name = "DATA")]
    novel_superclass: Option<DataSpec>,
    /// Images the network was trained on, for scores that are fitted (all but msp, mls, energy, gen)
    #[arg(long, value_name = "DATA")]
    fit: Option<DataSpec>,
    /// Any score of `ood`, novel-probability or notebook-msp; per level as superclass=SCORE
    #[arg(long, value_name = "[LEVEL=]SCORE", default_value = "msp")]
    score: Vec<String>,
    /// conformal:A, per-class:A, quantile:A, p10, p5, mean-std, zscore:Z, midpoint, youden, min-error, intersection,
    /// target-fpr:R (of seen), target-tpr:R (of novel), cost:MISS,ALARM,PREVALENCE or tau:V; per level as
    /// superclass=RULE
    #[arg(long, value_name = "[LEVEL=]RULE", default_value = "conformal:0.05")]
    rule: Vec<String>,
    /// Divisor of the logits before the softmax when predicting; per level as superclass=T
    #[arg(long, value_name = "[LEVEL=]T", default_value = "1")]
    temperature: Vec<String>,
    /// How two levels are brought together: independent, mask (subclasses of the superclass only), joint (best pair)
    #[arg(long, value_name = "HIERARCHY", default_value = "independent")]
    hierarchy: Hierarchy,
    /// Other images of known classes, to measure what the thresholds do
    #[arg(long, value_name = "DATA")]
    report_seen: Option<DataSpec>,
    /// Images of still other classes, for the same
    #[arg(long, value_name = "DATA")]
    report_novel: Option<DataSpec>,
    /// Still other images of no superclass at all, for the same
    #[arg(long, value_name = "DATA")]
    report_novel_superclass: Option<DataSpec>,
    /// Threshold file; calibration scores, figures and dashboard go beside it
    #[arg(long, value_name = "thresholds.toml")]
    out: PathBuf,
    /// Seed of the bootstrap
    #[arg(long, value_parser = Wholes::<u64>::ANY, default_value_t = 0, value_name = "S")]
    seed: u64,
    /// Images per step
    #[arg(long, value_parser = Wholes::<usize>::POSITIVE, default_value_t = 250)]
    batch_size: usize,
    #[command(flatten)]
    compute: Compute,
}

impl Arguments {
    /// Whether there are samples to report on that choose nothing.
    fn has_report(&self) -> bool {
        let Arguments { report_seen, report_novel, report_novel_superclass, .. } = self;
        [report_seen, report_novel, report_novel_superclass].into_iter().any(Option::is_some)
    }
}

/// Reads a temperature on the command line.
fn temperature(text: &str) -> Result<f64> {
    let value = text.parse().ok().filter(|value: &f64| *value > 0.0 && value.is_finite());
    value.ok_or_else(|| Error::usage(format!("--temperature {text}: write a positive number, such as 1.5")))
}

/// The data sets, in the order in which they are extracted, and what they serve for.
struct Sets {
    all: Vec<NamedData>,
    calibration: CalibrationSets,
    report: ReportSets,
}

/// Place of the seen samples among the data sets.
const SEEN: usize = 0;

impl Sets {
    fn open(arguments: &Arguments) -> Result<Sets> {
        let mut all = vec![NamedData::open(&arguments.seen, Split::Test)?];
        let mut add = |spec: &Option<DataSpec>, split: Split| -> Result<Option<usize>> {
            let Some(spec) = spec else { return Ok(None) };
            all.push(NamedData::open(spec, split)?);
            Ok(Some(all.len() - 1))
        };
        // The superclass head takes its own novel samples, where there are some, instead of those of every head.
        let mut both = |every: &Option<DataSpec>, superclass: &Option<DataSpec>| -> Result<Novel> {
            let other = add(every, Split::Test)?;
            Ok(Novel { superclass: add(superclass, Split::Test)?.or(other), other })
        };
        let novel = both(&arguments.novel, &arguments.novel_superclass)?;
        let report_novel = both(&arguments.report_novel, &arguments.report_novel_superclass)?;
        let fit = add(&arguments.fit, Split::Train)?;
        let report_seen = add(&arguments.report_seen, Split::Test)?;
        let report = match arguments.has_report() {
            true => ReportSets { seen: report_seen, novel: report_novel, foreign: 0..0 },
            false => ReportSets { seen: Some(SEEN), novel, foreign: 0..0 },
        };
        Ok(Sets { all, calibration: CalibrationSets { fit, seen: SEEN, novel }, report })
    }

    /// Checks that samples given as seen are of the networks' classes, and says how labels are understood.
    fn check_labels(&self, networks: &[Trained]) -> Result<()> {
        let novel: Vec<usize> = self.calibration.novel.all().chain(self.report.novel.all()).collect();
        for (index, NamedData { spec, data }) in self.all.iter().enumerate() {
            let mut notes = data.notes();
            for trained in networks {
                for head in 0..trained.heads.len() {
                    let labels = HeadLabels::new(trained, head, data.as_ref(), LabelsBy::Names);
                    if novel.contains(&index) {
                        notes.extend(labels.note(&spec.to_string()).filter(|_| labels.are_by_number()));
                        continue;
                    }
                    if labels.are_others() {
                        labels.require_known(&format!("`{spec}`"))?;
                    }
                    notes.extend(labels.note(&spec.to_string()));
                }
            }
            notes.dedup();
            for note in notes {
                super::warn(&note);
            }
        }
        Ok(())
    }
}

/// A head with its thresholds, and details for people.
struct CalibratedHead {
    entry: LevelEntry,
    gathered: Gathered,
    /// The threshold of every rule these samples allow.
    candidates: Vec<LevelThreshold>,
}

pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let scores = PerLevel::parse("score", &arguments.score, str::parse::<Score>)?;
    let rules = PerLevel::parse("rule", &arguments.rule, str::parse::<Rule>)?;
    let temperatures = PerLevel::parse("temperature", &arguments.temperature, temperature)?;
    files::check_output_file(&arguments.out, &[])?;
    if !files::is_replaceable(&arguments.out) {
        return Err(Error::usage(format!(
            "--out {}: calibration scores, figures and the dashboard go beside the threshold file; name a file",
            arguments.out.display()
        )));
    }
    // Samples that chose a threshold cannot say how good it is.
    for (flag, report, chosen) in [
        ("seen", &arguments.report_seen, Some(&arguments.seen)),
        ("novel", &arguments.report_novel, arguments.novel.as_ref()),
        ("novel-superclass", &arguments.report_novel_superclass, arguments.novel_superclass.as_ref()),
    ] {
        if report.is_some() && report.as_ref() == chosen {
            return Err(Error::usage(format!(
                "--report-{flag} is the same data as --{flag}, which chooses the thresholds; report on other samples"
            )));
        }
    }
    let networks = open_networks(&arguments.checkpoint, &[], common)?;
    let levels: Vec<&str> =
        networks.iter().flat_map(|trained| &trained.heads).map(|classes| level_name(classes.level)).collect();
    scores.check("score", &levels)?;
    rules.check("rule", &levels)?;
    temperatures.check("temperature", &levels)?;
    for (flag, given) in [
        ("--novel-superclass", &arguments.novel_superclass),
        ("--report-novel-superclass", &arguments.report_novel_superclass),
    ] {
        if given.is_some() && !levels.contains(&"superclass") {
            return Err(Error::usage(format!(
                "{flag} is for a superclass head; there is only {}: give such images as --novel",
                levels.join(" and ")
            )));
        }
    }
    let sets = Sets::open(arguments)?;
    sets.check_labels(&networks)?;
    let folder = files::temporary_folder_beside(&arguments.out)?;
    let Arguments { batch_size, compute, .. } = arguments;
    let heads = extract_heads(&networks, &sets.all, folder.path(), *batch_size, compute, common)?;
    let data: Vec<_> = sets.all.iter().map(|set| set.data.clone()).collect();
    let calibrated = compute.on_rows(common, |compute| {
        let calibrate = |head: &HeadSets<'_>| {
            let level = head.level();
            let usual = LevelChoice::default();
            let choice = LevelChoice {
                score: scores.of(level, usual.score),
                rule: rules.of(level, usual.rule),
                temperature: temperatures.of(level, usual.temperature),
            };
            let calibration = head.calibration(compute, &choice, &data, &sets.calibration)?;
            let threshold = calibrate_level(&calibration.gathered.scores, choice.rule)?;
            let candidates = candidates(&calibration.gathered.scores)?;
            let entry = calibration.entry(threshold);
            Ok(CalibratedHead { entry, gathered: calibration.gathered, candidates })
        };
        heads.iter().map(calibrate).collect::<Result<Vec<_>>>()
    })?;
    for (flag, given, place) in [
        ("--novel", &arguments.novel, sets.calibration.novel.other),
        ("--novel-superclass", &arguments.novel_superclass, sets.calibration.novel.superclass),
    ] {
        let is_served = |head: &HeadSets<'_>| sets.calibration.novel.of(head) == place;
        let mut served = heads.iter().zip(&calibrated).filter(|(head, _)| is_served(head)).peekable();
        if let Some(given) = given
            && served.peek().is_none()
        {
            return Err(Error::usage(format!(
                "{flag} {given} serves no head: there is only the superclass head, which takes --novel-superclass; leave it out"
            )));
        }
        if let Some(given) = given
            && served.all(|(_, calibrated)| calibrated.gathered.scores.novel.is_empty())
        {
            return Err(Error::usage(format!(
                "{flag} {given} holds no novel sample: every one is of a class that the network knows; give classes that were \
                 held out from training, or other data"
            )));
        }
    }
    let entries = calibrated.iter().map(|head| head.entry.clone()).collect();
    let mut file = ThresholdFile::new(arguments.hierarchy, entries)?;
    let verdicts = compute.on_rows(common, |compute| report(compute, &file, &heads, &data, &sets.report))?;
    let dashboard = measure(arguments, &verdicts, &mut file)?;
    file.write(&arguments.out)?;
    let beside = files::parent(&arguments.out);
    dashboard.write(beside)?;
    for head in &calibrated {
        write_figures(head, &beside.join("plots"))?;
    }
    if common.json {
        let text = serde_json::json!({ "out": super::output::in_json(&arguments.out), "dashboard": dashboard.json()["rows"] });
        print(&format!("{text}\n"))?;
    } else {
        print(&summary(arguments, &calibrated, &file, &dashboard))?;
    }
    Ok(())
}

/// Notes the rates of the answers in the file, where they are of samples that chose nothing, and makes the dashboard.
fn measure(arguments: &Arguments, verdicts: &[Verdicts], file: &mut ThresholdFile) -> Result<Dashboard> {
    let has_report = arguments.has_report();
    let split = if has_report { "report" } else { "calibration" };
    let mut dashboard = Dashboard::default();
    dashboard.setting("hierarchy", "how two levels are brought together", file.hierarchy.to_string());
    for (entry, verdicts) in file.levels.iter_mut().zip(verdicts) {
        dashboard.threshold(entry);
        dashboard.level(split, entry.name(), &verdicts.metrics(REPLICATES, arguments.seed)?);
        entry.reported = has_report.then(|| verdicts.rates());
    }
    Ok(dashboard)
}

fn write_figures(head: &CalibratedHead, folder: &Path) -> Result<()> {
    let CalibratedHead { entry, gathered, candidates } = head;
    let mut axes = vec![("", ScoreAxis::Value)];
    if entry.threshold.score.is_probability() {
        axes.push(("_logit", ScoreAxis::Logit));
    }
    for (suffix, axis) in axes {
        let figure = threshold_histogram(&gathered.scores, candidates, &entry.threshold, axis)?;
        let name = format!("{}_{}_thresholds{suffix}.svg", entry.name(), entry.threshold.score);
        let text = figure.whole.standalone();
        files::write(&folder.join(name), text)?;
    }
    Ok(())
}

/// The summary for people: the two groups, every candidate, the choice with its guarantee, the dashboard.
fn summary(
    arguments: &Arguments,
    calibrated: &[CalibratedHead],
    file: &ThresholdFile,
    dashboard: &Dashboard,
) -> String {
    let mut text = String::new();
    for head in calibrated {
        let CalibratedHead { entry, gathered, candidates } = head;
        let threshold = &entry.threshold;
        let _ = writeln!(
            text,
            "{}: {} at temperature {}, by {}",
            entry.name(),
            threshold.score,
            entry.temperature,
            threshold.rule
        );
        for (count, which) in [
            (gathered.seen_left_out, "seen samples are left out: of a class the head does not know"),
            (gathered.novel_left_out, "novel samples are left out: of a class the head knows"),
        ] {
            if count > 0 {
                let _ = writeln!(text, "  {count} {which}");
            }
        }
        groups(&mut text, &gathered.scores.seen_scores(), &gathered.scores.novel_scores());
        let mut table = TextTable::new(
            Column::with_numbers("rule", ["seen flagged", "novel flagged"])
                .into_iter()
                .chain([Column::text("threshold")]),
        )
        .indent(2);
        // The chosen threshold, too, is told from those of the other rules.
        let all: Vec<f64> = candidates.iter().map(|other| other.tau).chain([threshold.tau]).collect();
        let taus = shown_apart(&all);
        for (other, tau) in candidates.iter().zip(&taus) {
            let percent = |share: f64| format!("{:.2} %", 100.0 * share);
            let caught = other.caught_novel.map_or_else(|| "-".to_string(), |caught| percent(caught.rate));
            let mut tau = if other.tau.is_finite() { tau.clone() } else { "flags nothing".to_string() };
            if !other.class_taus.is_empty() {
                let _ = write!(tau, ", {} classes have their own", other.class_taus.len());
            }
            table.row([other.rule.to_string(), percent(other.false_novel.rate), caught, tau]);
        }
        text += &table.render(width());
        let chosen = file.levels.iter().find(|level| level.name() == entry.name()).unwrap_or(entry);
        let (rates, on) = chosen.expected();
        let _ = writeln!(text, "  chosen: novel below {}", threshold_text(threshold.tau, taus.last()));
        if !threshold.class_taus.is_empty() {
            let _ = writeln!(text, "  {} classes have thresholds of their own", threshold.class_taus.len());
        }
        let _ = writeln!(text, "  guarantee: {}", threshold.guarantee());
        // On a report split the answers count, which the other level may have made novel; else this level's own flags.
        let verb = if chosen.reported.is_some() { "answered as novel" } else { "flagged" };
        for (what, rate) in [("seen", rates.false_novel), ("novel", rates.caught_novel)] {
            if let Some(rate) = rate {
                let _ = writeln!(text, "  {what} samples {verb}, {on}: {rate}");
            }
        }
        text.push('\n');
    }
    text += &dashboard.table_within(width());
    if !arguments.has_report() {
        text += "\nwarning: rates and metrics are of the samples that chose the thresholds, which flatters them; give others \
                 with --report-seen and --report-novel\n";
    }
    let _ = writeln!(text, "\nthresholds in {}", arguments.out.display());
    text
}

fn threshold_text(tau: f64, shown: Option<&String>) -> String {
    match shown.filter(|_| tau.is_finite()) {
        Some(shown) => shown.clone(),
        None => "nothing: no sample is flagged by its score".to_string(),
    }
}

/// Count, mean, deviation and percentiles of both groups, side by side.
fn groups(text: &mut String, seen: &[f64], novel: &[f64]) {
    let both = [Summary::of(seen), Summary::of(novel)];
    let mut table = TextTable::new(Column::with_numbers("", ["seen", "novel"])).indent(2);
    let mut line = |name: &str, value: &dyn Fn(&Summary) -> String| {
        let cell = |summary: &Option<Summary>| summary.as_ref().map_or_else(|| "-".to_string(), value);
        table.row([name.to_string(), cell(&both[0]), cell(&both[1])]);
    };
    line("count", &|summary| summary.count.to_string());
    line("mean", &|summary| shown(summary.mean));
    line("std", &|summary| shown(summary.standard_deviation));
    for (index, percent) in PERCENTILES.iter().enumerate() {
        line(&format!("p{percent}"), &|summary| shown(summary.percentiles[index]));
    }
    text.push_str(&table.render(width()));
}
