//! Declarations in kernel sources that launchers share with them: the structs that kernels take, and constants.
//!
//! `build.rs` makes Rust of those in `kernels/`; at run time a folder of edited sources is held to them. Read are lines, not all of C++: a
//! field, a constant or the head of a struct or kernel stands in one line. What is not understood is an error, never a guess.

/// The declarations of a kernel file and of the headers that it includes.
#[derive(Debug, Default)]
pub struct Declarations {
    pub kernels: Vec<Kernel>,
    pub constants: Vec<Constant>,
}

/// `KERNEL(threads, name, Argument)`.
#[derive(Debug)]
pub struct Kernel {
    pub name: String,
    /// File and line, for messages.
    pub place: String,
    /// `None` where they depend on the constants of a variant.
    pub threads: Option<i64>,
    /// The type as it is written: `Unary<Real>`.
    pub argument: String,
    pub layout: Struct,
}

/// An integer at namespace scope.
#[derive(Debug)]
pub struct Constant {
    pub name: String,
    pub file: String,
    pub place: String,
    pub doc: String,
    pub value: i64,
    /// Whether it is declared by `LAUNCHER_CONSTANT`.
    pub shared: bool,
}

/// A struct without padding.
#[derive(Debug)]
pub struct Struct {
    pub name: String,
    pub file: String,
    pub place: String,
    pub doc: String,
    pub fields: Vec<Field>,
    pub size: usize,
    pub alignment: usize,
}

#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub place: String,
    pub doc: String,
    /// As it is written: `const float* x`.
    pub declaration: String,
    pub kind: Kind,
    /// Elements of an array.
    pub extent: Option<i64>,
}

#[derive(Debug)]
pub enum Kind {
    /// A number by its name in Rust, an address (`u64`) or a tensor map; its bytes and alignment.
    Plain(&'static str, usize, usize),
    Struct(Struct),
}

/// The types of fields: by C++'s name, by Rust's, bytes and alignment. Pointers are addresses.
const TYPES: [(&str, &str, usize, usize); 9] = [
    ("u8", "u8", 1, 1),
    ("u16", "u16", 2, 2),
    ("u32", "u32", 4, 4),
    ("u64", "u64", 8, 8),
    ("int", "i32", 4, 4),
    ("i64", "i64", 8, 8),
    ("float", "f32", 4, 4),
    ("double", "f64", 8, 8),
    ("TensorMap", "TensorMap", 128, 64),
];

/// The file that a line includes in quotes: its path relative to the folder of kernels, whichever file the line is in.
pub fn included(line: &str) -> Option<&str> {
    line.trim().strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"'))
}

/// Reads a file and the headers that it includes; `text_of` gives the name of a file for messages, and its text.
pub fn read(file: &str, text_of: &dyn Fn(&str) -> Option<(String, String)>) -> Result<Declarations, String> {
    let mut texts = Vec::new();
    collect(file, text_of, &mut Vec::new(), &mut texts);
    let mut lines = Vec::new();
    for (file, text) in &texts {
        lines.extend(text.lines().zip(1..).map(|(text, number)| Line { file, number, text }));
    }
    let mut found = Declarations::default();
    for (at, line) in lines.iter().enumerate() {
        let code = line.code();
        if let Some(rest) = code.strip_prefix("LAUNCHER_CONSTANT ") {
            let expected = "`LAUNCHER_CONSTANT u32 NAME = expression;` of integers and + - * / <<";
            constants(&lines, at, rest, true, &mut found).ok_or_else(|| line.expected(expected))?;
        } else if let Some(rest) = line.text.strip_prefix("constexpr ") {
            // Others may be no integers, or depend on the constants of a variant.
            let _ = constants(&lines, at, rest, false, &mut found);
        } else if code.starts_with("KERNEL") {
            let kernel = kernel(&lines, at, &found.constants)?;
            found.kernels.push(kernel);
        }
    }
    Ok(found)
}

/// Appends a file behind the headers that it includes, each once.
fn collect(
    file: &str,
    text_of: &dyn Fn(&str) -> Option<(String, String)>,
    seen: &mut Vec<String>,
    texts: &mut Vec<(String, String)>,
) {
    // The assembler tells of files that are missing.
    if let Some((shown, text)) = text_of(file).filter(|_| !seen.iter().any(|name| name == file)) {
        seen.push(file.to_string());
        text.lines().filter_map(included).for_each(|header| collect(header, text_of, seen, texts));
        texts.push((shown, text));
    }
}

struct Line<'a> {
    file: &'a str,
    number: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    /// Without comment.
    fn code(&self) -> &'a str {
        self.text.split("//").next().unwrap_or_default().trim()
    }

    fn place(&self) -> String {
        format!("{}:{}", self.file, self.number)
    }

    fn expected(&self, expected: &str) -> String {
        format!("{}: found `{}`, expected {expected}", self.place(), self.text.trim())
    }
}

/// The `///` comments above a line.
fn doc_above(lines: &[Line], at: usize) -> String {
    let is_template = |line: &Line| line.text.starts_with("template ");
    let above = lines[..at].iter().rev().skip_while(|line| is_template(line));
    let mut doc: Vec<&str> = above.map_while(|line| line.text.trim().strip_prefix("///")).collect();
    doc.reverse();
    doc.concat().trim().to_string()
}

/// Adds the constants of a line, `u32 NAME = expression, ..;`; `None` where it holds something else.
fn constants(lines: &[Line], at: usize, code: &str, shared: bool, found: &mut Declarations) -> Option<()> {
    let (kind, declared) = code.split("//").next()?.trim().strip_suffix(';')?.split_once(' ')?;
    TYPES.iter().find(|(name, rust, ..)| *name == kind && rust.starts_with(['u', 'i']))?;
    for constant in declared.split(',') {
        let (name, expression) = constant.split_once('=')?;
        let value = evaluate(expression, &found.constants)?;
        let (file, place) = (lines[at].file.to_string(), lines[at].place());
        let (name, doc) = (name.trim().to_string(), doc_above(lines, at));
        found.constants.push(Constant { name, file, place, doc, value, shared });
    }
    Some(())
}

/// The value of an integer expression of literals, constants, parentheses and + - * / <<.
fn evaluate(expression: &str, constants: &[Constant]) -> Option<i64> {
    let text = expression.trim();
    let outside = |at: usize| text[..at].matches('(').count() == text[..at].matches(')').count();
    // The operator that binds least is the last one to be computed.
    for operators in [&["<<"][..], &["+", "-"], &["*", "/"]] {
        let last = |operator: &&str| text.rmatch_indices(operator).map(|(at, _)| at).find(|&at| outside(at));
        let split = operators.iter().filter_map(|operator| Some((last(operator)?, *operator))).max();
        let Some((at, operator)) = split else { continue };
        let left = evaluate(&text[..at], constants)?;
        let right = evaluate(&text[at + operator.len()..], constants)?;
        return match operator {
            "<<" => left.checked_mul(1i64.checked_shl(right.try_into().ok()?)?),
            "+" => left.checked_add(right),
            "-" => left.checked_sub(right),
            "*" => left.checked_mul(right),
            _ => left.checked_div(right),
        };
    }
    let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    let named = || constants.iter().rfind(|constant| constant.name == text).map(|constant| constant.value);
    inner.map_or_else(|| text.parse().ok().or_else(named), |inner| evaluate(inner, constants))
}

/// `KERNEL(threads, name, Argument)`, or with a preamble behind.
fn kernel(lines: &[Line], at: usize, constants: &[Constant]) -> Result<Kernel, String> {
    let expected = || lines[at].expected("`KERNEL(threads, name, Argument)` in one line");
    let (_, parts) = lines[at].code().split_once('(').ok_or_else(expected)?;
    let mut parts = parts.splitn(3, ',');
    let (Some(threads), Some(name), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(expected());
    };
    let argument = rest.split([',', ')']).next().unwrap_or_default().trim();
    let base = argument.split('<').next().unwrap_or_default();
    Ok(Kernel {
        name: name.trim().to_string(),
        place: lines[at].place(),
        threads: evaluate(threads, constants),
        argument: argument.to_string(),
        layout: structure(lines, &lines[at], at, base, constants)?,
    })
}

/// The struct of that name that a line needs, declared before `limit`.
fn structure(
    lines: &[Line],
    line: &Line,
    limit: usize,
    name: &str,
    constants: &[Constant],
) -> Result<Struct, String> {
    let head = format!("struct {name} {{");
    let is_head = |code: &str| code.split_whitespace().collect::<String>() == head.replace(' ', "");
    let mut heads =
        (0..limit).filter(|&at| lines[at].text.starts_with("struct") && is_head(lines[at].code()));
    let (Some(at), None) = (heads.next(), heads.next()) else {
        return Err(line.expected(&format!("one `{head}` before it, in this file or its headers")));
    };
    let (mut fields, mut size, mut alignment) = (Vec::new(), 0usize, 1);
    for end in at + 1..lines.len() {
        // Fields end where member functions begin.
        if ["};", "__device__", "template"].iter().any(|word| lines[end].code().starts_with(word)) {
            no_padding(&lines[end], size, alignment)?;
            let (file, place, doc) = (lines[at].file.to_string(), lines[at].place(), doc_above(lines, at));
            return Ok(Struct { name: name.to_string(), file, place, doc, fields, size, alignment });
        }
        for field in self::fields(lines, end, at, constants)? {
            let (bytes, multiple) = match &field.kind {
                Kind::Plain(_, bytes, multiple) => (*bytes, *multiple),
                Kind::Struct(inner) => (inner.size, inner.alignment),
            };
            no_padding(&lines[end], size, multiple)?;
            size += bytes * field.extent.unwrap_or(1) as usize;
            alignment = alignment.max(multiple);
            fields.push(field);
        }
    }
    Err(lines[at].expected("`};` at its end"))
}

/// Refuses padding: its bytes would have no value in Rust.
fn no_padding(line: &Line, size: usize, multiple: usize) -> Result<(), String> {
    let bytes = size.next_multiple_of(multiple) - size;
    let expected = format!("no {bytes} bytes of padding before it: another order, or a field that is unused");
    if bytes == 0 { Ok(()) } else { Err(line.expected(&expected)) }
}

/// The fields of a line, `Type name, name[extent];` or `Type* name;`.
fn fields(lines: &[Line], at: usize, head: usize, constants: &[Constant]) -> Result<Vec<Field>, String> {
    let line = &lines[at];
    let expected = || line.expected("`Type name, name[extent];` or `Type* name;` in one line");
    if line.code().is_empty() {
        return Ok(Vec::new());
    }
    let code = line.code().strip_suffix(';').ok_or_else(expected)?;
    let (written, names) = match code.split_once('*') {
        Some((of, name)) => (format!("{}*", of.trim()), name),
        None => code.split_once(' ').map(|(of, names)| (of.to_string(), names)).ok_or_else(expected)?,
    };
    let mut fields = Vec::new();
    for declared in names.split(',').map(str::trim) {
        let (name, extent) = match declared.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
            Some((name, extent)) => {
                let extent = evaluate(extent, constants).filter(|extent| (1..=4096).contains(extent));
                (name, Some(extent.ok_or_else(|| line.expected("an array of 1 to 4096 elements"))?))
            }
            None => (declared, None),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(is_name) || (written.ends_with('*') && names.contains(',')) {
            return Err(expected());
        }
        let kind = match TYPES.iter().find(|(name, ..)| *name == written) {
            Some(&(_, rust, bytes, multiple)) => Kind::Plain(rust, bytes, multiple),
            None if written.ends_with('*') => Kind::Plain("u64", 8, 8),
            None => Kind::Struct(structure(lines, line, head, &written, constants)?),
        };
        let doc = match line.text.split_once("//") {
            Some((_, comment)) => comment.trim_start_matches('/').trim().to_string(),
            None => doc_above(lines, at),
        };
        let declaration = format!("{written} {declared}");
        fields.push(Field { name: name.to_string(), place: line.place(), doc, declaration, kind, extent });
    }
    Ok(fields)
}
