//! Python pickles as plain data: what [`read`] returns, and how to look into it.
//!
//! A pickle is a program that builds objects by calling functions. Here nothing is ever called or imported: a call
//! stays a [`Call`], a description of the function's name and its arguments, whichever function it is. A reader of a
//! particular format gives meaning to the few names it knows; objects of all other classes are inert, and an error
//! only where a reader needs one. The objects live in one flat table and refer to each other by number, so shared,
//! cyclic and very deep structures cost neither copies nor stack.

mod literals;
mod machine;
mod numpy;

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use crate::error::{Error, Position};

pub use numpy::{Array, ElementKind};

/// The most instructions one pickle may hold. A training checkpoint has tens of thousands; CIFAR-100's training
/// set, with a file name per image, a quarter of a million.
pub const MOST_OPCODES: u64 = 2_000_000;
/// The most unfinished lists, tuples and dictionaries one inside the other.
pub const MOST_OPEN_MARKS: usize = 1_000;

/// A Python function or class, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Global<'p> {
    /// The module, as the pickle spells it.
    pub module: &'p str,
    /// The name inside the module.
    pub name: &'p str,
}

impl<'p> Global<'p> {
    /// The function or class `name` of `module`.
    pub const fn new(module: &'p str, name: &'p str) -> Global<'p> {
        Global { module, name }
    }
}

impl fmt::Display for Global<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.module, self.name)
    }
}

/// An error in a pickle, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Offset in bytes from the start of the pickle.
    pub byte: usize,
    /// The content that a pickle of this kind holds there.
    pub expected: String,
    /// The content found there.
    pub found: String,
}

impl Problem {
    /// The error for a file that holds the pickle from byte `start` on.
    pub fn in_file(self, path: &Path, start: usize) -> Error {
        let byte = start.saturating_add(self.byte) as u64;
        Error::malformed(path, Position::Byte(byte), self.expected, self.found)
    }

    /// The error for an archive whose member `member` is the pickle.
    pub fn in_member(self, path: &Path, member: &str) -> Error {
        let at = Position::Member(format!("{member}, byte {}", self.byte));
        Error::malformed(path, at, self.expected, self.found)
    }
}

/// Reads one pickle (protocols 0 to 5) from the start of `bytes` and executes nothing.
///
/// # Errors
/// A truncated or inconsistent pickle, or more than [`MOST_OPCODES`] instructions.
pub fn read(bytes: &[u8]) -> Result<Pickle<'_>, Problem> {
    machine::Machine::new(bytes).run()
}

/// One value: small ones as they are, the others by their number in the table of objects.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    None,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Object(u32),
}

/// An entry of the table of objects.
#[derive(Debug)]
enum Object<'a> {
    Text(&'a str),
    Bytes(Cow<'a, [u8]>),
    /// An integer of more than 64 bits: little-endian two's complement.
    LongInteger(&'a [u8]),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Set(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Global(Global<'a>),
    Call(Box<CallRecord<'a>>),
    /// An object that only running the pickle could make: the result of calling something else than a named function, of a call
    /// with keyword arguments, or of a registered extension.
    Opaque,
    /// A reference to something stored outside the pickle (PyTorch: a storage).
    Persistent(Value),
}

/// A call that was not made, and the items that the pickle then put into its result.
#[derive(Debug)]
struct CallRecord<'a> {
    callable: Global<'a>,
    arguments: Value,
    state: Option<Value>,
    elements: Vec<Value>,
    entries: Vec<(Value, Value)>,
}

/// A pickle that was read.
#[derive(Debug)]
pub struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    root: Value,
    length: usize,
}

impl<'a> Pickle<'a> {
    /// The object that the pickle holds.
    pub fn root(&self) -> Node<'_> {
        Node { objects: &self.objects, value: self.root }
    }

    /// The identity of everything the pickle refers to outside itself, in the order of the references.
    pub fn persistent_identities(&self) -> impl Iterator<Item = Node<'_>> {
        self.objects.iter().filter_map(|object| match object {
            Object::Persistent(identity) => Some(Node { objects: &self.objects, value: *identity }),
            _ => None,
        })
    }

    /// Bytes from the start of the pickle to the end of its last instruction.
    pub fn length(&self) -> usize {
        self.length
    }
}

/// A value in a pickle.
#[derive(Clone, Copy)]
pub struct Node<'p> {
    objects: &'p [Object<'p>],
    value: Value,
}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

/// A function call or an object of a class, described and not made.
#[derive(Debug, Clone, Copy)]
pub struct Call<'p> {
    /// The function or class.
    pub callable: Global<'p>,
    /// A tuple: the arguments.
    pub arguments: Node<'p>,
    /// The state that Python would hand to the result's `__setstate__`.
    pub state: Option<Node<'p>>,
}

impl<'p> Call<'p> {
    /// Argument `index`, counted from 0.
    pub fn argument(&self, index: usize) -> Option<Node<'p>> {
        self.arguments.element(index)
    }
}

impl<'p> Node<'p> {
    fn with(self, value: Value) -> Node<'p> {
        Node { value, ..self }
    }

    fn object(self) -> Option<&'p Object<'p>> {
        match self.value {
            Value::Object(index) => self.objects.get(index as usize),
            _ => None,
        }
    }

    /// Whether this is `None`.
    pub fn is_none(self) -> bool {
        self.value == Value::None
    }

    /// A boolean.
    pub fn boolean(self) -> Option<bool> {
        match self.value {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// An integer of at most 64 bits, Python's or a NumPy scalar.
    pub fn integer(self) -> Option<i64> {
        match self.value {
            Value::Integer(value) => Some(value),
            _ => numpy::scalar(self).and_then(|scalar| scalar.integer_at(0)),
        }
    }

    /// A number, Python's or a NumPy scalar, as f64.
    pub fn float(self) -> Option<f64> {
        match self.value {
            Value::Integer(value) => Some(value as f64),
            Value::Float(value) => Some(value),
            _ => numpy::scalar(self).and_then(|scalar| scalar.float_at(0)),
        }
    }

    /// Text; a Python 2 string counts when it is UTF-8.
    pub fn text(self) -> Option<&'p str> {
        match self.object()? {
            Object::Text(text) => Some(text),
            Object::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Bytes, or a Python 2 string.
    pub fn bytes(self) -> Option<&'p [u8]> {
        match self.object()? {
            Object::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// An integer of more than 64 bits: little-endian two's complement.
    pub fn long_integer(self) -> Option<&'p [u8]> {
        match self.object()? {
            Object::LongInteger(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn slice(self) -> Option<&'p [Value]> {
        match self.object()? {
            Object::Tuple(values) | Object::List(values) | Object::Set(values) => Some(values),
            _ => None,
        }
    }

    /// Number of elements of a tuple, list or set.
    pub fn element_count(self) -> Option<usize> {
        self.slice().map(<[Value]>::len)
    }

    /// Element `index` of a tuple or list.
    pub fn element(self, index: usize) -> Option<Node<'p>> {
        self.slice()?.get(index).map(|&value| self.with(value))
    }

    /// The elements of a tuple, list or set, in order.
    pub fn elements(self) -> Option<impl ExactSizeIterator<Item = Node<'p>> + DoubleEndedIterator> {
        Some(self.slice()?.iter().map(move |&value| self.with(value)))
    }

    /// The entries of a dictionary (also `OrderedDict`, `defaultdict`, `Counter`) in the order they were put in.
    /// A key that was put in twice is there twice; in Python the last one counts.
    pub fn entries(self) -> Option<Vec<(Node<'p>, Node<'p>)>> {
        let wrap = |&(key, value): &(Value, Value)| (self.with(key), self.with(value));
        match self.object()? {
            Object::Dict(entries) => Some(entries.iter().map(wrap).collect()),
            Object::Call(call) if is_dictionary(call.callable) => {
                let mut entries = Vec::new();
                // OrderedDict([[key, value], …]), Counter({…}), defaultdict(factory, {…}): what is given comes last.
                if let Some(argument) = self.with(call.arguments).elements()?.next_back() {
                    match argument.object() {
                        Some(Object::Dict(given)) => entries.extend(given.iter().map(wrap)),
                        Some(Object::List(pairs)) => {
                            for pair in pairs {
                                let pair = self.with(*pair);
                                entries.push((pair.element(0)?, pair.element(1)?));
                            }
                        }
                        _ => {}
                    }
                }
                entries.extend(call.entries.iter().map(wrap));
                Some(entries)
            }
            _ => None,
        }
    }

    /// The value of a dictionary under a text key (a Python 2 string or bytes of the same characters counts).
    pub fn get(self, key: &str) -> Option<Node<'p>> {
        let found = |entry: &&(Value, Value)| self.with(entry.0).text() == Some(key);
        match self.object()? {
            Object::Dict(entries) => entries.iter().rev().find(found).map(|entry| self.with(entry.1)),
            _ => self
                .entries()?
                .into_iter()
                .rev()
                .find(|entry| entry.0.text() == Some(key))
                .map(|entry| entry.1),
        }
    }

    /// The number in the table of objects, by which two references to the same object are known; `None` for small values.
    pub fn identity(self) -> Option<u32> {
        match self.value {
            Value::Object(index) => Some(index),
            _ => None,
        }
    }

    /// A call that was not made.
    pub fn call(self) -> Option<Call<'p>> {
        match self.object()? {
            Object::Call(call) => Some(Call {
                callable: call.callable,
                arguments: self.with(call.arguments),
                state: call.state.map(|state| self.with(state)),
            }),
            _ => None,
        }
    }

    /// A function or class.
    pub fn global(self) -> Option<Global<'p>> {
        match self.object()? {
            Object::Global(global) => Some(*global),
            _ => None,
        }
    }

    /// The identity of something stored outside the pickle.
    pub fn persistent(self) -> Option<Node<'p>> {
        match self.object()? {
            Object::Persistent(identity) => Some(self.with(*identity)),
            _ => None,
        }
    }

    /// A NumPy array of numbers; `None` if this is something else.
    ///
    /// # Errors
    /// An array whose parts contradict each other: the text says how.
    pub fn array(self) -> Result<Option<Array<'p>>, String> {
        numpy::array(self)
    }

    /// Describes the object, for an error message: "a list of 3 elements".
    pub fn describe(self) -> String {
        match self.value {
            Value::None => return "None".into(),
            Value::Bool(value) => return format!("the boolean {value}"),
            Value::Integer(value) => return format!("the integer {value}"),
            Value::Float(value) => return format!("the number {value}"),
            Value::Object(_) => {}
        }
        match self.object() {
            None => "nothing".into(),
            Some(Object::Text(text)) => format!("the text '{}'", text.chars().take(60).collect::<String>()),
            Some(Object::Bytes(bytes)) => format!("{} bytes", bytes.len()),
            Some(Object::LongInteger(bytes)) => format!("an integer of {} bytes", bytes.len()),
            Some(Object::Tuple(values)) => format!("a tuple of {} elements", values.len()),
            Some(Object::List(values)) => format!("a list of {} elements", values.len()),
            Some(Object::Set(values)) => format!("a set of {} elements", values.len()),
            Some(Object::Dict(entries)) => format!("a dictionary of {} entries", entries.len()),
            Some(Object::Global(global)) => format!("the name {global}"),
            Some(Object::Call(call)) => format!("an object that {} makes", call.callable),
            Some(Object::Opaque) => "an object that only running the pickle could make".into(),
            Some(Object::Persistent(_)) => "a reference out of the pickle".into(),
        }
    }
}

/// Whether objects of a class are dictionaries.
fn is_dictionary(class: Global<'_>) -> bool {
    class.module == "collections" && matches!(class.name, "OrderedDict" | "defaultdict" | "Counter")
}

#[cfg(test)]
mod tests;
