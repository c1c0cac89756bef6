//! Which files of a data set are read: those of a split of a configuration, as `datasets` finds them.

use crate::card::{self, Config};
use crate::error::Result;
use crate::glob::matches;
use crate::name::is_rows;
use crate::tree::Tree;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What is asked of a data set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// A file, a folder, or a name on the Hub: `org/name` or `org/name@revision`.
    pub name: PathBuf,
    /// Its configuration; `None`: its default one.
    pub config: Option<String>,
    /// Its split: `train`, for example. A file has none, and is read whatever this says.
    pub split: String,
    /// Patterns of the paths of its files, in the place of what its README says: `PATTERN`, which is of the split
    /// `train`, or `SPLIT=PATTERN`.
    pub data_files: Vec<String>,
}

/// Names that say the split, and the splits that they say.
const WORDS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// Files with endings of rows that have none.
const NO_ROWS: [&str; 4] = ["config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"];

/// What says which files are of which split.
const README: &str = "README.md";

/// What separates words in names.
const BETWEEN: &str = "-._ 0123456789";

/// Paths by split, or why there are none of one that is named.
type Splits = Vec<(String, Result<Vec<String>>)>;

/// The paths of what is asked for, in order.
///
/// # Errors
/// There is no such configuration or split, or its files are not read here.
pub(crate) fn files(tree: &mut dyn Tree, asked: &Rows, called: &str) -> Result<Vec<String>> {
    let script = format!("{called}.py");
    if tree.has(&script) {
        return Err(tree.wrong(&format!(
            "is made by a program, {script}, which is not run; many a data set has its rows as files at the revision \
             refs/convert/parquet: give that, with --data-files CONFIG/SPLIT/*.parquet"
        )));
    }
    if let Some(saved) = ["state.json", "dataset_dict.json"].iter().find(|saved| tree.has(saved)) {
        return Err(tree.wrong(&format!(
            "was written by save_to_disk ({saved}), as Arrow, which is not read; write it with to_parquet or to_json"
        )));
    }
    let splits =
        if asked.data_files.is_empty() { of_config(tree, asked)? } else { of_patterns(tree, asked)? };
    let Some((_, files)) = splits.iter().find(|(split, _)| *split == asked.split) else {
        let slice =
            asked.split.split_once(['[', '+']).map_or("", |_| ", and a part or a sum of them is not read");
        let there: Vec<&str> = splits.iter().map(|(split, _)| split.as_str()).collect();
        return Err(tree.wrong(&format!(
            "has no split {}; there are {}{slice}",
            asked.split,
            there.join(", ")
        )));
    };
    let files = files.clone()?;
    // Whoever names files may mean a part of them.
    if asked.data_files.is_empty() {
        whole(&files).map_err(|what| tree.wrong(&what))?;
    }
    Ok(files)
}

/// Files of rows below a folder, by their paths from it on: not those that are hidden or say something else.
fn of_rows(tree: &dyn Tree, folder: &str) -> Vec<String> {
    let hidden = |path: &str| path.split('/').any(|part| part.starts_with('.') || part.starts_with("__"));
    let below = |path: &String| match folder {
        "" => Some(path.clone()),
        _ => path.strip_prefix(folder)?.strip_prefix('/').map(str::to_owned),
    };
    let says_else = |path: &str| path.rsplit('/').next().is_some_and(|name| NO_ROWS.contains(&name));
    tree.paths().iter().filter_map(below).filter(|p| is_rows(p) && !hidden(p) && !says_else(p)).collect()
}

/// The splits that patterns say which a user gave.
fn of_patterns(tree: &mut dyn Tree, asked: &Rows) -> Result<Splits> {
    if let Some(config) = &asked.config {
        return Err(tree.wrong(&format!(
            "is asked for the configuration {config} and for files (data_files), which a configuration would say; keep \
             one"
        )));
    }
    // It comes into the cache with them: without a network it says what else there is.
    if tree.has(README) {
        tree.file(README)?;
    }
    let mut patterns: Vec<(String, Vec<String>)> = Vec::new();
    for said in &asked.data_files {
        let is_word = |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c));
        let (split, pattern) =
            said.split_once('=').filter(|(split, _)| is_word(split)).unwrap_or(("train", said));
        match patterns.iter_mut().find(|(named, _)| named == split) {
            Some((_, all)) => all.push(pattern.to_owned()),
            None => patterns.push((split.to_owned(), vec![pattern.to_owned()])),
        }
    }
    Ok(matched(tree, "", &patterns))
}

/// The splits of the configuration that is asked for.
fn of_config(tree: &mut dyn Tree, asked: &Rows) -> Result<Splits> {
    let configs = match tree.has(README) {
        true => {
            let text = tree.text(README)?;
            card::configs(&text).map_err(|what| tree.wrong(&format!("has a {README} that {what}")))?
        }
        false => Vec::new(),
    };
    // Without any in its README it has one, of everything.
    let configs = match configs.is_empty() {
        true => vec![Config { name: "default".into(), default: true, ..Config::default() }],
        false => configs,
    };
    let found = match (&asked.config, &configs[..]) {
        (Some(name), _) => configs.iter().find(|config| config.name == *name),
        (None, [only]) => Some(only),
        (None, _) => configs.iter().find(|config| config.default),
    };
    let Some(config) = found else {
        let there: Vec<&str> = configs.iter().map(|config| config.name.as_str()).collect();
        let there = there.join(", ");
        return Err(tree.wrong(&match &asked.config {
            Some(name) => format!("has no configuration {name}; there are {there}"),
            None => {
                format!("has several configurations, and none is the default; give dataset_config: {there}")
            }
        }));
    };
    match config.splits.is_empty() {
        true => by_name(tree, &config.folder),
        false => Ok(matched(tree, &config.folder, &config.splits)),
    }
}

/// The files that patterns of paths from a folder on match: in the order of the patterns, and each once.
fn matched(tree: &dyn Tree, folder: &str, patterns: &[(String, Vec<String>)]) -> Splits {
    let all = of_rows(tree, folder);
    let below = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let of_split = |split: &str, patterns: &[String]| {
        let mut files: Vec<String> = Vec::new();
        for said in patterns {
            let pattern = said.trim_start_matches("./");
            if pattern.contains("://")
                || pattern.starts_with('/')
                || pattern.split('/').any(|part| part == "..")
            {
                return Err(
                    tree.wrong(&format!("has files {said} of its split {split} elsewhere; name those there"))
                );
            }
            let mut found = all.iter().filter(|path| matches(pattern, path)).peekable();
            if found.peek().is_none() {
                return Err(tree.wrong(&match of_another_kind(tree, &format!("{below}{pattern}")) {
                    Some(other) => {
                        format!("has {other} for its split {split}, which is of a kind that is not read")
                    }
                    None => format!("has no file {said}, which would be of its split {split}"),
                }));
            }
            for path in found.map(|path| format!("{below}{path}")) {
                if !files.contains(&path) {
                    files.push(path);
                }
            }
        }
        Ok(of_one_kind(files))
    };
    patterns.iter().map(|(split, patterns)| (split.clone(), of_split(split, patterns))).collect()
}

fn of_another_kind<'t>(tree: &'t dyn Tree, pattern: &str) -> Option<&'t str> {
    tree.paths().iter().map(String::as_str).find(|path| !is_rows(path) && matches(pattern, path))
}

/// The splits that the files below a folder say by their names.
fn by_name(tree: &dyn Tree, folder: &str) -> Result<Splits> {
    let all = of_rows(tree, folder);
    if all.is_empty() {
        let others: Vec<&str> =
            tree.paths().iter().map(String::as_str).filter(|p| !p.starts_with('.')).collect();
        let others =
            if others.is_empty() { "nothing".into() } else { others[..others.len().min(3)].join(", ") };
        return Err(tree.wrong(&format!(
            "has no file of rows (.jsonl, .json, .csv, .tsv, .parquet, .txt){}; there is {others}",
            if folder.is_empty() { String::new() } else { format!(" in {folder}") }
        )));
    }
    let mut splits: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for path in &all {
        if let Some(split) = path.strip_prefix("data/").and_then(sharded) {
            splits.entry(split).or_default().push(path);
        }
    }
    let says = |text: &str, word: &str| {
        text.match_indices(word).any(|(at, _)| {
            let edge = |c: Option<char>| c.is_none_or(|c| BETWEEN.contains(c));
            edge(text[..at].chars().next_back()) && edge(text[at + word.len()..].chars().next())
        })
    };
    // Folders say it, or where none does the files.
    for of_folders in [true, false] {
        if !splits.is_empty() {
            break;
        }
        for path in &all {
            let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
            let texts: Vec<&str> = if of_folders { folders.split('/').collect() } else { vec![name] };
            for (split, words) in WORDS {
                if texts.iter().any(|text| words.iter().any(|word| says(text, word))) {
                    splits.entry(split).or_default().push(path);
                }
            }
        }
    }
    if splits.is_empty() {
        splits.insert("train", all.iter().collect());
    }
    let below = |path: &String| if folder.is_empty() { path.clone() } else { format!("{folder}/{path}") };
    // In the order in which they are learned from.
    let known = |split: &str| WORDS.iter().position(|(word, _)| *word == split).unwrap_or(WORDS.len());
    let mut splits: Splits = splits
        .into_iter()
        .map(|(split, paths)| (split.to_owned(), Ok(of_one_kind(paths.into_iter().map(below).collect()))))
        .collect();
    splits.sort_by_key(|(split, _)| known(split));
    Ok(splits)
}

/// Those of the kind that most of them are, as `datasets` reads one kind of files of a split; texts, which may be about
/// the rows, come behind as many others.
fn of_one_kind(paths: Vec<String>) -> Vec<String> {
    let kind = |path: &str| {
        let path = path.to_ascii_lowercase();
        match path.trim_end_matches(".gz").rsplit('.').next().unwrap_or_default() {
            "txt" => 0,
            "jsonl" | "json" => 1,
            "csv" | "tsv" => 2,
            _ => 3,
        }
    };
    let most = (0..4).max_by_key(|k| paths.iter().filter(|path| kind(path) == *k).count());
    paths.into_iter().filter(|path| Some(kind(path)) == most).collect()
}

/// The split of a file `SPLIT-00000-of-00002.parquet`, a part of one.
fn sharded(name: &str) -> Option<&str> {
    part_of(name).map(|(split, ..)| split)
}

/// What a file `NAME-00000-of-00002.parquet` is a part of, which, and of how many.
fn part_of(name: &str) -> Option<(&str, usize, usize)> {
    let number = |text: &str| {
        Some(text).filter(|t| t.len() == 5 && t.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
    };
    let (before, after) = name.rsplit_once("-of-")?;
    let (split, part) = before.rsplit_once('-')?;
    Some((split, number(part)?, number(after.get(..5)?)?))
}

/// Whether all parts are there of what is in parts.
fn whole(paths: &[String]) -> std::result::Result<(), String> {
    let mut parts: BTreeMap<(&str, usize), Vec<usize>> = BTreeMap::new();
    for (name, part, of) in paths.iter().filter_map(|path| part_of(path)) {
        parts.entry((name, of)).or_default().push(part);
    }
    for ((name, of), there) in parts {
        if let Some(lacking) = (0..of).find(|part| !there.contains(part)) {
            return Err(format!("lacks part {lacking} of the {of} of {name}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    struct Paths(Vec<String>, &'static str);

    impl Tree for Paths {
        fn paths(&self) -> &[String] {
            &self.0
        }
        fn file(&mut self, path: &str) -> Result<PathBuf> {
            Err(Error::new(path))
        }
        fn text(&mut self, _: &str) -> Result<String> {
            Ok(self.1.into())
        }
        fn wrong(&self, what: &str) -> Error {
            Error::new(format!("it {what}"))
        }
    }

    fn ask(paths: &[&str], readme: &'static str, asked: &Rows) -> std::result::Result<Vec<String>, String> {
        let mut tree = Paths(paths.iter().map(|path| (*path).to_owned()).collect(), readme);
        files(&mut tree, asked, "set").map_err(|e| e.to_string())
    }

    fn split(paths: &[&str], split: &str) -> std::result::Result<Vec<String>, String> {
        ask(paths, "", &Rows { split: split.into(), ..Rows::default() })
    }

    #[test]
    fn names_say_the_split() {
        let parts = ["data/train_prefs-00001-of-00002.parquet", "data/train_prefs-00000-of-00002.parquet"];
        let mut sorted = parts;
        sorted.sort_unstable();
        assert_eq!(split(&sorted, "train_prefs").unwrap(), sorted);
        assert_eq!(
            split(&parts[..1], "train_prefs").unwrap_err(),
            "it lacks part 0 of the 2 of data/train_prefs"
        );
        let files = ["dev.jsonl", "my-train-1.jsonl", "my-train-2.jsonl", "retrain.jsonl", "README.md"];
        assert_eq!(split(&files, "train").unwrap(), ["my-train-1.jsonl", "my-train-2.jsonl"]);
        assert_eq!(split(&files, "validation").unwrap(), ["dev.jsonl"]);
        assert_eq!(split(&files, "test").unwrap_err(), "it has no split test; there are train, validation");
        assert!(split(&files, "train[:10%]").unwrap_err().contains("a part or a sum of them is not read"));
        // Folders win over files.
        let folders = ["train/a.csv", "test/b.csv", "all/training.csv"];
        assert_eq!(split(&folders, "train").unwrap(), ["train/a.csv"]);
        assert_eq!(
            split(&["b.jsonl", "a.json", "c.csv", ".x.jsonl", "config.json"], "train").unwrap().len(),
            2
        );
        // Endings are what they are in any case; a text beside rows is about them.
        assert_eq!(split(&["a.JSONL", "b.jsonl", "c.parquet"], "train").unwrap(), ["a.JSONL", "b.jsonl"]);
        assert_eq!(split(&["LICENSE.txt", "a.jsonl"], "train").unwrap(), ["a.jsonl"]);
        assert_eq!(split(&["a.txt", "b.txt.gz"], "train").unwrap(), ["a.txt", "b.txt.gz"]);
    }

    #[test]
    fn a_readme_says_it_first() {
        let readme = "---\nconfigs:\n- config_name: a\n  data_files: [{split: train, path: 'a/*'}, {split: odd, path: \
                      'b/**/x.csv'}]\n- config_name: b\n  data_dir: b\n---\n";
        let paths = ["README.md", "a/1.jsonl", "a/2.jsonl", "a/3.png", "b/c/x.csv", "b/test.csv"];
        let of = |config: Option<&str>, split: &str| {
            let (config, split) = (config.map(str::to_owned), split.to_owned());
            ask(&paths, readme, &Rows { config, split, ..Rows::default() })
        };
        assert_eq!(of(Some("a"), "train").unwrap(), ["a/1.jsonl", "a/2.jsonl"]);
        assert_eq!(of(Some("a"), "odd").unwrap(), ["b/c/x.csv"]);
        assert_eq!(of(Some("b"), "test").unwrap(), ["b/test.csv"]);
        assert_eq!(of(Some("c"), "test").unwrap_err(), "it has no configuration c; there are a, b");
        assert!(of(None, "train").unwrap_err().ends_with("give dataset_config: a, b"));
    }

    #[test]
    fn a_user_names_files() {
        let of = |data_files: &[&str], split: &str| {
            let data_files = data_files.iter().map(|said| (*said).to_owned()).collect();
            ask(
                &["a.csv", "b.csv", "c.zip"],
                "",
                &Rows { split: split.into(), data_files, ..Rows::default() },
            )
        };
        assert_eq!(of(&["b.csv", "*.csv"], "train").unwrap(), ["b.csv", "a.csv"]);
        assert_eq!(of(&["a.csv", "test=b.csv"], "test").unwrap(), ["b.csv"]);
        assert!(of(&["x.csv"], "train").unwrap_err().contains("has no file x.csv"));
        assert!(
            of(&["c.zip"], "train").unwrap_err().contains("c.zip for its split train, which is of a kind")
        );
        assert!(of(&["../a.csv"], "train").unwrap_err().contains("elsewhere"));
        // One part of several is what was asked for.
        let part = "data/train-00001-of-00002.parquet";
        let asked = Rows { split: "train".into(), data_files: vec![part.into()], ..Rows::default() };
        assert_eq!(ask(&[part], "", &asked).unwrap(), [part]);
    }

    #[test]
    fn what_is_not_read_is_said() {
        assert!(split(&["set.py", "a.csv"], "train").unwrap_err().contains("refs/convert/parquet"));
        assert!(
            split(&["state.json", "data-00000-of-00001.arrow"], "train")
                .unwrap_err()
                .contains("save_to_disk")
        );
        assert!(split(&["a.jsonl.zst"], "train").unwrap_err().contains("there is a.jsonl.zst"));
    }
}
