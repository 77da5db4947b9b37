//! Numbers and strings inside a pickle.

use std::borrow::Cow;

use super::machine::{Machine, Step};
use super::{Object, Value};

impl Machine<'_> {
    /// A line that holds a decimal number.
    pub(super) fn decimal<T: std::str::FromStr>(&mut self) -> Step<T> {
        let line = self.line()?;
        let text = std::str::from_utf8(line).unwrap_or("").trim_end_matches('L');
        text.parse()
            .or_else(|_| self.fail("a decimal number", format!("`{}`", String::from_utf8_lossy(line))))
    }

    pub(super) fn number(&mut self, opcode: u8) -> Step<()> {
        let value = match opcode {
            b'I' if self.source[self.at..].starts_with(b"01\n") => self.line().map(|_| Value::Bool(true))?,
            b'I' if self.source[self.at..].starts_with(b"00\n") => self.line().map(|_| Value::Bool(false))?,
            b'I' | b'L' => Value::Integer(self.decimal()?),
            b'F' => Value::Float(self.decimal()?),
            b'J' => Value::Integer(i64::from(self.unsigned(4)? as u32 as i32)),
            b'K' => Value::Integer(i64::from(self.byte()?)),
            b'M' => Value::Integer(self.unsigned(2)? as i64),
            b'G' => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(self.take(8)?);
                Value::Float(f64::from_be_bytes(bytes))
            }
            _ => {
                let bytes = self.counted(if opcode == 0x8a { 1 } else { 4 })?;
                if bytes.len() > 8 {
                    return self.push_object(Object::LongInteger(bytes));
                }
                let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
                let mut wide = [if negative { 0xff } else { 0 }; 8];
                wide[..bytes.len()].copy_from_slice(bytes);
                Value::Integer(i64::from_le_bytes(wide))
            }
        };
        self.push(value)
    }

    pub(super) fn string(&mut self, opcode: u8) -> Step<()> {
        let object = match opcode {
            b'S' => Object::Bytes(Cow::Owned(self.quoted()?)),
            b'V' => {
                let line = self.line()?;
                let text = self.utf8(line)?;
                if text.contains('\\') {
                    return self.fail("text without escapes", "a raw-unicode-escape sequence");
                }
                Object::Text(text)
            }
            b'X' | 0x8c | 0x8d => {
                let bytes =
                    self.counted(if opcode == b'X' { 4 } else { 1 + 7 * usize::from(opcode == 0x8d) })?;
                Object::Text(self.utf8(bytes)?)
            }
            b'U' | b'C' => Object::Bytes(Cow::Borrowed(self.counted(1)?)),
            b'T' | b'B' => Object::Bytes(Cow::Borrowed(self.counted(4)?)),
            _ => Object::Bytes(Cow::Borrowed(self.counted(8)?)),
        };
        self.push_object(object)
    }

    /// A quoted Python 2 string literal on a line.
    fn quoted(&mut self) -> Step<Vec<u8>> {
        let line = self.line()?;
        let inside = match line {
            [b'\'', inside @ .., b'\''] | [b'"', inside @ .., b'"'] => inside,
            _ => return self.fail("a quoted string", format!("`{}`", String::from_utf8_lossy(line))),
        };
        let mut out = Vec::with_capacity(inside.len());
        let mut bytes = inside.iter().copied();
        while let Some(byte) = bytes.next() {
            if byte != b'\\' {
                out.push(byte);
                continue;
            }
            match bytes.next() {
                Some(b'n') => out.push(b'\n'),
                Some(b't') => out.push(b'\t'),
                Some(b'r') => out.push(b'\r'),
                Some(quote @ (b'\\' | b'\'' | b'"')) => out.push(quote),
                Some(b'x') => {
                    let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
                    match (digit(bytes.next()), digit(bytes.next())) {
                        (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
                        _ => return self.fail("two hexadecimal digits after \\x", "something else"),
                    }
                }
                _ => return self.fail("an escape sequence Python writes", "another"),
            }
        }
        Ok(out)
    }

    /// `_codecs.encode(text, 'latin1')`: how Python 3 writes bytes in protocol 2.
    pub(super) fn encode_latin1(&mut self, text: Option<Value>) -> Step<Vec<u8>> {
        let Some(text) = text.and_then(|value| self.text_of(value)) else {
            return self.fail("a text to encode", "something else");
        };
        if text.len() > self.encode_budget {
            return self.fail("each text encoded once", "the same text encoded over and over");
        }
        let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        self.encode_budget -= text.len();
        bytes.map_or_else(|| self.fail("characters below 256", "one above"), Ok)
    }
}
