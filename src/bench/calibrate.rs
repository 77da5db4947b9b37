//! What the cost model assumes of a card, measured on it (`bench --calibrate`): each assumption by a kernel of its own, and what remains of
//! a launch. The result is a card file, by which `bench --model --card FILE` predicts.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::results::now;
use super::timing::{Patience, Until, measure};
use crate::backend::Choice;
use crate::backend::cuda::Cuda;
use crate::backend::cuda::calibration::{CHUNK_BYTES, IMAGE_BYTES, WGMMA_TILES};
use crate::backend::cuda::card::{Card, WgmmaRate};
use crate::backend::cuda::driver::Launches;
use crate::backend::cuda::driver::native::nvrtc::architecture;
use crate::error::{Error, Result};
use crate::files;
use crate::ops::{Device, HardwareKind};
use crate::tensor::{DType, Span};

/// The format of a card file.
const FORMAT: u32 = 1;
/// Bytes of a card file that is read, at the most.
const MOST_BYTES: u64 = 1 << 20;
/// SMs that a card has at the most, far above any there is: the model counts over them.
const MOST_SMS: u32 = 4096;
/// Bytes of a copy, and of reads far beyond L2, at the most; on a small card an eighth of its memory.
const FAR_BEYOND_L2: usize = 2 << 30;
/// Megabytes that are read again and again to see what L2 delivers.
const CACHE_SIZES: [f64; 9] = [4.0, 8.0, 16.0, 24.0, 32.0, 40.0, 48.0, 58.0, 80.0];
/// Seconds of one measurement, about, in a captured graph.
const SAMPLE_SECONDS: f64 = 0.02;
/// Seconds that tensor cores are under load before their rate counts: the clock settles.
const SETTLING_SECONDS: f64 = 1.0;

/// The unit of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Bytes a second.
    #[serde(rename = "bytes/s")]
    BytesPerSecond,
    /// Floating-point operations a second.
    #[serde(rename = "flop/s")]
    FlopPerSecond,
    /// Seconds of one.
    #[serde(rename = "s")]
    Seconds,
}

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Its name: `copy`, `cache.40MB`, `wgmma.2x128.consumers-2`.
    pub name: String,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: Unit,
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
        match self.unit {
            Unit::BytesPerSecond => (1e-9, "GB/s"),
            Unit::FlopPerSecond => (1e-12, "TFLOP/s"),
            Unit::Seconds => (1e6, "µs"),
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
        if !(1..=MOST_SMS).contains(&card.sms) {
            return wrong(format!("its card has {} SMs; 1 to {MOST_SMS} are believed", card.sms));
        }
        if architecture(card.capability).ok().as_ref() != Some(&card.architecture) {
            let (major, minor) = card.capability;
            return wrong(format!(
                "its card is of compute capability {major}.{minor}, and kernels for {} do not run there",
                card.architecture
            ));
        }
        if card.cache_by_size.is_empty() || !card.cache_by_size.is_sorted_by(|a, b| a[0] < b[0]) {
            return wrong("`cache_by_size` of its card has no rates, or not by rising sizes".to_string());
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
    pub fn table(&self, width: Option<usize>) -> String {
        use super::table::{digits, headed, percent};
        let mut table = headed(&["measured", "", "", "assumed", "noise"]);
        for measurement in &self.measurements {
            let (scale, unit) = measurement.scale();
            table.row([
                measurement.name.clone(),
                digits(scale * measurement.value),
                unit.to_string(),
                measurement.assumed.map_or_else(|| "-".into(), |assumed| digits(scale * assumed)),
                percent(measurement.noise),
            ]);
        }
        let table = table.render(width);
        let mut text = format!("{}, {}, {}\n\n{table}", self.card.name, self.versions, self.date);
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
    let Bench { mut calibration, assumed, .. } = bench;
    if !calibration.measurements.is_empty() {
        let (day, card) = (&calibration.date[..10], &mut calibration.card);
        let emulated = if emulated { " on the emulator, whose times say nothing," } else { "" };
        let measured = format!("{} numbers measured{emulated} {day}", calibration.measurements.len());
        card.rates.source = format!("{measured}; the others: {}", assumed.rates.source);
        card.calibrated = Some(calibration.date.clone());
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

    /// Seconds of one call of `work`, which queues it and tells how much it is, after `settling` seconds of it; the noise; and how much.
    fn seconds(&mut self, settling: f64, work: &dyn Fn(&Cuda) -> Result<f64>) -> Result<[f64; 3]> {
        let (emulated, cuda) = (self.emulated, &mut self.cuda);
        let amount = work(cuda)?;
        let about = timed(cuda, |cuda| work(cuda).map(drop))?.max(1e-7);
        let repeats = if emulated { 1 } else { (SAMPLE_SECONDS / about).ceil().clamp(1.0, 1000.0) as usize };
        let graph = cuda.driver().capture(&mut || (0..repeats).try_for_each(|_| work(cuda).map(drop)))?;
        let settling = if emulated { 0.0 } else { settling };
        let mut settled = 0.0;
        while settled <= settling {
            settled += timed(cuda, |cuda| cuda.replay(&graph))?.max(1e-6);
        }
        let timing = measure(&self.patience, || timed(cuda, |cuda| cuda.replay(&graph)))?;
        Ok([timing.seconds / repeats as f64, timing.noise, amount])
    }

    /// Measures one number, unless there is no time left.
    fn record(
        &mut self,
        name: &str,
        (unit, assumed): (Unit, Option<f64>),
        settling: f64,
        work: &dyn Fn(&Cuda) -> Result<f64>,
    ) -> Result<Option<f64>> {
        if self.until.is_over() {
            self.calibration.cut.push(name.to_string());
            return Ok(None);
        }
        self.watcher.begins(name);
        let [seconds, noise, amount] = self.seconds(settling, work)?;
        let value = if unit == Unit::Seconds { seconds / amount } else { amount / seconds };
        self.calibration.measurements.push(Measurement { name: name.into(), value, unit, assumed, noise });
        self.watcher.ended(&self.calibration)?;
        Ok(Some(value))
    }

    /// A copy and reads far beyond L2.
    fn memory(&mut self) -> Result<()> {
        let room = self.cuda.driver().properties().memory_bytes / 8;
        let words = self.bytes(FAR_BEYOND_L2.min(room), CHUNK_BYTES) / DType::I32.size();
        let threads = self.cuda.calibration_threads();
        let [from, to, out] =
            self.spans([(words, DType::I32), (words, DType::I32), (threads, DType::I32)])?;
        let (bandwidth, read_rate) = (self.assumed.rates.bandwidth, self.assumed.read_rate);
        let of = |assumed| (Unit::BytesPerSecond, Some(assumed));
        let copied = self.record("copy", of(bandwidth), 0.0, &|cuda| cuda.calibrate_copy(from, to))?;
        let read = self.record("read", of(read_rate), 0.0, &|cuda| cuda.calibrate_read(from, out, 1))?;
        let card = &mut self.calibration.card;
        card.rates.bandwidth = copied.unwrap_or(bandwidth);
        card.read_rate = read.unwrap_or(read_rate);
        if let Some(last) = card.cache_by_size.last_mut() {
            last[1] = card.read_rate;
        }
        Ok(())
    }

    /// Reads of the same bytes again and again.
    fn cache(&mut self) -> Result<()> {
        let rounds = if self.emulated { 2 } else { 20 };
        let threads = self.cuda.calibration_threads();
        let mut points = Vec::new();
        for megabytes in CACHE_SIZES {
            let bytes = self.bytes((megabytes * 1e6) as usize, CHUNK_BYTES);
            let [from, out] = self.spans([(bytes / DType::I32.size(), DType::I32), (threads, DType::I32)])?;
            let of = (Unit::BytesPerSecond, Some(self.assumed.cache_rate_of(1e6 * megabytes)));
            let name = format!("cache.{megabytes:.0}MB");
            let rate = self.record(&name, of, 0.0, &|cuda| cuda.calibrate_read(from, out, rounds))?;
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
        const CHAIN: usize = 10;
        self.spans([(1, DType::I32)])?;
        let assumed = self.assumed.clone().with_launches(launches).launch_seconds;
        let chain = |cuda: &Cuda| {
            (0..CHAIN).try_for_each(|_| cuda.calibrate_launch())?;
            Ok(CHAIN as f64)
        };
        let seconds =
            self.record(&format!("launch.{launches}"), (Unit::Seconds, Some(assumed)), 0.0, &chain)?;
        let card = &mut self.calibration.card;
        card.seconds_by_launches[usize::from(launches == Launches::Serial)] = seconds.unwrap_or(assumed);
        *card = card.clone().with_launches(card.launches);
        Ok(())
    }

    /// Products on tensor cores by the tiles of consumers, of one consumer as in ping-pong kernels, or of both.
    fn wgmma(&mut self) -> Result<()> {
        let sums = self.cuda.wgmma_sums();
        let [out] = self.spans([(sums, DType::F32)])?;
        let rounds = if self.emulated { 2 } else { 20_000 };
        let of = (Unit::FlopPerSecond, self.assumed.rates.bf16);
        let mut rates = Vec::new();
        for tile in &WGMMA_TILES {
            let (wgmmas, n) = (tile.wgmmas, tile.n);
            for consumers in [1, 2] {
                let name = format!("wgmma.{wgmmas}x{n}.consumers-{consumers}");
                let multiply = |cuda: &Cuda| cuda.calibrate_wgmma(tile, consumers, rounds, out);
                let rate = self.record(&name, of, SETTLING_SECONDS, &multiply)?;
                rates.extend(rate.map(|flop_per_second| WgmmaRate { wgmmas, n, consumers, flop_per_second }));
            }
        }
        let card = &mut self.calibration.card;
        let best = rates.iter().map(|rate| rate.flop_per_second).max_by(f64::total_cmp);
        if let Some(best) = best.filter(|_| rates.len() == 2 * WGMMA_TILES.len()) {
            // The clock under load is what the best tile shows.
            card.rates.bf16 = Some(best);
            let clock = best / (f64::from(card.sms) * card.matrix_flop_per_cycle);
            card.port_rate *= clock / card.clock;
            card.clock = clock;
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
        let of = (Unit::BytesPerSecond, Some(self.assumed.cache_rate_of(bytes as f64)));
        self.record("tma.tiled", of, 0.0, &|cuda| cuda.calibrate_tma(false, images, loads, out))?;
        let im2col =
            self.record("tma.im2col", of, 0.0, &|cuda| cuda.calibrate_tma(true, images, loads, out))?;
        self.calibration.card.im2col_rate = im2col;
        Ok(())
    }
}
