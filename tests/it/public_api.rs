//! The public items of the library, compared with the list in `public_api.txt`. A change of that
//! file is a change of the crate's promise.
//!
//! Every `pub` item can be reached from outside, because the lint `unreachable_pub` refuses others.
//! So reading the source files is enough.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use syn::{Attribute, ImplItem, Item, Type, Visibility};

/// Modules that are hidden from the documentation, and the program.
const HIDDEN: [&str; 6] = ["cli", "limits", "main", "store", "table", "wal"];
/// Types of hidden modules that the library exports.
const EXPORTED: [&str; 1] = ["Store"];

#[test]
fn the_public_items_are_those_of_the_list() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    files.sort();
    let mut found = String::new();
    for file in files {
        let relative = file.strip_prefix(root.join("src")).unwrap();
        let module = relative.with_extension("").display().to_string().replace('/', "::");
        let module = module.trim_end_matches("::mod");
        let is_hidden = HIDDEN.contains(&module.split("::").next().unwrap());
        let parsed = syn::parse_file(&fs::read_to_string(&file).unwrap()).unwrap();
        for name in public_items(&parsed.items) {
            if !is_hidden || EXPORTED.iter().any(|exported| is_part_of(&name, exported)) {
                let _ = writeln!(found, "{module}::{name}");
            }
        }
    }
    let list = root.join("tests/it/public_api.txt");
    if std::env::var_os("GATELOG_TEST_WRITE").is_some() {
        fs::write(&list, &found).unwrap();
    }
    let listed = fs::read_to_string(&list).unwrap();
    let new: Vec<_> =
        found.lines().filter(|item| !listed.lines().any(|line| line == *item)).collect();
    let gone: Vec<_> =
        listed.lines().filter(|item| !found.lines().any(|line| line == *item)).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "public items changed; if that is meant, run this test with GATELOG_TEST_WRITE=1\n\
         new: {new:#?}\ngone: {gone:#?}"
    );
}

fn is_part_of(name: &str, exported: &str) -> bool {
    name.strip_prefix(exported).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Names of the public items of a file, with the public fields and methods of types.
fn public_items(items: &[Item]) -> Vec<String> {
    let mut names = Vec::new();
    for item in items {
        match item {
            Item::Fn(item) if is_public(&item.vis, &item.attrs) => {
                names.push(item.sig.ident.to_string())
            }
            Item::Const(item) if is_public(&item.vis, &item.attrs) => {
                names.push(item.ident.to_string())
            }
            Item::Type(item) if is_public(&item.vis, &item.attrs) => {
                names.push(item.ident.to_string())
            }
            Item::Trait(item) if is_public(&item.vis, &item.attrs) => {
                names.push(item.ident.to_string())
            }
            Item::Enum(item) if is_public(&item.vis, &item.attrs) => {
                names.push(item.ident.to_string());
                let variants = item.variants.iter();
                names.extend(variants.map(|variant| format!("{}::{}", item.ident, variant.ident)));
            }
            Item::Struct(item) if is_public(&item.vis, &item.attrs) => {
                names.push(item.ident.to_string());
                let fields = item.fields.iter().filter(|field| is_public(&field.vis, &field.attrs));
                let named = fields.filter_map(|field| field.ident.as_ref());
                names.extend(named.map(|field| format!("{}.{field}", item.ident)));
            }
            Item::Impl(item) if item.trait_.is_none() => names.extend(methods(item)),
            _ => {}
        }
    }
    names
}

fn methods(item: &syn::ItemImpl) -> Vec<String> {
    let Type::Path(path) = &*item.self_ty else { return Vec::new() };
    let of = &path.path.segments.last().unwrap().ident;
    let name = |item: &ImplItem| match item {
        ImplItem::Fn(item) if is_public(&item.vis, &item.attrs) => Some(&item.sig.ident).cloned(),
        ImplItem::Const(item) if is_public(&item.vis, &item.attrs) => Some(item.ident.clone()),
        _ => None,
    };
    item.items.iter().filter_map(name).map(|name| format!("{of}::{name}")).collect()
}

/// Returns true if an item is public and not hidden from the documentation.
fn is_public(visibility: &Visibility, attributes: &[Attribute]) -> bool {
    let is_hidden = attributes.iter().any(|attribute| {
        attribute.path().is_ident("doc")
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "hidden")
    });
    matches!(visibility, Visibility::Public(_)) && !is_hidden
}
