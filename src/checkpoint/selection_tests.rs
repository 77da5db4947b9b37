//! Promises of the choice among the tensors of a file: one network is found whatever precedes its names, several are named.

use super::*;
use crate::checkpoint::network::torch_shape;
use crate::nn::{Architecture, Depth};

/// Names and extents of a narrow ResNet-20 as CIFAR repositories write them, behind a prefix.
fn resnet(prefix: &str) -> Vec<(String, Vec<usize>)> {
    let architecture = Architecture::new(Depth::ResNet20, None, None, 0.125, 3).unwrap();
    let network = Network::new(&architecture, DType::F32, None);
    let name = |name: &str| format!("{prefix}{}", name.replace("fc.", "linear."));
    network.parameters().entries().iter().map(|entry| (name(&entry.name), torch_shape(entry))).collect()
}

fn listing(key: &str, parts: &[Vec<(String, Vec<usize>)>]) -> Listing {
    Listing { key: key.into(), tensors: parts.concat() }
}

fn one(name: &str) -> Vec<(String, Vec<usize>)> {
    vec![(name.to_string(), vec![1])]
}

/// The selection without a key, which must be a whole network.
fn chosen(listings: &[Listing]) -> Selection {
    let chosen = choose(listings, None).unwrap();
    let candidate =
        Candidate { listing: chosen.listing, prefix: chosen.prefix.clone(), label: String::new() };
    assert!(makes_a_network(listings, &candidate, &networks(listings)), "{chosen:?}");
    chosen.selection(listings)
}

fn by(listings: &[Listing], key: &str) -> (String, String) {
    let chosen = choose(listings, Some(key)).unwrap_or_else(|refusal| panic!("{key}: {refusal:?}"));
    let selection = chosen.selection(listings);
    (selection.key, selection.prefix)
}

#[test]
fn any_prefix_is_found_where_one_network_lies_behind_it() {
    for prefix in [
        "",
        "model.",
        "net.",
        "encoder.",
        "student.",
        "backbone.",
        "resnet.",
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.module.backbone.",
        "encoder_q.",
    ] {
        let found = chosen(&[listing("", &[resnet(prefix)])]);
        assert_eq!((found.key.as_str(), found.prefix.as_str()), ("", prefix));
        // The note names the prefix; a plain file has none.
        assert_eq!(
            found.note().is_some_and(|note| note.contains(&format!("without `{prefix}`"))),
            !prefix.is_empty()
        );
        // Tensors of something else beside it are left behind.
        let beside = [resnet(prefix), one("n_averaged"), one("criterion.weight")];
        if !prefix.is_empty() {
            assert_eq!(chosen(&[listing("state_dict", &beside)]).prefix, prefix);
        }
    }
}

#[test]
fn a_head_beside_the_backbone_belongs_to_it() {
    for (backbone, head) in
        [("backbone.", "head."), ("module.backbone.", "module.linear."), ("backbone.module.", "fc.")]
    {
        let renamed: Vec<_> = resnet(backbone)
            .into_iter()
            .map(|(name, shape)| (name.replace(&format!("{backbone}linear."), head), shape))
            .collect();
        assert_eq!(chosen(&[listing("", &[renamed])]).prefix, backbone);
    }
}

#[test]
fn the_customary_key_is_taken_and_the_average_beside_it_is_named() {
    for average in ["state_dict_ema", "ema_state_dict", "model_ema"] {
        let listings = [listing("state_dict", &[resnet("module.")]), listing(average, &[resnet("")])];
        let found = chosen(&listings);
        assert_eq!((found.key.as_str(), &found.others[..]), ("state_dict", &[average.to_string()][..]));
        let note = found.note().unwrap();
        assert!(
            note.contains("`state_dict`") && note.contains(average) && note.contains("--weights-key"),
            "{note}"
        );
        assert_eq!(by(&listings, average), (average.to_string(), String::new()));
        assert_eq!(by(&listings, "state_dict"), ("state_dict".to_string(), "module.".to_string()));
        assert!(choose(&listings, Some(average)).unwrap().by_key);
        assert!(!choose(&listings, Some("state_dict")).unwrap().by_key, "the usual choice keeps its hash");
        let alone = chosen(&listings[1..]);
        assert_eq!(alone.key, average);
        assert_eq!(alone.note(), Some(format!("weights taken from `{average}`")));
    }
}

#[test]
fn two_networks_are_refused_by_name_and_a_key_chooses() {
    let refused = |listings: &[Listing]| match choose(listings, None) {
        Err(Refusal::Several(labels)) => labels,
        other => panic!("{other:?}"),
    };
    let prefixes = [listing("state_dict", &[resnet("student."), resnet("teacher.module.")])];
    assert_eq!(refused(&prefixes), ["state_dict.student", "state_dict.teacher.module"]);
    for key in ["student", "student.", "state_dict.student"] {
        assert_eq!(by(&prefixes, key).1, "student.");
    }
    let keys = [listing("student", &[resnet("")]), listing("teacher", &[resnet("")])];
    assert_eq!(refused(&keys), ["student", "teacher"]);
    assert_eq!(by(&keys, "teacher").0, "teacher");
    let nested = [listing("", &[resnet(""), resnet("ema.")])];
    assert_eq!(refused(&nested), [".", "ema"]);
    assert_eq!((by(&nested, ".").1.as_str(), by(&nested, "ema").1.as_str()), ("", "ema."));
    let message = refuse(Path::new("x.pth"), choose(&keys, None).unwrap_err()).to_string();
    assert!(message.contains("2 of them: `student`, `teacher`; say which with --weights-key"), "{message}");
}

#[test]
fn of_two_networks_the_only_complete_one_is_taken() {
    let headless: Vec<_> =
        resnet("teacher.").into_iter().filter(|(name, _)| !name.contains("linear")).collect();
    let found = chosen(&[listing("", &[resnet("student."), headless])]);
    assert_eq!((found.prefix.as_str(), &found.others[..]), ("student.", &["teacher".to_string()][..]));
}

#[test]
fn a_key_that_means_nothing_is_wrong_use_and_names_what_there_is() {
    let listings = [listing("state_dict", &[resnet("")]), listing("state_dict_ema", &[resnet("")])];
    let error = refuse(Path::new("x.pth"), choose(&listings, Some("ema")).unwrap_err());
    assert_eq!(error.exit_code(), 2);
    let message = error.to_string();
    assert!(message.contains("`ema`") && message.contains("`state_dict`, `state_dict_ema`"), "{message}");
}

#[test]
fn tensors_of_no_known_network_are_taken_from_the_only_place_they_can_be_in() {
    let other = || one("blocks.0.weight");
    let place = |listings: &[Listing]| choose(listings, None).map(|chosen| chosen.listing);
    assert_eq!(place(&[listing("", &[other()]), listing("stats", &[other()])]), Ok(0));
    assert_eq!(place(&[listing("", &[other()]), listing("model", &[other()])]), Ok(1));
    assert_eq!(place(&[listing("weights", &[other()])]), Ok(0));
    let nested = [
        listing("model", &[one("scales")]),
        listing("net", &[other()]),
        listing("model.state_dict", &[other()]),
    ];
    assert_eq!(place(&nested), Ok(2), "customary keys are followed as far as they go");
    assert!(matches!(place(&[listing("a", &[other()]), listing("b", &[other()])]), Err(Refusal::Several(_))));
    assert_eq!(place(&[]), Err(Refusal::Nothing));
}

/// Each prefix needs a look at all names; a file of nothing but prefixes must not take that many looks.
#[test]
fn very_many_networks_in_a_file_are_refused_at_once() {
    let names: Vec<(String, Vec<usize>)> = (0..50_000)
        .flat_map(|index| {
            [one(&format!("a{index}.conv1.weight")), one(&format!("a{index}.layer1.0.conv1.weight"))]
        })
        .flatten()
        .collect();
    match choose(&[listing("", &[names])], None) {
        Err(Refusal::Several(labels)) => assert_eq!(labels.len(), MOST_NETWORKS + 1),
        other => panic!("{other:?}"),
    }
}
