//! The spine: a file of `src` imports only from files below it in the list that `lib.rs` keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// `main` and `cli` use the library by its name and so have no rank; the rest is the order of the `mod` lines
/// in `lib.rs`.
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
        for (_, rest) in
            line.match_indices("crate::").map(|(at, found)| (at, &line[at + found.len()..]))
        {
            let rest = rest.strip_prefix('{').map_or_else(
                || vec![rest],
                |inner| {
                    inner
                        .split('}')
                        .next()
                        .unwrap_or("")
                        .split(',')
                        .map(str::trim)
                        .collect::<Vec<_>>()
                },
            );
            for name in rest {
                names.insert(
                    name.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
                        .next()
                        .unwrap()
                        .to_owned(),
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
        let own = relative
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs")
            .to_owned();
        if ["cli", "lib", "main"].contains(&own.as_str()) {
            continue;
        }
        let place =
            rank(&own).unwrap_or_else(|| panic!("module `{own}` is not declared in lib.rs"));
        for used in imports(&fs::read_to_string(&path).unwrap()) {
            match rank(&used) {
                Some(below) if below < place => {
                    upward.push(format!("{} imports crate::{used}", relative.display()))
                }
                _ => {}
            }
        }
    }
    assert!(upward.is_empty(), "imports against the order of lib.rs:\n{}", upward.join("\n"));
}

/// The path of the module that a file is, as `["query", "functions", "metered"]`.
fn module_of(file: &Path) -> Vec<String> {
    let mut parts: Vec<String> = file
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_str().unwrap().to_owned())
        .collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// The code of a file without comments and its tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let tests = text.match_indices("\n#[cfg(test)]\n").find(|(at, mark)| {
        let declared = text[at + mark.len()..].lines().next().unwrap();
        declared.contains("mod ") && declared.ends_with('{')
    });
    let code = &text[..tests.map_or(text.len(), |(at, _)| at)];
    let code: Vec<&str> = code.lines().map(|line| line.split("//").next().unwrap()).collect();
    // A visibility imports nothing.
    let code = code.join("\n");
    let mut parts = code.split("pub(in ");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |code, part| code + "pub" + part.split_once(')').unwrap().1)
}

/// The paths that a `use` brings in, with braces written out.
fn written_out(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, inner)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let inner = inner.trim_end().strip_suffix('}').unwrap();
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for letter in inner.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(letter);
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts
        .flat_map(|part| written_out(part))
        .map(|part| format!("{}{part}", before.trim()))
        .collect()
}

fn is_of_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Every path in a text that begins at the crate or at a module above.
fn paths(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut rest = String::new();
    let mut uses = text.split("use ");
    rest.push_str(uses.next().unwrap());
    for part in uses {
        let (tree, after) = part.split_once(';').unwrap_or((part, ""));
        if ["crate::", "super::", "self::"].iter().any(|begin| tree.starts_with(begin)) {
            paths.extend(written_out(&tree.replace('\n', " ")));
            rest.push_str(after);
        } else {
            rest.push_str(part);
        }
    }
    for begin in ["crate::", "super::"] {
        for (at, _) in rest.match_indices(begin) {
            let is_part = |letter: char| is_of_name(letter) || letter == ':';
            paths
                .push(rest[at..].split(|letter: char| !is_part(letter)).next().unwrap().to_owned());
        }
    }
    paths
}

/// Returns true if a text has a path that begins with the name of a module in it.
fn begins_path(text: &str, name: &str) -> bool {
    text.match_indices(&format!("{name}::"))
        .any(|(at, _)| !text[..at].ends_with(|before: char| is_of_name(before) || before == ':'))
}

/// The files that each file imports from. A module that declares the files in it does not import
/// from them, but one that names something in them does.
fn imported_files() -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
    let mut all = Vec::new();
    files(&source(), &mut all);
    let is_code = |file: &Path| {
        let is_test = ["tests", "deeds"].iter().any(|tests| file.to_str().unwrap().contains(tests));
        !is_test && !["lib.rs", "main.rs"].iter().any(|top| file.ends_with(top))
    };
    let relative: Vec<PathBuf> = all
        .iter()
        .map(|path| path.strip_prefix(source()).unwrap().to_owned())
        .filter(|file| is_code(file))
        .collect();
    let by_module: BTreeMap<Vec<String>, PathBuf> =
        relative.iter().map(|file| (module_of(file), file.clone())).collect();
    let mut imported = BTreeMap::new();
    for (module, file) in &by_module {
        let text = code(&source().join(file));
        let mut used = BTreeSet::new();
        for path in paths(&text) {
            let mut names: Vec<&str> = path.split("::").map(str::trim).collect();
            let mut place = match names.remove(0) {
                "crate" => Vec::new(),
                "self" => module.clone(),
                _ => module[..module.len() - 1].to_vec(),
            };
            for name in names {
                if name == "super" {
                    place.pop();
                    continue;
                }
                let inner = [place.clone(), vec![name.to_owned()]].concat();
                if !by_module.contains_key(&inner) {
                    break;
                }
                place = inner;
            }
            used.extend(by_module.get(&place).filter(|_| *module != place).cloned());
        }
        for (inner, file) in
            by_module.range(module.clone()..).take_while(|(inner, _)| inner.starts_with(module))
        {
            let [.., name] = inner.as_slice() else { continue };
            if inner.len() == module.len() + 1 && begins_path(&text, name) {
                used.insert(file.clone());
            }
        }
        imported.insert(file.clone(), used);
    }
    imported
}

/// The files that can be reached from each file by imports.
fn reached(
    imported: &BTreeMap<PathBuf, BTreeSet<PathBuf>>,
) -> BTreeMap<&PathBuf, BTreeSet<&PathBuf>> {
    let reached_from = |file| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![file]);
        while let Some(file) = next.pop() {
            next.extend(imported.get(file).into_iter().flatten().filter(|used| seen.insert(*used)));
        }
        seen
    };
    imported.keys().map(|file| (file, reached_from(file))).collect()
}

#[test]
fn files_import_each_other_in_no_circle() {
    let imported = imported_files();
    assert!(
        imported.len() > 200 && imported.values().map(BTreeSet::len).sum::<usize>() > 700,
        "imports are found"
    );
    let reached = reached(&imported);
    let mut circles = BTreeSet::new();
    for (file, others) in reached.iter().filter(|(file, others)| others.contains(*file)) {
        let circle = others.iter().filter(|other| reached[**other].contains(*file));
        circles.insert(circle.map(|file| file.to_str().unwrap()).collect::<BTreeSet<_>>());
    }
    assert!(
        circles.is_empty(),
        "move what files of a circle share into a file below them: {circles:#?}"
    );
}

#[test]
fn only_the_router_imports_from_routes() {
    let routes = Path::new("http/routes");
    for (file, used) in imported_files() {
        if file == Path::new("http/router.rs") {
            continue;
        }
        let is_within =
            |used: &PathBuf| file.ends_with("mod.rs") && used.starts_with(file.parent().unwrap());
        let from_routes: Vec<&PathBuf> =
            used.iter().filter(|used| used.starts_with(routes) && !is_within(used)).collect();
        assert!(from_routes.is_empty(), "{} imports from {from_routes:?}", file.display());
    }
}
