//! The documentation cannot drift from the code: it is compared with it.

mod conformance;
mod page;
mod reasons;
mod scenarios;
mod sources;
