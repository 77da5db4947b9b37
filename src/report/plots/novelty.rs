//! Seen against novel scores, with the threshold of every rule.
//!
//! Thresholds crowd where the scores do, so each has a lane of its own above the histogram: a line up to a dot, and beside
//! the dot the rule and the threshold in full precision. No two labels can overlap, however close the thresholds are; the
//! lowest is on top, so that most labels cross no line either.

use super::axis::Axis;
use super::figure::Figure;
use super::panel::{Mark, Panel};
use super::scores::{density, shown_range, steps};
use super::theme::Role;
use crate::error::Result;
use crate::novelty::{LevelScores, LevelThreshold, level_name};

/// CSS pixels: width; height without lanes; height of a lane.
const WIDTH: u32 = 640;
const HISTOGRAM: u32 = 270;
const LANE: u32 = 16;
/// Pixels of `HISTOGRAM` that the bars have; the rest is title, legend and axis.
const BARS: u32 = 170;

/// Where a probability stands on the axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreAxis {
    /// At its value.
    Value,
    /// At log(p / (1 − p)), which spreads values that saturate near 0 and 1. For scores that are probabilities.
    Logit,
}

impl ScoreAxis {
    fn place(self, score: f64) -> f64 {
        // Probabilities that rounded to 0 or 1 stand where the nearest one that did not would.
        const NEAREST: f64 = f64::EPSILON / 2.0;
        match self {
            ScoreAxis::Value => score,
            ScoreAxis::Logit => {
                let p = score.clamp(NEAREST, 1.0 - NEAREST);
                (p / (1.0 - p)).ln()
            }
        }
    }

    fn name(self, score: &str) -> String {
        match self {
            ScoreAxis::Value => format!("{score} (larger: more in-distribution)"),
            ScoreAxis::Logit => format!("log(p / (1 − p)) of p = {score}"),
        }
    }
}

/// Densities of seen and novel calibration scores over shared bins, the threshold of every candidate rule, and the one
/// that was chosen (in red, on top). Up to 0.5 % of all scores at either end lie outside the axis.
///
/// # Errors
/// The plotting crate refuses to draw it.
pub fn threshold_histogram(
    samples: &LevelScores,
    candidates: &[LevelThreshold],
    chosen: &LevelThreshold,
    axis: ScoreAxis,
) -> Result<Figure> {
    let others = candidates.iter().filter(|other| other.rule != chosen.rule);
    let mut lanes: Vec<(&LevelThreshold, Role)> = others.map(|other| (other, Role::Muted)).collect();
    lanes.push((chosen, Role::Red));
    lanes.sort_by(|a, b| b.0.tau.total_cmp(&a.0.tau));
    let sides = [samples.seen_scores(), samples.novel_scores()]
        .map(|scores| scores.into_iter().map(|score| axis.place(score)).collect::<Vec<f64>>());
    let mut pooled = sides.concat();
    pooled.sort_unstable_by(f64::total_cmp);
    let (mut lowest, mut highest) = shown_range(&pooled);
    for (threshold, _) in &lanes {
        if threshold.tau.is_finite() {
            lowest = lowest.min(axis.place(threshold.tau));
            highest = highest.max(axis.place(threshold.tau));
        }
    }
    let densities = sides.each_ref().map(|scores| match scores.len() {
        0 => Vec::new(),
        _ => density(scores, lowest, highest),
    });
    let tallest = densities.iter().flatten().copied().fold(0.0, f64::max);
    let tallest = if tallest > 0.0 { tallest } else { 1.0 };
    let lane_height = tallest * f64::from(LANE) / f64::from(BARS);
    let top = tallest * 1.04 + lane_height * lanes.len() as f64;
    let x = Axis::linear(&axis.name(&samples.score.to_string()), [lowest, highest], 6);
    let y = Axis::linear("density", [0.0, top], 4 + lanes.len() / 3).with_ticks_up_to(tallest);
    let level = level_name(samples.level);
    let mut panel =
        Panel::new(format!("{level}: {} of seen and novel samples, thresholds", samples.score), x, y);
    for (((color, side), scores), heights) in
        [(Role::Blue, "seen"), (Role::Orange, "novel")].into_iter().zip(&sides).zip(&densities)
    {
        if heights.is_empty() {
            continue;
        }
        let outline = steps(heights, lowest, highest);
        panel =
            panel.mark(Mark::Area { color, outline }).named(color, format!("{side} (n = {})", scores.len()));
    }
    panel = panel.named(Role::Red, format!("chosen: {}", chosen.rule));
    let height = |lane: usize| tallest * 1.04 + lane_height * (lane as f64 + 0.5);
    let shown = || lanes.iter().enumerate().filter(|(_, (threshold, _))| threshold.tau.is_finite());
    for (lane, (threshold, color)) in shown() {
        let from = (axis.place(threshold.tau), height(lane));
        panel = panel.mark(match color {
            Role::Red => Mark::Line { color: *color, points: vec![(from.0, 0.0), from], dots: false },
            _ => Mark::Drop { color: *color, from },
        });
    }
    for (lane, (threshold, color)) in shown() {
        panel = panel.mark(Mark::Dot { color: *color, at: (axis.place(threshold.tau), height(lane)) });
    }
    // Labels last: over the lines of other lanes.
    for (lane, (threshold, color)) in lanes.iter().enumerate() {
        let (x, text) = match threshold.tau.is_finite() {
            true => (axis.place(threshold.tau), format!("{} at {}", threshold.rule, threshold.tau)),
            false => (lowest, format!("{} flags nothing", threshold.rule)),
        };
        let color = if *color == Role::Red { Role::Red } else { Role::Ink };
        panel = panel.mark(Mark::Label { color, at: (x, height(lane)), text });
    }
    panel.figure_of_size((WIDTH, HISTOGRAM + LANE * lanes.len() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::novelty::{Rule, Score, Scored, calibrate_level, candidates};
    use crate::ood::Method;
    use crate::rng::{Purpose, Stream};

    /// Probabilities that crowd near 1, as a trained network's do.
    fn samples(novel: usize) -> LevelScores {
        let stream = Stream::for_purpose(5, Purpose::Synthetic, &[31]);
        let scored = |i: u64, shift: f64| {
            let score = 1.0 / (1.0 + (-shift - 2.0 * stream.normal(i)).exp());
            Scored { score, predicted: Some((i % 2) as i64) }
        };
        LevelScores {
            level: None,
            score: Score::Ood(Method::Msp),
            seen: (0..400)
                .map(|i| scored(i, 6.0))
                .chain([Scored { score: 1.0, predicted: Some(0) }])
                .collect(),
            novel: (400..400 + novel as u64).map(|i| scored(i, 2.0)).collect(),
        }
    }

    /// Text of each label with its vertical place, in drawing units.
    fn texts(svg: &str) -> Vec<(f64, String)> {
        let parts = svg.split("<text ").skip(1);
        let text = |part: &str| {
            let y = part.split(" y=\"").nth(1)?.split('"').next()?.parse().ok()?;
            let inside = part.split_once('>')?.1.split("</text>").next()?;
            Some((y, inside.to_string()))
        };
        parts.filter_map(text).collect()
    }

    #[test]
    fn every_candidate_is_drawn_in_full_precision_in_a_lane_of_its_own() {
        // Notebook A, trap A20: only the first three candidates were drawn, the midpoint never, with three decimals.
        let samples = samples(150);
        let all = candidates(&samples).unwrap();
        let chosen = calibrate_level(&samples, Rule::Midpoint).unwrap();
        for axis in [ScoreAxis::Value, ScoreAxis::Logit] {
            let svg = threshold_histogram(&samples, &all, &chosen, axis).unwrap().standalone();
            let texts = texts(&svg);
            let mut heights = Vec::new();
            for threshold in &all {
                let label = format!("{} at {}", threshold.rule, threshold.tau);
                let found = texts.iter().find(|(_, text)| *text == label);
                heights.push(found.unwrap_or_else(|| panic!("{label} is not in {texts:?}")).0);
            }
            heights.sort_unstable_by(f64::total_cmp);
            let closest = heights.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
            assert!(
                closest >= 11.0 * 4.0,
                "labels {closest} drawing units apart are too close for 11 pixels"
            );
            assert!(svg.contains("chosen: midpoint") && !svg.contains("NaN") && !svg.contains("inf"));
        }
    }

    #[test]
    fn a_threshold_that_flags_nothing_and_a_missing_group_are_said_and_drawn() {
        let samples = samples(0);
        let few = LevelScores { seen: samples.seen[..5].to_vec(), ..samples };
        let all = candidates(&few).unwrap();
        let chosen = calibrate_level(&few, Rule::Conformal(0.05)).unwrap();
        let svg = threshold_histogram(&few, &all, &chosen, ScoreAxis::Value).unwrap().standalone();
        assert!(svg.contains("conformal:0.05 flags nothing"), "{svg}");
        assert!(svg.contains("seen (n = 5)") && !svg.contains("novel (n"));
    }
}
