//! Coarse time.

/// A point in time: nanoseconds of the monotonic clock shifted right by [`Tick::SHIFT`], that is 16.8 ms a tick.
///
/// 32 bits wrap after 2.3 years; differences are right as long as no entry stays untouched for half of that,
/// which the longest timeout (hours) rules out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Tick(pub u32);

impl Tick {
    /// log2 of the nanoseconds in a tick.
    pub const SHIFT: u32 = 24;

    /// From nanoseconds of `CLOCK_MONOTONIC`.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self((nanos >> Self::SHIFT) as u32)
    }

    /// A duration in ticks, rounded up, at least 1.
    pub const fn ticks(seconds: u64) -> u32 {
        let ticks = (seconds * 1_000_000_000) >> Self::SHIFT;
        if ticks >= u32::MAX as u64 / 2 { u32::MAX / 2 } else { ticks as u32 + 1 }
    }

    /// Ticks from `earlier` to `self`; 0 when `earlier` is in the future (another core's clock ran ahead).
    pub const fn since(self, earlier: Self) -> u32 {
        let passed = self.0.wrapping_sub(earlier.0);
        if passed > u32::MAX / 2 { 0 } else { passed }
    }
}
