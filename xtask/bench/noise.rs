//! Whether the machine is the same all the time: neighbours on its host take cycles, cache and clock speed.

use std::{
    hint, iter,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{compare::Turn, testbed};

/// How far a look may be from the median of all looks, as a part of it: on a shared host a core often loses a quarter for a while;
/// a third, or six times the speed from core to core, is another machine.
const BOUND: f64 = 0.33;
/// Part of the time that the host may take for others.
const STOLEN: f64 = 0.02;
/// How long each kind of work is tried.
const TRIAL: Duration = Duration::from_millis(50);
/// Words to walk through at random: more than a core's own cache holds.
const WORDS: usize = 1 << 23;
/// Steps between two looks at the clock.
const STEPS: u64 = 1000;

/// All looks of a run.
pub(crate) struct Noise {
    /// Each word names the next; one ring of all.
    ring: Vec<u32>,
    looks: Vec<Look>,
    stolen: Duration,
    since: Instant,
}

/// One look.
struct Look {
    /// None: the turn was repeated.
    turn: Option<Turn>,
    /// Steps a second.
    speeds: [f64; Noise::KINDS],
    /// Part of the time since the last look that the host took.
    stolen: f64,
}

impl Noise {
    /// Arithmetic on both cores, memory, what one core writes and the other reads.
    const KINDS: usize = 4;

    /// Before the first turn.
    pub(crate) fn new() -> Self {
        Self {
            ring: ring(),
            looks: Vec::new(),
            stolen: testbed::stolen().unwrap_or_default(),
            since: Instant::now(),
        }
    }

    /// Looks before a turn, which may be a repeated one.
    pub(crate) fn begin(&mut self, turn: Turn) -> Result<()> {
        let earlier = self.looks.iter_mut().filter(|look| look.turn == Some(turn));
        earlier.for_each(|look| look.turn = None);
        self.look(turn)?;
        Ok(())
    }

    /// Looks within a turn; returns how the machine is, in words.
    pub(crate) fn look(&mut self, turn: Turn) -> Result<String> {
        let (stolen, since) = (testbed::stolen()?, Instant::now());
        let part = (stolen - self.stolen).as_secs_f64() / (since - self.since).as_secs_f64();
        (self.stolen, self.since) = (stolen, since);
        self.looks.push(Look { turn: Some(turn), speeds: speeds(&self.ring)?, stolen: part });
        let look = self.looks.last().map_or(0.0, |look| self.deviation(look));
        Ok(format!("{:.0} % off, {:.0} % stolen", look * 100.0, part * 100.0))
    }

    /// Turns with a look that is too far off.
    pub(crate) fn noisy_turns(&self) -> Vec<Turn> {
        let off = |look: &&Look| self.deviation(look) > BOUND || look.stolen > STOLEN;
        let mut turns: Vec<_> = self.looks.iter().filter(off).filter_map(|look| look.turn).collect();
        turns.sort_unstable();
        turns.dedup();
        turns
    }

    /// How quiet it was; an error where it was not, unless that is `allowed`.
    pub(crate) fn verdict(&self, allowed: bool) -> Result<String> {
        let counted = || self.looks.iter().filter(|look| look.turn.is_some());
        let off = counted().map(|look| self.deviation(look)).fold(0.0, f64::max) * 100.0;
        let stolen = counted().map(|look| look.stolen).fold(0.0, f64::max) * 100.0;
        let (noisy, repeated) = (self.noisy_turns().len(), self.looks.len() - counted().count());
        let words = format!(
            "{} looks up to {off:.0} % off their median (allowed {:.0} %), up to {stolen:.0} % of the time stolen (allowed \
             {:.0} %); {repeated} looks belong to turns that were repeated, {noisy} turns stayed too noisy",
            counted().count(),
            BOUND * 100.0,
            STOLEN * 100.0
        );
        ensure!(
            allowed || noisy == 0,
            "the machine was too noisy, so there is no report (--noisy gives one): {words}"
        );
        Ok(words)
    }

    /// The largest of the kinds, from the median.
    fn deviation(&self, look: &Look) -> f64 {
        let kinds = (0..Self::KINDS).map(|kind| {
            let mut all: Vec<_> = self.looks.iter().map(|look| look.speeds[kind]).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).map_or(0.0, |median| (look.speeds[kind] / median - 1.0).abs())
        });
        kinds.fold(0.0, f64::max)
    }
}

/// A ring through all words in an order as if drawn by lot.
fn ring() -> Vec<u32> {
    // Odd steps through a power of two meet every word; the multiplication scatters neighbours.
    let scattered = |place: usize| place.wrapping_mul(0x9e37_79b1) % WORDS;
    let mut ring = vec![0; WORDS];
    for place in 0..WORDS {
        ring[scattered(place)] = scattered((place + 1) % WORDS) as u32;
    }
    ring
}

fn speeds(ring: &[u32]) -> Result<[f64; Noise::KINDS]> {
    let handed = AtomicU64::new(0);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            testbed::pin_source()?;
            let speed = arithmetic();
            give_back(&handed);
            anyhow::Ok(speed)
        });
        let this = scope.spawn(|| {
            testbed::pin_to_gateway()?;
            anyhow::Ok([arithmetic(), hand_over(&handed), walk(ring)])
        });
        let [this, handed, walked] = this.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok([this, other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?, handed, walked])
    })
}

/// Steps a second.
fn speed(mut steps: impl FnMut()) -> f64 {
    let start = Instant::now();
    let rounds = iter::from_fn(|| (start.elapsed() < TRIAL).then(&mut steps)).count() as u64;
    (rounds * STEPS) as f64 / start.elapsed().as_secs_f64()
}

fn arithmetic() -> f64 {
    let mut value = 1_u64;
    speed(|| (0..STEPS).for_each(|_| value = hint::black_box(value.wrapping_mul(0x9e37_79b1))))
}

fn walk(ring: &[u32]) -> f64 {
    let mut place = 0;
    let speed = speed(|| (0..STEPS).for_each(|_| place = ring[place as usize]));
    hint::black_box(place);
    speed
}

/// Odd numbers go one way, even ones come back, the largest ends it.
fn hand_over(handed: &AtomicU64) -> f64 {
    let mut number = 0;
    let speed = speed(|| {
        for _ in 0..STEPS {
            handed.store(number + 1, Ordering::Release);
            number += 2;
            while handed.load(Ordering::Acquire) != number {
                hint::spin_loop();
            }
        }
    });
    handed.store(u64::MAX, Ordering::Release);
    speed
}

fn give_back(handed: &AtomicU64) {
    loop {
        match handed.load(Ordering::Acquire) {
            u64::MAX => return,
            number if number % 2 == 1 => handed.store(number + 1, Ordering::Release),
            _ => hint::spin_loop(),
        }
    }
}
