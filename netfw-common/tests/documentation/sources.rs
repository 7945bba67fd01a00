//! The tests of the workspace, read from its sources.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What needs no network: tests on byte buffers and of the arithmetic. Stories are told to the loaded programs, too.
pub(crate) const HOST: [&str; 7] = [
    "netfw-common/src",
    "netfw-common/tests",
    "netfw/src",
    "netfw/tests",
    "tests/src",
    "tests/suites/datapath",
    KERNEL,
];
pub(crate) const LAB: [&str; 1] = ["tests/suites"];
const KERNEL: &str = "tests/suites/kernel";
/// What lies in the lab's directory and isn't of the lab.
const NO_LAB: [&str; 5] = ["datapath", "kernel", "memory", "model", "naive"];

/// The sources in some directories of the workspace.
pub(crate) fn files(dirs: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    dirs.iter().for_each(|dir| collect(&root().join(dir), &mut files));
    files
}

/// The tests in some directories, as `file::test`; a `main.rs` or `mod.rs` counts as its directory.
pub(crate) fn tests(dirs: &[&str]) -> BTreeSet<String> {
    let stories =
        fs::read_to_string(root().join("tests/src/packet/stories/mod.rs")).expect("the list of stories");
    files(dirs).iter().flat_map(|file| tests_of(file, &stories)).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let in_lab = dir.ends_with(LAB[0]);
    for entry in fs::read_dir(dir).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        let left_out = in_lab && NO_LAB.iter().any(|name| path.ends_with(name));
        if path.is_dir() && !left_out {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn tests_of(file: &Path, stories: &str) -> Vec<String> {
    let text = fs::read_to_string(file).expect("a source");
    let module = module(file);
    let mut found = Vec::new();
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        if line == "#[test]" {
            marked = true;
        } else if let Some(rest) = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("fn ") {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            let test = format!("{module}::{name}");
            if marked || stories.contains(&format!("            {test},")) {
                found.push(test);
            }
            marked = false;
        } else if let Some(name) = check_in_the_kernel(line).filter(|_| module == "kernel") {
            found.push(format!("{module}::{name}"));
        }
    }
    found
}

fn module(file: &Path) -> String {
    let stem = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    match stem(file).as_str() {
        "main" | "mod" => stem(file.parent().expect("a directory")),
        name => name.to_owned(),
    }
}

/// The name in a line of the kernel suite's list, `("name", module::function),`.
fn check_in_the_kernel(line: &str) -> Option<&str> {
    line.strip_prefix("(\"")?.strip_suffix("),")?.split_once("\", ").map(|(name, _)| name)
}
