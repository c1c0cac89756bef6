//! What a repository is called.

use std::fmt;

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A model, or an adapter of one.
    Model,
    /// Rows.
    Dataset,
}

impl Kind {
    /// How the Hub calls several of them, in addresses and in the cache.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Model => "model",
            Kind::Dataset => "dataset",
        })
    }
}

/// A repository at a revision. It reads and prints as `org/name` or `org/name@revision`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// What it holds.
    pub kind: Kind,
    /// `org/name`, or `name` alone.
    pub id: String,
    /// A branch, a tag, `refs/pr/N` or a commit; `None`: the branch `main`.
    pub revision: Option<String>,
}

/// The most characters of a name, as the Hub has it.
const LONGEST: usize = 96;

impl Name {
    /// The name that `said` is; `None` where it can only be a path.
    pub fn parse(kind: Kind, said: &str) -> Option<Self> {
        let (id, revision) = match said.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (said, None),
        };
        let parts: Vec<&str> = id.split('/').collect();
        let fits = |part: &&str| {
            let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
            let inner = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            outer(part.chars().next())
                && outer(part.chars().last())
                && part.chars().all(inner)
                && !["--", ".."].iter().any(|pair| part.contains(pair))
        };
        let is_id = parts.len() <= 2 && parts.iter().all(fits) && id.len() <= LONGEST;
        // A file of rows that is not there is no repository.
        let is_file =
            kind == Kind::Dataset && parts.last().is_some_and(|name| is_rows(name.trim_end_matches(".gz")));
        let is_revision = revision.is_none_or(is_revision);
        (is_id && !is_file && is_revision).then(|| Name {
            kind,
            id: id.to_owned(),
            revision: revision.map(str::to_owned),
        })
    }

    /// The revision that is meant.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The same at a commit.
    pub fn at(&self, commit: &str) -> Self {
        Name { revision: Some(commit.to_owned()), ..self.clone() }
    }

    /// Whether it says a commit, which means the same for ever.
    pub fn is_commit(&self) -> bool {
        is_commit(self.revision())
    }

    /// Its folder in the cache.
    pub(crate) fn folder(&self) -> String {
        format!("{}--{}", self.kind.plural(), self.id.replace('/', "--"))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.revision {
            Some(revision) => write!(f, "{}@{revision}", self.id),
            None => f.write_str(&self.id),
        }
    }
}

/// Whether a text is the name of a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether a text may be a revision: it is a path in the cache, which it must not leave.
fn is_revision(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    text.split('/').all(part) && text.chars().all(|c| c.is_ascii_graphic() && c != '\\')
}

/// Endings of the names of files of rows.
const ROWS: [&str; 6] = [".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet"];

/// Whether a file of this name has rows.
pub(crate) fn is_rows(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // Parquet packs itself.
    let packed = name.strip_suffix(".gz").filter(|name| !name.ends_with(".parquet"));
    ROWS.iter().any(|ending| packed.unwrap_or(&name).ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        let parse = |said| Name::parse(Kind::Model, said).map(|name| (name.id.clone(), name.to_string()));
        for said in ["org/name", "gpt2", "org/na.me-1_x@main", "org/name@refs/pr/1", "o/n@feature/x"] {
            let id = said.split('@').next().unwrap();
            assert_eq!(parse(said), Some((id.to_owned(), said.to_owned())));
        }
        for path in [
            "",
            "/org/name",
            "./name",
            "../name",
            "a/b/c",
            "org/",
            "org//name",
            "~/name",
            "a b/c",
            ".hidden",
            "a--b/c",
            "org/name@",
            "org/name@../../x",
            "org/name@a//b",
            "org/name@/a",
            "runs\\a",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
        for file in ["pairs.jsonl", "runs/train.parquet", "nothere.txt", "a/b.TXT.gz", "rows.csv.gz"] {
            assert_eq!(Name::parse(Kind::Dataset, file), None, "{file}");
        }
        let name = Name::parse(Kind::Dataset, "org/name").unwrap();
        assert_eq!((name.folder().as_str(), name.revision()), ("datasets--org--name", "main"));
        assert!(name.at(&"0a".repeat(20)).is_commit() && !name.at("0a0a0a0").is_commit());
    }
}
