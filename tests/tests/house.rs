//! The habits of the house that no compiler sees: documents say what is so (links lead somewhere, files and tests that
//! they name are there, the map of the crates is what cargo builds), and the sources are written in one way.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Files below a folder of the project with one of these endings.
fn below(folder: &Path, endings: &[&str], all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && !["target", "runs", "kept"].contains(&&*name) {
            below(&path, endings, all);
        } else if path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending)) {
            all.push(path);
        }
    }
}

/// All files with one of these endings.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    below(root(), endings, &mut all);
    assert!(all.len() > 10, "the files were not found: {all:?}");
    all
}

/// What stands between `open` and `close` in the lines of a text, out of blocks of code.
fn between<'t>(text: &'t str, open: &'static str, close: char) -> Vec<&'t str> {
    let mut code = false;
    let prose = text.lines().filter(move |line| {
        let fence = line.starts_with("```");
        code ^= fence;
        !code && !fence && !line.starts_with("    ")
    });
    prose
        .flat_map(|line| line.split(open).skip(1).filter_map(move |rest| Some(rest.split_once(close)?.0)))
        .collect()
}

/// Words in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn links_lead_somewhere() {
    for document in files(&["md"]) {
        for link in between(&read(&document), "](", ')') {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") {
                let target = document.with_file_name(file);
                assert!(target.exists(), "{}: {link} leads nowhere", document.display());
            }
        }
    }
}

/// `folder/file.rs` is a path from the root, and `folder/file.rs::name` a function in it.
#[test]
fn files_and_tests_are_there() {
    let folders = ["crates/", "kernels/", "tests/", "benches/", "xtask/", "docs/"];
    for document in ["README.md", "CONTRIBUTING.md", "docs/architecture.md"] {
        let text = read(&root().join(document));
        let named = quoted(&text);
        let paths = named
            .into_iter()
            .filter(|word| folders.iter().any(|f| word.starts_with(f)) && !word.contains([' ', '*']));
        for word in paths {
            let (path, function) = word.split_once("::").unwrap_or((word, ""));
            assert!(root().join(path).exists(), "{document}: there is no {path}");
            let known = function.is_empty() || read(&root().join(path)).contains(&format!("fn {function}("));
            assert!(known, "{document}: there is no {word}");
        }
    }
}

/// Crates of the workspace that the package in `folder` is built on.
fn builds_on(folder: &Path) -> BTreeSet<String> {
    let manifest = read(&folder.join("Cargo.toml"));
    let section = manifest.split("\n[").find_map(|section| section.strip_prefix("dependencies]"));
    let own = |line: &str| Some(line.strip_prefix("duel-")?.split_once('.')?.0.to_string());
    section.unwrap_or_default().lines().filter_map(own).collect()
}

#[test]
fn the_map_is_what_cargo_knows() {
    let text = read(&root().join("docs/architecture.md"));
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", name, on, _, files, ""] = cells[..] else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        let folder = [root().join("crates").join(name), root().join(name)].into_iter().find(|f| f.exists());
        let folder = folder.unwrap_or_else(|| panic!("there is no crate {name}"));
        let said: BTreeSet<String> = quoted(on).into_iter().map(String::from).collect();
        assert_eq!(said, builds_on(&folder), "what {name} builds on");
        for file in quoted(files).into_iter().filter(|file| !file.ends_with(".h")) {
            let src = folder.join("src");
            let found = src.join(file).exists() || src.join(format!("{file}.rs")).exists();
            assert!(found, "{name} has no {file}");
        }
        seen.insert(name.to_string());
    }
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(seen.contains(&name), "the map lacks {name}");
    }
}

#[test]
fn objectives_know_no_device() {
    for entry in fs::read_dir(root().join("crates/loss/src/objective")).unwrap() {
        let path = entry.unwrap().path();
        assert!(!read(&path).contains("duel_backend"), "{} knows the backend", path.display());
    }
}

/// Code is as wide as rustfmt.toml says; comments and documents, but for tables and what has no space, up to this.
const WIDTH: usize = 120;

#[test]
fn comments_and_documents_are_narrow() {
    for path in files(&["md", "rs", "cu", "cuh", "h", "cpp"]) {
        let document = path.extension().is_some_and(|e| e == "md");
        for (i, line) in read(&path).lines().enumerate() {
            let prose = if document { !line.starts_with('|') } else { line.trim_start().starts_with("//") };
            let wide = prose && line.chars().count() > WIDTH && line.trim().contains(' ');
            assert!(!wide, "{}:{} has more than {WIDTH} columns", path.display(), i + 1);
        }
    }
}

/// A blank line would part imports into blocks, each with an order of its own.
#[test]
fn imports_are_one_block() {
    for path in files(&["rs"]) {
        let (mut imported, mut open, mut blank) = (false, false, false);
        for (i, line) in read(&path).lines().enumerate() {
            if line.is_empty() {
                blank = true;
                continue;
            }
            let import = line.starts_with("use ");
            assert!(
                !(import && imported && blank),
                "{}:{} is parted from the imports",
                path.display(),
                i + 1
            );
            imported = import || open;
            open = imported && !line.ends_with(';');
            blank = false;
        }
    }
}
