//! Bundles that somebody made to mislead: refused, or named, and never a panic.

use super::*;

#[test]
fn archives_that_no_bundle_is_are_refused_by_name() {
    let out = tempfile::tempdir().unwrap();
    let bundle = small(out.path());
    let honest = entries(&bundle);
    let file = out.path().join("hostile.zip");
    let message = |bytes: Vec<u8>| {
        fs::write(&file, bytes).unwrap();
        verify(&file, None).unwrap_err().to_string()
    };
    let with = |name: &str| [honest.clone(), vec![(name.to_string(), b"x".to_vec())]].concat();
    for (entries, part) in [
        (with("extra.txt"), "in `extra.txt`: expected entries of the manifest and nothing else"),
        (with("metrics.csv"), "in `metrics.csv`: expected each entry named once"),
        (with("../evil"), "`..` in `../evil`"),
        (with("/etc/passwd"), "an absolute path"),
        (with("a\\b"), "a backslash"),
        (with("folder/"), "a folder"),
        (
            honest[..honest.len() - 1].to_vec(),
            "in `metrics.csv`: expected this entry, which the manifest lists",
        ),
        (honest[1..].to_vec(), "expected `manifest.json` first"),
        (
            honest.iter().take(2).chain(honest[2..].iter().rev()).cloned().collect(),
            "in the order of the manifest",
        ),
    ] {
        let text = message(packed(&entries, plain));
        assert!(text.contains(part), "{part}: {text}");
    }
    let link = |name: &str| Odd { mode: (name == "metrics.json").then_some(0o120_777), ..Odd::default() };
    let encrypted = |name: &str| Odd { flags: u16::from(name == "metrics.json"), ..Odd::default() };
    let deflated = |name: &str| Odd { method: 8 * u16::from(name == "metrics.json"), ..Odd::default() };
    for (bytes, part) in [
        (packed(&honest, link), "120777 (a symbolic link)"),
        (packed(&honest, encrypted), "an encrypted one"),
        (packed(&honest, deflated), "packed with Deflate"),
    ] {
        let text = message(bytes);
        assert!(text.contains("in `metrics.json`") && text.contains(part), "{part}: {text}");
    }
    let whole = fs::read(&bundle).unwrap();
    for (bytes, part) in [
        ([whole.as_slice(), b"more"].concat(), "4 more bytes"),
        ([b"#!", whole.as_slice()].concat(), "expected a result bundle"),
        (Vec::new(), "an empty file"),
        (fs::read(case("tiny").join("id.npz")).unwrap(), "hostile.zip"),
    ] {
        let text = message(bytes);
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// A change of a manifest.
type Change = fn(&mut Value);

#[test]
fn manifests_with_absurd_values_are_refused_with_what_was_expected() {
    let out = tempfile::tempdir().unwrap();
    let honest = entries(&small(out.path()));
    let changes: [(Change, &str); 13] = [
        (|m| m["bootstrap"] = 3.into(), "unknown field `bootstrap`"),
        (|m| m["parameters"]["bootstrap"] = 4_000_000_000u64.into(), "2 to 100000 bootstrap replicates"),
        (|m| m["parameters"]["bootstrap"] = "many".into(), "invalid type"),
        (|m| m["parameters"]["options"]["odd"] = 1.into(), "parameters.options.odd"),
        (|m| m["parameters"]["options"]["temperature"] = 0.into(), "temperature"),
        (|m| m["parameters"]["constants"]["msp"]["temperature"] = "2".into(), "parameters.constants"),
        (|m| m["inputs"][1]["samples"] = u64::MAX.into(), "1 to 2^32 - 1 samples"),
        (|m| m["inputs"][3]["name"] = "../a".into(), "`../a` of role ood"),
        (|m| m["inputs"][3]["name"] = "b".into(), "`scores/a.npz`"),
        (|m| m["inputs"][2]["role"] = "id".into(), "role id"),
        (|m| m["version"] = 2.into(), "version 1 of the format"),
        (|m| m["format"] = "other".into(), "result bundle"),
        (|m| m["entries"][1]["name"] = "scores/../x".into(), "`..`"),
    ];
    for (change, part) in changes {
        let mut lied = honest.clone();
        edit(&mut lied, change);
        let text = forged(out.path(), &lied, None).unwrap_err().to_string();
        assert!(text.contains("in `manifest.json`: expected") && text.contains(part), "{part}: {text}");
    }
    for (text, part) in [
        ("{".to_string(), "EOF"),
        ("[".repeat(100_000), "recursion limit"),
        (String::new(), "EOF"),
        ("\u{fffd}".into(), "expected JSON"),
    ] {
        let mut lied = honest.clone();
        *content(&mut lied, "manifest.json") = text.into_bytes();
        let text = forged(out.path(), &lied, None).unwrap_err().to_string();
        assert!(text.contains(part), "{part}: {text}");
    }
    // A key twice, of which readers may take either.
    let mut lied = honest.clone();
    let text = String::from_utf8(content(&mut lied, "manifest.json").clone()).unwrap();
    *content(&mut lied, "manifest.json") = text.replacen("{", "{\n  \"version\": 1,", 1).into_bytes();
    let text = forged(out.path(), &lied, None).unwrap_err().to_string();
    assert!(text.contains("a key twice"), "{text}");
    // A size of the manifest that is not the entry's.
    let mut lied = honest.clone();
    edit(&mut lied, |manifest| manifest["entries"][0]["size"] = u64::MAX.into());
    let report = forged(out.path(), &lied, None).unwrap();
    assert_eq!(places(&report, 1).trim(), "fit.safetensors");
}

#[test]
fn entries_that_hold_something_else_are_named_though_their_hashes_fit() {
    let out = tempfile::tempdir().unwrap();
    let honest = entries(&small(out.path()));
    // Another array in the scores, and one too few.
    let array = |count: usize| {
        let element = residua::features::Element::F64;
        residua::features::NpyArray::from_vec(vec![1.0f64; count], element, vec![count])
    };
    let file = out.path().join("scores.npz");
    let (right, long) = (array(60), array(1000));
    for (arrays, part) in [
        (vec![("msp", &right), ("mahalanobis", &right), ("junk", &right)], "`junk`"),
        (vec![("msp", &right)], "an array `mahalanobis`"),
        (vec![("msp", &long), ("mahalanobis", &right)], "60 f64 numbers"),
    ] {
        write_npz(&file, &arrays).unwrap();
        let mut lied = honest.clone();
        *content(&mut lied, "scores/a.npz") = fs::read(&file).unwrap();
        rehash(&mut lied);
        let report = forged(out.path(), &lied, Some(&case("tiny"))).unwrap();
        assert_eq!(states(&report), [HOLDS, DIFFERS, NOT_DONE, NOT_DONE]);
        let place = places(&report, 2);
        assert!(place.contains("scores/a.npz") && place.contains(part), "{part}: {place}");
    }
    for entry in ["fit.safetensors", "scores/id.npz", "correct/id.npy", "checks/train.npz", "metrics.json"] {
        for junk in [&b""[..], b"junk", b"PK\x03\x04junk"] {
            let mut lied = honest.clone();
            *content(&mut lied, entry) = junk.to_vec();
            rehash(&mut lied);
            let report = forged(out.path(), &lied, None).unwrap();
            assert_eq!(states(&report)[..2], [HOLDS, DIFFERS], "{entry}");
            assert!(places(&report, 2).contains(entry), "{entry}: {}", places(&report, 2));
        }
    }
}

#[test]
fn no_byte_of_an_entry_makes_verify_panic_though_all_hashes_fit() {
    let out = tempfile::tempdir().unwrap();
    let methods = "msp,mahalanobis,knn,vim,neco,openmax,react,weiper,nac";
    let bundle = made(out.path(), "many.zip", &["--vim-dim", "8", "--methods", methods]);
    let honest = entries(&bundle);
    for entry in ["fit.safetensors", "scores/id.npz", "checks/train.npz", "metrics.json", "manifest.json"] {
        let length = honest.iter().find(|(name, _)| name == entry).unwrap().1.len();
        for step in 0..30 {
            let mut lied = honest.clone();
            // Headers and texts are at the beginning.
            let at = if step < 20 { (step * 97) % length.min(4000) } else { step * length / 31 };
            content(&mut lied, entry)[at] ^= 1 << (step % 7);
            if entry != "manifest.json" {
                rehash(&mut lied);
            }
            // A number may have changed by less than is noticed; what was refused has a place.
            match forged(out.path(), &lied, Some(&case("tiny"))) {
                Ok(report) => {
                    let state = report.levels[0].state;
                    assert!(state == HOLDS || entry == "manifest.json", "{entry} {at}: {}", report.summary());
                }
                Err(error) => {
                    assert!(error.to_string().contains("in `manifest.json`"), "{entry} {at}: {error}")
                }
            }
        }
    }
}
