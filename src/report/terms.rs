//! The terms of the page, each explained once: those that appear on it, and no others.

use minijinja::{Value, context};

use crate::novelty::Rule;
use crate::ood::Method;

/// Explanations of scores that are open; of more, all are behind a heading.
const MOST_OPEN: usize = 12;

/// A term, the spellings that call for it, and its explanation.
type Term = (&'static str, &'static [&'static str], &'static str);

const TERMS: [Term; 45] = [
    (
        "ID, OOD",
        &["ID", "OOD"],
        "In-distribution images come from the classes the network was trained on; out-of-distribution images do not. Near OOD is close \
         in kind, far OOD is not.",
    ),
    (
        "accuracy",
        &["accuracy", "Accuracy"],
        "Share of images whose class of highest probability is the true one.",
    ),
    (
        "balanced accuracy",
        &["balanced accuracy", "macro accuracy"],
        "Mean over classes of the share of their images classified correctly.",
    ),
    (
        "top-5 accuracy",
        &["top-5", "Top-5"],
        "Share of images whose true class is among the five of highest probability.",
    ),
    (
        "macro F1",
        &["macro f1", "macro F1", "Macro F1"],
        "Mean over classes of F1, the harmonic mean of precision and recall.",
    ),
    (
        "precision, recall",
        &["recall", "Recall"],
        "Precision is the share of what is called positive that is; recall the share of the positives that is called so.",
    ),
    (
        "loss",
        &["Loss"],
        "What training minimises: the mean over images of −ln p(true class), with the recipe's further terms.",
    ),
    (
        "NLL",
        &["NLL"],
        "Negative log-likelihood: the mean over images of −ln p(true class). It punishes confident errors most.",
    ),
    (
        "Brier score",
        &["Brier"],
        "Mean squared distance between the predicted probabilities and the truth (Brier, 1950). 0 is perfect.",
    ),
    (
        "ECE",
        &["ECE"],
        "Expected calibration error: mean distance between confidence and accuracy over bins of confidence (Guo et al., 2017).",
    ),
    ("MCE", &["MCE"], "Maximum calibration error: the largest such distance of a bin."),
    (
        "temperature",
        &["temperature", "Temperature"],
        "A number that divides all logits. Fitted on held-back images it makes confidences match accuracy (Guo et al., 2017).",
    ),
    (
        "AURC",
        &["AURC"],
        "Area under the risk-coverage curve: the mean error rate among the most confident images, over all shares of them (Geifman and El-Yaniv, 2017).",
    ),
    ("E-AURC", &["E-AURC"], "AURC minus that of a score that puts all errors last (Geifman et al., 2019)."),
    (
        "AUGRC",
        &["AUGRC"],
        "Area under the generalised risk-coverage curve: the mean share of all images that are accepted and wrong (Traub et al., 2024).",
    ),
    (
        "AUROC",
        &["AUROC"],
        "The chance that a random ID image scores higher than a random OOD image; ties count half. 50 % is guessing, 100 % is perfect.",
    ),
    (
        "FPR95",
        &["FPR95"],
        "The share of ID images flagged by the threshold that catches 95 % of the OOD images (OpenOOD since v1.5).",
    ),
    (
        "FPR95 (ID positive)",
        &["FPR95"],
        "The share of OOD images let through by the threshold that keeps 95 % of the ID images. Papers use both; they differ for the same scores.",
    ),
    (
        "AUPR-in, AUPR-out",
        &["AUPR-in", "AUPR-out"],
        "Average precision with ID or with OOD as the positive class. They depend on how many images of each there are.",
    ),
    (
        "95 % interval",
        &["95 % interval", "95\u{a0}% interval"],
        "It holds the true number for about 95 % of all choices of test images. Of an AUROC by DeLong's (1988) standard error on the scale of the logit; of other metrics, or where it was asked for, by drawing the images again with replacement (bootstrap; Efron, 1979).",
    ),
    (
        "within noise of the best",
        &["within noise", "Within noise"],
        "The score may be the best one in truth. All scores are of the same images and are compared in pairs, corrected for their number by Hsu's multiple comparisons with the best (1996): the truly best score is among those marked with a probability of at least 95 %.",
    ),
    (
        "vs best",
        &["vs best"],
        "The AUROC minus the highest one of the other scores. Its p-value is the chance of falling as far behind if this score were the best; its interval ends at 0 for a score that is not the best, and those of all scores hold at once.",
    ),
    (
        "full spectrum",
        &["Full spectrum", "full spectrum"],
        "Images of the known classes that look different (blurred, drawn, photographed elsewhere) belong to the ID side too (Yang et al., 2023; OpenOOD's fsood).",
    ),
    (
        "AURC, AUGRC with OOD images",
        &["wrong answers and OOD images are errors"],
        "In the table of OOD sets an error is a wrong answer on an ID image, or any answer on an OOD image.",
    ),
    (
        "OSCR",
        &["OSCR", "oscr unseen", "oscr outliers"],
        "Open-set classification rate: the area under the share of known images kept and classified correctly, over the share of unknown images kept (Dhamija et al., 2018).",
    ),
    (
        "± over seeds",
        &["standard deviation of the sample"],
        "Standard deviation over the seeds, dividing by n − 1.",
    ),
    (
        "95 % bounds",
        &["95 % bounds"],
        "Of a share: Clopper and Pearson's (1934) interval, which holds the true share in at least 95 % of all cases. Of an AUROC: the bootstrap's.",
    ),
    (
        "seen, novel",
        &["seen accuracy", "novel caught", "Novel caught"],
        "Seen samples are of classes the network was trained on, novel ones of other classes.",
    ),
    (
        "false novel rate",
        &["false novel", "Seen called novel"],
        "Share of seen samples that are called novel.",
    ),
    ("pseudo novel", &["pseudo_novel", "pseudo novel"], "Classes held out of training, to play the unknown."),
    (
        "p-value",
        &["p-value"],
        "Share of calibration samples of known classes, and the sample itself, that score as low as it. Of a known class it is below α with probability at most α (Vovk et al., 2005).",
    ),
    (
        "NC1",
        &["NC1"],
        "Scatter within classes against scatter between class means, tr(Σ_W Σ_B⁺)/C (Papyan et al., 2020).",
    ),
    ("NC2", &["NC2"], "How unequal the class means are in length (equinorm) and in angle (equiangular)."),
    ("NC3", &["NC3"], "Distance between the classifier's rows and the class means, both normalised."),
    ("NC4", &["NC4"], "Share of images that the classifier and the nearest class mean label differently."),
    (
        "NC5",
        &["NC5"],
        "Mean absolute cosine between the class means and the mean OOD feature (Ammar et al., 2024).",
    ),
    (
        "novel-probability",
        &["novel-probability"],
        "Score: 1 − p(novel), of a head that was trained with outliers as a class of their own.",
    ),
    (
        "notebook-msp",
        &["notebook-msp"],
        "Score: the largest probability over all classes, that of outliers among them.",
    ),
    (
        "outside the axis",
        &["outside the axis"],
        "Scores further from the quartiles than three times their distance (Tukey, 1977), which would squeeze all others; every number counts them.",
    ),
    (
        "images/s",
        &["images/s", "images&#x2f;s"],
        "Images trained on in a second: the median over the lines of the log.",
    ),
    (
        "MCC",
        &["MCC"],
        "Matthews correlation coefficient between true and predicted classes: 1 is perfect, 0 is chance.",
    ),
    (
        "confusion matrix",
        &["confusion matrix", "Confusion matrix"],
        "How many images of each true class (row) were given each class (column).",
    ),
    (
        "reliability diagram",
        &["eliability diagram"],
        "Accuracy over confidence, bin by bin; on the diagonal confidences mean what they say.",
    ),
    (
        "risk, coverage",
        &["risk-coverage", "Risk-coverage"],
        "Of a threshold on confidence: the error rate among the images accepted, and the share accepted.",
    ),
    (
        "novelty threshold",
        &["called novel"],
        "The score below which an image is called novel, chosen on images that the network was not trained on.",
    ),
];

/// The explanations that a page calls for: of the terms that its text names, of the scores and of the rules on it.
pub(super) fn explained(page: &str, scores: &[String], rules: &[Rule]) -> Vec<Value> {
    // A number and its percent sign stay on one line.
    let term =
        |name: String, meaning: &str| context! { name => name, meaning => meaning.replace(" %", "\u{a0}%") };
    let mut terms: Vec<Value> = TERMS
        .iter()
        .filter(|(_, spellings, _)| spellings.iter().any(|spelling| names(page, spelling)))
        .map(|(name, _, meaning)| term(name.to_string(), meaning))
        .collect();
    let method = |score: &String| score.split(':').next().unwrap_or_default().to_string();
    let scores: Vec<String> = scores.iter().map(method).collect();
    let methods = Method::ALL.iter().filter(|method| scores.iter().any(|score| score == method.name()));
    let methods: Vec<&Method> = methods.collect();
    let folded = methods.len() > MOST_OPEN;
    terms.extend(methods.iter().map(|method| {
        context! { folded => folded, ..term(method.name().to_string(), method.explanation()) }
    }));
    terms.extend(rules.iter().map(|rule| term(rule.to_string(), &rule.explanation())));
    terms
}

/// Whether a page names a word: not as a part of a longer one.
fn names(page: &str, word: &str) -> bool {
    page.match_indices(word).any(|(start, _)| {
        let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let is_whole = !letter(page[..start].chars().next_back()) || !word.starts_with(char::is_alphabetic);
        is_whole && !letter(page[start + word.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_explains_what_it_names_and_nothing_else() {
        let scores = ["vim".to_string(), "a stranger".to_string()];
        let shown = |page: &str| -> Vec<String> {
            let terms = explained(page, &scores, &[Rule::Youden]);
            terms.iter().map(|term| term.get_attr("name").unwrap().to_string()).collect()
        };
        assert_eq!(shown("<td>ECE</td> OPIECE NC12"), ["ECE", "vim", "youden"]);
        assert_eq!(shown(""), ["vim", "youden"]);
    }

    #[test]
    fn every_explanation_is_a_sentence() {
        let methods = Method::ALL.iter().map(|method| method.explanation().to_string());
        let rules = Rule::DEFAULTS.iter().map(|rule| rule.explanation());
        let terms = TERMS.iter().map(|(.., meaning)| meaning.to_string());
        for text in methods.chain(rules).chain(terms) {
            assert!(text.ends_with('.') && text.len() > 30 && !text.contains("  "), "{text}");
        }
    }
}
