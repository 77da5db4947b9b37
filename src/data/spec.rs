//! Names of data sets on the command line: `cifar100:DIR?labels=coarse`, parsed and printed back.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Split;
use crate::error::{Error, Result};
use crate::values::{did_you_mean, named, serde_as_text};

/// The largest side `size=N` may ask for: 8192 squared is 64 megapixels, the largest image that is read.
pub const LARGEST_SIDE: u32 = 8192;

/// Data as a user names it: a source, and which part of it to take.
///
/// Written `SCHEME:PATH[,…][?option=value,…]` (`&` divides options as well); [`fmt::Display`] prints the canonical form, which parses back to the
/// same value. Paths may not be empty, and a path that holds `?` must be followed by options (or a closing `?`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSpec {
    /// Where the samples come from.
    pub source: Source,
    /// `split=train|test`: which part, for sources that have parts; absent, the caller's default counts.
    pub split: Option<Split>,
    /// `limit=N`, or `sample=N,seed=S`.
    pub subset: Subset,
    /// `size=N`: every image is resized to N x N pixels as it is read (antialiased bilinear).
    pub size: Option<u32>,
}

/// Which classes of a set with two levels are the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Level {
    /// The many: CIFAR-100's 100 fine classes, a table's `subclass_index`.
    #[default]
    #[serde(rename = "subclass")]
    Fine,
    /// The few: CIFAR-100's 20 coarse classes, a table's `superclass_index`.
    #[serde(rename = "superclass")]
    Coarse,
    /// Both: labels are the fine ones, and the data set has a [`super::Taxonomy`].
    #[serde(rename = "both")]
    Both,
}

/// The scheme of images inside the binary, which need no path.
const DEMO: &str = "demo";

/// Every scheme.
pub const SCHEMES: [&str; 9] =
    ["cifar10", "cifar100", "svhn", "idx", "folder", "csv", "list", "images", DEMO];

named! {
    /// Images inside the binary.
    pub enum DemoSet: "set of images inside the binary" {
        /// Eight classes of Fashion-MNIST, with a training and a test split.
        FashionMnist = "fashion-mnist",
        /// Fashion-MNIST's other two classes, shirts and sneakers, without labels.
        Unseen = "unseen",
        /// Handwritten digits, without labels.
        Digits = "digits",
    }
}

/// Where samples come from: one variant per scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `cifar10:DIR`.
    Cifar10 {
        /// The folder with the batches, or its parent.
        folder: PathBuf,
    },
    /// `cifar100:DIR`, with `labels=fine|coarse|both`.
    Cifar100 {
        /// The folder with `train.bin` or the pickles, or its parent.
        folder: PathBuf,
        /// Which classes.
        level: Level,
    },
    /// `svhn:FILE.mat`.
    Svhn {
        /// The MAT file.
        file: PathBuf,
    },
    /// `idx:IMAGES[,LABELS]`: the MNIST family.
    Idx {
        /// The idx3 file, gzipped or not.
        images: PathBuf,
        /// The idx1 file, gzipped or not.
        labels: Option<PathBuf>,
    },
    /// `folder:DIR`: a folder per class.
    Folder {
        /// The folder of class folders; `split=` names a subfolder of it.
        folder: PathBuf,
    },
    /// `csv:FILE,images=DIR|ZIP`, with `labels=superclass|subclass|both`.
    Csv {
        /// The table: a column `image`, and `superclass_index`, `subclass_index` where labels are known.
        table: PathBuf,
        /// The folder or zip the column `image` names files in.
        images: PathBuf,
        /// Which column is the label.
        level: Level,
    },
    /// `list:FILE,root=DIR`: OpenOOD's image lists.
    List {
        /// The list: a path and a label a line.
        list: PathBuf,
        /// The folder that the paths are relative to.
        root: PathBuf,
    },
    /// `images:DIR|ZIP|FILE`: images without labels.
    Images {
        /// A folder, a zip, or one image.
        path: PathBuf,
    },
    /// `demo:NAME`: images inside the binary.
    Demo {
        /// Which of them.
        set: DemoSet,
    },
}

/// Which samples of a source are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Subset {
    /// All of them.
    #[default]
    All,
    /// `limit=N`: the first N, or all where there are fewer.
    First(usize),
    /// `sample=N,seed=S`: N random ones in file order, or all where there are fewer: the first N entries of the
    /// permutation [`crate::rng::Stream::permutation`] of the stream (seed, [`crate::rng::Purpose::Subset`]), sorted.
    Random {
        /// Number of samples.
        count: usize,
        /// Seed of the permutation.
        seed: u64,
    },
}

impl DataSpec {
    /// Everything a source has, as it is stored.
    pub fn of(source: Source) -> DataSpec {
        DataSpec { source, split: None, subset: Subset::All, size: None }
    }

    /// The same data with relative paths taken from `root` (`--data-root`).
    pub fn under(mut self, root: &Path) -> DataSpec {
        for path in self.source.paths_mut() {
            // `join` leaves an absolute path as it is.
            *path = root.join(&*path);
        }
        self
    }
}

impl Source {
    pub(super) fn scheme(&self) -> &'static str {
        match self {
            Source::Cifar10 { .. } => "cifar10",
            Source::Cifar100 { .. } => "cifar100",
            Source::Svhn { .. } => "svhn",
            Source::Idx { .. } => "idx",
            Source::Folder { .. } => "folder",
            Source::Csv { .. } => "csv",
            Source::List { .. } => "list",
            Source::Images { .. } => "images",
            Source::Demo { .. } => "demo",
        }
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Source::Cifar10 { folder: path }
            | Source::Cifar100 { folder: path, .. }
            | Source::Folder { folder: path }
            | Source::Svhn { file: path }
            | Source::Images { path } => vec![path],
            Source::Idx { images, labels } => std::iter::once(images).chain(labels).collect(),
            Source::Csv { table, images, .. } => vec![table, images],
            Source::List { list, root } => vec![list, root],
            Source::Demo { .. } => Vec::new(),
        }
    }

    /// The files and folders it names.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.clone().paths_mut().into_iter().map(std::mem::take).collect()
    }

    /// Whether `split=` means something: the parts of the other sources are files of their own.
    pub(super) fn has_splits(&self) -> bool {
        matches!(
            self,
            Source::Cifar10 { .. }
                | Source::Cifar100 { .. }
                | Source::Folder { .. }
                | Source::Demo { set: DemoSet::FashionMnist }
        )
    }

    /// Which level of classes its labels are, for sources that have two.
    pub fn level(&self) -> Option<Level> {
        match self {
            Source::Cifar100 { level, .. } | Source::Csv { level, .. } => Some(*level),
            _ => None,
        }
    }

    /// The values of `labels=` that name the fine, the coarse and both levels.
    fn level_names(&self) -> [&'static str; 3] {
        let of_table = matches!(self, Source::Csv { .. });
        if of_table { ["subclass", "superclass", "both"] } else { ["fine", "coarse", "both"] }
    }

    fn parse(text: &str) -> Result<Source> {
        let (scheme, rest) = text.split_once(':').ok_or_else(|| {
            Error::usage(format!(
                "`{text}` does not say what kind of data it is: write for instance cifar10:{text} or images:{text}"
            ))
        })?;
        if scheme == DEMO {
            let set = if rest.is_empty() { DemoSet::FashionMnist } else { rest.parse()? };
            return Ok(Source::Demo { set });
        }
        if rest.is_empty() {
            return Err(Error::usage(format!("`{text}` names no file: a path follows `{scheme}:`")));
        }
        Ok(match scheme {
            "cifar10" => Source::Cifar10 { folder: rest.into() },
            "cifar100" => Source::Cifar100 { folder: rest.into(), level: Level::Fine },
            "svhn" => Source::Svhn { file: rest.into() },
            "idx" => match rest.rsplit_once(',') {
                Some((images, labels)) if !images.is_empty() && !labels.is_empty() => {
                    Source::Idx { images: images.into(), labels: Some(labels.into()) }
                }
                Some(_) => {
                    return Err(Error::usage(format!("`{text}`: expected idx:IMAGES or idx:IMAGES,LABELS")));
                }
                None => Source::Idx { images: rest.into(), labels: None },
            },
            "folder" => Source::Folder { folder: rest.into() },
            "csv" => {
                let (table, images) = two_paths(text, rest, "images", "csv:FILE,images=DIR|ZIP")?;
                Source::Csv { table, images, level: Level::Fine }
            }
            "list" => {
                let (list, root) = two_paths(text, rest, "root", "list:FILE,root=DIR")?;
                Source::List { list, root }
            }
            "images" => Source::Images { path: rest.into() },
            other => {
                return Err(Error::usage(format!(
                    "`{other}:` is no kind of data{}; there are {}",
                    did_you_mean(other, SCHEMES),
                    SCHEMES.join(", ")
                )));
            }
        })
    }
}

/// Splits `A,key=B` at the last `,key=`.
fn two_paths(text: &str, rest: &str, key: &str, form: &str) -> Result<(PathBuf, PathBuf)> {
    match rest.rsplit_once(&format!(",{key}=")) {
        Some((first, second)) if !first.is_empty() && !second.is_empty() => Ok((first.into(), second.into())),
        _ => Err(Error::usage(format!("`{text}`: expected {form}"))),
    }
}

impl FromStr for DataSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<DataSpec> {
        let (source, options) = text.rsplit_once('?').unwrap_or((text, ""));
        let mut spec = DataSpec::of(Source::parse(source)?);
        let mut seed = None;
        let mut given: Vec<&str> = Vec::new();
        for option in options.split([',', '&']).filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').ok_or_else(|| {
                Error::usage(format!(
                    "`{text}`: `{option}` after `?` is no option; options look like limit=1000"
                ))
            })?;
            if given.contains(&key) {
                return Err(Error::usage(format!("`{text}` gives {key}= twice")));
            }
            given.push(key);
            match key {
                "split" => spec.split = Some(parse_split(text, &spec.source, value)?),
                "labels" => set_level(text, &mut spec.source, value)?,
                "limit" => spec.subset = Subset::First(number(text, option, value)?),
                "sample" => spec.subset = Subset::Random { count: number(text, option, value)?, seed: 0 },
                "seed" => seed = Some(number(text, option, value)?),
                "size" => match number(text, option, value)? {
                    size @ 1..=LARGEST_SIDE => spec.size = Some(size),
                    _ => return Err(Error::usage(format!("`{text}`: size= is 1 to {LARGEST_SIDE} pixels"))),
                },
                _ => {
                    return Err(Error::usage(format!(
                        "`{text}`: unknown option `{key}`; there are split, labels, limit, sample, seed, size"
                    )));
                }
            }
        }
        if given.contains(&"limit") && given.contains(&"sample") {
            return Err(Error::usage(format!(
                "`{text}`: limit= takes the first N, sample= random N; give one of them"
            )));
        }
        match (&mut spec.subset, seed) {
            (Subset::Random { seed, .. }, Some(given)) => *seed = given,
            (_, Some(_)) => return Err(Error::usage(format!("`{text}`: seed= goes with sample="))),
            (_, None) => {}
        }
        Ok(spec)
    }
}

fn parse_split(text: &str, source: &Source, value: &str) -> Result<Split> {
    if !source.has_splits() {
        return Err(Error::usage(format!(
            "`{text}`: {}: names one set of images, so split= has no meaning; name the part you want by itself",
            source.scheme()
        )));
    }
    match value {
        "train" => Ok(Split::Train),
        "test" => Ok(Split::Test),
        _ => Err(Error::usage(format!("`{text}`: split= is train or test, not `{value}`"))),
    }
}

fn set_level(text: &str, source: &mut Source, value: &str) -> Result<()> {
    let names = source.level_names();
    let (Source::Cifar100 { level, .. } | Source::Csv { level, .. }) = source else {
        return Err(Error::usage(format!("`{text}`: labels= goes with cifar100: and csv: only")));
    };
    let levels = [Level::Fine, Level::Coarse, Level::Both];
    let found = levels.into_iter().zip(names).find(|(_, name)| *name == value);
    *level = found.map(|(level, _)| level).ok_or_else(|| {
        let [fine, coarse, both] = names;
        Error::usage(format!("`{text}`: labels= is {fine}, {coarse} or {both}, not `{value}`"))
    })?;
    Ok(())
}

fn number<T: FromStr>(text: &str, option: &str, value: &str) -> Result<T> {
    let is_whole = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let problem = if is_whole { "is too large a number" } else { "needs a whole number" };
    value.parse().map_err(|_| Error::usage(format!("`{text}`: `{option}` {problem}")))
}

impl fmt::Display for DataSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.source.scheme())?;
        match &self.source {
            Source::Cifar10 { folder: path }
            | Source::Cifar100 { folder: path, .. }
            | Source::Folder { folder: path }
            | Source::Svhn { file: path }
            | Source::Images { path }
            | Source::Idx { images: path, labels: None } => write!(f, "{}", path.display())?,
            Source::Idx { images, labels: Some(labels) } => {
                write!(f, "{},{}", images.display(), labels.display())?;
            }
            Source::Csv { table, images, .. } => {
                write!(f, "{},images={}", table.display(), images.display())?;
            }
            Source::List { list, root } => write!(f, "{},root={}", list.display(), root.display())?,
            Source::Demo { set } => write!(f, "{set}")?,
        }
        let mut options: Vec<String> = Vec::new();
        options.extend(self.split.map(|split| format!("split={split}")));
        let level = self.source.level().filter(|level| *level != Level::Fine);
        options.extend(level.map(|level| format!("labels={}", self.source.level_names()[level as usize])));
        match self.subset {
            Subset::All => {}
            Subset::First(count) => options.push(format!("limit={count}")),
            Subset::Random { count, seed } => options.push(format!("sample={count},seed={seed}")),
        }
        options.extend(self.size.map(|size| format!("size={size}")));
        let holds_mark = |path: &PathBuf| path.to_string_lossy().contains('?');
        if !options.is_empty() || self.source.paths().iter().any(holds_mark) {
            write!(f, "?{}", options.join(","))?;
        }
        Ok(())
    }
}

serde_as_text!(DataSpec);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_name_parses_and_prints_back() {
        for text in [
            "cifar10:d",
            "cifar10:d?split=test",
            "cifar100:/data/c100?split=train,labels=coarse,sample=100,seed=7,size=64",
            "svhn:test_32x32.mat",
            "idx:images.gz,labels.gz?limit=10",
            "idx:images",
            "folder:some where/else",
            "csv:a.csv,images=b.zip?labels=superclass",
            "csv:a.csv,images=b.zip?labels=both,limit=9",
            "cifar100:d?split=train,labels=both",
            "list:l.txt,root=images/",
            "images:what?.png?",
            "images:a,b.png",
            "demo:fashion-mnist?split=test,limit=5",
            "demo:unseen",
            "demo:digits?sample=5,seed=0",
        ] {
            let spec: DataSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
            assert_eq!(
                serde_json::from_str::<DataSpec>(&serde_json::to_string(&spec).unwrap()).unwrap(),
                spec
            );
        }
        let spec: DataSpec = "cifar100:d?size=64,labels=fine,sample=5".parse().unwrap();
        assert_eq!(spec.to_string(), "cifar100:d?sample=5,seed=0,size=64");
        assert_eq!("demo:".parse::<DataSpec>().unwrap().to_string(), "demo:fashion-mnist");
        assert_eq!("cifar100:d?size=64&labels=fine&sample=5".parse::<DataSpec>().unwrap(), spec);
    }

    #[test]
    fn wrong_names_are_wrong_use_and_say_what_is_possible() {
        for (text, hint) in [
            ("cifar", "what kind of data"),
            ("cifar:x", "there are cifar10"),
            ("cifar11:x", "did you mean `cifar10`?"),
            ("demo:shoes", "there are fashion-mnist, unseen and digits"),
            ("demo:digits?split=test", "split= has no meaning"),
            ("cifar10:", "names no file"),
            ("cifar10:x?splt=test", "unknown option"),
            ("cifar10:x?split=val", "train or test"),
            ("cifar10:x?labels=coarse", "labels= goes with"),
            ("cifar100:x?labels=some", "fine, coarse or both"),
            ("svhn:x?split=test", "split= has no meaning"),
            ("csv:x", "images=DIR|ZIP"),
            ("list:x,root=", "root=DIR"),
            ("idx:a,", "idx:IMAGES"),
            ("cifar10:x?limit=-1", "whole number"),
            ("cifar10:x?size=99999999999", "too large a number"),
            ("cifar10:x?limit=1&limit=2", "twice"),
            ("cifar10:x?limit=1,sample=2", "one of them"),
            ("cifar10:x?seed=2", "goes with sample="),
            ("cifar10:x?size=0", "1 to 8192"),
            ("cifar10:x?test", "no option"),
        ] {
            let error = text.parse::<DataSpec>().unwrap_err();
            assert_eq!(error.exit_code(), 2, "{text}");
            assert!(error.to_string().contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn a_data_root_moves_relative_paths_only() {
        let spec = "csv:a.csv,images=/b.zip".parse::<DataSpec>().unwrap().under(Path::new("/root"));
        assert_eq!(spec.to_string(), "csv:/root/a.csv,images=/b.zip");
    }
}
