//! The spine: a file of `src` imports only from files below it in the list that `lib.rs` keeps.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// `main` uses the library by its name and so has no rank; the rest is the order of the `mod` lines in `lib.rs`.
fn top_to_bottom() -> Vec<String> {
    let lib = fs::read_to_string(source().join("lib.rs")).unwrap();
    let names = lib.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    names.map(|name| name.trim_end_matches(';').to_owned()).collect()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules named after `crate::` in a text, also in braces.
fn imports(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for (_, rest) in line.match_indices("crate::").map(|(at, found)| (at, &line[at + found.len()..])) {
            let rest = rest.strip_prefix('{').map_or_else(
                || vec![rest],
                |inner| inner.split('}').next().unwrap_or("").split(',').map(str::trim).collect::<Vec<_>>(),
            );
            for name in rest {
                names.insert(
                    name.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap().to_owned(),
                );
            }
        }
    }
    names
}

#[test]
fn no_file_imports_from_above() {
    let order = top_to_bottom();
    let rank = |module: &str| order.iter().position(|name| name == module);
    let mut found = Vec::new();
    files(&source(), &mut found);
    let mut upward = Vec::new();
    for path in found {
        let relative = path.strip_prefix(source()).unwrap();
        let own =
            relative.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if own == "lib" || own == "main" {
            continue;
        }
        let place = rank(&own).unwrap_or_else(|| panic!("module `{own}` is not declared in lib.rs"));
        for used in imports(&fs::read_to_string(&path).unwrap()) {
            match rank(&used) {
                Some(below) if below < place => upward.push(format!("{} imports crate::{used}", relative.display())),
                _ => {}
            }
        }
    }
    assert!(upward.is_empty(), "imports against the order of lib.rs:\n{}", upward.join("\n"));
}
