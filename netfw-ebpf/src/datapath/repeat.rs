//! Loops. The verifier follows a `for` turn by turn, in each turn on every path that has led there; the callback of a helper
//! it follows as a function of its own.

use core::ops::ControlFlow;

/// How turns are taken.
pub trait Repeat {
    /// Calls `turn` with 0, 1 and so on below `times`, until it breaks.
    #[inline(always)]
    fn repeat(&self, times: u32, mut turn: impl FnMut(u32) -> ControlFlow<()>) {
        for n in 0..times {
            if turn(n).is_break() {
                break;
            }
        }
    }
}
