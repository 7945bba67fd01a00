//! What an eBPF object must not hold: a path to the panic handler, which the verifier would refuse at load.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSymbol as _};

/// Fails when the object at `path` has a symbol of the panic machinery, or no program at all.
pub(crate) fn check(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let object = object::File::parse(&*bytes).with_context(|| format!("parsing {}", path.display()))?;
    let panics: Vec<_> =
        object.symbols().filter_map(|symbol| symbol.name().ok()).filter(|name| panics(name)).collect();
    ensure!(panics.is_empty(), "{} can panic: {}", path.display(), panics.join(", "));
    Ok(())
}

fn panics(symbol: &str) -> bool {
    ["panic", "unwrap_failed", "expect_failed", "begin_unwind"].iter().any(|word| symbol.contains(word))
}
