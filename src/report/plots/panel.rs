//! One pair of axes with its curves, and sheets of several.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;
use super::figure::{Canvas, Figure, UNITS, centred_text, dashed_line, drawing_error, plain, rectangles};
use super::theme::Role;
use crate::error::{Error, Result};

/// CSS pixels of a panel that stands alone; legible when a phone shows it 360 pixels wide.
const ALONE: (u32, u32) = (400, 310);
/// CSS pixels of a panel in a sheet.
const IN_SHEET: (u32, u32) = (320, 260);
const TITLE_SIZE: f64 = 13.0;
const LABEL_SIZE: f64 = 11.0;
/// Numbers inside cells.
const NUMBER_SIZE: f64 = 9.0;
/// CSS pixels of a disc with a number in it.
pub(super) const BADGE: f64 = 16.0;
const BADGE_NUMBER: f64 = 10.0;
/// CSS pixels of a panel that its axes do not have: left, where there are no class names, and right of them.
pub(super) const BESIDE_AXES: u32 = 54 + 2 + 14;
/// Mean width of a glyph in ems: the plotting crate has no fonts to measure with, and none are needed for SVG.
const GLYPH_WIDTH: f64 = 0.58;

/// One thing drawn between the axes, in data coordinates.
#[derive(Debug, Clone)]
pub(super) enum Mark {
    /// A curve; `dots` marks its points, which suits few of them.
    Line { color: Role, points: Vec<(f64, f64)>, dots: bool },
    /// A dashed reference line.
    Dashed { color: Role, points: Vec<(f64, f64)> },
    /// A filled outline, half transparent.
    Area { color: Role, outline: Vec<(f64, f64)> },
    /// An operating point.
    Dot { color: Role, at: (f64, f64) },
    /// A thin line from a point down to the axis.
    Drop { color: Role, from: (f64, f64) },
    /// A disc with a number in it.
    Badge { color: Role, at: (f64, f64), number: usize },
}

/// A square matrix drawn as coloured cells that fill the panel: first row on top.
#[derive(Debug, Clone)]
pub(super) struct Cells {
    pub(super) size: usize,
    /// One 0xRRGGBB a cell, row by row.
    pub(super) colors: Vec<u32>,
    /// The colour scale, lowest first, with the values at its ends.
    pub(super) scale: Vec<u32>,
    pub(super) ends: (String, String),
    /// The text inside each cell, or nothing.
    pub(super) numbers: Vec<String>,
}

/// One pair of axes with everything that is drawn on them.
#[derive(Debug, Clone)]
pub struct Panel {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) marks: Vec<Mark>,
    pub(super) legend: Vec<(Role, String)>,
    /// A line below the legend.
    pub(super) note: Option<String>,
    pub(super) cells: Option<Cells>,
}

impl Panel {
    pub(super) fn new(title: impl Into<String>, x: Axis, y: Axis) -> Panel {
        Panel { title: title.into(), x, y, marks: Vec::new(), legend: Vec::new(), note: None, cells: None }
    }

    pub(super) fn mark(mut self, mark: Mark) -> Panel {
        self.marks.push(mark);
        self
    }

    pub(super) fn named(mut self, color: Role, name: impl Into<String>) -> Panel {
        self.legend.push((color, name.into()));
        self
    }

    pub(super) fn noted(mut self, note: Option<String>) -> Panel {
        self.note = note;
        self
    }

    /// The title above the axes.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The panel as a figure of its own.
    ///
    /// # Errors
    /// The plotting crate refuses to draw it.
    pub fn figure(&self) -> Result<Figure> {
        let size = if self.cells.is_some() { self.size_of_cells() } else { ALONE };
        Figure::draw(&self.describe(), size, |canvas| self.draw_on(canvas))
    }

    /// The panel as a figure of the smaller size that sheets use.
    ///
    /// # Errors
    /// The plotting crate refuses to draw it.
    pub fn small_figure(&self) -> Result<Figure> {
        Figure::draw(&self.describe(), IN_SHEET, |canvas| self.draw_on(canvas))
    }

    /// The panel as a figure of any size, in CSS pixels.
    ///
    /// # Errors
    /// The plotting crate refuses to draw it.
    pub(super) fn figure_of_size(&self, size: (u32, u32)) -> Result<Figure> {
        Figure::draw(&self.describe(), size, |canvas| self.draw_on(canvas))
    }

    /// The text for a screen reader: the title and the names of the curves, which carry the numbers.
    pub(super) fn describe(&self) -> String {
        let names: Vec<&str> =
            self.legend.iter().map(|(_, name)| name.as_str()).chain(self.note.as_deref()).collect();
        if names.is_empty() { self.title.clone() } else { format!("{}: {}", self.title, names.join("; ")) }
    }

    pub(super) fn draw_on(&self, canvas: &Canvas<'_>) -> Result<String> {
        let header = self.draw_header(canvas)?;
        let mut chart = ChartBuilder::on(canvas)
            .margin_top(header)
            .margin_right(units(14.0))
            .margin_bottom(units(2.0))
            .margin_left(units(2.0))
            .x_label_area_size(units(f64::from(self.room_below())))
            .y_label_area_size(units(f64::from(self.room_left())))
            .build_cartesian_2d(self.x.clone(), self.y.clone())
            .map_err(drawing_error)?;
        let (x_label, y_label) = (|value: &f64| self.x.label(*value), |value: &f64| self.y.label(*value));
        let mut mesh = chart.configure_mesh();
        mesh.bold_line_style(Role::Grid.rgb().stroke_width(UNITS))
            .light_line_style(TRANSPARENT)
            .axis_style(Role::Muted.rgb().stroke_width(UNITS))
            .label_style(font(LABEL_SIZE, Role::Muted))
            .axis_desc_style(font(LABEL_SIZE, Role::Ink))
            .set_all_tick_mark_size(units(3.0))
            .x_label_formatter(&x_label)
            .y_label_formatter(&y_label)
            .x_desc(plain(&self.x.name))
            .y_desc(plain(&self.y.name));
        if self.cells.is_some() {
            mesh.disable_mesh();
        }
        mesh.draw().map_err(drawing_error)?;
        let area = chart.plotting_area();
        let (columns, rows) = area.get_pixel_range();
        self.draw_class_names(canvas, &columns, &rows)?;
        let mut overlay = self.cells.as_ref().map_or(String::new(), |cells| cells.elements(&columns, &rows));
        for mark in &self.marks {
            match mark {
                Mark::Dashed { color, points } => {
                    let points: Vec<_> =
                        self.shown(points).iter().map(|point| area.map_coordinate(point)).collect();
                    overlay += &dashed_line(*color, &points);
                }
                _ => self.draw_mark(area, mark)?,
            }
        }
        Ok(overlay)
    }

    /// CSS pixels left of the axes: for the longest name, and the name of the axis.
    fn room_left(&self) -> u32 {
        54.max(longest(self.y.class_names()) + 30)
    }

    /// CSS pixels below the axes, where names stand upright.
    fn room_below(&self) -> u32 {
        38.max(longest(self.x.class_names()) + 30)
    }

    /// CSS pixels of a heat map that stands alone, with cells about as high as wide.
    fn size_of_cells(&self) -> (u32, u32) {
        let width = ALONE.0.max(250 + self.room_left());
        let side = width - self.room_left() - 16;
        (width, 46 + side + self.room_below())
    }

    /// Names of classes beside the middles of their cells.
    fn draw_class_names(&self, canvas: &Canvas<'_>, columns: &Range<i32>, rows: &Range<i32>) -> Result<()> {
        // Text is placed in drawing units, counted from the corner of the canvas.
        let (left, top) = canvas.get_pixel_range();
        let (left, top) = (left.start, top.start);
        let style = font(LABEL_SIZE, Role::Muted).pos(Pos::new(HPos::Right, VPos::Center));
        for (class, name) in self.x.class_names().iter().enumerate() {
            let x = self.x.map(&(class as f64 + 0.5), (columns.start, columns.end)) - left;
            let upright = style.transform(FontTransform::Rotate270);
            let text = Text::new(class_label(name), (x, rows.end - top + units(6.0)), upright);
            canvas.draw(&text).map_err(drawing_error)?;
        }
        for (class, name) in self.y.class_names().iter().enumerate() {
            let y = self.y.map(&(class as f64 + 0.5), (rows.end, rows.start)) - top;
            let text = Text::new(class_label(name), (columns.start - left - units(6.0), y), style.clone());
            canvas.draw(&text).map_err(drawing_error)?;
        }
        Ok(())
    }

    /// The points that both axes can show.
    fn shown(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        points.iter().filter(|(x, y)| self.x.shows(*x) && self.y.shows(*y)).copied().collect()
    }

    fn draw_mark(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Cartesian2d<Axis, Axis>>,
        mark: &Mark,
    ) -> Result<()> {
        match mark {
            Mark::Line { color, points, dots } => {
                let style = color.rgb().stroke_width(2 * UNITS);
                let points = self.shown(points);
                if *dots || points.len() == 1 {
                    for point in &points {
                        let dot = Circle::new(*point, units(2.6), color.rgb().filled());
                        area.draw(&dot).map_err(drawing_error)?;
                    }
                }
                area.draw(&PathElement::new(points, style)).map_err(drawing_error)
            }
            Mark::Area { color, outline } => {
                let points = self.shown(outline);
                area.draw(&Polygon::new(points.clone(), color.rgb().mix(0.28))).map_err(drawing_error)?;
                let style = color.rgb().stroke_width(UNITS + UNITS / 2);
                area.draw(&PathElement::new(points, style)).map_err(drawing_error)
            }
            Mark::Dot { color, at } => {
                for point in self.shown(&[*at]) {
                    let halo = Circle::new(point, units(5.5), Role::Background.rgb().filled());
                    area.draw(&halo).map_err(drawing_error)?;
                    let dot = Circle::new(point, units(4.0), color.rgb().filled());
                    area.draw(&dot).map_err(drawing_error)?;
                }
                Ok(())
            }
            Mark::Drop { color, from } => {
                let points = self.shown(&[(from.0, 0.0), *from]);
                area.draw(&PathElement::new(points, color.rgb().stroke_width(UNITS))).map_err(drawing_error)
            }
            Mark::Badge { color, at, number } => {
                let area_start = (area.get_pixel_range().0.start, area.get_pixel_range().1.start);
                for point in self.shown(&[*at]) {
                    let (x, y) = area.map_coordinate(&point);
                    draw_badge(
                        &area.strip_coord_spec(),
                        *color,
                        (x - area_start.0, y - area_start.1),
                        *number,
                    )?;
                }
                Ok(())
            }
            // Drawn as one element with dashes, not as one element a dash.
            Mark::Dashed { .. } => Ok(()),
        }
    }

    /// Draws title and legend; the legend wraps. Returns the height they take, in drawing units.
    fn draw_header(&self, canvas: &Canvas<'_>) -> Result<i32> {
        let (width, _) = canvas.dim_in_pixel();
        let left = units(8.0);
        let title = Text::new(plain(&self.title), (left, units(6.0)), font(TITLE_SIZE, Role::Ink));
        canvas.draw(&title).map_err(drawing_error)?;
        let (mut x, mut y) = (left, units(30.0));
        for (color, name) in &self.legend {
            let name = plain(name);
            let length = units(22.0) + text_width(&name, LABEL_SIZE);
            if x > left && x + length > width as i32 {
                (x, y) = (left, y + units(16.0));
            }
            let key = PathElement::new(
                [(x, y + units(0.5)), (x + units(14.0), y + units(0.5))],
                color.rgb().stroke_width(3 * UNITS),
            );
            canvas.draw(&key).map_err(drawing_error)?;
            let style = font(LABEL_SIZE, Role::Ink).pos(Pos::new(HPos::Left, VPos::Center));
            canvas.draw(&Text::new(name, (x + units(18.0), y), style)).map_err(drawing_error)?;
            x += length + units(10.0);
        }
        if let Some(cells) = &self.cells {
            cells.draw_scale(canvas, left, y)?;
        }
        if let Some(note) = &self.note {
            y += if self.legend.is_empty() { 0 } else { units(16.0) };
            let style = font(LABEL_SIZE, Role::Muted).pos(Pos::new(HPos::Left, VPos::Center));
            canvas.draw(&Text::new(plain(note), (left, y), style)).map_err(drawing_error)?;
        }
        let rows = !self.legend.is_empty() || self.cells.is_some() || self.note.is_some();
        Ok(if rows { y + units(14.0) } else { units(28.0) })
    }
}

impl Cells {
    /// The colour scale as a row of small boxes between its two end values.
    fn draw_scale(&self, canvas: &Canvas<'_>, left: i32, y: i32) -> Result<()> {
        let style = font(LABEL_SIZE, Role::Ink).pos(Pos::new(HPos::Left, VPos::Center));
        let step = units(4.0);
        let mut x = left;
        canvas.draw(&Text::new(self.ends.0.clone(), (x, y), style.clone())).map_err(drawing_error)?;
        x += text_width(&self.ends.0, LABEL_SIZE) + units(6.0);
        for color in &self.scale {
            let [_, r, g, b] = color.to_be_bytes();
            let corners = [(x, y - units(5.0)), (x + step, y + units(5.0))];
            canvas.draw(&Rectangle::new(corners, RGBColor(r, g, b).filled())).map_err(drawing_error)?;
            x += step;
        }
        let end = Text::new(self.ends.1.clone(), (x + units(6.0), y), style);
        canvas.draw(&end).map_err(drawing_error)
    }

    /// Paths that fill the given ranges of drawing units, one a colour; equal neighbours in a row are one rectangle. Numbers
    /// are on top.
    fn elements(&self, columns: &Range<i32>, rows: &Range<i32>) -> String {
        let edge = |range: &Range<i32>, index: usize| {
            range.start + ((range.end - range.start) as i64 * index as i64 / self.size as i64) as i32
        };
        let mut by_color: std::collections::BTreeMap<u32, Vec<_>> = std::collections::BTreeMap::new();
        for (row, colors) in self.colors.chunks_exact(self.size.max(1)).enumerate() {
            let (top, bottom) = (edge(rows, row), edge(rows, row + 1));
            let mut column = 0;
            for run in colors.chunk_by(|a, b| a == b) {
                let (left, right) = (edge(columns, column), edge(columns, column + run.len()));
                by_color.entry(run[0]).or_default().push((left, top, right - left, bottom - top));
                column += run.len();
            }
        }
        let mut elements: String = by_color.iter().map(|(color, boxes)| rectangles(*color, boxes)).collect();
        for (cell, (number, color)) in self.numbers.iter().zip(&self.colors).enumerate() {
            let (row, column) = (cell / self.size, cell % self.size);
            let middle = |range, index| (edge(range, index) + edge(range, index + 1)) / 2;
            let at = (middle(columns, column), middle(rows, row));
            elements += &centred_text(ink_on(*color), units(NUMBER_SIZE), at, &plain(number));
        }
        elements
    }
}

/// Near black or white, whichever is legible on a colour; other values than the theme's, which follow the page.
fn ink_on(color: u32) -> u32 {
    let [_, r, g, b] = color.to_be_bytes();
    let light = 0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b);
    if light > 140.0 { 0x10_1010 } else { 0xFD_FDFD }
}

/// A class name for the side of an axis.
fn class_label(name: &str) -> String {
    const LONGEST: usize = 16;
    let name = plain(name);
    match name.char_indices().nth(LONGEST) {
        Some(_) => name.chars().take(LONGEST - 1).chain(['…']).collect(),
        None => name,
    }
}

/// CSS pixels of the longest class label.
fn longest(names: &[String]) -> u32 {
    let widths = names.iter().map(|name| text_width(&class_label(name), LABEL_SIZE) as u32 / UNITS);
    widths.max().unwrap_or(0)
}

/// Several panels as one figure: `rows` of equally many, under one title.
///
/// # Errors
/// There are no panels, more than 1000, or the plotting crate refuses to draw one.
pub fn sheet(title: &str, rows: &[Vec<Panel>]) -> Result<Figure> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    if columns == 0 || columns * rows.len() > 1000 {
        return Err(Error::invalid(format!(
            "a sheet of {} rows and {columns} columns was asked for; from 1 to 1000 panels fit on one: choose fewer",
            rows.len()
        )));
    }
    const TITLE: u32 = 34;
    let size = (columns as u32 * IN_SHEET.0, rows.len() as u32 * IN_SHEET.1 + TITLE);
    Figure::draw(title, size, |canvas| {
        let (head, body) = canvas.split_vertically(TITLE * UNITS);
        let text = Text::new(plain(title), (units(8.0), units(8.0)), font(17.0, Role::Ink));
        head.draw(&text).map_err(drawing_error)?;
        let areas: Vec<DrawingArea<SVGBackend<'_>, Shift>> = body.split_evenly((rows.len(), columns));
        let mut overlay = String::new();
        for (row, panels) in rows.iter().enumerate() {
            for (panel, area) in panels.iter().zip(&areas[row * columns..]) {
                overlay += &panel.draw_on(area)?;
            }
        }
        Ok(overlay)
    })
}

/// Draws a disc with a number in it, about a point in the units of the canvas.
pub(super) fn draw_badge(canvas: &Canvas<'_>, color: Role, at: (i32, i32), number: usize) -> Result<()> {
    let halo = Circle::new(at, units(BADGE / 2.0 + 1.0), Role::Background.rgb().filled());
    canvas.draw(&halo).map_err(drawing_error)?;
    canvas.draw(&Circle::new(at, units(BADGE / 2.0), color.rgb().filled())).map_err(drawing_error)?;
    let style = font(BADGE_NUMBER, Role::Background).pos(Pos::new(HPos::Center, VPos::Center));
    canvas.draw(&Text::new(number.to_string(), at, style)).map_err(drawing_error)
}

/// Draws one line of text about the height of a point, to the right of it or, `before` it, to its left.
pub(super) fn draw_text(
    canvas: &Canvas<'_>,
    color: Role,
    at: (i32, i32),
    before: bool,
    text: &str,
) -> Result<()> {
    let anchor = if before { HPos::Right } else { HPos::Left };
    let style = font(LABEL_SIZE, color).pos(Pos::new(anchor, VPos::Center));
    canvas.draw(&Text::new(plain(text), at, style)).map_err(drawing_error)
}

/// CSS pixels in drawing units.
pub(super) fn units(pixels: f64) -> i32 {
    (pixels * f64::from(UNITS)).round() as i32
}

fn text_width(text: &str, size: f64) -> i32 {
    units(text.chars().count() as f64 * size * GLYPH_WIDTH)
}

/// Text of `size` CSS pixels; the plotting crate divides sizes by 1.24 when it writes SVG.
fn font(size: f64, color: Role) -> TextStyle<'static> {
    ("sans-serif", size * 1.24 * f64::from(UNITS)).into_font().color(&color.rgb())
}

/// At most about `limit` of the points, the first and last among them: a point is kept when it is far enough from the
/// last one kept, measured in shares of the range that all points cover.
pub(super) fn thinned(points: &[(f64, f64)], limit: usize) -> Vec<(f64, f64)> {
    if points.len() <= limit || limit < 2 {
        return points.to_vec();
    }
    let span = |pick: fn(&(f64, f64)) -> f64| {
        let values = || points.iter().map(pick).filter(|value| value.is_finite());
        let length = values().fold(f64::NEG_INFINITY, f64::max) - values().fold(f64::INFINITY, f64::min);
        if length > 0.0 { length } else { 1.0 }
    };
    let (width, height) = (span(|point| point.0), span(|point| point.1));
    let mut distance = 1.0 / limit as f64;
    loop {
        let mut kept = vec![points[0]];
        let mut last = points[0];
        for point in &points[1..points.len() - 1] {
            if (point.0 - last.0).abs() / width >= distance || (point.1 - last.1).abs() / height >= distance {
                kept.push(*point);
                last = *point;
            }
        }
        kept.push(points[points.len() - 1]);
        if kept.len() <= limit {
            return kept;
        }
        distance *= 1.5;
    }
}
