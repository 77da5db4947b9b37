//! Bundles of constants that were chosen without OOD data.

use super::*;

#[test]
fn constants_that_were_tuned_are_chosen_again_and_a_forged_choice_is_named() {
    let out = tempfile::tempdir().unwrap();
    let bundle = made(out.path(), "tuned.zip", &["--methods", "msp,knn:k=1|5,ash_s", "--tune"]);
    let caches = case("tiny");
    let report = verify(&bundle, Some(&caches)).unwrap();
    assert_eq!(states(&report), [HOLDS; 4], "{report:?}");
    assert!(places(&report, 4).contains("constants chosen again"), "{report:?}");

    // Whoever improves what held-out classes say has to answer to the caches.
    let mut held = entries(&bundle);
    let text = content(&mut held, "metrics.json");
    let mut metrics: Value = serde_json::from_slice(text).unwrap();
    let auroc = &mut metrics["tuning"]["scores"][1]["candidates"][0]["auroc"];
    *auroc = Value::from(auroc.as_f64().unwrap() + 0.01);
    let ends_in_a_line = text.ends_with(b"\n");
    *text = serde_json::to_vec_pretty(&metrics).unwrap();
    text.extend(ends_in_a_line.then_some(b'\n'));
    rehash(&mut held);
    let report = forged(out.path(), &held, Some(&caches)).unwrap();
    assert_eq!(states(&report), [HOLDS, HOLDS, HOLDS, DIFFERS], "{report:?}");
    assert!(places(&report, 4).starts_with("metrics.json tuning scores 1 candidates 0 auroc "), "{report:?}");
}

#[test]
fn a_choice_on_other_networks_is_recorded_and_said_to_be_unverified() {
    let out = tempfile::tempdir().unwrap();
    let bundle = made(out.path(), "tuned.zip", &["--methods", "msp,knn:k=1|5", "--tune"]);
    let mut held = entries(&bundle);
    let text = content(&mut held, "metrics.json");
    let own = String::from_utf8(text.clone()).unwrap().replace("held_out_classes", "unseen_classes");
    *text = own.into_bytes();
    rehash(&mut held);
    let report = forged(out.path(), &held, Some(&case("tiny"))).unwrap();
    assert_eq!(states(&report), [HOLDS; 4], "{report:?}");
    assert!(places(&report, 4).contains("which is not verified"), "{report:?}");
}
