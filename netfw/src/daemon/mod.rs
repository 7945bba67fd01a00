//! What keeps an instance in step with its rules file and with the host. Each command does its own work under
//! the instance's lock, so that nothing depends on a daemon; the daemon does the same work when something
//! changes.

pub mod background;
pub mod bans;
pub mod change;
pub mod choice;
pub mod control;
mod controller;
pub mod engine;
pub mod explain;
pub mod failure;
pub mod health;
pub mod host;
pub mod instance;
mod interfaces;
pub mod library;
pub mod lock;
mod log;
pub mod names;
mod network;
pub mod plan;
mod publish;
mod reassembly;
pub mod rules;
pub mod run;
pub mod sessions;
mod shortage;
pub mod standing;
pub mod state;
pub mod sweep;
mod trial;
mod watch;
mod ways;

pub use failure::Failure;
pub use instance::Instance;
