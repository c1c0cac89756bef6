//! What the README of a data set says of its files, in YAML between two lines of dashes.

use granit_parser::{Event, Parser};
use serde_json::{Map, Value};

/// A configuration: which files are of which split.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Config {
    /// How it is called.
    pub name: String,
    /// It is taken where none is asked for.
    pub default: bool,
    /// The folder that its files are in; empty: the root.
    pub folder: String,
    /// Patterns of paths from that folder on, by split; none: files say it by their names.
    pub splits: Vec<(String, Vec<String>)>,
}

/// The configurations that a README names.
///
/// # Errors
/// Why what it says cannot be used: a clause about it.
pub(crate) fn configs(readme: &str) -> Result<Vec<Config>, String> {
    let readme = readme.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let Some(rest) = readme.strip_prefix("---\n") else { return Ok(Vec::new()) };
    let Some(end) = rest.find("\n---") else { return Ok(Vec::new()) };
    let card = parse(&rest[..end + 1])?;
    let configs = match &card["configs"] {
        Value::Null => return Ok(Vec::new()),
        Value::Array(all) => all,
        _ => return Err("has `configs` that are no list".into()),
    };
    configs.iter().map(config).collect()
}

fn config(of: &Value) -> Result<Config, String> {
    let name = of["config_name"].as_str().unwrap_or("default").to_owned();
    let wrong = |what: &str| format!("has a configuration {name} with {what}");
    let splits = match &of["data_files"] {
        Value::Null => Vec::new(),
        Value::Array(all) if all.iter().any(Value::is_object) => all
            .iter()
            .map(|one| {
                let split = one["split"].as_str().ok_or_else(|| wrong("`data_files` without a `split`"))?;
                Ok((
                    split.to_owned(),
                    patterns(&one["path"]).ok_or_else(|| wrong("`data_files` without a `path`"))?,
                ))
            })
            .collect::<Result<_, String>>()?,
        Value::Object(all) => all
            .iter()
            .map(|(split, of)| {
                Ok((split.clone(), patterns(of).ok_or_else(|| wrong("`data_files` of no paths"))?))
            })
            .collect::<Result<_, String>>()?,
        of => vec![("train".into(), patterns(of).ok_or_else(|| wrong("`data_files` of no paths"))?)],
    };
    let folder =
        of["data_dir"].as_str().unwrap_or_default().trim_start_matches("./").trim_matches('/').to_owned();
    let default = of["default"].as_str().is_some_and(|text| text.eq_ignore_ascii_case("true"));
    Ok(Config { default: default || name == "default", name, folder, splits })
}

/// A text, or a list of such.
fn patterns(of: &Value) -> Option<Vec<String>> {
    match of {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(all) => all.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// What is open while events come in: a list, or a mapping with a key that waits for its value.
enum Open {
    List(Vec<Value>),
    Table(Map<String, Value>, Option<String>),
}

/// YAML as JSON in which every scalar is a text, and nothing is null.
fn parse(text: &str) -> Result<Value, String> {
    let (mut open, mut root) = (Vec::new(), Value::Null);
    for event in Parser::new_from_str(text) {
        // The first line of the README is the one of dashes.
        let (event, span) =
            event.map_err(|e| format!("has broken YAML in line {}: {}", e.marker().line() + 1, e.info()))?;
        let line = span.start.line() + 1;
        let value = match event {
            Event::Scalar(text, ..) if matches!(&*text, "" | "~" | "null") => Value::Null,
            Event::Scalar(text, ..) => Value::String(text.into_owned()),
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Table(Map::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(all)) => Value::Array(all),
                Some(Open::Table(all, _)) => Value::Object(all),
                None => continue,
            },
            Event::Alias(_) => return Err(format!("has an alias in its YAML, in line {line}")),
            _ => continue,
        };
        match open.last_mut() {
            None => root = value,
            Some(Open::List(all)) => all.push(value),
            Some(Open::Table(all, waiting)) => match waiting.take() {
                Some(key) => drop(all.insert(key, value)),
                // A key that is no word is of no use here.
                None => *waiting = Some(value.as_str().unwrap_or_default().to_owned()),
            },
        }
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(yaml: &str) -> Result<Vec<Config>, String> {
        configs(&format!("---\n{yaml}\n---\n# Title\n"))
    }

    #[test]
    fn configs_are_read_in_all_forms() {
        let splits = |yaml: &str| one(yaml).unwrap()[0].splits.clone();
        let of =
            |split: &str, paths: &[&str]| (split.to_owned(), paths.iter().map(|p| (*p).to_owned()).collect());
        let list = "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n  - \
                    split: test\n    path:\n    - a.csv\n    - b.csv";
        assert_eq!(splits(list), [of("train", &["data/train-*"]), of("test", &["a.csv", "b.csv"])]);
        assert_eq!(splits("configs: [{config_name: a, data_files: x.json}]"), [of("train", &["x.json"])]);
        assert_eq!(splits("configs: [{data_files: [x.json, y.json]}]"), [of("train", &["x.json", "y.json"])]);
        assert_eq!(splits("configs: [{data_files: {dev: [x.json]}}]"), [of("dev", &["x.json"])]);
        let all =
            one("configs:\n- config_name: a\n  data_dir: ./a/\n- config_name: b\n  default: true").unwrap();
        assert_eq!((all[0].folder.as_str(), all[0].default, all[1].default), ("a", false, true));
        assert_eq!(configs("# no card\n"), Ok(Vec::new()));
        assert_eq!(one("license: mit"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(one("configs: [{data_files: [{path: a}]}]").unwrap_err().contains("without a `split`"));
        assert!(one("a: [1, 2\nconfigs: 3").unwrap_err().starts_with("has broken YAML in line "));
        assert!(one("configs: 3").unwrap_err().contains("no list"));
        assert!(one("a: &x 1\nb: *x").unwrap_err().contains("an alias in its YAML, in line 3"));
    }
}
