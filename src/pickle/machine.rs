//! The pickle machine: one pass over the instructions with a stack, marks and a memo, building inert objects.
//!
//! Every instruction is at least one byte and makes at most one object or moves what is on the stack, so memory is
//! bounded by the bytes read; text that has to be re-encoded counts against a budget of its own.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{CallRecord, Global, MOST_OPCODES, MOST_OPEN_MARKS, Object, Pickle, Problem, Value};

pub(super) type Step<T> = Result<T, Problem>;

/// The state of one reading.
pub(super) struct Machine<'a> {
    pub(super) source: &'a [u8],
    /// Where the next byte is read.
    pub(super) at: usize,
    /// Where the current instruction began, for messages.
    opcode_at: usize,
    stack: Vec<Value>,
    /// Stack heights at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    objects: Vec<Object<'a>>,
    /// Bytes that re-encoded text may still take; a text referred to many times must not multiply.
    pub(super) encode_budget: usize,
}

impl<'a> Machine<'a> {
    pub(super) fn new(source: &'a [u8]) -> Self {
        Machine {
            source,
            at: 0,
            opcode_at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            objects: Vec::new(),
            encode_budget: source.len(),
        }
    }

    pub(super) fn run(mut self) -> Step<Pickle<'a>> {
        for _ in 0..MOST_OPCODES {
            self.opcode_at = self.at;
            let opcode = self.byte()?;
            if opcode == b'.' {
                let root = self.pop()?;
                return Ok(Pickle { objects: self.objects, root, length: self.at });
            }
            self.step(opcode)?;
        }
        self.fail(format!("a pickle of at most {MOST_OPCODES} instructions"), "more")
    }

    /// Executes one instruction; names after Python's `pickletools`.
    fn step(&mut self, opcode: u8) -> Step<()> {
        match opcode {
            0x80 => self.protocol(),
            0x95 => self.frame(),
            b'(' => self.mark(),
            b'0' => self.discard(),
            b'1' => self.pop_mark().map(drop),
            b'2' => self.top().and_then(|value| self.push(value)),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'I' | b'L' | b'F' | b'J' | b'K' | b'M' | 0x8a | 0x8b | b'G' => self.number(opcode),
            b'S' | b'V' | b'T' | b'U' | b'X' | 0x8c | 0x8d | b'B' | b'C' | 0x8e | 0x96 => self.string(opcode),
            b')' | b't' | 0x85..=0x87 => self.tuple(opcode),
            b']' => self.push_object(Object::List(Vec::new())),
            b'}' => self.push_object(Object::Dict(Vec::new())),
            0x8f => self.push_object(Object::Set(Vec::new())),
            b'l' => self.pop_mark().and_then(|values| self.push_object(Object::List(values))),
            0x91 => self.pop_mark().and_then(|values| self.push_object(Object::Set(values))),
            b'd' => self.pop_mark().and_then(|values| {
                let entries = self.pairs(&values)?;
                self.push_object(Object::Dict(entries))
            }),
            b'a' => self.pop().and_then(|value| self.append(vec![value])),
            b'e' | 0x90 => self.pop_mark().and_then(|values| self.append(values)),
            b's' => self.set_item(),
            b'u' => self.pop_mark().and_then(|values| self.set_items(&values)),
            b'p' | b'q' | b'r' | 0x94 => self.memorise(opcode),
            b'g' | b'h' | b'j' => self.recall(opcode),
            b'c' => self.global_by_lines(),
            0x93 => self.global_from_stack(),
            b'P' => self.persistent_line(),
            b'Q' => self.pop().and_then(|identity| self.push_object(Object::Persistent(identity))),
            b'R' | 0x81 => self.call(),
            0x92 => self.call_with_keywords(),
            b'b' => self.build(),
            b'i' => self.instance_by_lines(),
            b'o' => self.instance_from_stack(),
            0x82..=0x84 => self.extension(opcode),
            _ => self.fail("a pickle instruction this reader allows", describe_opcode(opcode)),
        }
    }

    // Bytes

    pub(super) fn fail<T>(&self, expected: impl Into<String>, found: impl Into<String>) -> Step<T> {
        Err(Problem { byte: self.opcode_at, expected: expected.into(), found: found.into() })
    }

    pub(super) fn byte(&mut self) -> Step<u8> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let rest = &self.source[self.at..];
        if count > rest.len() {
            let byte = self.source.len();
            let found = format!("the end of the data after {}", rest.len());
            return Err(Problem { byte, expected: format!("{count} more bytes of pickle"), found });
        }
        self.at += count;
        Ok(&rest[..count])
    }

    /// A little-endian unsigned number of `width` (at most 8) bytes.
    pub(super) fn unsigned(&mut self, width: usize) -> Step<u64> {
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(self.take(width)?);
        Ok(u64::from_le_bytes(bytes))
    }

    /// Bytes behind their own number, which takes `width` bytes.
    pub(super) fn counted(&mut self, width: usize) -> Step<&'a [u8]> {
        let length = self.unsigned(width)?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// The text up to the end of the line, which is taken too.
    pub(super) fn line(&mut self) -> Step<&'a [u8]> {
        let rest = &self.source[self.at..];
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
            return self.fail("an argument that ends with a new line", "the end of the data");
        };
        self.at += end + 1;
        Ok(&rest[..end])
    }

    pub(super) fn utf8(&self, bytes: &'a [u8]) -> Step<&'a str> {
        std::str::from_utf8(bytes).or_else(|e| {
            self.fail("UTF-8 text", format!("an invalid byte {} bytes into it", e.valid_up_to()))
        })
    }

    // Stack

    pub(super) fn push(&mut self, value: Value) -> Step<()> {
        self.stack.push(value);
        Ok(())
    }

    pub(super) fn push_object(&mut self, object: Object<'a>) -> Step<()> {
        // MOST_OPCODES keeps the number of objects far below what u32 counts.
        let index = self.objects.len() as u32;
        self.objects.push(object);
        self.push(Value::Object(index))
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Value> {
        if self.stack.len() <= self.floor() {
            return self.fail("a value on the stack", "an empty stack");
        }
        self.stack.pop().map_or_else(|| self.fail("a value on the stack", "an empty stack"), Ok)
    }

    fn top(&self) -> Step<Value> {
        match self.stack.last() {
            Some(value) if self.stack.len() > self.floor() => Ok(*value),
            _ => self.fail("a value on the stack", "an empty stack"),
        }
    }

    fn mark(&mut self) -> Step<()> {
        if self.marks.len() == MOST_OPEN_MARKS {
            return self
                .fail(format!("at most {MOST_OPEN_MARKS} open lists, tuples and dictionaries"), "more");
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// POP: the top value, or the mark if nothing lies above it.
    fn discard(&mut self) -> Step<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn pop_mark(&mut self) -> Step<Vec<Value>> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => self.fail("a mark on the stack", "none"),
        }
    }

    fn memorise(&mut self, opcode: u8) -> Step<()> {
        let key = match opcode {
            b'p' => self.decimal()?,
            b'q' => self.unsigned(1)?,
            b'r' => self.unsigned(4)?,
            _ => self.memo.len() as u64,
        };
        let value = self.top()?;
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, opcode: u8) -> Step<()> {
        let key = match opcode {
            b'g' => self.decimal()?,
            b'h' => self.unsigned(1)?,
            _ => self.unsigned(4)?,
        };
        match self.memo.get(&key) {
            Some(&value) => self.push(value),
            None => self.fail("a reference to something remembered before", format!("memo entry {key}")),
        }
    }

    // Containers

    fn tuple(&mut self, opcode: u8) -> Step<()> {
        let values = match opcode {
            b')' => Vec::new(),
            b't' => self.pop_mark()?,
            _ => {
                let count = usize::from(opcode - 0x84);
                if self.stack.len() < self.floor() + count {
                    return self.fail(format!("{count} values on the stack"), "fewer");
                }
                self.stack.split_off(self.stack.len() - count)
            }
        };
        self.push_object(Object::Tuple(values))
    }

    fn pairs(&self, values: &[Value]) -> Step<Vec<(Value, Value)>> {
        if !values.len().is_multiple_of(2) {
            return self.fail("keys and values in pairs", format!("{} of them", values.len()));
        }
        Ok(values.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    /// The object on top of the stack.
    fn top_object(&mut self) -> Step<&mut Object<'a>> {
        match self.top()? {
            Value::Object(index) if (index as usize) < self.objects.len() => {
                Ok(&mut self.objects[index as usize])
            }
            _ => self.fail("an object to put something into", "a number"),
        }
    }

    fn append(&mut self, values: Vec<Value>) -> Step<()> {
        match self.top_object()? {
            Object::List(list) | Object::Set(list) => list.extend(values),
            Object::Call(call) => call.elements.extend(values),
            Object::Opaque => {}
            _ => return self.fail("a list to append to", "another object"),
        }
        Ok(())
    }

    fn set_item(&mut self) -> Step<()> {
        let value = self.pop()?;
        let key = self.pop()?;
        self.set_items(&[key, value])
    }

    fn set_items(&mut self, values: &[Value]) -> Step<()> {
        let pairs = self.pairs(values)?;
        match self.top_object()? {
            Object::Dict(entries) => entries.extend(pairs),
            Object::Call(call) => call.entries.extend(pairs),
            Object::Opaque => {}
            _ => return self.fail("a dictionary to put entries into", "another object"),
        }
        Ok(())
    }

    // Names and calls

    fn protocol(&mut self) -> Step<()> {
        match self.byte()? {
            0..=5 => Ok(()),
            other => self.fail("pickle protocol 0 to 5", other.to_string()),
        }
    }

    fn frame(&mut self) -> Step<()> {
        let length = self.unsigned(8)?;
        let rest = (self.source.len() - self.at) as u64;
        if length > rest {
            return self.fail(format!("a frame of {length} bytes"), format!("{rest} bytes until the end"));
        }
        Ok(())
    }

    fn global_by_lines(&mut self) -> Step<()> {
        let global = self.named_by_lines()?;
        self.push_object(Object::Global(global))
    }

    /// A module and a name, each on a line.
    fn named_by_lines(&mut self) -> Step<Global<'a>> {
        let module = self.line()?;
        let name = self.line()?;
        Ok(Global::new(self.utf8(module)?, self.utf8(name)?))
    }

    fn global_from_stack(&mut self) -> Step<()> {
        let name = self.pop()?;
        let module = self.pop()?;
        let global = match (self.text_of(module), self.text_of(name)) {
            (Some(module), Some(name)) => Global::new(module, name),
            _ => return self.fail("two texts that name a function or class", "other values"),
        };
        self.push_object(Object::Global(global))
    }

    /// EXT1, EXT2, EXT4: a class by its number in a registry of the program that wrote the pickle.
    fn extension(&mut self, opcode: u8) -> Step<()> {
        self.take(1 << (opcode - 0x82))?;
        self.push_object(Object::Opaque)
    }

    pub(super) fn text_of(&self, value: Value) -> Option<&'a str> {
        match value {
            Value::Object(index) => match self.objects.get(index as usize)? {
                Object::Text(text) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    fn persistent_line(&mut self) -> Step<()> {
        let line = self.line()?;
        let text = self.utf8(line)?;
        self.push_object(Object::Text(text))?;
        let identity = self.pop()?;
        self.push_object(Object::Persistent(identity))
    }

    fn object_of(&self, value: Value) -> Option<&Object<'a>> {
        match value {
            Value::Object(index) => self.objects.get(index as usize),
            _ => None,
        }
    }

    /// REDUCE and NEWOBJ: a callable and the tuple of its arguments.
    fn call(&mut self) -> Step<()> {
        let arguments = self.pop()?;
        let callable = self.pop()?;
        let Some(Object::Tuple(given)) = self.object_of(arguments) else {
            return self.fail("a tuple of arguments", "something else");
        };
        let first = given.first().copied();
        match self.object_of(callable) {
            Some(&Object::Global(callable)) if callable == Global::new("_codecs", "encode") => {
                let bytes = self.encode_latin1(first)?;
                self.push_object(Object::Bytes(Cow::Owned(bytes)))
            }
            Some(&Object::Global(callable)) => self.push_call(callable, arguments),
            // A method of an object, a class that another call makes.
            Some(_) => self.push_object(Object::Opaque),
            None => self.fail("a function or class to call", "a number"),
        }
    }

    fn push_call(&mut self, callable: Global<'a>, arguments: Value) -> Step<()> {
        self.push_object(Object::Call(Box::new(CallRecord {
            callable,
            arguments,
            state: None,
            elements: Vec::new(),
            entries: Vec::new(),
        })))
    }

    /// NEWOBJ_EX: a class, its arguments and its keyword arguments; no class that a reader knows takes any.
    fn call_with_keywords(&mut self) -> Step<()> {
        let keywords = self.pop()?;
        match self.object_of(keywords) {
            Some(Object::Dict(given)) if given.is_empty() => self.call(),
            _ => {
                self.pop()?;
                self.pop()?;
                self.push_object(Object::Opaque)
            }
        }
    }

    /// INST: an instance of a class that two lines name, its arguments down to the mark.
    fn instance_by_lines(&mut self) -> Step<()> {
        let class = self.named_by_lines()?;
        let arguments = self.pop_mark()?;
        self.push_instance(class, arguments)
    }

    /// OBJ: a class and its arguments, down to the mark.
    fn instance_from_stack(&mut self) -> Step<()> {
        let mut values = self.pop_mark()?;
        if values.is_empty() {
            return self.fail("a class behind the mark", "nothing");
        }
        let arguments = values.split_off(1);
        match self.object_of(values[0]) {
            Some(&Object::Global(class)) => self.push_instance(class, arguments),
            _ => self.push_object(Object::Opaque),
        }
    }

    fn push_instance(&mut self, class: Global<'a>, arguments: Vec<Value>) -> Step<()> {
        self.push_object(Object::Tuple(arguments))?;
        let arguments = self.pop()?;
        self.push_call(class, arguments)
    }

    /// BUILD: the state of an object; a dictionary's attributes hold nothing this program wants.
    fn build(&mut self) -> Step<()> {
        let state = self.pop()?;
        match self.top_object()? {
            Object::Call(call) => call.state = Some(state),
            Object::Dict(_) | Object::List(_) | Object::Set(_) | Object::Opaque => {}
            _ => return self.fail("an object that has a state", "another"),
        }
        Ok(())
    }
}

fn describe_opcode(opcode: u8) -> String {
    match opcode {
        0x97 | 0x98 => "an out-of-band buffer".into(),
        other => format!("byte {other:#04x}"),
    }
}
