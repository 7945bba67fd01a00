//! netfw: a firewall and NAT manager for Linux gateways whose packet path runs in eBPF.

pub mod config;
pub mod image;
pub mod policy;
