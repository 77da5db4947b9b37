//! Promises of every figure: valid SVG, escaped text, curves that carry their numbers, bounded size.

use super::theme::Role;
use super::*;
use crate::ood::metrics::{Curves, TPR};
use crate::rng::{Purpose, Stream};

fn normal_scores(stream: u64, n: u64, mean: f64) -> Vec<f64> {
    let stream = Stream::for_purpose(5, Purpose::Synthetic, &[stream]);
    (0..n).map(|i| stream.normal(i) + mean).collect()
}

fn training_points(epochs: u32) -> Vec<TrainingPoint> {
    let mut points = Vec::new();
    for epoch in 1..=epochs {
        let progress = f64::from(epoch) / f64::from(epochs);
        for (split, floor) in [("train", 0.02), ("val", 0.4)] {
            points.push(TrainingPoint {
                epoch: f64::from(epoch),
                split: split.to_string(),
                loss: Some(floor + 2.0 * (-4.0 * progress).exp()),
                accuracy: Some(0.95 - floor / 2.0 - 0.7 * (-5.0 * progress).exp()),
                learning_rate: Some(0.05 * (1.0 - progress)),
            });
        }
    }
    points
}

fn collapse_rows() -> Vec<CollapseRow> {
    (1..=12)
        .map(|k| {
            let shrink = (-f64::from(k) / 4.0).exp();
            CollapseRow {
                epoch: f64::from(k),
                nc1: Some(20.0 * shrink),
                nc2_equinorm: Some(0.3 * shrink + 0.02),
                nc2_equiangular: Some(0.25 * shrink + 0.01),
                nc3: Some(0.9 * shrink + 0.1),
                nc4: Some(0.2 * shrink),
                nc5: Some(0.1 + 0.3 * shrink),
            }
        })
        .collect()
}

/// Cosines of noisy class means of a collapsed network, symmetric with a unit diagonal.
fn cosines(classes: usize) -> Vec<f64> {
    let stream = Stream::for_purpose(5, Purpose::Synthetic, &[99]);
    let entry = |row: usize, column: usize| {
        let (low, high) = (row.min(column), row.max(column));
        match low == high {
            true => 1.0,
            false => -1.0 / (classes as f64 - 1.0) + 0.08 * stream.normal((low * classes + high) as u64),
        }
    };
    (0..classes * classes).map(|cell| entry(cell / classes, cell % classes)).collect()
}

fn every_panel() -> Vec<Panel> {
    let (id, ood) = (normal_scores(1, 2000, 1.5), normal_scores(2, 900, 0.0));
    let mut panels = vec![accuracy_curves(&training_points(40)), loss_curves(&training_points(40))];
    panels.extend(learning_rate_curve(&training_points(40)));
    panels.extend(ScoredPair::new("energy", &id, &ood).unwrap().panels());
    panels.extend(collapse_panels(&collapse_rows()));
    panels.push(cosine_heat_map(&cosines(20), 20, &[]));
    panels.extend(angle_histogram(&cosines(20), 20));
    panels
}

#[test]
fn every_figure_is_svg_that_renders_and_stays_small() {
    let panels = every_panel();
    assert_eq!(panels.len(), 14);
    for panel in panels {
        let figure = panel.figure().unwrap();
        let png = figure.png(1.0).unwrap();
        let picture = image::load_from_memory(&png).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), figure.size());
        let colored = picture.pixels().filter(|pixel| pixel.0 != [255; 3]).count();
        assert!(colored > 2000, "{} is all but empty: {colored} pixels", panel.title);
        assert!(figure.standalone().contains("prefers-color-scheme:dark"));
        assert!(figure.inline().len() < 20_000, "{} takes {} bytes", panel.title, figure.inline().len());
    }
}

#[test]
fn text_from_files_cannot_become_markup_or_control_characters() {
    let (id, ood) = (normal_scores(1, 30, 1.0), normal_scores(2, 30, 0.0));
    let pair =
        ScoredPair::new("</text><script>alert(1)</script>\u{1b}[0m\u{0}\u{ffff}&\"'", &id, &ood).unwrap();
    let figure = score_sheet("<b>svhn</b>\u{202e}", &pair).unwrap();
    for document in [figure.standalone(), figure.inline()] {
        assert!(!document.contains("<script") && !document.contains("<b>"));
        assert!(!document.chars().any(|c| c.is_control() && c != '\n'));
        assert!(document.contains("&lt;script"));
    }
    figure.png(0.5).expect("still XML that a strict parser reads");
}

/// All `circle` centres of a figure, in drawing units.
fn circles(svg: &str, fill: Role) -> Vec<(f64, f64)> {
    let attribute = |tag: &str, name: &str| -> f64 {
        let start = tag.find(&format!(" {name}=\"")).unwrap() + name.len() + 3;
        tag[start..].split('"').next().unwrap().parse().unwrap()
    };
    svg.split('<')
        .filter(|tag| tag.starts_with("circle") && tag.contains(&format!("fill=\"#{:06X}\"", fill.light())))
        .map(|tag| (attribute(tag, "cx"), attribute(tag, "cy")))
        .collect()
}

/// The points of the polyline that has the most of them in a colour.
fn longest_curve(svg: &str, stroke: Role) -> Vec<(f64, f64)> {
    let parse = |tag: &str| -> Vec<(f64, f64)> {
        let points = tag.split(" points=\"").nth(1).unwrap().split('"').next().unwrap();
        let pair = |text: &str| {
            let (x, y) = text.split_once(',').unwrap();
            (x.parse().unwrap(), y.parse().unwrap())
        };
        points.split_whitespace().map(pair).collect()
    };
    svg.split('<')
        .filter(|tag| {
            tag.starts_with("polyline") && tag.contains(&format!("stroke=\"#{:06X}\"", stroke.light()))
        })
        .map(parse)
        .max_by_key(Vec::len)
        .unwrap()
}

fn distance_to_curve(point: (f64, f64), curve: &[(f64, f64)]) -> f64 {
    let to_segment = |a: (f64, f64), b: (f64, f64)| {
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let length = dx * dx + dy * dy;
        let along = if length > 0.0 { ((point.0 - a.0) * dx + (point.1 - a.1) * dy) / length } else { 0.0 };
        let along = along.clamp(0.0, 1.0);
        (point.0 - a.0 - along * dx).hypot(point.1 - a.1 - along * dy)
    };
    curve.windows(2).map(|pair| to_segment(pair[0], pair[1])).fold(f64::INFINITY, f64::min)
}

#[test]
fn operating_points_lie_on_the_curve_they_belong_to() {
    // Unequal sizes and overlap: a marker of the opposite convention would land far away.
    let (id, ood) = (normal_scores(1, 1500, 0.9), normal_scores(2, 300, 0.0));
    let pair = ScoredPair::new("msp", &id, &ood).unwrap();
    let cases = [
        (pair.roc(), Role::Blue, Role::Red),
        (pair.roc(), Role::Blue, Role::Purple),
        (pair.pr_in(), Role::Green, Role::Red),
        (pair.pr_out(), Role::Purple, Role::Red),
    ];
    for (panel, curve, marker) in cases {
        let svg = panel.figure().unwrap().inline();
        let markers = circles(&svg, marker);
        assert_eq!(markers.len(), 1, "{}", panel.title);
        let distance = distance_to_curve(markers[0], &longest_curve(&svg, curve));
        assert!(distance <= 4.0, "{}: {marker:?} is {distance:.1} units (1/4 pixel) off", panel.title);
    }
}

#[test]
fn the_numbers_beside_the_curves_are_those_of_the_metrics() {
    let (id, ood) = (normal_scores(1, 700, 1.0), normal_scores(2, 400, 0.0));
    let pair = ScoredPair::new("msp", &id, &ood).unwrap();
    let metrics = Curves::new(&id, &ood).unwrap().metrics();
    let says = |panel: Panel, text: String| {
        let svg = panel.figure().unwrap().inline();
        assert!(svg.contains(&text), "{} does not say {text}", panel.title);
    };
    says(pair.roc(), format!("AUROC {:.1} %", 100.0 * metrics.auroc));
    says(pair.roc(), format!("FPR95 {:.1} %", 100.0 * metrics.fpr95));
    says(pair.roc(), format!("FPR95, ID positive {:.1} %", 100.0 * metrics.fpr95_id_positive));
    says(pair.pr_in(), format!("AUPR-in {:.1} %", 100.0 * metrics.aupr_in));
    says(pair.pr_out(), format!("AUPR-out {:.1} %", 100.0 * metrics.aupr_out));
    let catch = Curves::new(&id, &ood).unwrap().ood_positive.fpr_at_tpr(TPR);
    assert!((metrics.fpr95 - catch.fpr).abs() < 1e-15);
}

#[test]
fn both_sides_of_a_histogram_share_bins_and_enclose_their_share_of_samples() {
    let (id, ood) = (normal_scores(1, 4000, 3.0), normal_scores(2, 100, -3.0));
    let panel = ScoredPair::new("mls", &id, &ood).unwrap().histogram();
    let outlines: Vec<&Vec<(f64, f64)>> = panel
        .marks
        .iter()
        .filter_map(|mark| match mark {
            panel::Mark::Area { outline, .. } => Some(outline),
            _ => None,
        })
        .collect();
    assert_eq!(outlines.len(), 2);
    for (a, b) in outlines[0].iter().zip(outlines[1]) {
        assert_eq!(a.0, b.0, "the edges of the bins differ");
    }
    let area = |outline: &[(f64, f64)]| -> f64 {
        outline.windows(2).map(|pair| (pair[1].0 - pair[0].0) * pair[0].1.min(pair[1].1)).sum()
    };
    // At most 0.5 % of all 4100 scores are outside at each end: 20 of the 100 OOD ones in the worst case.
    assert!((area(outlines[0]) - 1.0).abs() < 0.006, "{}", area(outlines[0]));
    assert!((0.79..=1.0001).contains(&area(outlines[1])), "{}", area(outlines[1]));
}

#[test]
fn thinning_keeps_ends_shape_and_budget() {
    let jagged: Vec<(f64, f64)> =
        (0..50_000).map(|i| (f64::from(i), if i % 2 == 0 { 0.0 } else { 50_000.0 / f64::from(i) })).collect();
    let kept = panel::thinned(&jagged, 400);
    assert!((100..=400).contains(&kept.len()), "{}", kept.len());
    assert_eq!((kept[0], kept[kept.len() - 1]), (jagged[0], jagged[jagged.len() - 1]));
    let few = [(0.0, 1.0), (f64::NAN, 2.0)];
    assert_eq!(panel::thinned(&few, 400).len(), 2);
}

#[test]
fn odd_input_still_gives_a_figure() {
    let constant = vec![2.5; 40];
    let wild = [f64::MAX, -f64::MAX, 0.0, 1e-320];
    for (id, ood) in [(&constant[..], &constant[..]), (&[1.0], &[0.0]), (&wild, &wild), (&constant, &wild)] {
        for panel in ScoredPair::new("score", id, ood).unwrap().panels() {
            panel.figure().unwrap().png(0.5).unwrap();
        }
    }
    assert!(ScoredPair::new("score", &[f64::NAN], &[0.0]).is_err());
    let strange = TrainingPoint {
        epoch: f64::NAN,
        split: "train".into(),
        loss: Some(-1.0),
        accuracy: Some(f64::NAN),
        learning_rate: None,
    };
    for points in [vec![], vec![strange], training_points(1), training_points(5000)] {
        accuracy_curves(&points).figure().unwrap().png(0.5).unwrap();
        loss_curves(&points).figure().unwrap().png(0.5).unwrap();
    }
    assert!(collapse_panels(&[CollapseRow::default()]).is_empty());
    assert!(angle_histogram(&[1.0], 1).is_none());
    for classes in [1, 2, 3, 128, 129, 300] {
        let figure = cosine_heat_map(&cosines(classes), classes, &[]).figure().unwrap();
        figure.png(0.5).unwrap();
        assert!(figure.inline().len() < 600_000, "{classes} classes take {} bytes", figure.inline().len());
    }
    cosine_heat_map(&[f64::NAN; 4], 2, &[]).figure().unwrap();
}

#[test]
fn sheets_have_a_panel_a_place_and_refuse_what_cannot_be_drawn() {
    let (id, ood) = (normal_scores(1, 300, 1.0), normal_scores(2, 200, 0.0));
    let pairs: Vec<ScoredPair<'_>> =
        ["msp", "mls", "energy"].iter().map(|name| ScoredPair::new(name, &id, &ood).unwrap()).collect();
    let comparison = comparison_sheet("svhn", &pairs).unwrap();
    let single = score_sheet("svhn: msp", &pairs[0]).unwrap();
    assert_eq!((comparison.size().0, single.size().0), (960, 640));
    assert!(comparison.size().1 > 2 * single.size().1 - 100);
    assert_eq!(comparison.inline().matches("PR-out (OOD positive)").count(), 3);
    assert!(comparison_sheet("none", &[]).unwrap_err().to_string().contains("1 to 1000 panels"));
    assert!(single.png(1e9).unwrap_err().to_string().contains("64 megapixels"));
}
