//! YAML as the Python trainers read it: PyYAML's words and numbers, on a parser of YAML 1.2.

use super::said::{Entry, Said};
use crate::Error;
use granit_parser::{Event, Parser, ScalarStyle};
use std::collections::BTreeMap;

/// Values that aliases may make of a file: more are a bomb, not a recipe.
const MOST: usize = 100_000;

/// The keys of a YAML file.
///
/// # Errors
/// It is no YAML, or its top is no mapping; the message names the line.
pub fn parse(text: &str) -> Result<Vec<Entry>, Error> {
    match Reader::default().read(text)? {
        Said::Table(entries) => Ok(entries),
        Said::Null => Ok(Vec::new()),
        _ => Err(Error::new("a recipe is a mapping of keys, `key: value` in each line")),
    }
}

/// What is open while events come in.
enum Open {
    /// A list, and its anchor.
    List(Vec<Said>, usize),
    /// A mapping, a key that waits for its value with its line, and its anchor.
    Table(Vec<Entry>, Option<(String, usize)>, usize),
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    /// What anchors name, with how many values that is.
    anchors: BTreeMap<usize, (Said, usize)>,
    values: usize,
    root: Option<Said>,
}

impl Reader {
    fn read(mut self, text: &str) -> Result<Said, Error> {
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|e| {
                let line = e.marker().line();
                let of_line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
                let indent = of_line.len() - of_line.trim_start().len();
                match of_line[..indent].contains('\t') {
                    true => at(line, "is indented by a tab, which YAML does not take; indent it by spaces"),
                    false => at(line, &format!("no YAML: {}", e.info())),
                }
            })?;
            let line = span.start.line();
            let simple = |tag: Option<&granit_parser::Tag>| match tag {
                Some(tag) if !tag.is_yaml_core_schema() => Err(at(
                    line,
                    &format!("the tag `{tag}` makes an object of Python; write the value itself"),
                )),
                _ => Ok(()),
            };
            match event {
                Event::Scalar(text, style, anchor, tag) => {
                    simple(tag.as_deref())?;
                    let text_of = tag.as_deref().is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                    let value = match style {
                        ScalarStyle::Plain if !text_of => plain(&text),
                        _ => Said::Text(text.into_owned()),
                    };
                    self.add(value, anchor, line)?;
                }
                Event::SequenceStart(_, anchor, tag) => {
                    simple(tag.as_deref())?;
                    self.open.push(Open::List(Vec::new(), anchor));
                }
                Event::MappingStart(_, anchor, tag) => {
                    simple(tag.as_deref())?;
                    self.open.push(Open::Table(Vec::new(), None, anchor));
                }
                Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                    Some(Open::List(items, anchor)) => self.add(Said::List(items), anchor, line)?,
                    Some(Open::Table(entries, _, anchor)) => self.add(Said::Table(entries), anchor, line)?,
                    None => {}
                },
                Event::Alias(anchor) => {
                    let Some((value, values)) = self.anchors.get(&anchor).cloned() else {
                        return Err(at(line, "an alias stands inside what it names"));
                    };
                    self.values += values;
                    self.add(value, 0, line)?;
                }
                Event::DocumentStart(..) if self.root.is_some() => {
                    return Err(at(line, "a second document begins; a recipe is one"));
                }
                _ => {}
            }
        }
        Ok(self.root.unwrap_or(Said::Null))
    }

    /// Takes the next value where it belongs.
    fn add(&mut self, value: Said, anchor: usize, line: usize) -> Result<(), Error> {
        self.values += 1;
        if self.values > MOST {
            return Err(at(line, &format!("aliases make more than {MOST} values of the file")));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), count(&value)));
        }
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some(Open::List(items, _)) => items.push(value),
            Some(Open::Table(entries, waiting, _)) => match waiting.take() {
                None => match value {
                    Said::Text(key) => *waiting = Some((key, line)),
                    _ => return Err(at(line, "a key is a word")),
                },
                Some((key, line)) if key == "<<" => merge(entries, value, line)?,
                Some((key, line)) => {
                    // What was merged gives way to what is written.
                    if let Some(i) = entries.iter().position(|e| e.key == key) {
                        if entries[i].line != 0 {
                            return Err(at(line, &format!("`{key}` is given twice; remove one")));
                        }
                        entries.remove(i);
                    }
                    entries.push(Entry { key, value, line });
                }
            },
        }
        Ok(())
    }
}

/// How many values one is.
fn count(value: &Said) -> usize {
    1 + match value {
        Said::List(items) => items.iter().map(count).sum(),
        Said::Table(entries) => entries.iter().map(|e| count(&e.value)).sum(),
        _ => 0,
    }
}

/// The keys of the merged mapping that are not there yet, in lines of their own, which are unknown here.
fn merge(entries: &mut Vec<Entry>, value: Said, line: usize) -> Result<(), Error> {
    match value {
        Said::Table(merged) => {
            for entry in merged {
                if entries.iter().all(|e| e.key != entry.key) {
                    entries.push(Entry { line: 0, ..entry });
                }
            }
            Ok(())
        }
        Said::List(all) => all.into_iter().try_for_each(|one| merge(entries, one, line)),
        _ => Err(at(line, "`<<` merges a mapping, by the name that an anchor gave it")),
    }
}

/// A plain scalar, by PyYAML's rules of YAML 1.1: its words for yes, no and nothing, its separators in numbers. Numbers
/// stay texts: what is one is for the key to say, and `5e-7`, which PyYAML takes for a text, is a number to TRL's
/// parser.
fn plain(text: &str) -> Said {
    let as_word = |word: &str| {
        let capital = || word[..1].to_uppercase() + &word[1..];
        text == word || text == word.to_uppercase() || text == capital()
    };
    if text.is_empty() || text == "~" || as_word("null") {
        return Said::Null;
    }
    if ["true", "yes", "on"].into_iter().any(as_word) {
        return Said::Text("true".into());
    }
    if ["false", "no", "off"].into_iter().any(as_word) {
        return Said::Text("false".into());
    }
    let number = text.trim_start_matches(['+', '-']);
    let sign = &text[..text.len() - number.len()];
    let digits = number.starts_with(|c: char| c.is_ascii_digit())
        && number.chars().all(|c| c.is_ascii_digit() || "_.eE+-".contains(c));
    match number {
        ".inf" | ".Inf" | ".INF" => Said::Text(format!("{sign}inf")),
        ".nan" | ".NaN" | ".NAN" => Said::Text("nan".into()),
        _ if digits && number.contains('_') => Said::Text(text.replace('_', "")),
        _ => Said::Text(text.into()),
    }
}

fn at(line: usize, what: &str) -> Error {
    Error::new(format!("line {line}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<(String, String)> {
        parse(text)
            .unwrap_or_else(|e| panic!("{text}: {e}"))
            .into_iter()
            .map(|e| (e.key, e.value.text()))
            .collect()
    }

    fn error(text: &str) -> String {
        parse(text).expect_err(text).to_string()
    }

    /// As `yaml.safe_load` of PyYAML 6.0.3, but for numbers, which stay as they are written.
    #[test]
    fn words_are_pyyamls() {
        for (yaml, text) in [
            ("no", "false"),
            ("No", "false"),
            ("off", "false"),
            ("Yes", "true"),
            ("TRUE", "true"),
            ("nO", "nO"),
            ("\"no\"", "no"),
            ("!!str no", "no"),
            ("", "none"),
            ("~", "none"),
            ("Null", "none"),
            ("\"\"", ""),
            ("None", "None"),
            ("5e-7", "5e-7"),
            ("5.0e-07", "5.0e-07"),
            ("1_000", "1000"),
            ("a_1", "a_1"),
            ("-.inf", "-inf"),
            ("[q_proj, 'v_proj']", "q_proj,v_proj"),
            ("{a: 0.1, b: x, c: yes}", r#"{"a":0.1,"b":"x","c":true}"#),
        ] {
            assert_eq!(said(&format!("k: {yaml}")), [("k".to_string(), text.to_string())], "{yaml}");
        }
        assert_eq!(said("# nothing\n"), []);
        assert_eq!(said("k:\n- a\n- b\n")[0].1, "a,b");
        assert_eq!(said("---\nk: >-\n  two\n  lines\n...\n")[0].1, "two lines");
    }

    #[test]
    fn anchors_and_merges() {
        let text = "base: &base {lr: 1, beta: 2}\nlist: &l [a]\nagain: *l\nrun:\n  <<: *base\n  beta: 3\n";
        assert_eq!(said(text)[2].1, "a");
        assert_eq!(said(text)[3].1, r#"{"lr":1,"beta":3}"#);
        assert_eq!(said("a: &a {x: 1}\nb: &b {y: 2}\nc: {<<: [*a, *b], x: 4}")[2].1, r#"{"y":2,"x":4}"#);
        let bomb: String = (1..20)
            .map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", ")))
            .collect();
        assert!(error(&format!("a0: &a0 [x]\n{bomb}")).contains("more than 100000 values"));
        assert!(error("a: &a [*a]").starts_with("line 1: "));
        assert!(error("a: *b").starts_with("line 1: no YAML: "));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        assert_eq!(
            error("a: 1\nb:\n\tc: 2\n"),
            "line 3: is indented by a tab, which YAML does not take; indent it by spaces"
        );
        assert_eq!(error("a: 1\nb: 2\na: 3\n"), "line 3: `a` is given twice; remove one");
        assert!(error("a: [1, 2\nb: 3\n").starts_with("line 2: no YAML: "), "{}", error("a: [1, 2\nb: 3\n"));
        assert!(error("- a\n- b\n").contains("a mapping of keys"));
        assert!(error("a: 1\n---\nb: 2\n").contains("line 2: a second document"));
        assert!(error("a: !!python/object/apply:os.system [ls]").contains("line 1: the tag "));
        assert!(error("? [a]\n: b").contains("line 1: a key is a word"));
        assert!(error(&"[".repeat(3000)).starts_with("line 1: no YAML: "));
    }
}
