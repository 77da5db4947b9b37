//! Colours: one name a role, one value for light and one for dark surroundings.
//!
//! Figures are drawn in the light values. A style sheet that selects on those very values swaps in the dark ones,
//! so that a figure needs no classes and stays legible in a viewer that knows no style sheets. The six series
//! colours keep their order of lightness and differ for all common kinds of colour blindness.

use plotters::style::RGBColor;

/// The meaning of a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Behind everything.
    Background,
    /// Titles and labels.
    Ink,
    /// Tick labels, axes, reference lines.
    Muted,
    /// Grid lines.
    Grid,
    /// The first series: in-distribution, training.
    Blue,
    /// The second series: out-of-distribution, validation.
    Orange,
    /// The third series.
    Green,
    /// The fourth series.
    Purple,
    /// The fifth series.
    Gold,
    /// Operating points.
    Red,
}

/// Every role in the order of the variants, with its values on white paper and on a dark page, as 0xRRGGBB.
const COLOURS: [(Role, u32, u32); 10] = [
    (Role::Background, 0xFFFFFF, 0x15191E),
    (Role::Ink, 0x1B1F24, 0xE8EBEF),
    (Role::Muted, 0x59626D, 0xA6B0BB),
    (Role::Grid, 0xE3E7EC, 0x2C333B),
    (Role::Blue, 0x0B66B0, 0x5FB2F2),
    (Role::Orange, 0xC04F00, 0xFF9A57),
    (Role::Green, 0x007A5A, 0x3CCB9F),
    (Role::Purple, 0x8448B5, 0xC79DF2),
    (Role::Gold, 0x8C6A00, 0xE2BC45),
    (Role::Red, 0xC2183C, 0xFF7A93),
];

impl Role {
    /// The value on white paper, as 0xRRGGBB.
    pub const fn light(self) -> u32 {
        COLOURS[self as usize].1
    }

    /// The value on a dark page, as 0xRRGGBB.
    #[cfg(test)]
    pub const fn dark(self) -> u32 {
        COLOURS[self as usize].2
    }

    pub(super) fn rgb(self) -> RGBColor {
        let [_, r, g, b] = self.light().to_be_bytes();
        RGBColor(r, g, b)
    }
}

/// Rules that turn the light values below `scope` (a CSS selector, may be empty) into the dark ones.
pub fn dark_rules(scope: &str) -> String {
    COLOURS
        .iter()
        .map(|(_, light, dark)| {
            format!(
                "{scope}[fill=\"#{light:06X}\"]{{fill:#{dark:06X}}}{scope}[stroke=\"#{light:06X}\"]{{stroke:#{dark:06X}}}"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance as WCAG 2 defines it.
    fn luminance(rgb: u32) -> f64 {
        let [_, r, g, b] = rgb.to_be_bytes();
        let linear = |value: u8| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
    }

    fn contrast(a: u32, b: u32) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_and_series_reach_a_contrast_of_4_5_on_both_backgrounds() {
        for (index, (color, ..)) in COLOURS.into_iter().enumerate() {
            assert_eq!(color as usize, index);
            if matches!(color, Role::Background | Role::Grid) {
                continue;
            }
            let light = contrast(color.light(), Role::Background.light());
            let dark = contrast(color.dark(), Role::Background.dark());
            assert!(light >= 4.5 && dark >= 4.5, "{color:?}: {light:.2} on light, {dark:.2} on dark");
        }
    }

    #[test]
    fn no_two_roles_share_a_light_value() {
        for (index, (a, light, _)) in COLOURS.iter().enumerate() {
            for (b, other, _) in &COLOURS[index + 1..] {
                assert_ne!(light, other, "the dark rules could not tell {a:?} from {b:?}");
            }
        }
    }
}
