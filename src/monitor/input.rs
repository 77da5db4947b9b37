//! Lines of an input that nobody vouches for.

use std::io::{self, BufRead, Read};

/// The most bytes of a line: a path, or a row of tens of thousands of numbers.
pub const LONGEST_LINE: u64 = 1 << 20;

/// A line without its end (`\n` or `\r\n`), or that it was longer than [`LONGEST_LINE`] and was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputLine {
    /// Its bytes.
    Whole(Vec<u8>),
    /// Too long.
    TooLong,
}

/// Reads the next line; nothing at the end of the input. Memory stays bounded whatever comes.
///
/// # Errors
/// As the reader.
pub fn next_line(input: &mut impl BufRead) -> io::Result<Option<InputLine>> {
    let mut line = Vec::new();
    // Two more than a line may have: its end.
    input.by_ref().take(LONGEST_LINE + 2).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    let ended = line.pop_if(|last| *last == b'\n').is_some();
    if ended {
        line.pop_if(|last| *last == b'\r');
    }
    if line.len() as u64 <= LONGEST_LINE {
        return Ok(Some(InputLine::Whole(line)));
    }
    if !ended {
        pass_over(input)?;
    }
    Ok(Some(InputLine::TooLong))
}

/// Reads up to the end of a line and keeps nothing.
fn pass_over(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_too_long_ones_are_passed_over() {
        let longest = vec![b'x'; LONGEST_LINE as usize];
        let mut text = b"a.png\nb c.png\r\n\n".to_vec();
        for extra in [b"\n".as_slice(), b"\r\n", b"y\n", b"y\r\n", b"yyy\n"] {
            text.extend(&longest);
            text.extend(extra);
        }
        text.extend(vec![b'z'; 3 << 20]);
        text.extend(b"\nlast");
        let mut input = io::BufReader::with_capacity(1000, text.as_slice());
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input).unwrap() {
            lines.push(line);
        }
        let whole = |bytes: &[u8]| InputLine::Whole(bytes.to_vec());
        assert_eq!(lines[..3], [whole(b"a.png"), whole(b"b c.png"), whole(b"")]);
        assert_eq!(lines[3..5], [whole(&longest), whole(&longest)]);
        assert_eq!(lines[5..9], vec![InputLine::TooLong; 4]);
        assert_eq!(lines[9..], [whole(b"last")]);
        assert_eq!(next_line(&mut b"".as_slice()).unwrap(), None);
    }
}
