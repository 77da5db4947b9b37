//! Normalisation: the mean and standard deviation of each channel, by preset or by numbers.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::values::serde_as_text;

/// Mean and standard deviation of red, green and blue, for values in 0..1: `(value - mean) / std`.
///
/// Written as a preset's name, or as numbers `MEAN/STD`, each one number or three with commas
/// (`.5,.5,.5/.25,.25,.25`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalize {
    /// Mean of each channel.
    pub mean: [f64; 3],
    /// Standard deviation of each channel.
    pub std: [f64; 3],
}

/// The presets by name. `notebook` has the standard deviations that much code for CIFAR uses: the mean over the
/// images of each image's deviation, which is smaller than that of all pixels.
const PRESETS: [(&str, Normalize); 4] = [
    ("cifar10", Normalize { mean: [0.4914, 0.4822, 0.4465], std: [0.2470, 0.2435, 0.2616] }),
    ("cifar100", Normalize { mean: [0.5071, 0.4867, 0.4408], std: [0.2675, 0.2565, 0.2761] }),
    ("imagenet", Normalize { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }),
    ("notebook", Normalize { mean: [0.4914, 0.4822, 0.4465], std: [0.2023, 0.1994, 0.2010] }),
];

impl Normalize {
    /// The names of the presets.
    #[doc(hidden)]
    pub fn presets() -> [&'static str; 4] {
        PRESETS.map(|(name, _)| name)
    }

    /// For each channel the normalised value of each byte, in f32 as torchvision computes it
    /// (`ToTensor`, then `Normalize`).
    pub(super) fn table(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|channel| {
            let (mean, std) = (self.mean[channel] as f32, self.std[channel] as f32);
            std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std)
        })
    }
}

impl FromStr for Normalize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Normalize> {
        if let Some((_, preset)) = PRESETS.iter().find(|(name, _)| *name == text) {
            return Ok(*preset);
        }
        let wrong = || {
            Error::usage(format!(
                "`{text}` is no normalisation: it is cifar10, cifar100, imagenet, notebook, or numbers MEAN/STD such \
                 as 0.5,0.5,0.5/0.25,0.25,0.25 with deviations above zero"
            ))
        };
        let (mean, std) = text.split_once('/').ok_or_else(wrong)?;
        let normalize =
            Normalize { mean: three(mean).ok_or_else(wrong)?, std: three(std).ok_or_else(wrong)? };
        // Below this, f32 arithmetic overflows; nobody means it.
        let usable = normalize.mean.iter().all(|m| m.abs() <= 1e6)
            && normalize.std.iter().all(|s| *s >= 1e-6 && *s <= 1e6);
        if usable { Ok(normalize) } else { Err(wrong()) }
    }
}

fn three(text: &str) -> Option<[f64; 3]> {
    let numbers: Vec<f64> = text.split(',').map(|n| n.trim().parse().ok()).collect::<Option<_>>()?;
    match numbers[..] {
        [one] => Some([one; 3]),
        [red, green, blue] => Some([red, green, blue]),
        _ => None,
    }
}

impl fmt::Display for Normalize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = PRESETS.iter().find(|(_, preset)| preset == self) {
            return f.write_str(name);
        }
        let ([a, b, c], [x, y, z]) = (self.mean, self.std);
        write!(f, "{a},{b},{c}/{x},{y},{z}")
    }
}

serde_as_text!(Normalize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_and_numbers_parse_and_print_back() {
        for (text, printed) in [
            ("cifar10", "cifar10"),
            ("0.485,0.456,0.406/0.229,0.224,0.225", "imagenet"),
            (".5/.25", "0.5,0.5,0.5/0.25,0.25,0.25"),
            ("0.1,0.2,0.3/1,2,3", "0.1,0.2,0.3/1,2,3"),
        ] {
            let normalize: Normalize = text.parse().unwrap();
            assert_eq!(normalize.to_string(), printed);
            assert_eq!(printed.parse::<Normalize>().unwrap(), normalize);
        }
        for text in ["cifar", "0.5", ".5/0", ".5,.5/.2", "nan/1", "1/-1", "inf/1", "1/1e-300"] {
            assert_eq!(text.parse::<Normalize>().unwrap_err().exit_code(), 2, "{text}");
        }
    }
}
