//! Predictions as a table: the columns a competition takes, and on request more for people.

use std::collections::HashMap;

use super::calibrate::Judgement;
use super::file::ThresholdFile;
use crate::data::{Dataset, NOVEL};
use crate::error::{Error, Result};
use crate::files;
use crate::values::named;

/// Which columns there are beside the answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Columns {
    /// For each level `LEVEL` (the name of the class, `novel` for novel samples), `LEVEL_score` and `LEVEL_flagged` (1
    /// where the level itself flags the sample; it may be answered as novel because of the other level).
    pub scores: bool,
    /// For each level `LEVEL_p_value`.
    pub p_values: bool,
    /// How images are called.
    pub names: ImageNames,
}

named! {
    /// How predictions call an image.
    pub enum ImageNames: "way to name images" {
        /// By its path below the folder, in the archive, or as a table or list has it.
        Path = "path",
        /// By its file name alone, as some competitions want it; no two may then be the same.
        Bare = "bare",
    }
    default Path
}

/// A row a sample, in the order of the data set (numeric order of file names for a folder or zip). Columns: `image`
/// ([`ImageNames`]), `LEVEL_index` for each level (`superclass_index`, `subclass_index`, or `class_index`
/// where classes have one level; novel samples have the index of the class named `novel`, or -1 where there is none), then
/// the others.
///
/// # Errors
/// The number of samples is not the data set's; two images have one bare name.
pub fn predictions_csv(
    file: &ThresholdFile,
    data: &dyn Dataset,
    judgement: &Judgement,
    columns: Columns,
) -> Result<String> {
    if judgement.answers.iter().any(|answers| answers.len() != data.len()) {
        return Err(Error::invalid(format!("{} images, but other numbers of answers", data.len())));
    }
    let mut titles = vec!["image".to_string()];
    titles.extend(file.levels.iter().map(|entry| format!("{}_index", entry.name())));
    for entry in &file.levels {
        let name = entry.name();
        if columns.scores {
            titles.extend([name.to_string(), format!("{name}_score"), format!("{name}_flagged")]);
        }
        if columns.p_values {
            titles.push(format!("{name}_p_value"));
        }
    }
    let record = |(row, name): (usize, String)| {
        let mut record = vec![name];
        for (entry, answers) in file.levels.iter().zip(&judgement.answers) {
            record.push(answers[row].known().unwrap_or(entry.novel_index).to_string());
        }
        for (level, entry) in file.levels.iter().enumerate() {
            let answer = &judgement.answers[level][row];
            if columns.scores {
                let name = match answer.known() {
                    None => NOVEL,
                    Some(class) => entry.class_name(class).unwrap_or_default(),
                };
                let score = judgement.samples[level][row].score;
                record.extend([name.to_string(), score.to_string(), u8::from(answer.flagged).to_string()]);
            }
            if columns.p_values {
                record.push(judgement.p_values[level][row].to_string());
            }
        }
        record
    };
    let records = image_names(data, columns.names)?.into_iter().enumerate().map(record);
    files::csv_text("predictions as CSV", std::iter::once(titles).chain(records))
}

/// Name of each image.
fn image_names(data: &dyn Dataset, names: ImageNames) -> Result<Vec<String>> {
    let paths = (0..data.len()).map(|row| data.sample_name(row));
    if names == ImageNames::Path {
        return Ok(paths.collect());
    }
    let mut rows: HashMap<String, usize> = HashMap::new();
    let bare = |(row, path): (usize, String)| {
        let name = base_name(&path).to_owned();
        match rows.insert(name.clone(), row) {
            None => Ok(name),
            Some(first) => Err(Error::invalid(format!(
                "two images are called `{name}` without their folders, `{}` and `{path}`; write paths (--names path, in a \
                 recipe [predict] names = \"path\")",
                data.sample_name(first)
            ))),
        }
    };
    paths.enumerate().map(bare).collect()
}

/// A file's name without its folders.
fn base_name(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}
