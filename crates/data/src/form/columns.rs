//! Columns by other names.

use serde_json::{Map, Value};
use std::fmt;
use std::str::FromStr;

/// The columns that rows are read by.
const NAMES: [&str; 19] = [
    "prompt",
    "chosen",
    "rejected",
    "responses",
    "scores",
    "margin",
    "completion",
    "completions",
    "label",
    "messages",
    "conversations",
    "text",
    "instruction",
    "input",
    "output",
    "system",
    "tools",
    "documents",
    "chat_template_kwargs",
];

/// What columns are called in a file: pairs of the name that is read and that of the file, as
/// `prompt=question,chosen=good`. Others are read by the names that they have, unless some are the only ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    pairs: Vec<(String, String)>,
    only: Option<Vec<String>>,
}

impl Columns {
    /// Those of pairs of names, each the one that is read and that of the file.
    ///
    /// # Errors
    /// A name that is read is none, or one of either is there twice.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, String> {
        let mut all: Vec<(String, String)> = Vec::new();
        for (ours, theirs) in pairs {
            if !NAMES.contains(&ours.as_str()) {
                return Err(format!("`{ours}` is no column that is read; those are {}", NAMES.join(", ")));
            }
            if theirs.is_empty() {
                return Err(format!("`{ours}` is given no column; write {ours}=NAME"));
            }
            for (other, given) in &all {
                if *other == ours {
                    return Err(format!("`{given}` and `{theirs}` are both to be `{ours}`; keep one"));
                }
                if *given == theirs {
                    return Err(format!("`{theirs}` is to be `{other}` and `{ours}`; keep one"));
                }
            }
            all.push((ours, theirs));
        }
        Ok(Columns { pairs: all, only: None })
    }

    /// The only columns that are read, by the names that they have.
    pub fn only(names: impl IntoIterator<Item = String>) -> Self {
        Columns { pairs: Vec::new(), only: Some(names.into_iter().collect()) }
    }

    /// Pairs of names as they are written, whatever the names are.
    ///
    /// # Errors
    /// One is no pair.
    pub fn written(text: &str) -> Result<Vec<(String, String)>, String> {
        let pair = |said: &str| match said.split_once('=') {
            Some((ours, theirs)) => Ok((ours.trim().to_owned(), theirs.trim().to_owned())),
            None => Err(format!("`{}` is no pair of names; write prompt=question,chosen=good", said.trim())),
        };
        text.split(',').map(pair).collect()
    }

    /// The pairs.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// A row with the names that are read. Every column that is named must be there, be it null.
    pub(super) fn rename(&self, mut row: Map<String, Value>) -> Result<Map<String, Value>, String> {
        let absent = |row: &Map<String, Value>, name: &str, what: String| {
            let found = row.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            Err(format!("has no column `{name}`, which {what}; the columns are {found}"))
        };
        if let Some(only) = &self.only {
            if let Some(name) = only.iter().find(|name| !row.contains_key(*name)) {
                return absent(&row, name, "is to be read".into());
            }
            row.retain(|name, _| only.contains(name));
        }
        for (ours, theirs) in &self.pairs {
            if !row.contains_key(theirs) {
                return absent(&row, theirs, format!("is to be `{ours}`"));
            }
            let moves = self.pairs.iter().any(|(_, other)| other == ours);
            if ours != theirs && !moves && row.get(ours).is_some_and(|value| !value.is_null()) {
                return Err(format!(
                    "has a column `{ours}`, and `{theirs}` is to be `{ours}`; leave that out, or give `{ours}` \
                     another place"
                ));
            }
        }
        let of = |name: String| match self.pairs.iter().find(|(_, theirs)| *theirs == name) {
            Some((ours, _)) => Some(ours.clone()),
            // A null that gives way.
            None if self.pairs.iter().any(|(ours, _)| *ours == name) => None,
            None => Some(name),
        };
        Ok(row.into_iter().filter_map(|(name, value)| Some((of(name)?, value))).collect())
    }
}

impl FromStr for Columns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Columns::new(Columns::written(text)?)
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.pairs.iter().map(|(ours, theirs)| format!("{ours}={theirs}")).collect();
        f.write_str(&pairs.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn renamed(columns: &str, row: Value) -> Result<Value, String> {
        let Value::Object(row) = row else { panic!("no row") };
        columns.parse::<Columns>().unwrap().rename(row).map(Value::Object)
    }

    #[test]
    fn columns_get_the_names_that_are_read() {
        let row = json!({"id": 3, "question": "Q", "good": "y", "bad": null});
        let got = renamed("prompt=question, chosen=good,rejected=bad", row).unwrap();
        assert_eq!(got, json!({"id": 3, "prompt": "Q", "chosen": "y", "rejected": null}));
        // Two change places; a null gives way.
        let swapped = renamed("chosen=rejected,rejected=chosen", json!({"chosen": "a", "rejected": "b"}));
        assert_eq!(swapped.unwrap(), json!({"rejected": "a", "chosen": "b"}));
        let null = renamed("prompt=question", json!({"prompt": null, "question": "Q"})).unwrap();
        assert_eq!(null, json!({"prompt": "Q"}));
        let row = json!({"chosen": "a", "rejected": "b", "prompt": "P"}).as_object().unwrap().clone();
        let only = Columns::only(["chosen", "rejected"].map(String::from)).rename(row.clone()).unwrap();
        assert_eq!(Value::Object(only), json!({"chosen": "a", "rejected": "b"}));
        let e = Columns::only(["completion".to_owned()]).rename(row).unwrap_err();
        assert!(e.starts_with("has no column `completion`, which is to be read"), "{e}");
        assert_eq!("prompt=question".parse::<Columns>().unwrap().to_string(), "prompt=question");
    }

    #[test]
    fn each_mistake_is_named() {
        let wrong = |text: &str, part: &str| {
            let e = text.parse::<Columns>().expect_err(text);
            assert!(e.contains(part), "{text}: {e}");
        };
        wrong("question", "`question` is no pair of names");
        wrong("promt=question", "`promt` is no column that is read; those are prompt, ");
        wrong("prompt=", "`prompt` is given no column");
        wrong("prompt=a,prompt=b", "`a` and `b` are both to be `prompt`");
        wrong("prompt=a,chosen=a", "`a` is to be `prompt` and `chosen`");
        let e = renamed("prompt=question", json!({"query": "Q"})).unwrap_err();
        assert_eq!(e, "has no column `question`, which is to be `prompt`; the columns are `query`");
        let e = renamed("prompt=question", json!({"prompt": "P", "question": "Q"})).unwrap_err();
        assert!(e.starts_with("has a column `prompt`, and `question` is to be `prompt`"), "{e}");
    }
}
