use super::*;

const CLASSES: [i64; 3] = [4, 7, 9];

/// Truth, most probable class, whether it is answered as novel, score.
type Case = (Truth, i64, bool, f64);

fn judge(cases: &[Case]) -> LevelMetrics {
    let truths: Vec<Truth> = cases.iter().map(|case| case.0).collect();
    let answers: Vec<Answer> =
        cases.iter().map(|&(_, class, novel, _)| Answer { class, flagged: novel, novel }).collect();
    let samples: Vec<Scored> =
        cases.iter().map(|case| Scored { score: case.3, predicted: Some(case.1) }).collect();
    evaluate(&Judged { truths: &truths, samples: &samples, answers: &answers }, 20, 1).unwrap()
}

/// Ten seen samples (7 correct, 1 confused, 2 flagged, one of which would have been correct), four outliers (3 flagged),
/// two unseen (1 flagged), one that nobody knows.
fn cases() -> Vec<Case> {
    use Truth::{Class, Outlier, Unknown, Unseen};
    vec![
        (Class(4), 4, false, 0.9),
        (Class(4), 4, false, 0.8),
        (Class(4), 4, false, 0.7),
        (Class(4), 7, false, 0.65),
        (Class(7), 7, false, 0.9),
        (Class(7), 7, false, 0.8),
        (Class(7), 7, true, 0.2),
        (Class(9), 9, false, 0.9),
        (Class(9), 9, false, 0.6),
        (Class(9), 4, true, 0.1),
        (Outlier, 4, true, 0.3),
        (Outlier, 7, true, 0.3),
        (Outlier, 7, true, 0.05),
        (Outlier, 9, false, 0.95),
        (Unseen, 9, true, 0.4),
        (Unseen, 4, false, 0.75),
        (Unknown, 4, false, 0.5),
    ]
}

pub fn a_little_of_everything() -> LevelMetrics {
    judge(&cases())
}

fn counts(share: Option<Proportion>) -> (u64, u64) {
    share.map(|share| (share.count, share.of)).unwrap()
}

#[test]
fn every_share_is_of_its_own_samples() {
    let found = a_little_of_everything();
    assert_eq!(counts(found.overall_accuracy), (7 + 3 + 1, 16));
    assert_eq!(counts(found.seen_accuracy), (7, 10));
    assert_eq!(counts(found.novel_accuracy), (3, 4));
    assert_eq!(counts(found.pseudo_novel_flagged), (1, 2));
    assert_eq!(counts(found.confusion_rate), (1, 10));
    assert_eq!(counts(found.closed_set_accuracy), (8, 10));
}

#[test]
fn a_confusion_is_no_false_novelty() {
    // Notebook A, trap A5: its false-novel rate is 1 - accuracy, 3 of 10 here; only 2 of 10 were called novel.
    let found = a_little_of_everything();
    assert_eq!(counts(found.false_novel_rate), (2, 10));
    assert!((found.notebook.notebook_false_novel_rate.unwrap() - 0.3).abs() < 1e-15);
}

#[test]
fn a_large_easy_class_lifts_the_overall_figure_but_not_the_macro_one() {
    // Notebook A, trap A7: 491 of 534 seen samples and 500 of 500 outliers gave 0.9584 overall.
    let mut cases: Vec<Case> = Vec::new();
    for index in 0..534 {
        let class = CLASSES[index % 3];
        // Class 9 takes most of the errors.
        let wrong = class == 9 && index < 129;
        cases.push((Truth::Class(class), if wrong { 4 } else { class }, false, 1.0));
    }
    assert_eq!(cases.iter().filter(|case| case.0 == Truth::Class(case.1)).count(), 491);
    cases.extend((0..500).map(|_| (Truth::Outlier, 4, true, 0.0)));
    let found = judge(&cases);
    let notebook = found.notebook.notebook_overall_accuracy.unwrap();
    assert!((notebook - 991.0 / 1034.0).abs() < 1e-15);
    let of_nine = 1.0 - 43.0 / 178.0;
    assert!((found.macro_accuracy.unwrap() - (1.0 + 1.0 + of_nine + 1.0) / 4.0).abs() < 1e-12);
    assert_eq!(counts(found.seen_accuracy), (491, 534));
    assert_eq!(counts(found.novel_accuracy), (500, 500));
}

#[test]
fn macro_figures_are_sklearns() {
    // sklearn 1: f1_score(truth, answer, average="macro"), balanced_accuracy_score, novel as class -1.
    let found = a_little_of_everything();
    assert!((found.macro_f1.unwrap() - 0.6874999999999999).abs() < 1e-12, "{:?}", found.macro_f1);
    assert!((found.macro_accuracy.unwrap() - 0.6874999999999999).abs() < 1e-12, "{:?}", found.macro_accuracy);
}

#[test]
fn seen_samples_are_compared_with_each_kind_of_novelty() {
    let found = a_little_of_everything();
    let unseen = found.unseen.unwrap();
    // Pairs (seen, unseen) with the seen score above: of 0.4 eight, of 0.75 five; 20 pairs.
    assert!((unseen.auroc - 13.0 / 20.0).abs() < 1e-15);
    // The same among the 8 that are classified correctly without thresholds: 7 and 5, over 10 · 2.
    assert!((unseen.oscr - 12.0 / 20.0).abs() < 1e-15, "{}", unseen.oscr);
    assert!(unseen.oscr <= found.closed_set_accuracy.unwrap().rate);
    let [low, high] = unseen.auroc_interval95.unwrap();
    assert!(low <= unseen.auroc && unseen.auroc <= high);
    // Of the outliers' 40 pairs 8 + 8 + 10 + 0.
    assert!((found.outliers.unwrap().auroc - 26.0 / 40.0).abs() < 1e-15);
}

#[test]
fn the_notebooks_numbers_are_its_own() {
    let notebook = a_little_of_everything().notebook;
    let expected = NotebookMetrics {
        notebook_overall_accuracy: Some(10.0 / 14.0),
        notebook_seen_accuracy: Some(0.7),
        notebook_false_novel_rate: Some(1.0 - 0.7),
        notebook_novel_accuracy: Some(0.75),
        notebook_pseudo_novel_rate: Some(0.5),
        notebook_pseudo_novel_false_seen: Some(0.5),
    };
    assert_eq!(notebook, expected);
}

#[test]
fn what_has_no_samples_has_no_number() {
    let found = judge(&[(Truth::Class(4), 4, false, 1.0), (Truth::Unknown, 7, true, 0.0)]);
    assert_eq!(counts(found.overall_accuracy), (1, 1));
    assert_eq!((found.novel_accuracy, found.pseudo_novel_flagged), (None, None));
    assert_eq!((found.unseen, found.outliers), (None, None));
    let found = judge(&[]);
    assert_eq!((found.overall_accuracy, found.macro_f1), (None, None));
}

#[test]
fn truths_scores_and_answers_of_different_counts_are_refused_with_the_counts() {
    let (truths, samples) = ([Truth::Unseen; 2], [Scored { score: 0.5, predicted: Some(4) }; 2]);
    let answers = [Answer { class: 4, flagged: false, novel: false }; 2];
    for counts in [[1, 2, 2], [2, 1, 2], [2, 2, 1], [2, 0, 0]] {
        let [of_truths, of_samples, of_answers] = counts;
        let judged = Judged {
            truths: &truths[..of_truths],
            samples: &samples[..of_samples],
            answers: &answers[..of_answers],
        };
        let message = evaluate(&judged, 0, 0).unwrap_err().to_string();
        assert!(message.contains(&format!("{counts:?}")), "{message}");
    }
}
