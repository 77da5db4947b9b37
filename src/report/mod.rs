//! Reports of runs: figures, and one page that holds them all.
//!
//! | file | holds |
//! |---|---|
//! | `plots` | figures as SVG and PNG |
//! | `parts` | what `compare` shares with the report: runs, pages |
//! | `events` | TensorBoard's event files |
//! | `run` | what a run folder holds, read with bounds |
//! | `eval` | the section on labelled data |
//! | `summary` | the key figures, in words |
//! | `contents` | links to the files of the run folder |
//! | `terms` | explanations of the terms on the page |
//! | `seeds` | the same over several seeds of one experiment |
//! | `novelty` | the section on two levels of classes |
//! | `sections` | the parts of the page: tables and figures |
//! | `ood_tables` | the tables of the OOD section |
//! | `samples`, `slider` | the section on samples: images, map of the features, threshold slider |
//! | `page` | what every page has, and how it is rendered |
//! | `page.html`, `page.css`, `page.js`, and the same of `page_samples`, `page_eval` and `page_ood` | the template; text from files is escaped by the template engine |

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use minijinja::{Value, context};

use crate::error::{Error, Result, printable};
use crate::files;

mod contents;
mod eval;
pub(crate) mod events;
mod novelty;
mod ood_tables;
mod page;
pub(crate) mod parts;
pub(crate) mod plots;
mod run;
mod samples;
mod sections;
mod seeds;
mod slider;
mod summary;
mod terms;

use crate::novelty::Rule;
pub use eval::write_evaluation_figures;
use novelty::Novelty;
use plots::Figure;
use run::Run;

/// Pixels per CSS pixel of PNG figures: sharp on paper and on dense screens.
const PNG_SCALE: f32 = 2.0;

/// Files to write beside the page.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Also write every figure as PNG.
    pub png: bool,
}

/// Writes `report.html` and `plots/*.svg` into a run folder, from whatever parts of a run it holds; a folder that `ood`,
/// `collapse` or `calibrate` wrote is one of these parts. A folder of several seeds gets a page over all of them, and each seed
/// its own. Returns the path of the page, which is one file that needs no network.
///
/// # Errors
/// The folder holds nothing to report, a file in it is damaged (the message names it), or a result cannot be written;
/// an older page is then untouched.
pub fn build(run: &Path) -> Result<PathBuf> {
    build_with(run, Options::default())
}

/// [`build`] with options.
///
/// # Errors
/// As [`build`].
pub fn build_with(folder: &Path, options: Options) -> Result<PathBuf> {
    let seeds = seeds::folders(folder)?;
    if !seeds.is_empty() {
        for (_, seed) in &seeds {
            build_with(seed, options)?;
        }
        return build_over_seeds(folder);
    }
    let run = Run::read(folder)?;
    let mut plots = Plots { folder: folder.join("plots"), options, names: BTreeSet::new() };
    let ood = sections::ood(&run, &mut plots)?;
    let training = sections::training(&run, &mut plots)?;
    let novelty = novelty::section(&run, &mut plots)?;
    let collapse = sections::collapse(&run, &mut plots)?;
    let labelled = eval::sections(&run, &mut plots)?;
    let (samples, thumbnails) = samples::sections(&run)?;
    let page = context! {
        labelled => labelled,
        samples => samples,
        thumbnails => Value::from_safe_string(thumbnails),
        name => shown(&title(&run, folder)),
        facts => summary::facts(&run),
        cards => summary::cards(&run),
        sentences => summary::sentences(&run),
        warnings => warnings(&run, ood.warnings),
        novelty => novelty,
        ood => ood.section,
        training => training,
        collapse => collapse,
        recipe => run.recipe.as_ref().map(|recipe| shown_lines(&recipe.text)),
        files => contents::entries(folder)?,
    };
    let levels = || run.thresholds.iter().flat_map(|file| &file.levels);
    let scores = run.evaluation.iter().flat_map(|evaluation| evaluation.methods.clone());
    let scores = scores.chain(run.novelty.iter().flat_map(Novelty::scores));
    let scores: Vec<String> = scores.chain(levels().map(|level| level.threshold.score.to_string())).collect();
    let mut rules = run.novelty.as_ref().map_or_else(Vec::new, Novelty::rules);
    if rules.is_empty() && run.novelty.is_some() {
        rules = levels().map(|level| level.threshold.rule).collect();
        rules.dedup();
    }
    write_page(folder, page, &scores, &rules)
}

/// Writes the page over the seeds in a folder, whose own pages are there already.
///
/// # Errors
/// There is no seed's folder, or a file of one is damaged.
pub fn build_over_seeds(folder: &Path) -> Result<PathBuf> {
    let seeds = seeds::folders(folder)?;
    if seeds.is_empty() {
        return Err(Error::invalid(format!(
            "{} holds no folders seed_0, seed_1, … of runs; give the folder that `residua run --seeds` wrote",
            folder.display()
        )));
    }
    let overview = seeds::overview(&seeds)?;
    let page = context! {
        name => shown(&overview.name.unwrap_or_else(|| run_name(folder))),
        facts => overview.facts,
        cards => overview.cards,
        sentences => overview.sentences,
        warnings => overview.warnings.iter().map(|warning| whole(warning)).collect::<Vec<String>>(),
        seeds => overview.section,
        files => contents::entries(folder)?,
    };
    write_page(folder, page, &overview.scores, &[])
}

/// Renders the page with the explanations of what is on it, and writes it.
fn write_page(folder: &Path, page: Value, scores: &[String], rules: &[Rule]) -> Result<PathBuf> {
    let templates = [
        ("page.html", include_str!("page.html")),
        ("page_eval.html", include_str!("page_eval.html")),
        ("page_ood.html", include_str!("page_ood.html")),
        ("page_samples.html", include_str!("page_samples.html")),
    ];
    // A recipe names many things that the page does not show.
    let without = page::render(&templates, context! { recipe => "", ..page.clone() })?;
    let terms = terms::explained(&without, scores, rules);
    let html = page::render(&templates, context! { terms => terms, ..page })?;
    let path = folder.join("report.html");
    files::write(&path, html)?;
    Ok(path)
}

/// The `plots` folder of a run: writes figures under names that never collide.
struct Plots {
    folder: PathBuf,
    options: Options,
    names: BTreeSet<String>,
}

impl Plots {
    /// Writes a figure as `NAME.svg` (and `.png`) and returns it for the page.
    fn write(&mut self, name: &str, figure: &Figure) -> Result<Value> {
        self.write_file(name, figure)?;
        Ok(embedded(figure))
    }

    /// Writes a figure that the page shows in another form; returns the name of the file without its ending.
    fn write_file(&mut self, name: &str, figure: &Figure) -> Result<String> {
        let name = self.unique(name);
        let svg = figure.standalone();
        files::write(&self.folder.join(format!("{name}.svg")), svg)?;
        if self.options.png {
            let png = figure.png(PNG_SCALE)?;
            files::write(&self.folder.join(format!("{name}.png")), png)?;
        }
        Ok(name)
    }

    /// A file name on every system; two names that would become one are numbered.
    fn unique(&mut self, name: &str) -> String {
        const LONGEST: usize = 100;
        let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let stem: String = name.chars().map(safe).take(LONGEST).collect();
        let mut candidate = stem.clone();
        let mut number = 2;
        // Case-insensitive file systems would take `A` and `a` for one file.
        while !self.names.insert(candidate.to_lowercase()) {
            candidate = format!("{stem}_{number}");
            number += 1;
        }
        candidate
    }
}

/// A figure for the inside of the page.
fn embedded(figure: &Figure) -> Value {
    Value::from_safe_string(figure.inline())
}

/// Notes that a reader should see first: on the scores, and on the caches that collapse was measured on.
fn warnings(run: &Run, mut warnings: Vec<String>) -> Vec<String> {
    warnings.extend(run.collapse.warnings.iter().map(|warning| whole(warning)));
    warnings
}

/// The recipe's name, or the folder's.
fn title(run: &Run, folder: &Path) -> String {
    run.name().unwrap_or_else(|| run_name(folder))
}

fn run_name(folder: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    name(folder).or_else(|| name(&folder.canonicalize().ok()?)).unwrap_or_else(|| "run".to_string())
}

/// One line from a file, for the page, however long: no control or direction-changing characters.
fn whole(text: &str) -> String {
    printable(text).replace('\n', " ")
}

/// A name from a file, for the page: one line, at most 120 long.
fn shown(text: &str) -> String {
    const LONGEST: usize = 120;
    let text = whole(text);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A text file for the page, line by line.
fn shown_lines(text: &str) -> String {
    const MOST: usize = 500;
    let mut lines: Vec<String> = text.lines().take(MOST).map(printable).collect();
    if text.lines().nth(MOST).is_some() {
        lines.push("…".to_string());
    }
    lines.join("\n")
}

/// A fraction as percent with one digit.
fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
