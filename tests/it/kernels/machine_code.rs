//! The record of machine code: registers, shared memory and a hash of every kernel. A refactoring shows by two records that it left
//! all machine code as it was; `scripts/record_guards.sh` writes them.

use std::path::PathBuf;
use std::sync::Mutex;

use residua::backend::cuda::Source;
use residua::backend::cuda::driver::cache::Compiled;
use residua::backend::cuda::driver::native::ptxas;

use crate::kernels::compile_gate::{ARCHITECTURES, Made, Tools, instructions, planted};

/// Sections without bytes in the file: shared and local memory.
const NOBITS: u32 = 8;
const RELOCATIONS: u32 = 9;
const RELOCATIONS_WITH_ADDEND: u32 = 4;
/// The attribute of a kernel that begins with the index of a symbol: where its arguments lie.
const ARGUMENTS: u8 = 0x0a;
/// The format of an attribute that has bytes of its own behind its length.
const WITH_BYTES: u8 = 4;

/// A section of a cubin, which is an ELF file of 64 bits.
struct Section<'a> {
    name: &'a str,
    kind: u32,
    flags: u64,
    size: u64,
    bytes: &'a [u8],
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(wide)
}

fn sections(cubin: &[u8]) -> Vec<Section<'_>> {
    assert!(cubin.starts_with(b"\x7fELF\x02\x01"), "a cubin is an ELF file of 64 bits");
    let (table, count, names) =
        (number::<8>(cubin, 40) as usize, number::<2>(cubin, 60) as usize, number::<2>(cubin, 62) as usize);
    let header = |index: usize| &cubin[table + 64 * index..][..64];
    let place = |index: usize| number::<8>(header(index), 24) as usize;
    let section = |index: usize| {
        let header = header(index);
        let (kind, size) = (number::<4>(header, 4) as u32, number::<8>(header, 32));
        let name = &cubin[place(names) + number::<4>(header, 0) as usize..];
        let end = name.iter().position(|&byte| byte == 0).unwrap();
        let name = std::str::from_utf8(&name[..end]).unwrap();
        let bytes = if kind == NOBITS { &[] } else { &cubin[place(index)..][..size as usize] };
        Section { name, kind, flags: number::<8>(header, 8), size, bytes }
    };
    (1..count).map(section).collect()
}

/// The part of a section that decides what runs: its size and its bytes, without the indices of symbols.
fn content(section: &Section<'_>) -> Vec<u8> {
    let mut content = section.size.to_le_bytes().to_vec();
    let mut rest = section.bytes;
    match section.kind {
        RELOCATIONS | RELOCATIONS_WITH_ADDEND => {
            let length = if section.kind == RELOCATIONS { 16 } else { 24 };
            for relocation in rest.chunks_exact(length) {
                // Offset, type, index of a symbol, addend.
                content.extend([&relocation[..12], &relocation[16..]].concat());
            }
        }
        _ if section.name.starts_with(".nv.info.") => {
            while !rest.is_empty() {
                let (format, attribute) = (rest[0], rest[1]);
                let more = if format == WITH_BYTES { number::<2>(rest, 2) as usize } else { 0 };
                let index = if attribute == ARGUMENTS { 4 } else { 0 };
                content.extend([&rest[..4], &rest[4 + index..4 + more]].concat());
                rest = &rest[4 + more..];
            }
        }
        _ => content.extend(rest),
    }
    content
}

/// The hash of a kernel's instructions, constants, attributes (sizes of arguments, launch bounds, clusters) and sizes of memory. It
/// depends on no name, line or other kernel; constants and variables of the module count where the kernel reads them.
fn hash(cubin: &[u8], entry: &str, reads_module: bool) -> String {
    let mut parts: Vec<(&str, u64, Vec<u8>)> = Vec::new();
    for section in sections(cubin) {
        let own = section.name.strip_suffix(entry).and_then(|name| name.strip_suffix('.'));
        let name = own.unwrap_or(section.name);
        let plain = name.trim_start_matches(".rela").trim_start_matches(".rel");
        let counts = match own {
            Some(_) => {
                matches!(plain, ".text" | ".nv.info" | ".nv.shared" | ".nv.local")
                    || plain.starts_with(".nv.constant")
            }
            None => {
                let of_module = [".nv.constant3", ".nv.constant4", ".nv.global.init", ".nv.global"];
                reads_module && of_module.contains(&plain)
            }
        };
        if counts {
            parts.push((name, section.flags, content(&section)));
        }
    }
    assert!(parts.iter().any(|(name, ..)| *name == ".text"), "no code of {entry}");
    parts.sort();
    let mut hasher = blake3::Hasher::new();
    for (name, flags, content) in parts {
        let head = format!("{name} {flags} {}\n", content.len());
        hasher.update(head.as_bytes()).update(&content);
    }
    hasher.finalize().to_hex()[..32].to_string()
}

/// A line for each kernel: name, registers, static shared memory and hash, separated by tabs.
fn record(tools: &Tools, compiled: &Compiled) -> Vec<String> {
    let text = tools.disassemble(&compiled.code).expect("nvdisasm, which RESIDUA_NVDISASM names");
    let instructions = instructions(&text);
    let line = |used: ptxas::Resources| {
        let reads_module = instructions[&used.entry].module_constants > 0;
        let hash = hash(&compiled.code, &used.entry, reads_module);
        format!("{}\t{}\t{}\t{hash}", used.entry, used.registers, used.shared)
    };
    ptxas::resources(&compiled.log).into_iter().map(line).collect()
}

#[test]
#[ignore = "writes the record that scripts/record_guards.sh asks for"]
fn the_machine_code_of_every_kernel_is_recorded() {
    let path = std::env::var_os("RESIDUA_MACHINE_CODE").expect("RESIDUA_MACHINE_CODE, the file to write");
    let tools = Tools::find().expect("NVRTC, which RESIDUA_NVRTC names");
    let lines = Mutex::new(Vec::new());
    tools.compile_all(&ARCHITECTURES, |made, compiled| {
        let Made { module, architecture, .. } = made;
        let constants = module.variant.constants.iter().map(|(name, value)| format!("{name}={value}"));
        let constants = constants.collect::<Vec<_>>().join(",");
        let start = format!("{}\t{constants}\t{architecture}", module.variant.file);
        let kernels = record(&tools, &compiled.unwrap().compiled);
        lines.lock().unwrap().extend(kernels.iter().map(|kernel| format!("{start}\t{kernel}\n")));
    });
    let mut lines = lines.into_inner().unwrap();
    lines.sort();
    std::fs::write(PathBuf::from(path), lines.concat()).unwrap();
}

const TABLE: &str = "__constant__ const float table[4] = {1, 2, 3, 4};";

const KERNEL: &str = "KERNEL(256, planted, Arguments) {
    SHARED(float, sums[256]);
    sums[threadIdx.x] = load(p.x + threadIdx.x) * 3.0f;
    block_sync();
    if (p.n > 7) { store(p.y + threadIdx.x, sums[255 - threadIdx.x]); }
}
KERNEL(256, reader, Arguments) { store(p.y + threadIdx.x, table[u32(load(p.x + threadIdx.x)) % 4]); }";

#[test]
fn the_hash_of_machine_code_changes_with_what_runs_and_not_with_names_lines_or_neighbours() {
    let Some(tools) = Tools::find().filter(|tools| tools.nvdisasm.is_some()) else { return };
    for architecture in ARCHITECTURES {
        let records = |source: &Source| {
            let compiled = tools.nvrtc.compile_cached(&tools.cache, source, architecture).unwrap().compiled;
            let mut records = record(&tools, &compiled);
            records.sort();
            records
        };
        let of = |body: &str| records(&planted(body));
        let original = of(&format!("{TABLE}\n{KERNEL}"));
        let [planted_line, reader_line] = &original[..] else { panic!("{original:?}") };

        // Another file and other lines, another kernel and another constant in front, other names.
        let before = "__constant__ const u32 first = 9;\nKERNEL(64, before, Arguments) { store(p.y, load(p.x + p.count)); }";
        let named = KERNEL.replace("planted", "zebra").replace("sums", "a_buffer").replace("p.n", "p.count");
        let mut moved = planted(&format!("{before}\n{TABLE}\n{named}"));
        moved.text = moved.text.replace("float* y; u64 n; }", "float* y; u64 count; }");
        moved.text = moved.text.replace("#line 1 \"planted.cu\"", "#line 70 \"elsewhere/other.cu\"");
        let moved = records(&moved);
        assert_eq!(moved[2], planted_line.replace("planted", "zebra"), "{architecture}");

        let changes =
            [("* 3.0f", "* 5.0f"), ("KERNEL(256, p", "KERNEL(128, p"), ("> 7", "> 8"), ("[256]", "[512]")];
        for (from, to) in changes {
            let changed = of(&format!("{TABLE}\n{}", KERNEL.replacen(from, to, 1)));
            assert_ne!(changed[0], *planted_line, "{from} {architecture}");
            assert_eq!(changed[1], *reader_line, "{from} {architecture}");
        }
        // A table of the module is part of those kernels that read it.
        let changed = of(&format!("{}\n{KERNEL}", TABLE.replace("4}", "5}")));
        assert_eq!(changed[0], *planted_line, "{architecture}");
        assert_ne!(changed[1], *reader_line, "{architecture}");
        // One argument more.
        let mut wider = planted(&format!("{TABLE}\n{KERNEL}"));
        wider.text = wider.text.replace("u64 n; }", "u64 n; u64 unused; }");
        assert_ne!(records(&wider)[0], *planted_line, "{architecture}");
    }
}
