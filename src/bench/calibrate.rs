//! What the cost model assumes of a card, measured on it (`bench --calibrate`): each assumption by a kernel of its own, and what remains of
//! a launch. The result is a card file, by which `bench --model --card FILE` predicts.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::results::now;
use super::timing::{Patience, Until, measure};
use crate::backend::Choice;
use crate::backend::cuda::Cuda;
use crate::backend::cuda::calibration::{
    CHUNK_BYTES, IMAGE_BYTES, TMA_LOAD_BYTES, WGMMA_TILES, most_numbers,
};
use crate::backend::cuda::card::{Card, WgmmaRate};
use crate::backend::cuda::driver::Launches;
use crate::error::{Error, Result};
use crate::files;
use crate::ops::{Device, HardwareKind};
use crate::tensor::{DType, Span};

/// The format of a card file.
const FORMAT: u32 = 1;
/// Bytes of a card file that is read, at the most.
const MOST_BYTES: u64 = 1 << 20;
/// Megabytes that are read again and again to see what L2 delivers.
const CACHE_SIZES: [f64; 9] = [4.0, 8.0, 16.0, 24.0, 32.0, 40.0, 48.0, 58.0, 80.0];
/// Seconds of one measurement, about, in a captured graph.
const SAMPLE_SECONDS: f64 = 0.02;
/// Seconds that tensor cores are under load before their rate counts: the clock settles.
const SETTLING_SECONDS: f64 = 1.0;

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Its name: `copy`, `cache.40MB`, `wgmma.2x128.consumers-2`.
    pub name: String,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// What the model assumes for this card.
    pub assumed: Option<f64>,
    /// How far two series of measurements lie apart, as a share.
    pub noise: f64,
}

/// A card file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The format of this file.
    pub format: u32,
    /// Version and commit of this program.
    pub program: String,
    /// When, in UTC.
    pub date: String,
    /// Versions of driver and compiler.
    pub versions: String,
    /// The card with what was measured in the place of what is assumed.
    pub card: Card,
    /// Everything that was measured, in order.
    pub measurements: Vec<Measurement>,
    /// What the time did not suffice for; the card has what the model assumes.
    pub cut: Vec<String>,
}

impl Measurement {
    /// The unit that people read it in, and how many of them its own unit is.
    fn scale(&self) -> (f64, &'static str) {
        match self.unit.as_str() {
            "bytes/s" => (1e-9, "GB/s"),
            "flop/s" => (1e-12, "TFLOP/s"),
            _ => (1e6, "µs"),
        }
    }

    /// `copy: 4312 GB/s`.
    pub fn in_words(&self) -> String {
        let (scale, unit) = self.scale();
        format!("{}: {} {unit}", self.name, super::table::digits(scale * self.value))
    }
}

impl Calibration {
    /// Reads a card file.
    ///
    /// # Errors
    /// It cannot be read, is none, or holds rates that are no rates.
    pub fn read(path: &Path) -> Result<Calibration> {
        let calibration: Calibration =
            files::read_json(path, MOST_BYTES, "the card file that `residua bench --calibrate` writes")?;
        let card = &calibration.card;
        let wrong = |what: String| {
            Err(Error::invalid(format!(
                "{}: {what}; write it anew with `residua bench --calibrate`",
                path.display()
            )))
        };
        if calibration.format != FORMAT {
            return wrong(format!("expected format {FORMAT}, found format {}", calibration.format));
        }
        let mut rates = vec![
            ("bandwidth", card.rates.bandwidth),
            ("clock", card.clock),
            ("matrix_flop_per_cycle", card.matrix_flop_per_cycle),
            ("warp_share", card.warp_share),
            ("shared_bytes_per_cycle", card.shared_bytes_per_cycle),
            ("cache_rate", card.cache_rate),
            ("port_rate", card.port_rate),
            ("read_rate", card.read_rate),
            ("launch_seconds", card.launch_seconds),
            ("seconds_by_launches", card.seconds_by_launches[0].min(card.seconds_by_launches[1])),
            ("prologue_seconds", card.prologue_seconds),
            ("epilogue_seconds", card.epilogue_seconds),
        ];
        rates.extend(
            [card.rates.bf16, card.rates.f32, card.rates.f64, card.im2col_rate]
                .into_iter()
                .flatten()
                .map(|rate| ("rates", rate)),
        );
        rates.extend(card.cache_by_size.iter().flatten().map(|&number| ("cache_by_size", number)));
        rates.extend(card.wgmma_rates.iter().map(|rate| ("wgmma_rates", rate.flop_per_second)));
        if let Some((name, rate)) = rates.into_iter().find(|(_, rate)| !(rate.is_finite() && *rate > 0.0)) {
            return wrong(format!("`{name}` of its card is {rate}, and has to be above zero"));
        }
        if card.sms == 0
            || card.cache_by_size.is_empty()
            || !card.cache_by_size.is_sorted_by(|a, b| a[0] < b[0])
        {
            return wrong("its card has no SMs, or no rates of L2 by rising sizes".to_string());
        }
        Ok(calibration)
    }

    /// Writes it as a whole, or not at all.
    ///
    /// # Errors
    /// The disk failed.
    pub fn write(&self, path: &Path) -> Result<()> {
        files::write_json(path, self)
    }

    /// What a person wants to see.
    pub fn table(&self) -> String {
        use super::table::{columns, digits, percent, words};
        let mut lines = vec![words(&["measured", "", "", "assumed", "noise"])];
        lines.extend(self.measurements.iter().map(|measurement| {
            let (scale, unit) = measurement.scale();
            vec![
                measurement.name.clone(),
                digits(scale * measurement.value),
                unit.to_string(),
                measurement.assumed.map_or_else(|| "-".into(), |assumed| digits(scale * assumed)),
                percent(measurement.noise),
            ]
        }));
        let mut text = format!("{}, {}, {}\n\n{}", self.card.name, self.versions, self.date, columns(&lines));
        if !self.cut.is_empty() {
            text += &format!("\nnot measured, no time left: {}\n", self.cut.join(", "));
        }
        text
    }
}

/// Watches a calibration.
pub trait Watcher {
    /// So many measurements are to come.
    fn comes(&mut self, measurements: usize);

    /// A measurement begins, which may never end.
    fn begins(&mut self, name: &str);

    /// A measurement ended, the last of those that there are now.
    ///
    /// # Errors
    /// Ends the calibration.
    fn ended(&mut self, so_far: &Calibration) -> Result<()>;
}

/// Measures a device.
///
/// # Errors
/// A device without kernels, or one that failed.
pub fn calibrate(
    choice: &Choice,
    patience: &Patience,
    until: &Until,
    watcher: &mut dyn Watcher,
) -> Result<Calibration> {
    let cuda = choice.kernels()?;
    let hardware = cuda.hardware();
    let card = Card::nearest(cuda.driver().properties()).with_launches(Launches::Overlapped);
    let (assumed, card_overlaps) = (card.clone(), card.launches == Launches::Overlapped);
    let calibration = Calibration {
        format: FORMAT,
        program: format!("residua {}", env!("RESIDUA_VERSION")),
        date: now(),
        versions: hardware.versions.clone(),
        card,
        measurements: Vec::new(),
        cut: Vec::new(),
    };
    let emulated = hardware.kind == HardwareKind::Emulator;
    let ways =
        if card_overlaps { vec![Launches::Overlapped, Launches::Serial] } else { vec![Launches::Serial] };
    let of_hopper = if cuda.calibrates_hopper() { 2 * WGMMA_TILES.len() + 2 } else { 0 };
    watcher.comes(2 + CACHE_SIZES.len() + ways.len() + of_hopper);
    let mut bench = Bench { cuda, patience: *patience, until, watcher, emulated, assumed, calibration };
    bench.memory()?;
    bench.cache()?;
    // A device at a time: the next takes the memory of the one before.
    for launches in ways {
        bench.cuda = Choice { launches, ..choice.clone() }.kernels()?;
        bench.launch(launches)?;
    }
    bench.cuda = choice.kernels()?;
    if bench.cuda.calibrates_hopper() {
        bench.wgmma()?;
        bench.tma()?;
    }
    let Bench { mut calibration, .. } = bench;
    if !calibration.measurements.is_empty() {
        calibration.card.rates.source = format!("measured {}", &calibration.date[..10]);
    }
    Ok(calibration)
}

/// Seconds that the device takes for what is queued.
fn timed(cuda: &mut Cuda, queue: impl FnOnce(&mut Cuda) -> Result<()>) -> Result<f64> {
    let from = cuda.event()?;
    queue(cuda)?;
    cuda.seconds_between(&from, &cuda.event()?)
}

/// Measurements under way.
struct Bench<'a> {
    cuda: Cuda,
    patience: Patience,
    until: &'a Until,
    watcher: &'a mut dyn Watcher,
    emulated: bool,
    /// The card as it is assumed to be.
    assumed: Card,
    calibration: Calibration,
}

impl Bench<'_> {
    /// Spans of these sizes, one behind the other, in memory of the device; those of whole chunks hold numbers that look random.
    fn spans<const N: usize>(&mut self, spans: [(usize, DType); N]) -> Result<[Span; N]> {
        const ALIGNMENT: usize = 4096;
        let zone = self.cuda.red_zone();
        let mut end = zone;
        let spans = spans.map(|(elements, dtype)| {
            let span = Span { offset: end, elements, dtype };
            end = (end + span.bytes() + zone).next_multiple_of(ALIGNMENT);
            span
        });
        self.cuda.allocate(end + zone)?;
        for span in spans.iter().filter(|span| span.bytes().is_multiple_of(CHUNK_BYTES)) {
            self.cuda.calibrate_fill(*span)?;
        }
        Ok(spans)
    }

    /// So many bytes; few on the emulator, which is to see that all goes well and not how fast.
    fn bytes(&self, wanted: usize, multiple: usize) -> usize {
        if self.emulated { 4 * multiple } else { wanted / multiple * multiple }
    }

    /// Seconds of one call of `work`, which queues it, after `settling` seconds of it; and the noise.
    fn seconds(&mut self, settling: f64, work: &dyn Fn(&Cuda) -> Result<()>) -> Result<[f64; 2]> {
        let (emulated, cuda) = (self.emulated, &mut self.cuda);
        work(cuda)?;
        let about = timed(cuda, |cuda| work(cuda))?.max(1e-7);
        let repeats = if emulated { 1 } else { (SAMPLE_SECONDS / about).ceil().clamp(1.0, 1000.0) as usize };
        let graph = cuda.driver().capture(&mut || (0..repeats).try_for_each(|_| work(cuda)))?;
        let settling = if emulated { 0.0 } else { settling };
        let mut settled = 0.0;
        while settled <= settling {
            settled += timed(cuda, |cuda| cuda.replay(&graph))?.max(1e-6);
        }
        let timing = measure(&self.patience, || timed(cuda, |cuda| cuda.replay(&graph)))?;
        Ok([timing.seconds / repeats as f64, timing.noise])
    }

    /// Measures one number, unless there is no time left: what `seconds` gives, turned into the number.
    fn record(
        &mut self,
        name: &str,
        (unit, assumed): (&str, Option<f64>),
        seconds: impl FnOnce(&mut Self) -> Result<[f64; 2]>,
        number: impl FnOnce(f64) -> f64,
    ) -> Result<Option<f64>> {
        if self.until.is_over() {
            self.calibration.cut.push(name.to_string());
            return Ok(None);
        }
        self.watcher.begins(name);
        let [seconds, noise] = seconds(self)?;
        let value = number(seconds);
        let measurement = Measurement { name: name.into(), value, unit: unit.into(), assumed, noise };
        self.calibration.measurements.push(measurement);
        self.watcher.ended(&self.calibration)?;
        Ok(Some(value))
    }

    /// A copy and reads far beyond L2.
    fn memory(&mut self) -> Result<()> {
        let bytes = self.bytes(2 << 30, CHUNK_BYTES);
        let numbers = most_numbers(&self.cuda);
        let words = bytes / DType::I32.size();
        let [from, to, out] =
            self.spans([(words, DType::I32), (words, DType::I32), (numbers, DType::I32)])?;
        let card = self.assumed.clone();
        let copied = self.record(
            "copy",
            ("bytes/s", Some(card.rates.bandwidth)),
            |bench| bench.seconds(0.0, &|cuda| cuda.calibrate_copy(from, to)),
            |seconds| 2.0 * bytes as f64 / seconds,
        )?;
        let read = self.record(
            "read",
            ("bytes/s", Some(card.read_rate)),
            |bench| bench.seconds(0.0, &|cuda| cuda.calibrate_read(from, out, 1)),
            |seconds| bytes as f64 / seconds,
        )?;
        let card = &mut self.calibration.card;
        card.rates.bandwidth = copied.unwrap_or(card.rates.bandwidth);
        if let (Some(read), Some(last)) = (read, card.cache_by_size.last_mut()) {
            card.read_rate = read;
            last[1] = read;
        }
        Ok(())
    }

    /// Reads of the same bytes again and again.
    fn cache(&mut self) -> Result<()> {
        const ROUNDS: usize = 20;
        let rounds = if self.emulated { 2 } else { ROUNDS };
        let numbers = most_numbers(&self.cuda);
        let mut points = Vec::new();
        for megabytes in CACHE_SIZES {
            let bytes = self.bytes((megabytes * 1e6) as usize, CHUNK_BYTES);
            let [from, out] = self.spans([(bytes / DType::I32.size(), DType::I32), (numbers, DType::I32)])?;
            let assumed = self.assumed.cache_rate_of(1e6 * megabytes);
            let rate = self.record(
                &format!("cache.{megabytes:.0}MB"),
                ("bytes/s", Some(assumed)),
                |bench| bench.seconds(0.0, &|cuda| cuda.calibrate_read(from, out, rounds)),
                |seconds| (rounds * bytes) as f64 / seconds,
            )?;
            points.extend(rate.map(|rate| [1e6 * megabytes, rate]));
        }
        let card = &mut self.calibration.card;
        if points.len() == CACHE_SIZES.len() {
            // The clock of reads is not that of products, which L2 then serves: the full rate is taken as it was measured.
            card.cache_rate = points[0][1];
            let beyond = [4.0 * points[points.len() - 1][0], card.read_rate];
            card.cache_by_size = points;
            card.cache_by_size.push(beyond);
        }
        Ok(())
    }

    /// Launches of a kernel that does nothing.
    fn launch(&mut self, launches: Launches) -> Result<()> {
        self.spans([(1, DType::I32)])?;
        let assumed = self.assumed.clone().with_launches(launches).launch_seconds;
        let name = format!("launch.{launches}");
        let seconds = self.record(
            &name,
            ("s", Some(assumed)),
            |bench| bench.seconds(0.0, &|cuda| (0..10).try_for_each(|_| cuda.calibrate_launch())),
            |seconds| seconds / 10.0,
        )?;
        let card = &mut self.calibration.card;
        let place = usize::from(launches == Launches::Serial);
        card.seconds_by_launches[place] = seconds.unwrap_or(assumed);
        *card = card.clone().with_launches(card.launches);
        Ok(())
    }

    /// Products on tensor cores by the tiles of consumers, of one consumer as in ping-pong kernels, or of both.
    fn wgmma(&mut self) -> Result<()> {
        let sums = self.cuda.wgmma_sums();
        let [out] = self.spans([(sums, DType::F32)])?;
        let rounds = if self.emulated { 2 } else { 20_000 };
        let assumed = self.assumed.rates.bf16;
        let mut rates = Vec::new();
        for tile in &WGMMA_TILES {
            for consumers in [1, 2] {
                let name = format!("wgmma.{}x{}.consumers-{consumers}", tile.wgmmas, tile.n);
                let flop = std::cell::Cell::new(0.0);
                let rate = self.record(
                    &name,
                    ("flop/s", assumed),
                    |bench| {
                        bench.seconds(SETTLING_SECONDS, &|cuda| {
                            flop.set(cuda.calibrate_wgmma(tile, consumers, rounds, out)?);
                            Ok(())
                        })
                    },
                    |seconds| flop.get() / seconds,
                )?;
                rates.extend(rate.map(|flop_per_second| WgmmaRate {
                    wgmmas: tile.wgmmas,
                    n: tile.n,
                    consumers,
                    flop_per_second,
                }));
            }
        }
        let card = &mut self.calibration.card;
        let best = rates.iter().map(|rate| rate.flop_per_second).max_by(f64::total_cmp);
        if let Some(best) = best.filter(|_| rates.len() == 2 * WGMMA_TILES.len()) {
            // The clock under load is what the best tile shows.
            card.rates.bf16 = Some(best);
            card.clock = best / (f64::from(card.sms) * card.matrix_flop_per_cycle);
            card.wgmma_rates = rates;
        }
        Ok(())
    }

    /// TMA loads of pixels that lie in L2, as boxes and in im2col mode.
    fn tma(&mut self) -> Result<()> {
        let sms = self.cuda.driver().properties().sms as usize;
        let bytes = self.bytes(16 << 20, IMAGE_BYTES);
        let [images, out] = self.spans([(bytes / 2, DType::Bf16), (sms, DType::I32)])?;
        let loads = if self.emulated { 20 } else { 4096 };
        let assumed = self.assumed.cache_rate_of(bytes as f64);
        let mut rates = Vec::new();
        for (name, im2col) in [("tma.tiled", false), ("tma.im2col", true)] {
            let moved = (sms * loads * TMA_LOAD_BYTES) as f64;
            rates.push(self.record(
                name,
                ("bytes/s", Some(assumed)),
                |bench| bench.seconds(0.0, &|cuda| cuda.calibrate_tma(im2col, images, loads, out).map(drop)),
                |seconds| moved / seconds,
            )?);
        }
        self.calibration.card.im2col_rate = rates[1];
        Ok(())
    }
}
