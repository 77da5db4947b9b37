//! The name somebody probably meant.

/// The name among `known` that `given` is a slip of: as few letters added, lost, changed or swapped as slips have; `None` where
/// none is that near.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let given = plain(given);
    let length = given.chars().count();
    // A third of the letters, as in rustc.
    let bound = (length / 3).max(1);
    known
        .into_iter()
        .map(|name| (strsim::osa_distance(&given, &plain(name)), name))
        .filter(|(distance, name)| *distance <= bound && *distance < name.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// ` (did you mean `x`?)`, or nothing.
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(given, known).map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_another_word_finds_none() {
        let known = ["lr", "label_smoothing", "epochs", "convolution_sm80.cu", "convolution_sm90.cu"];
        for (given, meant) in [
            ("lrr", Some("lr")),
            ("label-smoothing", Some("label_smoothing")),
            ("Label_smothing", Some("label_smoothing")),
            ("epohcs", Some("epochs")),
            ("convolution_sm80x.cu", Some("convolution_sm80.cu")),
            ("convolution_sm9.cu", Some("convolution_sm90.cu")),
            ("zz", None),
            ("temperature", None),
        ] {
            assert_eq!(nearest(given, known), meant, "{given}");
        }
        assert_eq!(did_you_mean("epoch", known), " (did you mean `epochs`?)");
        assert_eq!(did_you_mean("x", known), "");
    }
}
