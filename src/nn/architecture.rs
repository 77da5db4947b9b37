//! Which network: the numbers that, with a list of weights, define it completely.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::head::{HeadKind, HeadSpec, ONLY_HEAD, SUBCLASS_HEAD, SUPERCLASS_HEAD};
use crate::error::{Error, Result};
use crate::values::{Named, named};

named! {
    /// How images enter the network.
    pub enum Stem: "stem" {
        /// 3x3 convolution, stride 1, no pooling: for images around 32 pixels.
        Cifar = "cifar",
        /// 7x7 convolution, stride 2, then 3x3 max pooling, stride 2.
        Imagenet = "imagenet",
    }
}

named! {
    /// The shortcut around a block where shapes change, in He et al.'s CIFAR networks.
    pub enum Shortcut: "shortcut" {
        /// Every second pixel, new channels zero; no parameters.
        A = "a",
        /// 1x1 convolution and batch normalisation.
        B = "b",
    }
}

named! {
    /// Depth, by the names everybody uses.
    #[allow(missing_docs)]
    pub enum Depth: "architecture" {
        ResNet18 = "resnet18",
        ResNet34 = "resnet34",
        ResNet50 = "resnet50",
        ResNet101 = "resnet101",
        ResNet20 = "resnet20",
        ResNet32 = "resnet32",
        ResNet44 = "resnet44",
        ResNet56 = "resnet56",
        ResNet110 = "resnet110",
    }
}

impl Depth {
    /// Every depth there is.
    pub fn all() -> impl Iterator<Item = Depth> {
        Depth::NAMES.iter().map(|(depth, ..)| *depth)
    }

    /// Residual blocks per stage.
    pub fn blocks(self) -> &'static [usize] {
        match self {
            Depth::ResNet18 => &[2, 2, 2, 2],
            Depth::ResNet34 | Depth::ResNet50 => &[3, 4, 6, 3],
            Depth::ResNet101 => &[3, 4, 23, 3],
            Depth::ResNet20 => &[3, 3, 3],
            Depth::ResNet32 => &[5, 5, 5],
            Depth::ResNet44 => &[7, 7, 7],
            Depth::ResNet56 => &[9, 9, 9],
            Depth::ResNet110 => &[18, 18, 18],
        }
    }

    /// Whether blocks are 1x1, 3x3, 1x1 convolutions, the last with four times the channels.
    pub fn bottleneck(self) -> bool {
        matches!(self, Depth::ResNet50 | Depth::ResNet101)
    }

    /// Whether this is one of He et al.'s three-stage networks for CIFAR.
    pub fn three_stages(self) -> bool {
        self.blocks().len() == 3
    }
}

/// A network without its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Described")]
pub struct Architecture {
    /// Depth and kind of block.
    pub arch: Depth,
    /// How images enter; He et al.'s networks always have the `cifar` stem.
    pub stem: Stem,
    /// Shortcut option of He et al.'s networks; the others always have `b`.
    pub shortcut: Shortcut,
    /// Channels of the first stage: 64, or 16 in He et al.'s networks, times the width factor.
    pub base_channels: usize,
    /// Channels of an image.
    pub in_channels: usize,
    /// The classifiers: one named `fc`, or `super_head` and `sub_head`.
    pub heads: Vec<HeadSpec>,
}

/// An architecture as files have it: a network with one linear head may say only how many classes it has.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    arch: Depth,
    stem: Stem,
    shortcut: Shortcut,
    base_channels: usize,
    in_channels: usize,
    heads: Option<Vec<HeadSpec>>,
    classes: Option<usize>,
}

impl TryFrom<Described> for Architecture {
    type Error = String;

    fn try_from(described: Described) -> std::result::Result<Architecture, String> {
        let Described { arch, stem, shortcut, base_channels, in_channels, heads, classes } = described;
        let heads = match (heads, classes) {
            (Some(heads), None) => heads,
            (None, Some(classes)) => vec![HeadSpec::new(ONLY_HEAD, HeadKind::Linear, classes)],
            _ => return Err("expected either `heads` or the number of `classes`".into()),
        };
        Ok(Architecture { arch, stem, shortcut, base_channels, in_channels, heads })
    }
}

/// More than any network this program is for; a bound against absurd files.
const MOST_CHANNELS: usize = 1 << 14;

impl Architecture {
    /// A network by name, with a width factor and one linear head.
    ///
    /// # Errors
    /// A width that leaves no channels or too many, no classes, the imagenet stem with a CIFAR network.
    pub fn new(
        arch: Depth,
        stem: Option<Stem>,
        shortcut: Option<Shortcut>,
        width: f64,
        classes: usize,
    ) -> Result<Architecture> {
        let base = if arch.three_stages() { 16.0 } else { 64.0 };
        let scaled = (base * width).round();
        if !(scaled >= 1.0 && scaled <= MOST_CHANNELS as f64) {
            return Err(Error::usage(format!(
                "--width {width} gives {scaled} channels in the first stage; choose between {} and {}",
                1.0 / base,
                MOST_CHANNELS as f64 / base
            )));
        }
        let architecture = Architecture {
            arch,
            stem: stem.unwrap_or(Stem::Cifar),
            shortcut: shortcut.unwrap_or(if arch.three_stages() { Shortcut::A } else { Shortcut::B }),
            base_channels: scaled as usize,
            in_channels: 3,
            heads: vec![HeadSpec::new(ONLY_HEAD, HeadKind::Linear, classes)],
        };
        architecture.check()?;
        Ok(architecture)
    }

    /// The same network with other heads.
    ///
    /// # Errors
    /// Heads that are neither one `fc` nor a `super_head` and a `sub_head`, or without classes.
    pub fn with_heads(self, heads: Vec<HeadSpec>) -> Result<Architecture> {
        let architecture = Architecture { heads, ..self };
        architecture.check()?;
        Ok(architecture)
    }

    /// Checks that the numbers make a network (they may come from a file).
    ///
    /// # Errors
    /// Says which number is wrong.
    pub fn check(&self) -> Result<()> {
        let fail = |what: String| Err(Error::usage(what));
        if self.arch.three_stages() && self.stem == Stem::Imagenet {
            return fail(format!("{} has the cifar stem only; leave --stem out", self.arch));
        }
        if !self.arch.three_stages() && self.shortcut == Shortcut::A {
            return fail(format!(
                "{} has shortcut option b only; option a is for resnet20 to resnet110",
                self.arch
            ));
        }
        let names: Vec<&str> = self.heads.iter().map(|head| head.name.as_str()).collect();
        if names != [ONLY_HEAD] && names != [SUPERCLASS_HEAD, SUBCLASS_HEAD] {
            return fail(format!(
                "a network has one head, `{ONLY_HEAD}`, or two, `{SUPERCLASS_HEAD}` and `{SUBCLASS_HEAD}`; here they are {names:?}"
            ));
        }
        let channels = [("first-stage channels", self.base_channels), ("image channels", self.in_channels)];
        let classes = self.heads.iter().map(|head| ("classes", head.classes));
        for (what, number) in channels.into_iter().chain(classes) {
            if number == 0 || number > MOST_CHANNELS {
                return fail(format!(
                    "a network cannot have {number} {what}; the range is 1 to {MOST_CHANNELS}"
                ));
            }
        }
        Ok(())
    }

    /// Length of the feature vector behind the average pool.
    pub fn feature_dimension(&self) -> usize {
        let expansion = if self.arch.bottleneck() { 4 } else { 1 };
        (self.base_channels << (self.arch.blocks().len() - 1)) * expansion
    }

    /// The width factor of the paper's network.
    pub fn width(&self) -> f64 {
        self.base_channels as f64 / if self.arch.three_stages() { 16.0 } else { 64.0 }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.arch)?;
        if self.arch.three_stages() {
            write!(f, " (shortcut {}", if self.shortcut == Shortcut::A { "a" } else { "b" })?;
        } else {
            write!(f, " ({} stem", if self.stem == Stem::Cifar { "cifar" } else { "imagenet" })?;
        }
        if self.width() != 1.0 {
            write!(f, ", width {}", self.width())?;
        }
        for (index, head) in self.heads.iter().enumerate() {
            f.write_str(if index == 0 { ", " } else { " and " })?;
            match (self.heads.len(), index) {
                (1, _) => write!(f, "{} classes", head.classes)?,
                (_, 0) => write!(f, "{} superclasses", head.classes)?,
                _ => write!(f, "{} subclasses", head.classes)?,
            }
            if head.kind != HeadKind::Linear {
                write!(f, " by a {} head", head.kind)?;
            }
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_heads() -> Architecture {
        let heads = vec![
            HeadSpec::new(SUPERCLASS_HEAD, HeadKind::Linear, 4),
            HeadSpec::new(SUBCLASS_HEAD, HeadKind::CosineReluLinear, 88),
        ];
        Architecture::new(Depth::ResNet18, None, None, 0.5, 3).unwrap().with_heads(heads).unwrap()
    }

    #[test]
    fn an_architecture_round_trips_and_one_that_says_only_its_classes_has_one_linear_head() {
        let written = serde_json::to_value(two_heads()).unwrap();
        assert_eq!(serde_json::from_value::<Architecture>(written).unwrap(), two_heads());
        let old = r#"{"arch": "resnet20", "stem": "cifar", "shortcut": "a", "base_channels": 4, "in_channels": 3, "classes": 7}"#;
        let read: Architecture = serde_json::from_str(old).unwrap();
        assert_eq!(read.heads, [HeadSpec::new(ONLY_HEAD, HeadKind::Linear, 7)]);
        let neither = old.replace(r#", "classes": 7"#, "");
        let message = serde_json::from_str::<Architecture>(&neither).unwrap_err().to_string();
        assert!(message.contains("`heads` or the number of `classes`"), "{message}");
    }

    #[test]
    fn a_network_tells_its_heads_to_a_reader() {
        let text =
            "resnet18 (cifar stem, width 0.5, 4 superclasses and 88 subclasses by a cosine-relu-linear head)";
        assert_eq!(two_heads().to_string(), text);
        let one = Architecture::new(Depth::ResNet20, None, None, 1.0, 10).unwrap();
        assert_eq!(one.to_string(), "resnet20 (shortcut a, 10 classes)");
    }

    #[test]
    fn heads_of_other_names_or_without_classes_are_refused() {
        for (heads, part) in [
            (vec![], "one head"),
            (vec![HeadSpec::new("head", HeadKind::Linear, 3)], "one head"),
            (vec![HeadSpec::new(SUBCLASS_HEAD, HeadKind::Linear, 3)], "one head"),
            (vec![HeadSpec::new(ONLY_HEAD, HeadKind::Cosine, 0)], "0 classes"),
        ] {
            let error = two_heads().with_heads(heads).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
