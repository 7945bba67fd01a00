//! netfw: a firewall and NAT manager for Linux gateways whose packet path runs in eBPF.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod image;
pub mod kernel;
pub mod policy;
pub mod report;
