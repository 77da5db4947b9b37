//! The constants that tuning tries.

use crate::ood::method::Method;
use crate::ood::options::Options;
use crate::ood::parameters::Parameter;
use crate::ood::spec::ScoreSpec;

/// For every wanted method its candidates, the default first: those that were asked for where constants or a sweep were given, else
/// every combination of the values that its constants declare for tuning.
pub(super) fn of(options: &Options) -> Vec<Vec<ScoreSpec>> {
    let specs = options.specs();
    let own = |method: &Method| -> Vec<ScoreSpec> {
        let asked: Vec<ScoreSpec> = specs.iter().copied().filter(|spec| spec.method() == *method).collect();
        match asked.as_slice() {
            [plain] if *plain == ScoreSpec::from(*method) => grid(*plain, options),
            _ => asked,
        }
    };
    Method::ALL.iter().map(own).filter(|own| !own.is_empty()).collect()
}

/// The score with its defaults, then every other combination of the values on its grid.
fn grid(plain: ScoreSpec, options: &Options) -> Vec<ScoreSpec> {
    let about = plain.method().about();
    let mut specs = vec![plain];
    for Parameter { name, default, grid, .. } in about.parameters {
        let usual = default(options).to_string();
        let mut wider = specs.clone();
        // The value itself decides, not how it is written.
        for value in grid.iter().filter(|value| **value != usual) {
            let with = |spec: &ScoreSpec| spec.with(name, value);
            wider.extend(specs.iter().filter_map(|spec| with(spec).ok()));
        }
        specs = wider;
    }
    specs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(methods: &str) -> Vec<Vec<String>> {
        let options = Options { methods: ScoreSpec::parse_list(methods).unwrap(), ..Options::default() };
        of(&options).iter().map(|own| own.iter().map(ToString::to_string).collect()).collect()
    }

    #[test]
    fn a_plain_score_is_tried_on_its_grid_and_a_sweep_as_it_was_asked_for() {
        assert_eq!(names("msp,knn"), [vec!["msp"], vec!["knn", "knn:k=1", "knn:k=10", "knn:k=200"]]);
        assert_eq!(names("knn:k=5|7"), [["knn:k=5", "knn:k=7"]]);
        assert_eq!(names("knn:k=5"), [["knn:k=5"]]);
        let vra = &names("vra")[0];
        assert_eq!((vra.len(), vra[0].as_str()), (6, "vra"));
        assert!(vra.contains(&"vra:low=0.3:high=0.99".to_string()), "{vra:?}");
    }

    #[test]
    fn every_value_of_a_grid_is_one_that_the_constant_may_have() {
        for method in Method::ALL {
            for Parameter { name, grid, .. } in method.about().parameters {
                for value in *grid {
                    let spec = ScoreSpec::from(*method).with(name, value);
                    assert!(spec.is_ok(), "{method}:{name}={value}: {spec:?}");
                }
            }
            let count = grid(ScoreSpec::from(*method), &Options::default()).len();
            assert!(count <= 12, "{method} is tried with {count} constants");
        }
    }
}
