//! What a monitored stream promises, by simulation: the calibration set is drawn anew for every stream, since the promises are also over it.
//!
//! `cargo test --release --test it -- --ignored monitor::simulation --nocapture` runs the large simulation and prints its tables.

use rayon::prelude::*;
use residua::monitor::{Lond, Martingale, Monitor, Ranks, Settings};
use residua::novelty::p_values;
use residua::rng::{Purpose, Stream};

/// Where the novel samples of a stream stand.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// Anywhere.
    Mixed,
    /// Before all known ones.
    First,
    /// A block after the first hundredth of the stream.
    Block,
}

/// A stream of known and novel samples. Scores of known samples are uniform on (0, 1).
#[derive(Debug, Clone, Copy)]
struct Mixture {
    share: f64,
    order: Order,
    /// Novel scores are uⁿ for a uniform u: the larger n, the farther from known ones.
    power: i32,
    /// Number of distinct scores; 0 for no ties.
    distinct: u32,
}

impl Mixture {
    fn is_novel(&self, step: usize, steps: usize, chance: f64) -> bool {
        let many = (self.share * steps as f64).round() as usize;
        match self.order {
            Order::Mixed => chance < self.share,
            Order::First => step < many,
            Order::Block => step >= steps / 100 && step < steps / 100 + many,
        }
    }

    fn score(&self, uniform: f64, novel: bool) -> f64 {
        let score = if novel { uniform.powi(self.power) } else { uniform };
        if self.distinct == 0 { score } else { (score * f64::from(self.distinct)).floor() }
    }
}

/// Shares of false discoveries after a hundredth, a tenth and all of the steps, and the share of novel samples that were discovered.
#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    false_share: [f64; 3],
    found: f64,
}

/// One stream; `level` says whether a p-value is a discovery.
fn rates(
    seed: u64,
    (calibration, steps): (usize, usize),
    mixture: Mixture,
    mut is_discovery: impl FnMut(f64) -> bool,
) -> Rates {
    let random = Stream::for_purpose(seed, Purpose::Synthetic, &[21]);
    let mut known: Vec<f64> =
        (0..calibration).map(|i| mixture.score(random.uniform(i as u64), false)).collect();
    known.sort_by(f64::total_cmp);
    let (mut discoveries, mut wrong, mut novel, mut rates) = (0u32, 0u32, 0u32, Rates::default());
    for step in 0..steps {
        let at = (calibration + 2 * step) as u64;
        let is_novel = mixture.is_novel(step, steps, random.uniform(at + 1));
        let score = mixture.score(random.uniform(at), is_novel);
        // As `p_values`, which asserts the order anew every time.
        let p = (1 + known.partition_point(|other| *other <= score)) as f64 / (calibration + 1) as f64;
        novel += u32::from(is_novel);
        if is_discovery(p) {
            discoveries += 1;
            wrong += u32::from(!is_novel);
        }
        for (at, share) in [steps / 100, steps / 10, steps].iter().zip(&mut rates.false_share) {
            if step + 1 == *at {
                *share = f64::from(wrong) / f64::from(discoveries.max(1));
            }
        }
    }
    rates.found = f64::from(discoveries - wrong) / f64::from(novel.max(1));
    rates
}

/// Mean, and standard error of it.
fn mean(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, (variance / count).sqrt())
}

/// The false discovery rate at three times with the largest standard error, and the share of novel samples found.
struct Found {
    rates: [f64; 3],
    error: f64,
    found: f64,
}

impl Found {
    fn of(streams: &[Rates]) -> Found {
        let at: [(f64, f64); 3] =
            std::array::from_fn(|at| mean(streams.iter().map(|one| one.false_share[at])));
        Found {
            rates: at.map(|(mean, _)| mean),
            error: at.iter().map(|(_, error)| *error).fold(0.0, f64::max),
            found: mean(streams.iter().map(|one| one.found)).0,
        }
    }

    fn keeps(&self, alpha: f64) -> bool {
        self.rates.iter().all(|rate| *rate <= alpha + 3.0 * self.error)
    }
}

fn by_lond(streams: u64, size: (usize, usize), mixture: Mixture, alpha: f64, horizon: u64) -> Found {
    let one = |seed| {
        let mut lond = Lond::new(alpha, horizon);
        rates(seed, size, mixture, |p| lond.test(p).discovery)
    };
    Found::of(&(0..streams).into_par_iter().map(one).collect::<Vec<_>>())
}

/// The largest logarithm of the martingale in a stream whose scores are `score(step, number)`, and the step at which it passed ln 100.
fn largest(
    seed: u64,
    (calibration, steps): (usize, usize),
    mut score: impl FnMut(usize, &Stream) -> f64,
) -> (f64, Option<usize>) {
    let random = Stream::for_purpose(seed, Purpose::Synthetic, &[22]);
    let mut known: Vec<f64> = (0..calibration).map(|i| score(i, &random)).collect();
    known.sort_by(f64::total_cmp);
    let settings = Settings { alarm: 0.01, seed, ..Settings::default() };
    let mut monitor = Monitor::new(settings, &known);
    let (mut largest, mut alarm) = (f64::NEG_INFINITY, None);
    for step in 0..steps {
        let observed = monitor.observe(score(calibration + step, &random), 1.0, false);
        largest = largest.max(monitor.martingale().logarithm());
        if observed.alarm && alarm.is_none() {
            alarm = Some(step);
        }
    }
    (largest, alarm)
}

/// Shares of streams of known samples in which the martingale ever reaches 1/δ, for δ = 0.1, 0.05, 0.01.
fn false_alarms(streams: u64, size: (usize, usize), distinct: f64) -> [f64; 3] {
    let score = |step: usize, random: &Stream| {
        let score = random.uniform(step as u64);
        if distinct > 0.0 { (score * distinct).floor() } else { score }
    };
    let all: Vec<f64> = (0..streams).into_par_iter().map(|seed| largest(seed, size, score).0).collect();
    DELTAS.map(|delta| {
        all.iter().filter(|largest| **largest >= -f64::ln(delta)).count() as f64 / streams as f64
    })
}

const DELTAS: [f64; 3] = [0.1, 0.05, 0.01];

/// Whether a share of so many streams is what a probability of at most `bound` gives, three standard errors allowed.
fn within(share: f64, bound: f64, streams: u64) -> bool {
    share <= bound + 3.0 * (bound * (1.0 - bound) / streams as f64).sqrt()
}

#[test]
fn the_false_discovery_rate_is_kept_where_a_rule_for_one_sample_alone_does_not_keep_it() {
    let mixture = Mixture { share: 0.3, order: Order::Mixed, power: 12, distinct: 0 };
    for (calibration, alpha) in [(100, 0.5), (5000, 0.05)] {
        let found = by_lond(300, (calibration, 2000), mixture, alpha, 2000);
        assert!(found.keeps(alpha), "{:?}", found.rates);
        assert!(found.found > 0.05, "only {} found: the test tests nothing", found.found);
    }
    // Every p-value against the rate itself.
    let rare = Mixture { share: 0.02, ..mixture };
    let naive = |seed| rates(seed, (5000, 2000), rare, |p| p <= 0.05);
    let naive = Found::of(&(0..100).map(naive).collect::<Vec<_>>());
    assert!(!naive.keeps(0.05), "{:?}", naive.rates);
}

#[test]
fn false_alarms_are_as_rare_as_promised_where_p_values_of_one_calibration_set_give_many() {
    for (calibration, distinct) in [(100, 0.0), (100, 7.0), (1000, 0.0)] {
        let shares = false_alarms(300, (calibration, 2000), distinct);
        for (share, delta) in shares.into_iter().zip(DELTAS) {
            assert!(within(share, delta, 300), "{calibration} {distinct}: {share} > {delta}");
        }
    }
    // The same martingale on smoothed p-values of the calibration set alone, which depend on each other.
    let naive = |seed: u64| {
        let random = Stream::for_purpose(seed, Purpose::Synthetic, &[23]);
        let mut known: Vec<f64> = (0..100).map(|i| random.uniform(i)).collect();
        known.sort_by(f64::total_cmp);
        let ranks = Ranks::new(known);
        let mut martingale = Martingale::new();
        (0..2000).any(|step| {
            let below = ranks.place(random.uniform(1000 + 2 * step)).below as f64;
            martingale.step((below + random.uniform(1001 + 2 * step).max(1e-9)) / 101.0);
            martingale.logarithm() >= f64::ln(10.0)
        })
    };
    let alarms = (0..100).filter(|seed| naive(*seed)).count();
    assert!(alarms > 30, "only {alarms} of 100 streams");
}

#[test]
fn a_change_raises_the_alarm_soon_after_an_hour_or_after_a_day() {
    for before in [0, 1000] {
        let score = |step: usize, random: &Stream| {
            random.normal(step as u64) - if step >= 500 + before { 1.0 } else { 0.0 }
        };
        let delays: Vec<usize> = (0..100)
            .map(|seed| largest(seed, (500, before + 1000), score).1.expect("an alarm"))
            .filter(|alarm| *alarm >= before)
            .map(|alarm| alarm - before)
            .collect();
        assert!(delays.len() >= 95, "{} alarms after the change", delays.len());
        assert!(delays.iter().all(|delay| *delay < 150), "{delays:?}");
    }
}

#[test]
fn p_values_of_the_simulation_are_those_of_the_program() {
    let known = [0.1, 0.4, 0.4, 0.9];
    for score in [0.0, 0.1, 0.4, 0.5, 1.0] {
        let p = (1 + known.partition_point(|other| *other <= score)) as f64 / 5.0;
        assert_eq!(p_values(&known, [score]), [p]);
    }
}

/// Minutes; prints what docs/novelty.md says.
#[test]
#[ignore = "minutes: 10,000 streams of 10,000 steps each"]
fn ten_thousand_streams() {
    const STREAMS: u64 = 10_000;
    const STEPS: usize = 10_000;
    let mut failed = Vec::new();
    println!(
        "False discovery rate at steps 100, 1,000, 10,000 (largest standard error), share of novel found"
    );
    let mixed = Mixture { share: 0.1, order: Order::Mixed, power: 12, distinct: 0 };
    let mixtures = [
        Mixture { share: 0.0, ..mixed },
        Mixture { share: 0.01, ..mixed },
        mixed,
        Mixture { share: 0.5, ..mixed },
        Mixture { share: 0.1, power: 3, ..mixed },
        Mixture { share: 0.1, order: Order::First, ..mixed },
        Mixture { share: 0.5, order: Order::Block, ..mixed },
        Mixture { share: 0.3, distinct: 1000, ..mixed },
    ];
    for (calibration, alpha, horizon) in [
        (100, 0.05, 80),
        (100, 0.5, 10_000),
        (5000, 0.05, 10_000),
        (5000, 0.05, 1_000_000),
        (5000, 0.2, 10_000),
    ] {
        for mixture in mixtures {
            let found = by_lond(STREAMS, (calibration, STEPS), mixture, alpha, horizon);
            let [a, b, c] = found.rates;
            let Mixture { share, order, power, distinct } = mixture;
            println!(
                "n {calibration:>4} alpha {alpha:<4} horizon {horizon:>7}  novel {share:<4} {order:?} power {power:<2} distinct {distinct:<4}  \
                 {a:.4} {b:.4} {c:.4} ({:.4})  found {:.3}",
                found.error, found.found
            );
            if !found.keeps(alpha) {
                failed.push(format!("n {calibration}, alpha {alpha}: {mixture:?}"));
            }
        }
    }
    println!("Streams of known samples in which the alarm is ever raised, for delta 0.1, 0.05, 0.01");
    for (calibration, distinct) in [(100, 0.0), (5000, 0.0), (100, 10.0)] {
        let shares = false_alarms(STREAMS, (calibration, STEPS), distinct);
        println!("n {calibration:>4} distinct {distinct:<3}  {shares:?}");
        for (share, delta) in shares.into_iter().zip(DELTAS) {
            if !within(share, delta, STREAMS) {
                failed.push(format!("alarm, n {calibration}, delta {delta}: {share}"));
            }
        }
    }
    println!(
        "Steps from a change to the alarm (delta 0.01): 1,000 streams, median, 90 %, share within 10,000 steps; false before it"
    );
    for calibration in [100, 5000] {
        for before in [0, 1000, 10_000] {
            for (name, share, shift) in
                [("all -0.5", 1.0, 0.5), ("all -1", 1.0, 1.0), ("all -2", 1.0, 2.0), ("10 % -4", 0.1, 4.0)]
            {
                let change = calibration + before;
                let score = |step: usize, random: &Stream| {
                    let (at, own) = (2 * step as u64, step >= change);
                    let moved = own && random.uniform(1 << 40 | at) < share;
                    random.normal(at) - if moved { shift } else { 0.0 }
                };
                let run = |seed| largest(seed, (calibration, before + 10_000), score).1;
                let alarms: Vec<Option<usize>> = (0..1000u64).into_par_iter().map(run).collect();
                let early = alarms.iter().flatten().filter(|alarm| **alarm < before).count();
                let mut delays: Vec<usize> = alarms
                    .iter()
                    .map(|alarm| alarm.map_or(usize::MAX, |at| at.saturating_sub(before)))
                    .collect();
                delays.sort_unstable();
                let within = delays.iter().filter(|delay| **delay < usize::MAX).count();
                let shown = |delay: usize| {
                    if delay == usize::MAX { "-".to_string() } else { (delay + 1).to_string() }
                };
                println!(
                    "n {calibration:>4} change after {before:>5}, {name:<9} {:>5} {:>5}  {:.3}  {early}",
                    shown(delays[500]),
                    shown(delays[900]),
                    within as f64 / 1000.0
                );
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
