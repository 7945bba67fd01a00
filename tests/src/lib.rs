//! The vocabulary of the netfw tests: a lab of network namespaces with real programs in them, the netfw command
//! as a guard, and counters as differences.
//!
//! A test reads as a story: build a lab, `up` netfw in it with a rules text, let hosts talk, say which counters moved.
//! Whatever else moved fails it, and so does anything left behind in the kernel.

pub mod demo;
pub mod foreign;
pub mod lab;
pub mod net;
pub mod netfw;
pub mod packet;
pub mod rules;
pub mod scenario;
pub mod spark;
pub mod ssh;
pub mod wait;
