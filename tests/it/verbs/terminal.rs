//! Promises of the terminal: nothing is wider than it, one unit of speed, what a resume did, which checkpoint is meant, completions.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::ood::scores::case;
use crate::support::program::{run, said};
use crate::support::terminal::{lines, run_on_terminal};
use crate::training::images;

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

/// The flags of a small training.
fn training(data: &Path, out: &Path, more: &str) -> String {
    format!(
        "train --data cifar10:{} --out {} --arch resnet20 --width 0.25 --batch-size 16 --lr 0.05 --device cpu {more}",
        data.display(),
        out.display()
    )
}

fn check_width(command: &str, columns: u16) -> Vec<String> {
    let (status, written) = run_on_terminal(columns, &words(command));
    assert!(status.success(), "{command}: {written}");
    let lines = lines(&written, columns);
    for line in &lines {
        let is_command_or_path = line.contains('`') || !line.trim().contains(' ');
        assert!(
            is_command_or_path || console::measure_text_width(line) <= usize::from(columns),
            "{command}: {} columns in\n{line}",
            console::measure_text_width(line)
        );
    }
    lines
}

#[test]
fn no_verb_writes_lines_wider_than_the_terminal() {
    let (data, runs) = (images(), tempfile::tempdir_in("/tmp").unwrap());
    let out = runs.path().join("run");
    let seen = format!("cifar10:{}?split=test", data.path().display());
    let case = case("tiny");
    let file = |name: &str| case.join(name).with_extension("npz").display().to_string();
    for columns in [80, 200] {
        fs::remove_dir_all(&out).ok();
        let trained = check_width(&training(data.path(), &out, &format!("--epochs 2 --val {seen}")), columns);
        let bar = trained.iter().find(|line| line.contains("steps") && line.contains("━")).unwrap();
        assert!(bar.contains(" images/s") && bar.contains("loss "), "{trained:#?}");
        assert!(console::measure_text_width(bar) + 2 > usize::from(columns), "it uses the width: {bar}");
        let run = out.display();
        check_width(&format!("weights inspect {run}"), columns);
        let thresholds = runs.path().join("thresholds.toml");
        let calibrated = format!(
            "calibrate --checkpoint {run} --seen {seen} --novel demo:unseen?limit=40 --device cpu --out {}",
            thresholds.display()
        );
        let calibrated = check_width(&calibrated, columns);
        assert!(calibrated.iter().any(|line| line.contains("false_novel_rate")), "{calibrated:#?}");
        assert!(
            !calibrated.iter().any(|line| line.contains("notebook_")),
            "rows of a recipe: {calibrated:#?}"
        );
        check_width(
            "bench --device cpu --arch resnet18-cifar.8.w0.0625 --batch-size 2 --seconds 0 --only pool_head.*",
            columns,
        );
        let scores = runs.path().join("scores");
        check_width(
            &format!(
                "ood --train {} --id {} --head {} --ood near:a={} --bootstrap 20 --out {}",
                file("train"),
                file("id"),
                file("head"),
                file("ood"),
                scores.display()
            ),
            columns,
        );
    }
}

#[test]
fn numbers_of_calibrate_have_as_many_digits_as_they_mean_and_its_file_has_all() {
    let (data, runs) = (images(), tempfile::tempdir().unwrap());
    let out = runs.path().join("run");
    run(&words(&training(data.path(), &out, "--max-steps 2 --quiet")));
    let thresholds = runs.path().join("thresholds.toml");
    let command = format!(
        "calibrate --checkpoint {} --seen cifar10:{}?split=test --novel demo:unseen?limit=40 --device cpu --quiet --out {}",
        out.display(),
        data.path().display(),
        thresholds.display()
    );
    let (code, text) = said(&words(&command));
    assert_eq!(code, Some(0), "{text}");
    let digits = |word: &str| word.chars().filter(char::is_ascii_digit).count();
    let is_number = |word: &&str| word.trim_end_matches(',').parse::<f64>().is_ok();
    for word in text.split_whitespace().filter(is_number) {
        assert!(digits(word.trim_start_matches("0.")) <= 9, "`{word}` in\n{text}");
    }
    let file = fs::read_to_string(&thresholds).unwrap();
    let tau = file.lines().find_map(|line| line.strip_prefix("tau = ")).unwrap();
    let shown = text.lines().find_map(|line| line.trim().strip_prefix("chosen: novel below ")).unwrap();
    let (all, shown): (f64, f64) = (tau.parse().unwrap(), shown.parse().unwrap());
    assert!((all - shown).abs() <= 1e-6 * all.abs() && digits(tau) > 9, "{tau} {shown}");
}

#[test]
fn a_resumed_training_tells_this_run_from_all_of_it() {
    let (data, runs) = (images(), tempfile::tempdir().unwrap());
    let out = runs.path().join("run");
    let (_, first) = said(&words(&training(data.path(), &out, "--max-steps 1 --quiet")));
    assert!(first.contains("1 steps, 0 epochs in ") && first.contains(" images/s\n"), "{first}");
    let resume = format!("train --resume --out {} --quiet", out.display());
    let (code, second) = said(&words(&format!("{resume} --max-steps 3")));
    assert_eq!(code, Some(0), "{second}");
    assert!(second.contains("3 steps, ") && second.contains(" in all; this run: 2 steps in "), "{second}");
    let (_, json) = said(&words(&format!("{resume} --max-steps 4 --json")));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["steps"].as_u64(), json["steps_of_run"].as_u64()), (Some(4), Some(1)), "{json}");
}

#[test]
fn a_run_folder_means_its_best_checkpoint_where_one_was_validated_and_says_so() {
    let (data, runs) = (images(), tempfile::tempdir().unwrap());
    let validated =
        format!("--epochs 3 --checkpoint-every 1 --val cifar10:{}?split=test", data.path().display());
    for (name, more, which) in [
        ("validated", validated.as_str(), "its best checkpoint is taken: checkpoints/best (epoch_"),
        (
            "not",
            "--epochs 1",
            "its last checkpoint is taken, as none was validated: checkpoints/last (epoch_",
        ),
    ] {
        let out = runs.path().join(name);
        let (code, text) = said(&words(&training(data.path(), &out, &format!("{more} --quiet"))));
        assert_eq!(code, Some(0), "{text}");
        let link = out.join("checkpoints").join(if name == "validated" { "best" } else { "last" });
        let extract = |checkpoint: &Path, to: &str| {
            let to = runs.path().join(to);
            let (code, text) = said(&words(&format!(
                "extract --checkpoint {} --data cifar10:{}?split=test --device cpu --out {}",
                checkpoint.display(),
                data.path().display(),
                to.display()
            )));
            assert_eq!(code, Some(0), "{text}");
            (fs::read(to.join("logits.npy")).unwrap(), text)
        };
        let (of_run, text) = extract(&out, &format!("{name}-run"));
        let (of_link, silent) = extract(&link, &format!("{name}-link"));
        assert!(text.contains(which), "{text}");
        assert!(!silent.contains("is taken"), "a path that names it needs no note: {silent}");
        assert!(of_run == of_link);
    }
}

/// What bash would put in place of the word before the cursor.
fn completions(line: &str, folder: &Path) -> Vec<String> {
    let script = run(&["completions", "bash"]);
    let file = folder.join("residua.bash");
    fs::write(&file, script.stdout).unwrap();
    // As readline calls it: words are broken at blanks, `:` and `=`.
    let driver = r#"
        source "$1"
        COMP_LINE=$2 COMP_POINT=${#2}
        [[ $(complete -p residua) == *" -F _residua_all "* ]] || exit 3
        spaced=${COMP_LINE//:/ : } spaced=${spaced//=/ = }
        read -ra COMP_WORDS <<< "$spaced"
        [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _residua_all residua "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let output = Command::new("bash")
        .args(["--norc", "-c", driver, "bash"])
        .arg(&file)
        .arg(line)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(str::to_string).collect()
}

#[test]
fn bash_completes_values_lists_and_paths_behind_a_scheme() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["images/train", "images/test", "with space"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("table.csv"), "").unwrap();
    for (line, expected) in [
        // Named values, which the generated part knows.
        ("residua train --optimizer ad", &["adam", "adamw"][..]),
        ("residua train --arch resnet3", &["resnet34", "resnet32"]),
        ("residua train --prec", &["--precision"]),
        // Bash keeps what stands before the colon.
        ("residua train --data fold", &["folder:"]),
        ("residua train --data folder:im", &["images/"]),
        ("residua train --data folder:images/t", &["images/test/", "images/train/"]),
        ("residua train --data=folder:images/te", &["images/test/"]),
        ("residua train --data 'folder:im", &["folder:images/"]),
        ("residua extract --data folder:with", &["with\\ space/"]),
        (
            "residua extract --data folder:images?spl",
            &["folder:images?split=train", "folder:images?split=test"],
        ),
        ("residua data inspect csv:tab", &["table.csv"]),
        ("residua data verify ima", &["images:"]),
        ("residua collapse --ood digits=demo:dig", &["digits"]),
        ("residua ood --ood near:a=tab", &["table.csv"]),
        ("residua ood --methods msp,ener", &["msp,energy"]),
        ("residua ood --methods neco_", &["neco_formula", "neco_class_means", "neco_official"]),
        ("residua calibrate --rule subclass=youd", &["youden"]),
        ("residua calibrate --score novel", &["novel-probability"]),
        ("residua train --normalize imag", &["imagenet"]),
        ("residua train --device em", &["emulator"]),
        ("residua bench --card H2", &["H200"]),
        ("residua bench --fuse masks,pool", &["masks,pool-head"]),
    ] {
        let mut found = completions(line, folder.path());
        let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        // The options of data are behind the colon for bash.
        if line.contains("?spl") {
            expected = expected.iter().map(|word| word.replacen("folder:", "", 1)).collect();
        }
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{line}");
    }
}
