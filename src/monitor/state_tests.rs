use super::*;
use crate::rng::{Purpose, Stream};

fn state(steps: u64) -> State {
    let stream = Stream::for_purpose(6, Purpose::Synthetic, &[3]);
    let mut calibration: Vec<f64> = (0..90).map(|i| stream.normal(i)).collect();
    calibration[0] = f64::NEG_INFINITY;
    calibration.sort_by(f64::total_cmp);
    let settings = Settings { alpha: 0.2, horizon: 500, alarm: 0.07, seed: u64::MAX };
    let mut monitor = Monitor::new(settings, &calibration);
    observe(&mut monitor, 0..steps);
    let output = Some(Output { path: "/a/b.jsonl".into(), bytes: 77 });
    State { thresholds: "ab".into(), level: "class".into(), monitor, output }
}

fn observe(monitor: &mut Monitor, steps: std::ops::Range<u64>) -> Vec<super::super::Observed> {
    let stream = Stream::for_purpose(6, Purpose::Synthetic, &[4]);
    let score = |step: u64| (stream.normal(step) * 20.0).round() / 20.0 - step as f64 / 300.0;
    let mut observed = Vec::new();
    for step in steps {
        if step % 17 == 3 {
            monitor.fail();
        }
        observed.push(monitor.observe(score(step), stream.uniform(step + 1_000_000).powi(4), step % 3 == 0));
    }
    observed
}

#[test]
fn a_stream_goes_on_as_if_it_had_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut whole = state(0).monitor;
    let expected = observe(&mut whole, 0..2000);
    assert!(whole.counts().alarm.is_some() && whole.lond().discoveries() > 3, "the test must test something");
    for stop in [0, 1, 255, 256, 700, 1999] {
        let first = state(stop);
        first.write(&path).unwrap();
        let mut second = State::read(&path).unwrap();
        assert_eq!((second.thresholds.as_str(), second.level.as_str()), ("ab", "class"));
        assert_eq!(second.output, first.output);
        assert_eq!(second.monitor.settings, first.monitor.settings);
        assert_eq!(observe(&mut second.monitor, stop..2000), expected[stop as usize..], "stopped at {stop}");
        assert_eq!(second.monitor.counts(), whole.counts());
        assert_eq!(second.monitor.martingale(), whole.martingale());
    }
}

#[test]
fn a_state_that_is_cut_off_or_damaged_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    state(40).write(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    assert!(State::read(&path).is_ok());
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = State::read(&path).unwrap_err().to_string();
        assert!(
            error.contains("state: expected")
                || error.contains("state at byte 0: expected")
                || error.contains("line 1"),
            "{error}"
        );
        error
    };
    for length in (0..whole.len()).step_by(7) {
        refused(&whole[..length]);
    }
    for at in (0..whole.len()).step_by(11) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x20;
        refused(&damaged);
    }
    let error = refused(b"residua monitor state 2\n{}");
    assert!(
        error.contains("a state of version 1") && error.contains("version 2; if a newer residua"),
        "{error}"
    );
    assert!(refused(b"PK\x03\x04").contains("a zip archive"));
    let long = [b"residua monitor state 1\n".as_slice(), &vec![b'x'; 1 << 20]].concat();
    refused(&long);
}

/// A file whose hash is right, and whose content is not: somebody else's.
#[test]
fn parts_that_do_not_fit_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    state(40).write(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let header = text(whole.split(|byte| *byte == b'\n').nth(1).unwrap());
    let scores = whole[FIRST.len() + 2 + header.len() + 1..whole.len() - HASH].to_vec();
    let sealed = |header: &str, scores: &[u8]| {
        let mut bytes = format!("{FIRST}{VERSION}\n{header}\n").into_bytes();
        bytes.extend(scores);
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        std::fs::write(&path, bytes).unwrap();
        State::read(&path).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(sealed(&header, &scores), Ok(()));
    for (from, to, says) in [
        ("\"alpha\":0.2", "\"alpha\":1.5", "settings outside"),
        ("\"horizon\":500", "\"horizon\":0", "settings outside"),
        ("\"failed\":3", "\"failed\":99", "more rows without"),
        ("\"calibration\":90", "\"calibration\":91", "another number of scores"),
        ("\"scores\":130", "\"scores\":18446744073709551615", "130 scores where the header says"),
        ("\"novel\":14", "\"novel\":41", "more discoveries"),
        ("\"shares\":[", "\"shares\":[0.5,", "a martingale that is none"),
        ("\"level\"", "\"lever\"", "unknown field"),
    ] {
        assert!(header.contains(from), "{from}: {header}");
        let error = sealed(&header.replacen(from, to, 1), &scores).unwrap_err();
        assert!(error.contains(says) && error.contains("another --state"), "{error}");
    }
    let mut unsorted = scores.clone();
    unsorted[16..24].copy_from_slice(&f64::NAN.to_le_bytes());
    assert!(sealed(&header, &unsorted).unwrap_err().contains("another order, or no numbers"));
    assert!(sealed(&header, &scores[..scores.len() - 3]).unwrap_err().contains("129 scores"));
}

#[test]
fn a_state_of_other_thresholds_or_settings_says_which() {
    let state = state(5);
    let check = |hash: &str, level: &str, given: Given| {
        state
            .check(Path::new("s"), (Path::new("t.toml"), hash), level, given)
            .map_err(|error| error.to_string())
    };
    assert_eq!(check("ab", "class", Given::default()), Ok(()));
    let same = Given { alpha: Some(0.2), horizon: Some(500), alarm: Some(0.07), seed: Some(u64::MAX) };
    assert_eq!(check("ab", "class", same), Ok(()));
    let error = check("cd", "class", same).unwrap_err();
    assert!(
        error.contains("BLAKE3 ab") && error.contains("t.toml (cd)") && error.contains("another --state"),
        "{error}"
    );
    assert!(
        check("ab", "subclass", same)
            .unwrap_err()
            .contains("--level subclass: the stream of s was begun with class")
    );
    for (given, says) in [
        (Given { alpha: Some(0.1), ..same }, "--alpha 0.1: the stream of s was begun with 0.2"),
        (Given { horizon: Some(7), ..same }, "--horizon 7"),
        (Given { alarm: Some(0.5), ..same }, "give --alarm 0.07"),
        (Given { seed: Some(1), ..same }, "--seed 1"),
    ] {
        assert!(check("ab", "class", given).unwrap_err().contains(says), "{says}");
    }
}
