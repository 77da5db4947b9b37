//! Promises of every verb about outputs and signals: nothing that is no regular file is replaced, links are followed, `-` is
//! standard output; a full or closed stream never costs a result; a signal ends a run with everything kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::program;
use crate::training::images;

/// A cheap verb that writes a file: a merge of one result.
struct Merge {
    folder: tempfile::TempDir,
}

impl Merge {
    fn new() -> Merge {
        let folder = tempfile::tempdir().unwrap();
        let results = folder.path().join("results");
        fs::create_dir(&results).unwrap();
        let run = program::run(&[
            "bench",
            "--device",
            "cpu",
            "--arch",
            "resnet18-cifar.8.w0.0625",
            "--batch-size",
            "2",
            "--seconds",
            "0",
            "--only",
            "pool_head.*",
            "--quiet",
            "--out",
            results.join("ours-a.json").to_str().unwrap(),
        ]);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        Merge { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, out: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_residua"));
        command.args(["bench", "--merge"]).arg(self.path("results")).arg("--out").arg(out);
        command
    }
}

#[test]
fn a_minus_is_standard_output_with_nothing_else_on_it() {
    let merge = Merge::new();
    let plain = merge.path("plain.json");
    assert!(merge.command(&plain).output().unwrap().status.success());
    for name in ["-", "/dev/stdout"] {
        let run = merge.command(Path::new(name)).output().unwrap();
        assert!(run.status.success());
        assert_eq!(run.stdout, fs::read(&plain).unwrap());
        assert!(!run.stderr.is_empty(), "the table goes to standard error");
        let quiet = merge.command(Path::new(name)).arg("--quiet").output().unwrap();
        assert!(quiet.stderr.is_empty() && quiet.stdout == run.stdout);
    }
}

#[test]
fn weights_go_to_standard_output_as_safetensors() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/trajectories/resnet18_init.pth");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("w.safetensors");
    let export = |out: &Path| {
        let run =
            program::run(&["weights", "export", file.to_str().unwrap(), out.to_str().unwrap(), "--quiet"]);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        run.stdout
    };
    export(&out);
    assert!(export(Path::new("-")) == fs::read(&out).unwrap());
}

#[cfg(unix)]
#[test]
fn a_device_is_written_through_and_stays_a_device() {
    use std::os::unix::fs::FileTypeExt;
    let merge = Merge::new();
    let device = merge.path("null");
    // A second null device, where the user may make one.
    let made = Command::new("mknod").arg(&device).args(["c", "1", "3"]).output();
    if !made.is_ok_and(|made| made.status.success())
        || fs::OpenOptions::new().write(true).open(&device).is_err()
    {
        eprintln!("skipped: this user may make no device");
        return;
    }
    let link = merge.path("link");
    std::os::unix::fs::symlink(&device, &link).unwrap();
    for path in [&device, &link] {
        assert!(merge.command(path).output().unwrap().status.success());
        assert!(fs::metadata(&device).unwrap().file_type().is_char_device());
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}

#[test]
fn an_output_that_is_a_folder_or_an_input_is_refused_before_the_work() {
    let merge = Merge::new();
    let run = merge.command(merge.folder.path()).output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&run.stderr).contains("the result is a file"));
    let file = merge.path("a.safetensors");
    fs::write(&file, "not read").unwrap();
    let file = file.to_str().unwrap();
    let (code, said) = program::said(&["weights", "export", file, file]);
    assert!(code == Some(2) && said.contains("is an input of this"), "{said}");
    for verb in [&["train", "--data", "cifar10:x"][..], &["demo", "--tiny"]] {
        let (code, said) = program::said(&[verb, &["--out", file]].concat());
        assert!(code != Some(0) && !said.contains("panicked"), "{said}");
        assert_eq!(fs::read(file).unwrap(), b"not read");
    }
}

/// Arguments of a small training.
fn training(data: &Path, out: &Path, more: &[&str]) -> Vec<String> {
    let data = format!("cifar10:{}", data.display());
    let out = out.display().to_string();
    let mut arguments =
        vec!["train", "--data", &data, "--out", &out, "--arch", "resnet20", "--width", "0.25"];
    arguments.extend(["--batch-size", "16", "--lr", "0.05", "--device", "cpu"]);
    arguments.extend(more);
    arguments.into_iter().map(str::to_string).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn a_path_of_any_bytes_is_written_to_and_told_as_json() {
    use std::os::unix::ffi::OsStrExt;
    let (data, runs) = (images(), tempfile::tempdir().unwrap());
    for name in [&b"with space\nand line"[..], b"no UTF-8 \xff\xfe", b"-dash"] {
        let out = runs.path().join(std::ffi::OsStr::from_bytes(name));
        let mut arguments = training(data.path(), Path::new("X"), &["--max-steps", "1", "--quiet", "--json"]);
        arguments.retain(|argument| argument != "--out" && argument != "X");
        let run = |more: &[&std::ffi::OsStr]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_residua"));
            command.args(&arguments).args(more).current_dir(runs.path()).output().unwrap()
        };
        let mut flag = std::ffi::OsString::from("--out=");
        flag.push(if name.starts_with(b"-") { std::ffi::OsStr::from_bytes(name) } else { out.as_os_str() });
        let trained = run(&[&flag]);
        assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));
        serde_json::from_slice::<serde_json::Value>(&trained.stdout).unwrap();
        assert!(out.join("checkpoints/last/model.safetensors").is_file());
        let mut init = std::ffi::OsString::from("--init=");
        init.push(out.join("checkpoints/last"));
        let started = run(&["--out=second".as_ref(), &init]);
        let said = String::from_utf8_lossy(&started.stderr).into_owned();
        if std::str::from_utf8(name).is_ok() {
            assert!(started.status.success(), "{said}");
            fs::remove_dir_all(runs.path().join("second")).unwrap();
        } else {
            assert!(
                started.status.code() == Some(2) && said.contains("--init: the path is no UTF-8"),
                "{said}"
            );
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_or_closed_standard_error_ends_no_training() {
    let (data, runs) = (images(), tempfile::tempdir().unwrap());
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    for (name, stream) in [("full", full()), ("closed", closed())] {
        let out = runs.path().join(name);
        let status = Command::new(env!("CARGO_BIN_EXE_residua"))
            .args(training(data.path(), &out, &["--epochs", "1"]))
            .stdout(Stdio::null())
            .stderr(stream)
            .status()
            .unwrap();
        assert!(status.success(), "{name}: {status}");
        assert!(out.join("checkpoints/last/model.safetensors").is_file());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_standard_output_is_an_error_and_a_closed_one_is_not() {
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    for verb in [&["doctor"][..], &["completions", "bash"], &["--help"], &["train", "--help"], &["--version"]]
    {
        let run = |stdout: Stdio| {
            Command::new(env!("CARGO_BIN_EXE_residua"))
                .args(verb)
                .stdout(stdout)
                .stderr(Stdio::piped())
                .output()
        };
        let failed = run(full()).unwrap();
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(
            failed.status.code() == Some(1) && said.contains("cannot write standard output"),
            "{verb:?}: {said}"
        );
        let closed = run(closed()).unwrap();
        assert_eq!(closed.status.code(), Some(0), "{verb:?}");
        assert!(closed.stderr.is_empty(), "{verb:?}");
    }
}

#[cfg(target_os = "linux")]
mod signals {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, ChildStderr};

    use super::*;

    /// A training that would go on for long, once it has begun to take steps.
    fn begun(data: &Path, out: &Path, wrapper: &[&str]) -> (Child, BufReader<ChildStderr>) {
        let arguments = training(data, out, &["--epochs", "100000", "--log-every", "1"]);
        let program = [wrapper, &[env!("CARGO_BIN_EXE_residua")]].concat();
        let mut child = Command::new(program[0])
            .args(&program[1..])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        let log = out.join("metrics.jsonl");
        while fs::metadata(&log).map_or(0, |log| log.len()) == 0 {
            assert!(child.try_wait().unwrap().is_none(), "the training ended before its first step");
            std::thread::yield_now();
        }
        (child, lines)
    }

    fn send(child: &Child, signal: &str) {
        assert!(
            Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success()
        );
    }

    fn temporaries(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with(".residua-") {
                found.push(path);
            } else if path.is_dir() {
                found.extend(temporaries(&path));
            }
        }
        found
    }

    #[test]
    fn every_signal_that_asks_to_end_leaves_a_checkpoint_and_no_temporary_file() {
        let (data, runs) = (images(), tempfile::tempdir().unwrap());
        for (signal, code) in [("TERM", 143), ("HUP", 129), ("INT", 130), ("USR1", 138)] {
            let out = runs.path().join(signal);
            let (mut child, lines) = begun(data.path(), &out, &["env", "--default-signal"]);
            send(&child, signal);
            assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
            let said: Vec<String> = lines.lines().map(Result::unwrap).collect();
            assert!(said.iter().any(|line| line.contains("stopping at the next step")), "{said:?}");
            // The last line says what is kept, and the command that goes on with it.
            let kept = said.last().unwrap();
            assert!(
                kept.starts_with("interrupted: ") && kept.contains(" keeps everything up to step "),
                "{said:?}"
            );
            let name = fs::canonicalize(out.join("checkpoints/last")).unwrap();
            let name = name.file_name().unwrap().to_str().unwrap();
            assert!(kept.contains(&format!("in checkpoints/{name};")), "{kept}");
            let command = kept.split('`').nth(1).unwrap();
            let words: Vec<&str> = command.split(' ').skip(1).chain(["--max-steps", "1"]).collect();
            let resumed = program::run(&words);
            assert!(resumed.status.success(), "{command}: {}", String::from_utf8_lossy(&resumed.stderr));
            assert!(out.join("checkpoints/last/model.safetensors").is_file(), "{signal}");
            assert!(temporaries(&out).is_empty(), "{:?}", temporaries(&out));
        }
    }

    /// Waits for a line that contains a text.
    fn wait_for(lines: &mut BufReader<ChildStderr>, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "never said `{text}`");
        }
    }

    /// `bench` of a network, with the operations of a name.
    fn bench(only: &str, more: &[&str]) -> Command {
        let mut command = Command::new("env");
        command.args(["--default-signal", env!("CARGO_BIN_EXE_residua"), "bench", "--device", "cpu"]);
        command.args(["--arch", "resnet18-cifar.8.w0.0625", "--batch-size", "2", "--only", only]);
        command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[test]
    fn a_second_signal_ends_at_once_with_the_code_of_a_shell() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("pipe").display().to_string();
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
            // Nobody reads the pipe, so the work ends at it and waits for ever.
            let mut child = bench("pool_head.*", &["--seconds", "0", "--out", &fifo]).spawn().unwrap();
            let mut lines = BufReader::new(child.stderr.take().unwrap());
            wait_for(&mut lines, "rows on");
            send(&child, signal);
            wait_for(&mut lines, "stopping at the next step");
            // Signals that come together are one.
            std::thread::sleep(std::time::Duration::from_millis(300));
            send(&child, signal);
            assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
        }
    }

    #[test]
    fn an_interrupted_bench_keeps_what_it_has_measured() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("bench.json");
        let mut child = bench("*", &["--seconds", "0.2", "--out", out.to_str().unwrap()]).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        wait_for(&mut lines, "rows on");
        send(&child, "INT");
        let mut said = String::new();
        std::io::Read::read_to_string(&mut lines, &mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
        assert!(said.contains("interrupted") && said.contains("were not begun"), "{said}");
        let results: serde_json::Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
        assert!(results["cut"].as_array().unwrap().len() > 10, "{results}");
    }

    #[test]
    fn predict_leaves_no_temporary_file_when_it_is_ended() {
        let (data, runs) = (images(), tempfile::tempdir().unwrap());
        let path = |name: &str| runs.path().join(name).display().to_string();
        let of_program = |arguments: &[&str]| {
            let run = program::run(arguments);
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        };
        let trained = training(data.path(), &runs.path().join("run"), &["--max-steps", "1", "--quiet"]);
        of_program(&trained.iter().map(String::as_str).collect::<Vec<_>>());
        let seen = format!("cifar10:{}?split=test", data.path().display());
        let (run, thresholds, fifo) = (path("run"), path("thresholds.toml"), path("pipe"));
        of_program(&["calibrate", "--checkpoint", &run, "--seen", &seen, "--out", &thresholds, "--quiet"]);
        // Nobody reads the pipe, so the work ends at it and waits for ever.
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let scratch = runs.path().join("scratch");
        fs::create_dir(&scratch).unwrap();
        for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
            let mut child = Command::new("env")
                .args(["--default-signal", env!("CARGO_BIN_EXE_residua"), "predict", "--checkpoint", &run])
                .args(["--thresholds", &thresholds, "--data", &seen, "--out", &fifo])
                .env("TMPDIR", &scratch)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stderr.take().unwrap());
            while !scratch.read_dir().unwrap().any(|entry| entry.unwrap().path().join("0").is_dir()) {
                assert!(child.try_wait().unwrap().is_none(), "predict ended before its first step");
            }
            send(&child, signal);
            wait_for(&mut lines, "stopping at the next step");
            // Signals that come together are one.
            std::thread::sleep(std::time::Duration::from_millis(300));
            if child.try_wait().unwrap().is_none() {
                send(&child, signal);
                assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
            }
            assert!(temporaries(&scratch).is_empty(), "{:?}", temporaries(&scratch));
        }
    }

    #[test]
    fn a_signal_that_was_ignored_from_the_start_stays_ignored() {
        let (data, runs) = (images(), tempfile::tempdir().unwrap());
        let (mut child, lines) =
            begun(data.path(), &runs.path().join("run"), &["env", "--default-signal", "--ignore-signal=HUP"]);
        send(&child, "HUP");
        send(&child, "TERM");
        let status = child.wait().unwrap();
        let said: Vec<String> = lines.lines().map(Result::unwrap).collect();
        assert_eq!((status.code(), status.signal()), (Some(143), None));
        assert!(said.iter().any(|line| line.starts_with("SIGTERM")), "{said:?}");
        assert!(!said.iter().any(|line| line.starts_with("SIGHUP")), "{said:?}");
    }
}
