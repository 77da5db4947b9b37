//! A finished figure: SVG for a file, SVG for the inside of a page, PNG.

use std::fmt::Write;

use plotters::coord::Shift;
use plotters::prelude::*;
use resvg::{tiny_skia, usvg};

use super::outlines::text_as_paths;
use super::theme::{self, Role};
use crate::error::{Error, Result, printable};

/// The area that plots draw on.
pub(super) type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Drawing units per CSS pixel. The plotting crate rounds to whole units; a finer grid keeps curves smooth.
pub(super) const UNITS: u32 = 4;

/// A finished figure, independent of any file or page.
#[derive(Debug, Clone)]
pub struct Figure {
    description: String,
    width: u32,
    height: u32,
    elements: String,
}

impl Figure {
    /// Draws a figure of `width` x `height` CSS pixels. `draw` may return further SVG elements, in drawing units,
    /// to put on top.
    pub(super) fn draw(
        description: &str,
        (width, height): (u32, u32),
        draw: impl FnOnce(&Canvas<'_>) -> Result<String>,
    ) -> Result<Figure> {
        let mut document = String::new();
        let overlay = {
            let canvas =
                SVGBackend::with_string(&mut document, (width * UNITS, height * UNITS)).into_drawing_area();
            let overlay = draw(&canvas)?;
            canvas.present().map_err(drawing_error)?;
            overlay
        };
        let inside = document.split_once('\n').map_or("", |(_, rest)| rest);
        let inside = inside.strip_suffix("</svg>\n").unwrap_or(inside);
        let elements = compact(inside) + &overlay;
        Ok(Figure { description: plain(description), width, height, elements })
    }

    /// Width and height in CSS pixels.
    #[cfg(test)]
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// A complete SVG document with its own background; follows the reader's light or dark preference.
    pub fn standalone(&self) -> String {
        let style =
            format!("<style>@media (prefers-color-scheme:dark){{{}}}</style>\n", theme::dark_rules(""));
        self.document(&style, &self.elements)
    }

    /// An element for the inside of an HTML page, as wide as its container; the page's style sheet brings
    /// [`theme::dark_rules`] with the scope `svg.figure `.
    pub fn inline(&self) -> String {
        format!(
            "<svg class=\"figure\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" font-family=\"sans-serif\">\n{}</svg>",
            self.width * UNITS,
            self.height * UNITS,
            escape(&self.description),
            self.elements
        )
    }

    /// The figure on white as a PNG file, `scale` pixels per CSS pixel (2 suits most screens).
    ///
    /// # Errors
    /// `scale` is not positive, or the picture would have more than 64 megapixels.
    pub fn png(&self, scale: f32) -> Result<Vec<u8>> {
        const LARGEST: f64 = 64e6;
        let (width, height) =
            (f64::from(self.width) * f64::from(scale), f64::from(self.height) * f64::from(scale));
        if !(width >= 1.0 && height >= 1.0 && width * height <= LARGEST) {
            return Err(Error::invalid(format!(
                "a PNG of {width:.0} x {height:.0} pixels was asked for; from 1 x 1 up to 64 megapixels are possible: \
                 choose another scale"
            )));
        }
        let document = self.document("", &text_as_paths(&self.elements)?);
        let tree = usvg::Tree::from_str(&document, &usvg::Options::default()).map_err(drawing_error)?;
        // Rounding stays below 64 megapixels, so both fit.
        let mut pixels = tiny_skia::Pixmap::new(width.round() as u32, height.round() as u32)
            .ok_or_else(|| Error::invalid("the picture has no pixels: choose a larger scale"))?;
        resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixels.as_mut());
        pixels.encode_png().map_err(drawing_error)
    }

    fn document(&self, style: &str, elements: &str) -> String {
        let (width, height) = (self.width, self.height);
        let (wide, high) = (width * UNITS, height * UNITS);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {wide} {high}\" font-family=\"sans-serif\">\n<title>{}</title>\n{style}\
             <rect width=\"{wide}\" height=\"{high}\" fill=\"#{:06X}\"/>\n{elements}</svg>\n",
            escape(&self.description),
            Role::Background.light(),
        )
    }
}

/// Attributes that every element repeats and that the defaults already say; pages hold hundreds of figures.
fn compact(elements: &str) -> String {
    elements
        .replace(" font-family=\"sans-serif\"", "")
        .replace(" opacity=\"1\"", "")
        .replace(" stroke=\"none\"", "")
        .replace(" text-anchor=\"start\"", "")
        .replace(" \"/>", "\"/>")
        .replace(">\n", ">")
        .replace("\n</text>", "</text>\n")
        .replace("/><", "/>\n<")
}

/// Text for a figure: one line, at most 120 long, no control characters and nothing else that XML 1.0 forbids even
/// when escaped.
pub(super) fn plain(text: &str) -> String {
    const LONGEST: usize = 120;
    let text = printable(text).replace('\n', " ").replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}");
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST - 1).chain(['…']).collect()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            _ => out.push(c),
        }
    }
    out
}

/// One SVG path of axis-parallel rectangles `(x, y, width, height)` in drawing units.
pub(super) fn rectangles(fill: u32, rectangles: &[(i32, i32, i32, i32)]) -> String {
    let mut path = format!("<path shape-rendering=\"crispEdges\" fill=\"#{fill:06x}\" d=\"");
    for (x, y, width, height) in rectangles {
        let _ = write!(path, "M{x} {y}h{width}v{height}h-{width}z");
    }
    path + "\"/>\n"
}

/// Text about a point, of a size in drawing units.
pub(super) fn centred_text(fill: u32, size: i32, (x, y): (i32, i32), text: &str) -> String {
    format!(
        "<text x=\"{x}\" y=\"{y}\" dy=\"0.5ex\" text-anchor=\"middle\" font-size=\"{size}\" fill=\"#{fill:06x}\">{}</text>\n",
        escape(text)
    )
}

/// A dashed line through points in drawing units.
pub(super) fn dashed_line(color: Role, points: &[(i32, i32)]) -> String {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x},{y}")).collect();
    format!(
        "<polyline fill=\"none\" stroke=\"#{:06X}\" stroke-width=\"{}\" stroke-dasharray=\"{} {}\" points=\"{}\"/>\n",
        color.light(),
        UNITS + UNITS / 2,
        5 * UNITS,
        4 * UNITS,
        points.join(" ")
    )
}

pub(super) fn drawing_error(error: impl std::fmt::Display) -> Error {
    Error::invalid(format!("cannot draw the figure: {error}"))
}
