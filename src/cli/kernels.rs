//! `residua kernels build`: compiles kernels where there is no GPU.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::common::Common;
use super::output::print_result;
use super::progress::Progress;
use crate::backend::Precision;
use crate::backend::cuda::driver::cache::Cache;
use crate::backend::cuda::driver::native::nvrtc::{Nvrtc, architecture};
use crate::backend::cuda::driver::native::precompiled::Manifest;
use crate::backend::cuda::{Module, Source, Sources, modules};
use crate::error::{Error, Result};

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua kernels build --arch sm_90a --out kernels
      All kernels for an H100 or H200, where there is none
  residua train --data demo:fashion-mnist --device cuda \\
      --kernel-cache kernels --out runs/first
      Use them there";

/// Arguments of `kernels`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Compile all kernels for an architecture into a folder, which --kernel-cache takes on a machine with such a GPU
    Build(Build),
}

#[derive(Debug, Clone, Args)]
struct Build {
    /// Architecture: sm_80 (A100), sm_86 (GeForce 30, A6000), sm_89 (GeForce 40), sm_90a (H100, H200), sm_100a (B200), sm_120a (GeForce 50)
    #[arg(long, value_name = "sm_XX")]
    arch: String,
    /// Folder for the compiled kernels; several architectures may share it
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Compile only what this precision needs: f32 or bf16 [default: both]
    #[arg(long, value_name = "TYPE")]
    precision: Option<Precision>,
    /// Compile edited kernel sources from this folder instead of those inside the binary
    #[arg(long, value_name = "DIR")]
    kernels: Option<PathBuf>,
    /// Build kernels for debugging, as `doctor --full --trap` runs them
    #[arg(long)]
    trap: bool,
    /// The part that this process compiles: NVRTC works for one thread at a time, so others compile the rest.
    #[arg(long, hide = true, value_name = "I/N", value_parser = part)]
    part: Option<(usize, usize)>,
}

/// `2/4`: the third of four parts.
fn part(text: &str) -> Result<(usize, usize)> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    parts.filter(|(i, n)| i < n).ok_or_else(|| Error::usage("a part is written I/N, I less than N"))
}

/// What was built.
#[derive(Debug, Serialize)]
struct Built {
    out: PathBuf,
    architecture: String,
    nvrtc: String,
    /// Kernel files, each with its constants.
    modules: usize,
    /// Bytes of all files in the folder.
    bytes: u64,
    /// Processes that compiled side by side.
    processes: usize,
    seconds: f64,
}

pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let What::Build(build) = &arguments.what;
    check_architecture(&build.arch)?;
    let nvrtc = Nvrtc::find(None)?;
    let sources = sources(build)?;
    // The user may carry it anywhere; whoever uses it looks at who may write it.
    let cache = Cache::at(&build.out)?;
    if let Some((index, parts)) = build.part {
        let mut own = sources.iter().skip(index).step_by(parts);
        return own.try_for_each(|source| nvrtc.compile_cached(&cache, source, &build.arch).map(drop));
    }
    Manifest::check(&build.out, nvrtc.version())?;
    let started = Instant::now();
    let processes = common.threads.clamp(1, sources.len());
    let mut progress = Progress::new("compiling", processes as u64, "parts", common.quiet);
    compile(build, processes, &build.out, &mut progress)?;
    Manifest::add(&build.out, nvrtc.version(), &build.arch)?;
    let built = Built {
        out: build.out.clone(),
        architecture: build.arch.clone(),
        nvrtc: nvrtc.version().to_string(),
        modules: sources.len(),
        bytes: Cache::usage(&build.out).bytes,
        processes,
        seconds: started.elapsed().as_secs_f64(),
    };
    drop(progress);
    print_result(common, None, &built, || {
        let Built { out, architecture, nvrtc, modules, bytes, processes, seconds } = &built;
        format!(
            "{modules} kernel files for {architecture} by NVRTC {nvrtc}, {:.1} MiB in {}; {processes} processes, {seconds:.1} s\n",
            *bytes as f64 / f64::from(1 << 20),
            out.display()
        )
    })
}

/// Refuses what is no architecture of a GPU that the program runs on.
fn check_architecture(arch: &str) -> Result<()> {
    let digits: String = arch.trim_start_matches("sm_").chars().take_while(char::is_ascii_digit).collect();
    let number: u32 = digits.parse().unwrap_or(0);
    let old = |_| {
        Error::usage(format!("--arch {arch}: kernels run on sm_80 and later, written like sm_86 or sm_90a"))
    };
    let wanted = architecture((number / 10, number % 10)).map_err(old)?;
    if arch == wanted { Ok(()) } else { Err(Error::usage(format!("--arch {arch}: write {wanted}"))) }
}

/// The texts of all kernel files that an architecture and a precision need.
fn sources(build: &Build) -> Result<Vec<Source>> {
    let from = build.kernels.as_deref().map_or_else(|| Ok(Sources::default()), Sources::of_folder)?;
    let from = if build.trap { from.with_traps() } else { from };
    let is_wanted = |module: &Module| {
        let bf16 =
            module.variant.constants.iter().find(|(name, _)| *name == "BF16").map(|(_, value)| *value == 1);
        let of_precision = match (build.precision, bf16) {
            (Some(Precision::Bf16), Some(bf16)) => bf16,
            (Some(Precision::F32), Some(bf16)) => !bf16,
            _ => true,
        };
        of_precision && (!module.is_for_hopper() || build.arch == "sm_90a")
    };
    modules().into_iter().filter(is_wanted).map(|module| from.assemble(&module.variant)).collect()
}

/// Compiles in several processes; the first error ends all.
fn compile(build: &Build, processes: usize, out: &Path, progress: &mut Progress) -> Result<()> {
    let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
    let start = |index: usize| -> Result<Child> {
        let mut command = Command::new(&program);
        command.args(["kernels", "build", "--threads", "1", "--arch", &build.arch, "--out"]).arg(out);
        command.args(["--part", &format!("{index}/{processes}")]);
        if build.trap {
            command.arg("--trap");
        }
        if let Some(precision) = build.precision {
            command.args(["--precision", &precision.to_string()]);
        }
        if let Some(kernels) = &build.kernels {
            command.arg("--kernels").arg(kernels);
        }
        command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Error::io("start", &program, e))
    };
    let children = (0..processes).map(start).collect::<Result<Vec<Child>>>()?;
    let mut failed = None;
    for child in children {
        let output = child.wait_with_output().map_err(|e| Error::io("wait for", &program, e))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            failed = failed.or(Some(text.trim().trim_start_matches("error: ").to_string()));
        }
        progress.add(1);
    }
    failed.map_or(Ok(()), |text| Err(Error::invalid(text)))
}
