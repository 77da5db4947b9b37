//! Tables of plain text, for every verb: columns two spaces apart, text to the left, numbers to the right.
//!
//! A table that is wider than the terminal is laid out anew, and loses nothing: the last column of text is wrapped, or goes below
//! its row; columns that do not fit make further blocks, with the first columns repeated; first columns that take more than half
//! the width stand on a line of their own.

use console::measure_text_width as width_of;

use crate::error::printable;

/// Spaces between columns.
const GAP: usize = 2;
/// Indentation of what stands below its row.
const BELOW: usize = 4;
/// The narrowest that a last column of text is made, to stay beside its row.
const NARROWEST: usize = 24;

/// A column.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    title: String,
    is_number: bool,
}

impl Column {
    /// A column of text, to the left.
    pub(crate) fn text(title: impl Into<String>) -> Column {
        Column { title: title.into(), is_number: false }
    }

    /// A column of numbers, to the right.
    pub(crate) fn number(title: impl Into<String>) -> Column {
        Column { title: title.into(), is_number: true }
    }

    /// A column of text, and columns of numbers behind it.
    pub(crate) fn with_numbers<const N: usize>(text: &str, numbers: [&str; N]) -> Vec<Column> {
        std::iter::once(Column::text(text)).chain(numbers.map(Column::number)).collect()
    }
}

#[derive(Debug)]
enum Line {
    Row(Vec<String>),
    Heading(String),
}

/// A table; its columns are in the order of their importance.
#[derive(Debug)]
pub(crate) struct TextTable {
    columns: Vec<Column>,
    lines: Vec<Line>,
    keys: usize,
    indent: usize,
}

/// What stands in the line of a row, and what below it.
struct Layout {
    line: Vec<usize>,
    below: Vec<usize>,
    widths: Vec<usize>,
}

impl TextTable {
    /// An empty table; its first column says what a row is of.
    pub(crate) fn new(columns: impl IntoIterator<Item = Column>) -> TextTable {
        TextTable { columns: columns.into_iter().collect(), lines: Vec::new(), keys: 1, indent: 0 }
    }

    /// The number of first columns that say what a row is of, and are repeated in every block.
    pub(crate) fn keys(mut self, keys: usize) -> TextTable {
        self.keys = keys;
        self
    }

    /// Moves the whole table to the right.
    pub(crate) fn indent(mut self, columns: usize) -> TextTable {
        self.indent = columns;
        self
    }

    /// Adds a row; what comes out of files cannot move the cursor. Cells that lack at the end are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl AsRef<str>>) {
        let mut cells: Vec<String> = cells.into_iter().map(|cell| one_line(cell.as_ref())).collect();
        cells.resize(self.columns.len(), String::new());
        self.lines.push(Line::Row(cells));
    }

    /// Adds a heading for the rows behind it, as long as it likes.
    pub(crate) fn heading(&mut self, text: &str) {
        self.lines.push(Line::Heading(one_line(text)));
    }

    /// The last row, if no heading is behind it.
    pub(crate) fn last_row(&self) -> Option<&[String]> {
        match self.lines.last() {
            Some(Line::Row(cells)) => Some(cells),
            _ => None,
        }
    }

    /// Whether there are no rows.
    pub(crate) fn is_empty(&self) -> bool {
        !self.lines.iter().any(|line| matches!(line, Line::Row(_)))
    }

    /// The text for a terminal of this many columns; without a number as wide as it is.
    pub(crate) fn render(&self, width: Option<usize>) -> String {
        let room = width.map_or(usize::MAX, |width| width.saturating_sub(self.indent).max(2 * NARROWEST));
        let blocks = self.layouts(room);
        let text: Vec<String> = blocks.iter().map(|layout| self.block(layout, room)).collect();
        text.join("\n")
    }

    /// The blocks of a table within `room` columns.
    fn layouts(&self, room: usize) -> Vec<Layout> {
        let widths: Vec<usize> = (0..self.columns.len()).map(|column| self.natural(column)).collect();
        let keys: Vec<usize> = (0..self.keys.min(self.columns.len())).collect();
        let others: Vec<usize> = (keys.len()..self.columns.len()).collect();
        let taken = total(&keys, &widths);
        let beside = self.split(&others, room.saturating_sub(taken + GAP), &widths);
        if beside.len() <= 1 || 2 * taken <= room {
            let last = others.last().filter(|&&last| !self.columns[last].is_number);
            let before = &others[..others.len().saturating_sub(1)];
            if let Some(&last) = last.filter(|_| beside.len() > 1) {
                let line = [&keys[..], before].concat();
                if total(&line, &widths) <= room {
                    let mut widths = widths;
                    widths[last] = widths[last].min(room - BELOW);
                    return vec![Layout { line, below: vec![last], widths }];
                }
            }
            let block = |(group, widths)| Layout { line: [&keys[..], group].concat(), below: vec![], widths };
            return beside.iter().map(|(group, widths)| block((&group[..], widths.clone()))).collect();
        }
        let below = self.split(&others, room - BELOW, &widths);
        let block = |(below, mut widths): (Vec<usize>, Vec<usize>)| {
            for &key in &keys {
                widths[key] = widths[key].min(room);
            }
            Layout { line: keys.clone(), below, widths }
        };
        below.into_iter().map(block).collect()
    }

    /// Columns in groups that fit in `room`, each with the widths it has there: the last column of text may be narrower than it is.
    fn split(&self, columns: &[usize], room: usize, widths: &[usize]) -> Vec<(Vec<usize>, Vec<usize>)> {
        let mut groups: Vec<Vec<usize>> = vec![Vec::new()];
        let mut used = 0;
        for &column in columns {
            let wraps = column + 1 == self.columns.len() && !self.columns[column].is_number;
            let least = if wraps { widths[column].min(NARROWEST) } else { widths[column] };
            let group = groups.last_mut().expect("one from the start");
            if !group.is_empty() && used + least > room {
                groups.push(vec![column]);
                used = 0;
            } else {
                group.push(column);
            }
            used += least + GAP;
        }
        let narrowed = |group: Vec<usize>| {
            let mut widths = widths.to_vec();
            if let Some((&last, before)) = group.split_last() {
                let taken = if before.is_empty() { 0 } else { total(before, &widths) + GAP };
                widths[last] = widths[last].min(room.saturating_sub(taken)).max(1);
            }
            (group, widths)
        };
        groups.into_iter().map(narrowed).collect()
    }

    /// The width of a column whose cells are not wrapped.
    fn natural(&self, column: usize) -> usize {
        let cells = self.lines.iter().filter_map(|line| match line {
            Line::Row(cells) => Some(width_of(&cells[column])),
            Line::Heading(_) => None,
        });
        cells.chain([width_of(&self.columns[column].title)]).max().unwrap_or(0)
    }

    fn block(&self, layout: &Layout, room: usize) -> String {
        let titles: Vec<String> = self.columns.iter().map(|column| column.title.clone()).collect();
        let mut text = String::new();
        let row = |cells: &[String], text: &mut String| {
            self.print(&layout.line, cells, &layout.widths, 0, text);
            self.print(&layout.below, cells, &layout.widths, BELOW, text);
        };
        row(&titles, &mut text);
        for line in &self.lines {
            match line {
                Line::Row(cells) => row(cells, &mut text),
                Line::Heading(heading) => {
                    for line in cell_lines(heading, room) {
                        push_line(&mut text, self.indent, &line);
                    }
                }
            }
        }
        text
    }

    /// Appends cells of a row, in as many lines as the longest of them takes.
    fn print(&self, columns: &[usize], cells: &[String], widths: &[usize], indent: usize, text: &mut String) {
        let wrapped: Vec<Vec<String>> =
            columns.iter().map(|&column| cell_lines(&cells[column], widths[column])).collect();
        for index in 0..wrapped.iter().map(Vec::len).max().unwrap_or(0) {
            let mut line = String::new();
            for (position, (&column, lines)) in columns.iter().zip(&wrapped).enumerate() {
                let cell = lines.get(index).map_or("", String::as_str);
                let padding = " ".repeat(widths[column].saturating_sub(width_of(cell)));
                line += if position == 0 { "" } else { "  " };
                line += &if self.columns[column].is_number {
                    padding + cell
                } else {
                    cell.to_string() + &padding
                };
            }
            push_line(text, self.indent + indent, &line);
        }
    }
}

fn push_line(text: &mut String, indent: usize, line: &str) {
    let line = line.trim_end();
    if !line.is_empty() {
        text.push_str(&" ".repeat(indent));
        text.push_str(line);
    }
    text.push('\n');
}

/// The width of columns with the gaps between them.
fn total(columns: &[usize], widths: &[usize]) -> usize {
    columns.iter().map(|&column| widths[column]).sum::<usize>() + GAP * columns.len().saturating_sub(1)
}

fn one_line(cell: &str) -> String {
    printable(cell).replace('\n', " ")
}

/// The lines of a cell: broken between words, and a longer word where it must be.
fn cell_lines(cell: &str, width: usize) -> Vec<String> {
    if width_of(cell) <= width {
        return vec![cell.to_string()];
    }
    wrap(cell, width).iter().flat_map(|line| cut(line, width)).collect()
}

/// Pieces of a word, preferably broken behind punctuation.
fn cut(word: &str, width: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = word;
    while width_of(rest) > width {
        let (mut end, mut behind, mut used) = (0, 0, 0);
        for (at, c) in rest.char_indices() {
            used += width_of(c.encode_utf8(&mut [0; 4]));
            if used > width && end > 0 {
                break;
            }
            end = at + c.len_utf8();
            if "./-_,:".contains(c) {
                behind = end;
            }
        }
        let end = if 2 * behind > end { behind } else { end };
        pieces.push(rest[..end].to_string());
        rest = &rest[end..];
    }
    pieces.push(rest.to_string());
    pieces
}

/// Breaks a text between words into lines of `width` columns; a longer word has a line of its own, and what stands between backticks
/// is one.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match words.last_mut() {
            Some(open) if open.matches('`').count() % 2 == 1 => {
                open.push(' ');
                open.push_str(word);
            }
            _ => words.push(word.to_string()),
        }
    }
    let mut lines = vec![String::new()];
    for word in &words {
        let last = lines.last_mut().expect("one from the start");
        let used = width_of(last);
        if used > 0 && used + 1 + width_of(word) > width {
            lines.push(word.to_string());
        } else {
            last.push_str(if last.is_empty() { "" } else { " " });
            last.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, [&str; 3], &str)]) -> TextTable {
        let mut columns = Column::with_numbers("name", ["time", "rate", "share"]);
        columns.push(Column::text("meaning"));
        let mut table = TextTable::new(columns);
        for (name, numbers, meaning) in rows {
            table.row([&[*name][..], numbers, &[*meaning]].concat());
        }
        table
    }

    fn widest(text: &str) -> usize {
        text.lines().map(width_of).max().unwrap()
    }

    #[test]
    fn text_stands_to_the_left_and_numbers_to_the_right_two_spaces_apart() {
        let mut table =
            table(&[("a", ["1.5 s ", "10", "3 %"], "one"), ("long name", ["20 ms", "9", "100 %"], "")]);
        table.heading("a heading of any length, which makes no column wider");
        let text = "name         time  rate  share  meaning\n\
                    a          1.5 s     10    3 %  one\n\
                    long name   20 ms     9  100 %\n\
                    a heading of any length, which makes no column wider\n";
        assert_eq!(table.render(None), text);
        assert_eq!(table.render(Some(80)), text);
    }

    #[test]
    fn the_last_column_of_text_is_wrapped_between_words_and_keeps_its_place() {
        let meaning = "a sentence of many words that does not fit beside the numbers of its row";
        let text = table(&[("name", ["1", "2", "3"], meaning)]).render(Some(60));
        assert!(widest(&text) <= 60, "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        let place = lines[0].find("meaning").unwrap();
        assert_eq!(lines[2].find(|c| c != ' '), Some(place), "{text}");
        assert_eq!(
            lines[1..].iter().map(|line| line[place..].trim_end()).collect::<Vec<_>>().join(" "),
            meaning
        );
    }

    #[test]
    fn a_last_column_with_no_room_beside_its_row_goes_below_it() {
        let name = "a name of thirty characters...";
        let text = table(&[(name, ["1234567", "1234567", "1234567"], "words that have no room there")])
            .render(Some(64));
        assert_eq!(text.lines().nth(1).unwrap(), "    meaning");
        assert_eq!(text.lines().nth(3).unwrap(), "    words that have no room there");
    }

    #[test]
    fn columns_that_do_not_fit_make_further_blocks_with_the_first_repeated() {
        let titles: Vec<String> = (0..20).map(|index| format!("column{index}")).collect();
        let columns = titles.iter().map(Column::number);
        let mut table = TextTable::new([Column::text("name")].into_iter().chain(columns));
        table.row(["first"].into_iter().map(String::from).chain((0..20).map(|index| index.to_string())));
        let text = table.render(Some(80));
        assert!(widest(&text) <= 80, "{text}");
        let blocks: Vec<&str> = text.split("\n\n").collect();
        assert!(blocks.len() == 3 && blocks.iter().all(|block| block.starts_with("name ")), "{text}");
        assert_eq!(text.matches("first").count(), 3);
        assert!(titles.iter().all(|title| text.contains(title)));
    }

    #[test]
    fn a_name_longer_than_half_the_terminal_has_a_line_of_its_own() {
        let name = "conv2d_fprop.4x32x32x16-k16-3x3-s1p1-bias-residual-relu.f32";
        let mut table = TextTable::new(Column::with_numbers("operation", ["time", "noise", "share"]));
        table.row([name, "632 µs", "0.0 %", "21 %"]);
        assert_eq!(
            table.render(Some(70)),
            format!("operation\n      time  noise  share\n{name}\n    632 µs  0.0 %   21 %\n")
        );
        assert!(table.render(Some(90)).lines().count() == 2, "it fits");
    }

    #[test]
    fn no_width_loses_a_character_of_a_cell() {
        let names = [
            "a",
            "a-name-of-some-length.with-dots",
            "Ein Name mit Wörtern und 漢字漢字漢字漢字漢字漢字漢字漢字漢字",
        ];
        let rows = names.map(|name| {
            (name, ["12345678", "1 %", "-"], "a meaning of several words, and/a/path/without/spaces")
        });
        let table = table(&rows);
        let letters = |text: &str| {
            let mut letters: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
            letters.sort_unstable();
            letters.dedup();
            letters
        };
        for width in 0..200 {
            let text = table.render(Some(width));
            assert!(widest(&text) <= width.max(2 * NARROWEST), "{width}\n{text}");
            assert_eq!(letters(&text), letters(&table.render(None)), "{width}\n{text}");
            let all: String = text.split_whitespace().collect();
            assert!(all.matches("12345678").count() == 3, "{width}\n{text}");
        }
    }

    #[test]
    fn a_cell_out_of_a_file_cannot_move_the_cursor() {
        let mut table = table(&[("\u{1b}[2Jx\ny", ["1", "2", "3"], "\u{1b}[1A")]);
        table.heading("\u{1b}[2J");
        let text = table.render(Some(20));
        assert!(!text.contains('\u{1b}') && table.render(None).contains("\\u{1b}[2Jx y"), "{text}");
    }
}
