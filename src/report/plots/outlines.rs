//! Outlines for the text of a figure: a PNG is drawn with the embedded font, whatever fonts the machine has.

use std::fmt::Write;

use ttf_parser::{Face, OutlineBuilder};

use crate::error::{Error, Result};

/// Glyphs for PNG figures (scripts/make_font_subset.sh). The font has neither kerning nor ligatures.
static FONT: &[u8] = include_bytes!("../font/DejaVuSans-subset.ttf");

/// Replaces the `<text>` elements of a figure by filled paths in the same places.
///
/// # Errors
/// An element is not written as the plotting crate does.
pub(super) fn text_as_paths(elements: &str) -> Result<String> {
    let face =
        Face::parse(FONT, 0).map_err(|e| Error::invalid(format!("cannot read the font of figures: {e}")))?;
    let mut pieces = elements.split("<text");
    let mut out = pieces.next().unwrap_or_default().to_string();
    for piece in pieces {
        let (path, rest) = path(&face, piece)
            .ok_or_else(|| Error::invalid(format!("cannot draw text of an unknown form: <text{piece}")))?;
        out.push_str(&path);
        out.push_str(rest);
    }
    Ok(out)
}

/// Turns what follows `<text` into a path, and returns what comes after `</text>` with it.
fn path<'a>(face: &Face<'_>, element: &'a str) -> Option<(String, &'a str)> {
    let (element, rest) = element.split_once("</text>")?;
    let (attributes, text) = element.split_once('>')?;
    let attribute = |name: &str| {
        let (_, value) = attributes.split_once(&format!(" {name}=\""))?;
        Some(value.split_once('"')?.0)
    };
    let number = |name: &str| attribute(name)?.parse::<f32>().ok();

    let size = number("font-size")?;
    // Below the place, in ems; an `ex` counts as half an em, as for a font that does not give it.
    let below = match attribute("dy")? {
        "0.76em" => 0.76,
        "0.5ex" => 0.25,
        "-0.5ex" => -0.25,
        _ => return None,
    };
    let mut outline = Outline::default();
    for c in unescaped(text).chars() {
        let glyph = face.glyph_index(c).or_else(|| face.glyph_index(char::REPLACEMENT_CHARACTER))?;
        face.outline_glyph(glyph, &mut outline);
        outline.pen += f32::from(face.glyph_hor_advance(glyph)?);
    }
    let before = match attribute("text-anchor") {
        None | Some("start") => 0.0,
        Some("middle") => outline.pen / 2.0,
        Some("end") => outline.pen,
        Some(_) => return None,
    };

    let scale = size / f32::from(face.units_per_em());
    let (x, y) = (number("x")? - before * scale, number("y")? + below * size);
    let turned = attribute("transform").unwrap_or_default();
    let opacity = attribute("opacity").unwrap_or("1");
    let path = format!(
        "<path fill=\"{}\" opacity=\"{opacity}\" transform=\"{turned} translate({x} {y}) scale({scale} -{scale})\" d=\"{}\"/>",
        attribute("fill")?,
        outline.commands
    );
    Some((path, rest))
}

/// The characters that a viewer shows: outer spaces vanish, and several in a row are one.
fn unescaped(text: &str) -> String {
    let words: Vec<&str> = text.split([' ', '\n']).filter(|word| !word.is_empty()).collect();
    words
        .join(" ")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

/// Path commands of glyphs in a line, in units of the font, upwards.
#[derive(Default)]
struct Outline {
    commands: String,
    pen: f32,
}

impl Outline {
    fn command(&mut self, letter: char, points: &[(f32, f32)]) {
        self.commands.push(letter);
        for (x, y) in points {
            // Formatting into a string cannot fail.
            let _ = write!(self.commands, "{} {} ", x + self.pen, y);
        }
    }
}

impl OutlineBuilder for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        self.command('M', &[(x, y)]);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.command('L', &[(x, y)]);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.command('Q', &[(x1, y1), (x, y)]);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.command('C', &[(x1, y1), (x2, y2), (x, y)]);
    }

    fn close(&mut self) {
        self.command('Z', &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Horizontal extent of what is drawn, before any scale.
    fn extent(path: &str) -> (f32, f32) {
        let commands = path.split_once(" d=\"").unwrap().1;
        let commands = commands.split_once('"').unwrap().0.replace(['M', 'L', 'Q', 'C', 'Z'], " ");
        let xs = commands.split_whitespace().step_by(2).map(|x| x.parse::<f32>().unwrap());
        xs.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
    }

    fn translation(path: &str) -> (f32, f32) {
        let inside = path.split_once("translate(").unwrap().1.split_once(')').unwrap().0;
        let (x, y) = inside.split_once(' ').unwrap();
        (x.parse().unwrap(), y.parse().unwrap())
    }

    fn drawn(attributes: &str, text: &str) -> String {
        let element = format!(
            "<rect/>\n<text x=\"400\" y=\"90\" font-size=\"40\" fill=\"#123456\"{attributes}>{text}</text>\n"
        );
        let all = text_as_paths(&element).unwrap();
        let path = all.strip_prefix("<rect/>\n").unwrap().strip_suffix('\n').unwrap();
        assert!(path.starts_with("<path fill=\"#123456\"") && path.ends_with("Z\"/>"), "{path}");
        path.to_string()
    }

    #[test]
    fn text_begins_ends_or_is_centred_at_its_place() {
        let at = |anchor: &str| drawn(&format!(" dy=\"0.76em\"{anchor}"), "AUROC 97.1 %");
        let (start, middle, end) = (at(""), at(" text-anchor=\"middle\""), at(" text-anchor=\"end\""));
        let width = (extent(&start).1 - extent(&start).0) * 40.0 / 2048.0;
        let (half, whole) = (400.0 - translation(&middle).0, 400.0 - translation(&end).0);
        assert_eq!(translation(&start), (400.0, 90.0 + 0.76 * 40.0));
        assert!((half * 2.0 - whole).abs() < 1e-3 && (whole - width).abs() < 6.0, "{half} {whole} {width}");
    }

    #[test]
    fn turned_and_faint_text_stays_so() {
        let path = drawn(" dy=\"-0.5ex\" opacity=\"0.5\" transform=\"rotate(270, 400, 90)\"", "loss");
        assert!(
            path.contains(" opacity=\"0.5\" transform=\"rotate(270, 400, 90) translate(400 80)"),
            "{path}"
        );
    }

    #[test]
    fn escaped_characters_are_one_glyph_and_unknown_ones_the_sign_of_replacement() {
        let contours = |text: &str| drawn(" dy=\"0.5ex\"", text).matches('M').count();
        assert_eq!((contours("&lt;"), contours("&apos;"), contours("&quot;")), (1, 1, 2));
        assert_eq!(extent(&drawn(" dy=\"0.5ex\"", "\u{4e2d}")), extent(&drawn(" dy=\"0.5ex\"", "\u{fffd}")));
        assert_eq!(contours("&amp;lt;"), contours("&amp;") + contours("lt;"));
        assert!(text_as_paths("<text>a</text>").is_err());
    }
}
