//! The compile gate: every kernel, in every variant the engine can ask for, becomes machine code for every card that users own by
//! the real compiler, and that machine code keeps its limits. Needs no GPU, only NVRTC and nvdisasm; where they are
//! missing the test says how to get them and passes, unless `RESIDUA_COMPILE_GATE=required`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use residua::backend::cuda::driver::cache::{Cache, Cached, Compiled};
use residua::backend::cuda::driver::native::nvrtc::Nvrtc;
use residua::backend::cuda::driver::native::ptxas;
use residua::backend::cuda::{EMBEDDED, Entry, Module, Source, Sources, modules};
use residua::error::Result;

const HOPPER: &str = "sm_90a";
/// The architectures whose machine code is recorded as well.
pub const ARCHITECTURES: [&str; 2] = ["sm_80", HOPPER];
/// Those of the other cards: GeForce 30 and A6000, GeForce 40, B200, B300, GeForce 50, GB10.
const OTHER_ARCHITECTURES: [&str; 6] = ["sm_86", "sm_89", "sm_100a", "sm_103a", "sm_120a", "sm_121a"];
/// Architectures without programmatic dependent launch.
const WITHOUT_PDL: [&str; 3] = ["sm_80", "sm_86", "sm_89"];
/// What machine code may have beyond the limits of its entry.
#[derive(Clone, Copy)]
struct Allowance {
    /// Registers that are never too many.
    registers: u32,
    /// Bytes that may be spilled.
    spilled: u32,
}

/// Limits are those of NVRTC 13.0 for Ampere and Hopper.
const NONE: Allowance = Allowance { registers: 0, spilled: 0 };
/// NVRTC 13.5 spills eight bytes in two of the portable kernels, far below their limits of registers.
const OF_NEWER_COMPILERS: Allowance = Allowance { registers: 0, spilled: 8 };
/// For Blackwell the assembler takes more registers for some kernels with few threads, or spills some bytes, outside of inner loops.
const OF_OTHER_ARCHITECTURES: Allowance = Allowance { registers: 104, spilled: 48 };
/// Bytes of static shared memory that a thread block may have on every architecture.
const MOST_STATIC_SHARED: u32 = 48 << 10;

/// The tools, or nothing where they are missing and may be.
pub struct Tools {
    pub nvrtc: Nvrtc,
    pub nvdisasm: Option<PathBuf>,
    pub cache: Cache,
}

impl Tools {
    pub fn find() -> Option<Tools> {
        let missing = |what: &str| {
            let required = std::env::var("RESIDUA_COMPILE_GATE").is_ok_and(|value| value == "required");
            assert!(!required, "the compile gate is required, but {what}");
            say(&format!("compile gate: {what}"));
        };
        let nvrtc = match Nvrtc::find(None) {
            Ok(nvrtc) => nvrtc,
            Err(error) => {
                missing(&format!("not run: {error}"));
                return None;
            }
        };
        let nvdisasm = nvdisasm(&nvrtc);
        if nvdisasm.is_none() {
            missing(
                "instructions are not looked at: nvdisasm is neither named by RESIDUA_NVDISASM, nor beside NVRTC, nor on \
                 PATH; `pip install nvidia-cuda-nvdisasm`",
            );
        }
        let cache = Cache::at(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile-gate")).unwrap();
        Some(Tools { nvrtc, nvdisasm, cache })
    }

    /// The lines of machine code that [`instructions`] reads, kept as the machine code itself is: looking at it takes
    /// longer than making it.
    pub fn disassemble(&self, cubin: &[u8]) -> Option<String> {
        let nvdisasm = self.nvdisasm.as_ref()?;
        let disassemble = || {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("kernels.cubin");
            std::fs::write(&path, cubin).unwrap();
            let said = Command::new(nvdisasm).arg(&path).output().unwrap();
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            Ok(Compiled { code: said.stdout, log: String::new() })
        };
        let cached = self.cache.get(&[cubin, b"nvdisasm"], "sass", disassemble).unwrap();
        Some(String::from_utf8_lossy(&cached.compiled.code).into_owned())
    }

    /// Compiles every module for every architecture that it is written for, in any order, and hands each over as it is done. Returns
    /// their number.
    pub fn compile_all(
        &self,
        architectures: &[&'static str],
        take: impl Fn(&Made<'_>, Result<Cached>) + Sync,
    ) -> usize {
        let jobs: Vec<(Module, &str)> = architectures
            .iter()
            .flat_map(|&architecture| modules().into_iter().map(move |module| (module, architecture)))
            .filter(|(module, architecture)| !module.is_for_hopper() || *architecture == HOPPER)
            .collect();
        let next = AtomicUsize::new(0);
        let compiler = Mutex::new(());
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let Some((module, architecture)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let source = Sources::default().assemble(&module.variant).unwrap();
                        // The compiler works for one thread at a time; waiting for it is no time of this module's.
                        let turn = compiler.lock();
                        let start = Instant::now();
                        let compiled = self.nvrtc.compile_cached(&self.cache, &source, architecture);
                        let took = start.elapsed();
                        drop(turn);
                        take(&Made { module, name: &source.name, architecture, took }, compiled);
                    }
                });
            }
        });
        jobs.len()
    }
}

/// A module for one architecture, as [`Tools::compile_all`] hands it over.
pub struct Made<'a> {
    pub module: &'a Module,
    /// File and constants.
    pub name: &'a str,
    pub architecture: &'a str,
    /// Time of compiling it, or of finding it in the cache.
    took: Duration,
}

/// Writes past the harness, which keeps the output of tests that pass.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn nvdisasm(nvrtc: &Nvrtc) -> Option<PathBuf> {
    // A toolkit and a wheel both have bin/ beside the folder of libraries.
    let beside = nvrtc.path().ancestors().skip(2).take(3).map(|folder| folder.join("bin/nvdisasm"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::var_os("RESIDUA_NVDISASM")
        .map(PathBuf::from)
        .into_iter()
        .chain(beside)
        .chain(std::env::split_paths(&path).map(|folder| folder.join("nvdisasm")))
        .find(|path| path.is_file())
}

/// Instructions of one kernel that its limits speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Instructions {
    /// Matrix instructions on tensor cores.
    matrix: usize,
    /// WGMMA among them.
    warpgroup: usize,
    /// Loads of 16 bytes from global memory.
    wide_loads: usize,
    /// TMA loads.
    tma_loads: usize,
    /// Multicasts among them.
    multicasts: usize,
    /// Loads from and stores to local memory.
    local: usize,
    /// setmaxnreg.
    moved: usize,
    /// Grid dependency waits (griddepcontrol.wait).
    waits: usize,
    /// Accesses to global memory that stand before the first wait.
    before_wait: usize,
    /// Reads from the constant banks of the module: `__constant__` variables, and addresses of `__device__` ones.
    pub module_constants: usize,
}

/// Constant banks that all kernels of a module share.
const BANKS_OF_MODULES: [&str; 2] = ["c[0x3]", "c[0x4]"];

/// Instructions that access global memory.
const GLOBAL: [&str; 11] =
    ["LD", "LDG", "LDGSTS", "ST", "STG", "ATOM", "ATOMG", "RED", "REDG", "UBLKCP", "UTMALDG"];

/// Counts the instructions of each kernel in what nvdisasm prints.
pub fn instructions(text: &str) -> BTreeMap<String, Instructions> {
    let mut kernels = BTreeMap::<String, Instructions>::new();
    let mut kernel = None;
    for line in text.lines() {
        // Not `.sectionflags`, which stands within a section.
        if let Some(section) = line.trim().strip_prefix(".section\t") {
            let name = section.trim_start_matches('"').split([',', '"', '\t']).next().unwrap_or_default();
            kernel = name.strip_prefix(".text.").map(String::from);
        }
        let (Some(kernel), Some((_, code))) = (&kernel, line.split_once("*/")) else { continue };
        // "@!P0 LDG.E.128 R4, ..." without its predicate.
        let opcode = code.split_whitespace().find(|word| !word.starts_with('@')).unwrap_or_default();
        let counts = kernels.entry(kernel.clone()).or_default();
        let mut parts = opcode.split('.');
        let instruction = parts.next().unwrap_or_default();
        counts.before_wait += usize::from(counts.waits == 0 && GLOBAL.contains(&instruction));
        counts.module_constants += usize::from(BANKS_OF_MODULES.iter().any(|bank| code.contains(bank)));
        match instruction {
            "ACQBULK" => counts.waits += 1,
            "HMMA" | "UTCHMMA" | "UTCQMMA" => counts.matrix += 1,
            "HGMMA" => (counts.matrix, counts.warpgroup) = (counts.matrix + 1, counts.warpgroup + 1),
            "LDG" | "LDGSTS" if parts.any(|part| part == "128") => counts.wide_loads += 1,
            "UTMALDG" => {
                counts.tma_loads += 1;
                counts.multicasts += usize::from(parts.any(|part| part == "MULTICAST"));
            }
            "UBLKCP" => counts.wide_loads += 1,
            "LDL" | "STL" => counts.local += 1,
            "USETMAXREG" => counts.moved += 1,
            _ => {}
        }
    }
    kernels
}

/// Compiles a source and holds it to its entries' limits; every fault is a line.
fn faults(tools: &Tools, source: &Source, entries: &[Entry], architecture: &str) -> Vec<String> {
    match tools.nvrtc.compile_cached(&tools.cache, source, architecture) {
        Ok(cached) => faults_in(tools, &cached.compiled, entries, (architecture, NONE), None),
        Err(error) => vec![error.to_string()],
    }
}

/// Holds machine code to its entries' limits; that for Hopper alone to the instructions it is written for.
fn faults_in(
    tools: &Tools,
    compiled: &Compiled,
    entries: &[Entry],
    (architecture, allowance): (&str, Allowance),
    for_hopper: Option<&Module>,
) -> Vec<String> {
    let log = &compiled.log;
    let resources = ptxas::resources(log);
    let instructions = tools.disassemble(&compiled.code).map(|text| instructions(&text));

    let mut faults: Vec<String> = ptxas::warnings(log).into_iter().map(String::from).collect();
    for found in &resources {
        if !entries.iter().any(|entry| entry.name == found.entry) {
            faults.push(format!("kernel `{}` is not listed among the module's entries", found.entry));
        }
    }
    for entry in entries {
        let Some(used) = resources.iter().find(|used| used.entry == entry.name) else {
            faults.push(format!("entry `{}` is listed, but there is no such kernel", entry.name));
            continue;
        };
        let counts = instructions.as_ref().map(|all| all.get(entry.name).copied().unwrap_or_default());
        let mut wrong = Vec::new();
        let mut hold = |fine: bool, what: &str| {
            if !fine {
                wrong.push(what.to_string());
            }
        };
        hold(used.registers <= entry.registers.max(allowance.registers), "too many registers");
        hold(used.spill_stores + used.spill_loads <= allowance.spilled, "registers are spilled");
        hold(used.shared <= MOST_STATIC_SHARED, "too much static shared memory");
        if let Some(counts) = counts {
            hold(counts.local == 0 || allowance.spilled > 0, "local memory is used");
            // Those who take wait until others have given enough, so it must add up to what the block began with.
            hold(
                counts.moved == 0 || used.registers == entry.registers,
                "registers are moved, and there are fewer",
            );
            hold(counts.matrix > 0 || !entry.tensor_cores, "no matrix instruction");
            hold(counts.wide_loads > 0 || !entry.wide_loads, "no 16-byte load");
            // Kernels of calibrations have the one or the other.
            let convolves = for_hopper.is_some_and(|module| module.variant.file.starts_with("convolution/"));
            let multiplies = convolves || for_hopper.is_some() && entry.tensor_cores;
            hold(counts.warpgroup > 0 || !multiplies, "no WGMMA instruction");
            hold(counts.tma_loads > 0 || !convolves, "no TMA load");
            let has_clusters = for_hopper.is_some_and(Module::has_clusters);
            hold(
                (counts.multicasts > 0) == has_clusters,
                "multicasts without a cluster, or a cluster without",
            );
            // With programmatic dependent launch only the wait keeps kernels in order.
            let overlaps = !WITHOUT_PDL.contains(&architecture);
            hold(
                counts.waits > 0 && counts.before_wait == 0 || !overlaps,
                "accesses memory before the grid dependency wait; begin it with KERNEL",
            );
        }
        if !wrong.is_empty() {
            let counts = counts.unwrap_or_default();
            faults.push(format!(
                "{:<28} registers {:>3}/{:<3} spills {:>4} B  shared {:>5} B  matrix {:>4}  wide loads {:>3}  local {:>3}: {}",
                entry.name,
                used.registers,
                entry.registers,
                used.spill_stores + used.spill_loads,
                used.shared,
                counts.matrix,
                counts.wide_loads,
                counts.local,
                wrong.join(", ")
            ));
        }
    }
    faults
}

#[test]
fn every_kernel_compiles_for_ampere_and_hopper_within_its_limits() {
    let Some(tools) = Tools::find() else { return };
    let told = Mutex::new(Vec::new());
    let cold = Mutex::new(Vec::new());
    let is_newer = tools.nvrtc.version().to_string() != "13.0";
    let allowance = if is_newer { OF_NEWER_COMPILERS } else { NONE };
    let jobs = tools.compile_all(&ARCHITECTURES, |made, compiled| {
        let Made { module, name, architecture, took } = *made;
        let faults = match compiled {
            Ok(cached) => {
                if cached.fresh {
                    cold.lock().unwrap().push((took, name.to_string(), architecture.to_string()));
                }
                let for_hopper = module.is_for_hopper().then_some(module);
                faults_in(&tools, &cached.compiled, module.entries, (architecture, allowance), for_hopper)
            }
            Err(error) => vec![error.to_string()],
        };
        told.lock().unwrap().extend(faults.iter().map(|fault| format!("{name} {architecture}: {fault}")));
    });
    let mut told = told.into_inner().unwrap();
    told.sort();
    assert!(told.is_empty(), "{} faults in machine code:\n{}", told.len(), told.join("\n"));
    say(&format!(
        "compile gate: {jobs} modules for {} by NVRTC {} keep their limits",
        ARCHITECTURES.join(" and "),
        tools.nvrtc.version()
    ));
    // How long a first start takes, where the cache was empty: all modules of one precision, one after another.
    let cold = cold.into_inner().unwrap();
    for (precision, constant) in [("f32", "BF16=0"), ("bf16", "BF16=1")] {
        let seconds = |architecture| -> f64 {
            let of_it = |(_, name, on): &&(_, String, String)| on == architecture && name.contains(constant);
            cold.iter().filter(of_it).map(|(time, ..)| time.as_secs_f64()).sum()
        };
        let [ampere, hopper] = ARCHITECTURES.map(seconds);
        if ampere + hopper > 0.0 {
            say(&format!(
                "compile gate: {precision} modules that were not cached took {ampere:.1} s for {}, {hopper:.1} s for {}",
                ARCHITECTURES[0], ARCHITECTURES[1]
            ));
        }
    }
}

#[test]
fn in_a_debugging_build_waits_for_barriers_trap() {
    let Some(tools) = Tools::find() else { return };
    let mut files = Vec::new();
    for module in modules().into_iter().filter(Module::is_for_hopper) {
        // One of each file that has barriers.
        let text =
            EMBEDDED.iter().find(|(path, _)| *path == module.variant.file).map_or("", |(_, text)| text);
        let waits = text.contains("mbarrier_wait") || text.contains("pipeline.cuh");
        if !waits || files.contains(&module.variant.file) {
            continue;
        }
        files.push(module.variant.file);
        let traps = |sources: Sources| {
            let source = sources.assemble(&module.variant).unwrap();
            let cached = tools.nvrtc.compile_cached(&tools.cache, &source, HOPPER).unwrap();
            tools.disassemble(&cached.compiled.code).map(|text| text.matches("BPT.TRAP").count())
        };
        let Some(trapping) = traps(Sources::default().with_traps()) else { return };
        assert!(trapping > 0 && traps(Sources::default()) == Some(0), "{}", module.variant.file);
    }
    assert_eq!(files.len(), 4);
}

/// The largest numbers among the kernels of an architecture.
#[derive(Default)]
struct Largest {
    modules: usize,
    kernels: usize,
    registers: u32,
    spilled: u32,
    shared: u32,
}

#[test]
fn the_portable_kernels_compile_for_every_other_card_within_their_limits() {
    let Some(tools) = Tools::find() else { return };
    let told = Mutex::new(Vec::new());
    let largest: Mutex<BTreeMap<String, Largest>> = Mutex::default();
    tools.compile_all(&OTHER_ARCHITECTURES, |made, compiled| {
        let Made { module, name, architecture, .. } = *made;
        let faults = match compiled {
            Ok(cached) => {
                let mut largest = largest.lock().unwrap();
                let all = largest.entry(architecture.to_string()).or_default();
                all.modules += 1;
                for used in ptxas::resources(&cached.compiled.log) {
                    all.kernels += 1;
                    all.registers = all.registers.max(used.registers);
                    all.spilled += used.spill_stores + used.spill_loads;
                    all.shared = all.shared.max(used.shared);
                }
                drop(largest);
                faults_in(
                    &tools,
                    &cached.compiled,
                    module.entries,
                    (architecture, OF_OTHER_ARCHITECTURES),
                    None,
                )
            }
            Err(error) => vec![error.to_string()],
        };
        told.lock().unwrap().extend(faults.iter().map(|fault| format!("{name} {architecture}: {fault}")));
    });
    let mut told = told.into_inner().unwrap();
    told.sort();
    assert!(told.is_empty(), "{} faults in machine code:\n{}", told.len(), told.join("\n"));
    for (architecture, all) in largest.into_inner().unwrap() {
        say(&format!(
            "compile gate: {architecture}, NVRTC {}: {} modules, {} kernels, at most {} registers, {} bytes spilled, at most {} \
             bytes of static shared memory",
            tools.nvrtc.version(),
            all.modules,
            all.kernels,
            all.registers,
            all.spilled,
            all.shared
        ));
    }
}

#[test]
fn every_kernel_file_belongs_to_a_module_that_the_gate_compiles() {
    let files: Vec<&str> = modules().iter().map(|module| module.variant.file).collect();
    for (name, _) in EMBEDDED.iter().filter(|(name, _)| name.ends_with(".cu")) {
        assert!(files.contains(name), "kernels/{name} is in no module, so nothing holds its machine code");
    }
}

/// A kernel of the tests' own, with the intrinsics of `intrinsics/ptx.cuh`.
pub fn planted(body: &str) -> Source {
    let header = EMBEDDED.iter().find(|(name, _)| *name == "intrinsics/ptx.cuh").unwrap().1;
    let arguments = "struct Arguments { const float* x; float* y; u64 n; };";
    let text =
        format!("#line 1 \"intrinsics/ptx.cuh\"\n{header}\n#line 1 \"planted.cu\"\n{arguments}\n{body}\n");
    Source { name: "planted.cu".to_string(), text }
}

const ENTRY: Entry = Entry { name: "planted", registers: 32, tensor_cores: false, wide_loads: true };

const GOOD: &str = "KERNEL(256, planted, Arguments) {
    u64 i = (blockIdx.x * 256ull + threadIdx.x) * 4;
    if (i < p.n) { store_vector<4>(p.y + i, load_vector<4>(p.x + i)); }
}";

#[test]
fn the_gate_lets_a_good_kernel_pass_and_catches_each_planted_fault() {
    let Some(tools) = Tools::find() else { return };
    let on = |body: &str, entries: &[Entry]| {
        ARCHITECTURES.map(|architecture| faults(&tools, &planted(body), entries, architecture).join("\n"))
    };
    let caught = |body: &str, entries: &[Entry], fault: &str| {
        for told in on(body, entries) {
            assert!(told.contains(fault), "expected `{fault}`, found `{told}`");
        }
    };
    assert_eq!(on(GOOD, &[ENTRY]), [""; 2]);

    caught(GOOD, &[Entry { registers: 4, ..ENTRY }], "too many registers");
    caught(GOOD, &[], "kernel `planted` is not listed");
    caught(GOOD, &[ENTRY, Entry { name: "absent", ..ENTRY }], "entry `absent` is listed");
    caught("KERNEL(256, planted, Arguments) { nonsense(p.x); }", &[ENTRY], "planted.cu(2): error");
    let crowded = "KERNEL(256, planted, Arguments) {
        SHARED(float, much[16384]);
        for (u32 i = threadIdx.x; i < 16384; i += 256) much[i] = load(p.x + i);
        block_sync();
        store(p.y + threadIdx.x, much[p.n]);
    }";
    caught(crowded, &[Entry { wide_loads: false, ..ENTRY }], "shared");
    if tools.nvdisasm.is_some() {
        let narrow = GOOD.replace("_vector<4>", "_vector<1>");
        caught(&narrow, &[ENTRY], "no 16-byte load");
        caught(GOOD, &[Entry { tensor_cores: true, ..ENTRY }], "no matrix instruction");
        let indexed = "KERNEL(256, planted, Arguments) {
            float a[64] = {};
            for (int i = 0; i < 64; ++i) a[u32(load(p.x + i)) % 64] += i;
            store(p.y + threadIdx.x, a[threadIdx.x % 64]);
        }";
        caught(indexed, &[Entry { wide_loads: false, registers: 255, ..ENTRY }], "local memory is used");
    }
    if tools.nvdisasm.is_some() {
        let entry = "extern \"C\" __global__ void __launch_bounds__(256) planted(const __grid_constant__ Arguments p)";
        let forgetful = GOOD.replace("KERNEL(256, planted, Arguments)", entry);
        let late = forgetful
            .replace("if (i < p.n)", "float x = load(p.x); grid_dependency_wait(); if (x > 0 && i < p.n)");
        for wrong in [forgetful, late] {
            let [ampere, hopper] = on(&wrong, &[ENTRY]);
            assert!(
                ampere.is_empty() && hopper.contains("before the grid dependency wait"),
                "{ampere}\n{hopper}"
            );
        }
    }
    // 160 values that are all alive at once in 32 registers.
    let spilling = "extern \"C\" __global__ void __launch_bounds__(1024, 2) planted(const __grid_constant__ Arguments p) {
        float a[160];
        #pragma unroll
        for (int i = 0; i < 160; ++i) a[i] = load(p.x + i * p.n + threadIdx.x);
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < 160; ++i) store(p.y + i * p.n + threadIdx.x, a[i] * a[159 - i]);
    }";
    caught(spilling, &[Entry { wide_loads: false, ..ENTRY }], "registers are spilled");
}

#[test]
fn matrix_products_in_both_widths_are_recognised_in_machine_code() {
    let counts = instructions(
        "\t.section\t.text.first,\"ax\",@progbits\n.text.first:\n        /*0000*/                   LDC R1, c[0x0][0x28] ;\n\
         /*0008*/ LDC.64 R6, c[0x4][0x18] ;\n/*000c*/ FADD R6, R6, c[0x3][R2] ;\n\
         \t/*0010*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;\n\
         /*0020*/ LDG.E.64 R4, [R2] ;\n/*0030*/ LDGSTS.E.BYPASS.LTC128B.128 [R1], [R2.64] ;\n\
         /*0040*/ LDGSTS.E.LTC128B [R1], [R2.64] ;\n/*0050*/ HMMA.16816.F32.BF16 R4, R8, R2, R4 ;\n\
         \t.sectionflags\t@\"SHF_BARRIERS=1\"\n/*0060*/ LDL R2, [R1] ;\n\t.section\t.nv.info,\"\",@\"SHT_CUDA_INFO\"\n/*0000*/ HMMA\n\
         \t.section\t.text.second,\"ax\",@progbits\n/*0000*/ ACQBULK ;\n/*0004*/ HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4] ;\n\
         /*0008*/ UTMALDG.2D [UR4], [UR34] ;\n/*000c*/ UTMALDG.4D.IM2COL.MULTICAST [UR4], [UR34], UR6 ;\n/*0010*/ STL [R1], R2 ;\n",
    );
    let none = Instructions::default();
    let first =
        Instructions { matrix: 1, wide_loads: 2, local: 1, before_wait: 4, module_constants: 2, ..none };
    assert_eq!(counts["first"], first);
    let second =
        Instructions { matrix: 1, warpgroup: 1, tma_loads: 2, multicasts: 1, local: 1, waits: 1, ..none };
    assert_eq!(counts["second"], second);
    assert_eq!(counts.len(), 2);
}
