//! Seen against novel scores, with the threshold of every rule.
//!
//! Thresholds crowd where the scores do, so no text stands in the plot: every threshold is a line with a numbered badge above the
//! histogram, numbered from the lowest to the highest, and a legend beside the plot has rule and threshold of each number.
//! Badges that would touch are stacked, so that none hides another, however close the thresholds are.

use super::axis::Axis;
use super::figure::{Canvas, Figure};
use super::panel::{BADGE, BESIDE_AXES, Mark, Panel, draw_badge, draw_text, units};
use super::scores::{density, outside, shown_range, steps};
use super::theme::Role;
use crate::error::Result;
use crate::novelty::{LevelScores, LevelThreshold, level_name};
use crate::values::shown_apart;

/// CSS pixels of the plot: width; height without badges.
const WIDTH: u32 = 440;
const HISTOGRAM: u32 = 286;
/// CSS pixels of the legend beside it: width, and height of a line.
const LEGEND: u32 = 310;
const LINE: u32 = 19;
/// CSS pixels of a row of badges.
const LANE: u32 = 18;
/// Pixels of `HISTOGRAM` that the bars have; the rest is title, legend and axis.
const BARS: u32 = 180;

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

/// The threshold of a rule with its number in the figures and in the table beside them.
#[derive(Debug, Clone)]
pub struct NumberedThreshold<'a> {
    /// From 1, in the order of thresholds.
    pub number: usize,
    /// The rule and its threshold.
    pub threshold: &'a LevelThreshold,
    /// The threshold in as many digits as tell it from the others, or that it flags nothing.
    pub text: String,
    /// Whether it is the threshold that was chosen.
    pub is_chosen: bool,
}

/// Every candidate and the chosen threshold, numbered from the lowest; of equal ones in the order of the rules.
pub fn numbered<'a>(
    candidates: &'a [LevelThreshold],
    chosen: &'a LevelThreshold,
) -> Vec<NumberedThreshold<'a>> {
    let others = candidates.iter().filter(|other| other.rule != chosen.rule).map(|other| (other, false));
    let listed = candidates.iter().position(|candidate| candidate.rule == chosen.rule);
    let mut all: Vec<(&LevelThreshold, bool)> = others.collect();
    all.insert(listed.unwrap_or(all.len()).min(all.len()), (chosen, true));
    all.sort_by(|a, b| a.0.tau.total_cmp(&b.0.tau));
    let texts = shown_apart(&all.iter().map(|(threshold, _)| threshold.tau).collect::<Vec<f64>>());
    let numbers = all.into_iter().zip(texts).enumerate();
    numbers
        .map(|(index, ((threshold, is_chosen), text))| NumberedThreshold {
            number: index + 1,
            threshold,
            text: if threshold.tau.is_finite() { text } else { "flags nothing".to_string() },
            is_chosen,
        })
        .collect()
}

/// The plot for a page that has the numbers in a table beside it, and the figure with its legend, for a file.
#[derive(Debug, Clone)]
pub struct ThresholdFigures {
    /// Without legend.
    pub plot: Figure,
    /// With it.
    pub whole: Figure,
}

/// Densities of seen and novel calibration scores over shared bins, the threshold of every candidate rule, and the one
/// that was chosen (in red, on top). Where tails are long the axis ends at Tukey's outer fences, and says what lies outside.
///
/// # Errors
/// The plotting crate refuses to draw it.
pub fn threshold_histogram(
    samples: &LevelScores,
    candidates: &[LevelThreshold],
    chosen: &LevelThreshold,
    axis: ScoreAxis,
) -> Result<ThresholdFigures> {
    let thresholds = numbered(candidates, chosen);
    let sides = [samples.seen_scores(), samples.novel_scores()]
        .map(|scores| scores.into_iter().map(|score| axis.place(score)).collect::<Vec<f64>>());
    let groups = sides.each_ref().map(Vec::as_slice);
    let (lowest, highest) = range(&groups, &thresholds, axis);
    let densities = sides.each_ref().map(|scores| match scores.len() {
        0 => Vec::new(),
        _ => density(scores, lowest, highest),
    });
    let tallest = densities.iter().flatten().copied().fold(0.0, f64::max);
    let tallest = if tallest > 0.0 && tallest.is_finite() { tallest } else { 1.0 };
    // Those that flag nothing stand at the left end, and those outside the axis at the end nearer to them.
    let at = |threshold: &NumberedThreshold<'_>| axis.place(threshold.threshold.tau).clamp(lowest, highest);
    let lanes =
        lanes(&thresholds.iter().map(|t| (at(t) - lowest) / (highest - lowest)).collect::<Vec<f64>>());
    let count = 1 + lanes.iter().copied().max().unwrap_or(0) as u32;
    let lane_height = tallest * f64::from(LANE) / f64::from(BARS);
    let top = tallest * 1.05 + lane_height * f64::from(count);
    let x = Axis::linear(&axis.name(&samples.score.to_string()), [lowest, highest], 5);
    let y = Axis::linear("density", [0.0, top], 4 + count as usize / 3).with_ticks_up_to(tallest);
    let level = level_name(samples.level);
    let mut panel = Panel::new(format!("{level}: {} and the thresholds of all rules", samples.score), x, y);
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
    panel = panel.noted(outside(&groups, lowest, highest));
    let height = |lane: usize| tallest * 1.05 + lane_height * (lane as f64 + 0.5);
    // The chosen one last, so that its line is on top; badges over all lines.
    let mut order: Vec<usize> = (0..thresholds.len()).collect();
    order.sort_by_key(|&index| thresholds[index].is_chosen);
    for &index in &order {
        let (threshold, from) = (&thresholds[index], (at(&thresholds[index]), height(lanes[index])));
        if from.0 != axis.place(threshold.threshold.tau) {
            continue;
        }
        panel = panel.mark(match threshold.is_chosen {
            true => Mark::Line { color: Role::Red, points: vec![(from.0, 0.0), from], dots: false },
            false => Mark::Drop { color: Role::Muted, from },
        });
    }
    for index in order {
        let (threshold, at) = (&thresholds[index], (at(&thresholds[index]), height(lanes[index])));
        panel = panel.mark(Mark::Badge { color: badge_color(threshold), at, number: threshold.number });
    }
    let plot_height = HISTOGRAM + LANE * count;
    let whole_height = plot_height.max(60 + LINE * thresholds.len() as u32);
    let whole = Figure::draw(&panel.describe(), (WIDTH + LEGEND, whole_height), |canvas| {
        let (left, right) = canvas.split_horizontally(units(f64::from(WIDTH)));
        draw_legend(&right, &thresholds)?;
        panel.draw_on(&left)
    })?;
    Ok(ThresholdFigures { plot: panel.figure_of_size((WIDTH, plot_height))?, whole })
}

/// The range of the axis: that of the scores, and of the thresholds that make it no more than half as long again.
fn range(groups: &[&[f64]], thresholds: &[NumberedThreshold<'_>], axis: ScoreAxis) -> (f64, f64) {
    let (lowest, highest) = shown_range(groups);
    let room = 0.25 * (highest - lowest);
    let near = |place: &f64| (lowest - room..=highest + room).contains(place);
    let places = thresholds.iter().map(|t| axis.place(t.threshold.tau)).filter(near);
    places.fold((lowest, highest), |(low, high), place| (low.min(place), high.max(place)))
}

/// The row of each badge, from the bottom: the first in which it touches no other. Places are shares of the axis, ascending.
fn lanes(places: &[f64]) -> Vec<usize> {
    let distance = (BADGE + 2.0) / f64::from(WIDTH - BESIDE_AXES);
    let mut last: Vec<f64> = Vec::new();
    let lane = |place: &f64| {
        let free = last.iter().position(|other| place - other >= distance);
        let lane = free.unwrap_or(last.len());
        last.resize(last.len().max(lane + 1), *place);
        last[lane] = *place;
        lane
    };
    places.iter().map(lane).collect()
}

fn badge_color(threshold: &NumberedThreshold<'_>) -> Role {
    if threshold.is_chosen { Role::Red } else { Role::Ink }
}

/// Number, rule and threshold of each, a line each.
fn draw_legend(canvas: &Canvas<'_>, thresholds: &[NumberedThreshold<'_>]) -> Result<()> {
    let right = units(f64::from(LEGEND) - 14.0);
    let heading = units(38.0);
    draw_text(canvas, Role::Muted, (units(24.0), heading), false, "rule")?;
    draw_text(canvas, Role::Muted, (right, heading), true, "novel below")?;
    for (index, threshold) in thresholds.iter().enumerate() {
        let y = heading + units(f64::from(LINE) * (index + 1) as f64);
        let color = badge_color(threshold);
        draw_badge(canvas, color, (units(10.0), y), threshold.number)?;
        draw_text(canvas, color, (units(24.0), y), false, &threshold.threshold.rule.to_string())?;
        draw_text(canvas, color, (right, y), true, &threshold.text)?;
    }
    Ok(())
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
            score: Score::from(Method::Msp),
            seen: (0..400)
                .map(|i| scored(i, 6.0))
                .chain([Scored { score: 1.0, predicted: Some(0) }])
                .collect(),
            novel: (400..400 + novel as u64).map(|i| scored(i, 2.0)).collect(),
        }
    }

    /// Texts of a figure with their places, in drawing units.
    fn texts(svg: &str) -> Vec<((f64, f64), String)> {
        let parts = svg.split("<text ").skip(1);
        let text = |part: &str| {
            let place =
                |name: &str| part.split(&format!("{name}=\"")).nth(1)?.split('"').next()?.parse().ok();
            let inside = part.split_once('>')?.1.split("</text>").next()?;
            Some(((place("x")?, place("y")?), inside.to_string()))
        };
        parts.filter_map(text).collect()
    }

    #[test]
    fn every_candidate_has_a_number_in_the_plot_and_a_threshold_told_from_the_others_in_the_legend() {
        // Notebook A, trap A20: only the first three candidates were drawn, the midpoint never, and three decimals made
        // one of .9994 and .9990.
        let samples = samples(150);
        let all = candidates(&samples).unwrap();
        let chosen = calibrate_level(&samples, Rule::Midpoint).unwrap();
        let listed = numbered(&all, &chosen);
        assert_eq!(listed.len(), all.len());
        for (a, b) in listed.iter().zip(&listed[1..]) {
            let (first, second) = (a.threshold.tau, b.threshold.tau);
            assert!(first <= second && b.number == a.number + 1);
            assert_eq!(
                first == second,
                a.text == b.text,
                "{first} and {second} as {} and {}",
                a.text,
                b.text
            );
            assert!(a.text.len() <= 12, "{}", a.text);
        }
        for axis in [ScoreAxis::Value, ScoreAxis::Logit] {
            let figures = threshold_histogram(&samples, &all, &chosen, axis).unwrap();
            let (plot, whole) = (figures.plot.inline(), figures.whole.standalone());
            let badges: Vec<(f64, f64)> = listed
                .iter()
                .map(|threshold| {
                    let number = threshold.number.to_string();
                    let inside = |((x, y), text): &((f64, f64), String)| {
                        *text == number
                            && circles(&plot)
                                .iter()
                                .any(|(cx, cy)| (cx - x).abs() < 8.0 && (cy - y).abs() < 8.0)
                    };
                    texts(&plot).into_iter().find(inside).unwrap_or_else(|| panic!("no badge {number}")).0
                })
                .collect();
            for (index, a) in badges.iter().enumerate() {
                for b in &badges[index + 1..] {
                    let apart = (a.0 - b.0).hypot(a.1 - b.1) / 4.0;
                    assert!(apart >= BADGE, "badges {apart} pixels apart overlap");
                }
            }
            for threshold in &listed {
                for text in [threshold.threshold.rule.to_string(), threshold.text.clone()] {
                    assert!(whole.contains(&format!(">{text}<")), "the legend lacks {text}");
                    let in_plot = texts(&plot).iter().any(|(_, found)| *found == text);
                    assert!(!in_plot || text.parse::<f64>().is_ok(), "{text} covers the plot");
                }
            }
            assert!(plot.contains("chosen: midpoint") && !whole.contains("NaN") && !whole.contains("inf"));
            figures.whole.png(1.0).unwrap();
        }
    }

    /// Centres of the circles of a figure.
    fn circles(svg: &str) -> Vec<(f64, f64)> {
        let place =
            |tag: &str, name: &str| tag.split(&format!("{name}=\"")).nth(1)?.split('"').next()?.parse().ok();
        svg.split("<circle").skip(1).filter_map(|tag| Some((place(tag, "cx")?, place(tag, "cy")?))).collect()
    }

    #[test]
    fn thresholds_that_coincide_are_stacked() {
        assert_eq!(lanes(&[0.0, 0.0, 0.001, 0.5, 0.5]), [0, 1, 2, 0, 1]);
        assert_eq!(lanes(&[0.1, 0.2, 0.3]), [0, 0, 0]);
        assert!(lanes(&[]).is_empty());
    }

    #[test]
    fn a_threshold_that_flags_nothing_and_a_missing_group_are_said_and_drawn() {
        let samples = samples(0);
        let few = LevelScores { seen: samples.seen[..5].to_vec(), ..samples };
        let all = candidates(&few).unwrap();
        let chosen = calibrate_level(&few, Rule::Conformal(0.05)).unwrap();
        let svg = threshold_histogram(&few, &all, &chosen, ScoreAxis::Value).unwrap().whole.standalone();
        assert!(svg.contains(">flags nothing<") && svg.contains("chosen: conformal:0.05"), "{svg}");
        assert!(svg.contains("seen (n = 5)") && !svg.contains("novel (n"));
    }
}
