//! Loops. The verifier follows a `for` turn by turn, in each turn on every path that has led there; the callback of a helper
//! it follows as a function of its own.
//!
//! Before Linux 6.7 (kernel commit ab5cfac139ab) it follows a callback once, as the first turn, and takes away what is not reached
//! there. So no branch of a turn may depend on a variable whose first value is a constant. What lies in
//! [`super::work::Work`] it never knows.

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
