//! What surrounds the pipeline in the kernel: maps, helpers, the contexts of XDP and TC. The only `unsafe` code.
//!
//! Two reasons recur. Map values are shared with other cores and user space, so a reference into one is as good as
//! the plain loads and stores it compiles to: every bit pattern of these types is valid and nothing is cached
//! between packets. And the verifier proves what rustc cannot: that pointers into packets and maps stay in bounds.

#![expect(unsafe_code, reason = "helpers, maps and packet pointers; see the module's documentation")]

mod cookie;
#[cfg(feature = "dry-run")]
mod dry;
pub mod fib;
pub mod live;
pub mod maps;
pub mod parts;
#[cfg(not(feature = "dry-run"))]
pub mod settle;
pub mod slots;
pub mod stages;
pub mod tc;
#[cfg(not(feature = "dry-run"))]
mod traces;
pub mod xdp;

/// Verdicts of programs at the TC hooks. `NEXT` lets other programs on the hook see the packet too: it is TCX_NEXT
/// (Linux 6.6) and TC_ACT_UNSPEC for clsact filters.
pub mod action {
    /// Go on with the next program, then the stack.
    pub const NEXT: i32 = -1;
    /// Drop.
    pub const SHOT: i32 = 2;
}
