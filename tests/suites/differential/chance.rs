//! Chance that can be repeated.

use std::env;

use anyhow::{Context as _, Result};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Environment variable with another seed.
pub(crate) const VARIABLE: &str = "NETFW_SEED";
/// What chance begins with.
const SEEDS: [u64; 2] = [1, 2];

/// The seeds to be played.
pub(crate) fn seeds() -> Result<Vec<u64>> {
    match env::var(VARIABLE) {
        Ok(seed) => Ok(vec![seed.parse().with_context(|| format!("{VARIABLE} is no number: {seed}"))?]),
        Err(_) => Ok(SEEDS.to_vec()),
    }
}

/// What draws values, always the same with the same seed.
pub(crate) fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}
