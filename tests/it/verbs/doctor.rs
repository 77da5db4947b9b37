//! `residua doctor` on machines that lack things: it says what and how to get it, and never fails.

use std::path::Path;

use serde_json::Value;

use crate::support::program::residua;

/// The verb with nothing of this machine's own to be found, as JSON.
fn doctor(folder: &Path, environment: &[(&str, &str)]) -> Value {
    let mut command = residua(["doctor", "--json"]);
    for name in
        ["CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "RESIDUA_NVRTC", "RESIDUA_CACHE", "CXX"]
    {
        command.env_remove(name);
    }
    command.env("HOME", folder).env("XDG_CACHE_HOME", folder.join("cache")).env_remove("LD_LIBRARY_PATH");
    let output = command.envs(environment.iter().copied()).assert().success();
    serde_json::from_slice(&output.get_output().stdout).unwrap()
}

/// Whether a part can be used, and its text.
fn part<'a>(report: &'a Value, name: &str) -> (bool, &'a str) {
    let parts = report["parts"].as_array().unwrap();
    let part = parts.iter().find(|part| part["part"] == name).unwrap();
    (part["state"] == "ready", part["text"].as_str().unwrap())
}

#[test]
fn what_is_missing_is_a_finding_that_says_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("nowhere").display().to_string();
    let report = doctor(
        folder.path(),
        &[("RESIDUA_NVRTC", &elsewhere), ("CXX", &elsewhere), ("CUDA_VISIBLE_DEVICES", "")],
    );
    let (is_ready, text) = part(&report, "NVRTC");
    assert!(!is_ready && text.contains("RESIDUA_NVRTC") && text.contains(&elsewhere), "{text}");
    let (is_ready, text) = part(&report, "C++ compiler");
    assert!(!is_ready && text.contains("CXX") && text.contains(&elsewhere), "{text}");
    assert!(part(&report, "CPU").0);
    assert_eq!(report["devices"], serde_json::json!(["cpu"]));
    assert_eq!(report["auto"], "cpu");
}

/// Winograd's algorithm beside the direct one, and passes taken tile by tile beside passes of their own: f64 has only the latter.
#[test]
fn the_cpu_in_f32_is_the_cpu_in_f64_through_fused_and_winograd_convolutions_on_every_set_of_instructions() {
    let network = ["--arch", "resnet18-cifar.12.w0.5", "--batch-size", "3", "--only", "conv2d*.3x12x12x32*"];
    let full = ["doctor", "--full", "--device", "cpu", "--precision", "f32", "--json", "--quiet"];
    // Sets that this processor lacks are refused; the widest that it has is among the others.
    let sets = ["baseline", "avx2", "avx512"];
    let outputs = sets.map(|set| residua(full).args(network).args(["--instructions", set]).output().unwrap());
    assert!(outputs[0].status.success(), "{}", String::from_utf8_lossy(&outputs[0].stderr));
    for (set, output) in sets.iter().zip(outputs) {
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains(&format!("--instructions {set}: this processor has")), "{said}");
            continue;
        }
        check_forms(set, &serde_json::from_slice(&output.stdout).unwrap());
    }
}

fn check_forms(set: &str, found: &Value) {
    assert!(found[0]["card"].as_str().unwrap().ends_with(set), "{}", found[0]["card"]);
    let checks = found[0]["checks"].as_array().unwrap();
    for (form, most) in [
        ("conv2d_fprop.3x12x12x32-k32-3x3-s1p1-statistics.f32", 5e-6),
        ("conv2d_fprop.3x12x12x32-k32-3x3-s1p1-bias-residual-relu.f32", 5e-6),
        ("conv2d_dgrad.3x12x12x32-k32-3x3-s1p1-reduce-relu.f32", 5e-6),
        ("conv2d_dgrad.3x12x12x32-k32-3x3-s1p1-add-mask-reduce.f32", 5e-6),
        ("conv2d_wgrad.3x12x12x32-k32-3x3-s1p1.f32", 5e-6),
        ("conv2d_fprop.3x12x12x32-k64-3x3-s2p1-statistics.f32", 1e-6),
        ("conv2d_dgrad.3x12x12x32-k64-3x3-s2p1-add-mask-reduce.f32", 1e-6),
    ] {
        let check = checks.iter().find(|check| check["name"] == form);
        let check = check.unwrap_or_else(|| panic!("no {form} among {} checks", checks.len()));
        assert!(check["error"].as_f64().unwrap() < most, "{check}");
    }
    assert!(checks.iter().all(|check| check["passed"] == true));
}

#[test]
fn a_library_that_is_not_what_its_name_says_is_told_of_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libnvrtc.so.13");
    std::fs::write(&library, "not a library").unwrap();
    let report = doctor(folder.path(), &[("RESIDUA_NVRTC", library.to_str().unwrap())]);
    let (is_ready, text) = part(&report, "NVRTC");
    assert!(!is_ready && text.contains("libnvrtc.so.13 cannot be used"), "{text}");
}

#[test]
fn the_number_of_threads_is_told_with_who_decided_it() {
    let told = |flags: &[&str], variables: &[(&str, &str)]| {
        let mut command = residua(["doctor", "--json"]);
        command.args(flags).env_remove("RAYON_NUM_THREADS").env_remove("SLURM_CPUS_PER_TASK");
        let run = command.envs(variables.iter().copied()).output().unwrap();
        (run.status.code(), String::from_utf8(run.stdout).unwrap() + &String::from_utf8(run.stderr).unwrap())
    };
    let (_, text) = told(&[], &[("SLURM_CPUS_PER_TASK", "1"), ("RAYON_NUM_THREADS", "")]);
    assert!(text.contains("1 thread (SLURM_CPUS_PER_TASK says so)") || text.contains("1 thread ("), "{text}");
    let (_, text) = told(&[], &[("RAYON_NUM_THREADS", "3")]);
    assert!(text.contains("3 threads (RAYON_NUM_THREADS says so)"), "{text}");
    let (_, text) = told(&["--threads", "2"], &[("RAYON_NUM_THREADS", "3")]);
    assert!(text.contains("2 threads (--threads says so)"), "{text}");
    for (flags, variables) in
        [(&["--threads", "1000000"][..], &[][..]), (&[], &[("RAYON_NUM_THREADS", "1000000")])]
    {
        let (code, text) = told(flags, variables);
        assert!(code == Some(2) && text.contains("at most 16 threads for each"), "{text}");
    }
}

#[test]
fn the_kernel_cache_is_named_and_made_private() {
    let folder = tempfile::tempdir().unwrap();
    let report = doctor(folder.path(), &[]);
    let cache = folder.path().join("cache/residua");
    let (is_ready, text) = part(&report, "kernel cache");
    assert!(is_ready && text.starts_with(cache.to_str().unwrap()), "{text}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(cache).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
