//! `duel inspect`: rows as a run sees them, as text and as tokens, with what becomes of each.

use crate::run::RunArguments;
use clap::{Args, ValueEnum};
use duel_data::{Group, Labels, Part, Seen, Tokenizer, Use};
use duel_train::{Error, Look, signal};
use serde_json::{Value, json};
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;

/// Its arguments.
#[derive(Args)]
pub struct Inspect {
    /// The first row that is shown, by its number: the line of a .jsonl, the element of a .json
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    row: u32,
    /// How many rows are shown
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
    /// Show rows of eval_dataset in the place of those of dataset
    #[arg(long)]
    eval: bool,
    /// Show every token's number in the vocabulary
    #[arg(long)]
    ids: bool,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    said: RunArguments,
}

/// What is printed.
#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    /// For who reads
    Text,
    /// For programs
    Json,
}

impl Inspect {
    /// Prints the rows.
    ///
    /// # Errors
    /// What the user must put right.
    pub fn run(&self) -> Result<(), Error> {
        signal::listen();
        let config = self.said.config()?;
        let files = match self.eval {
            false => config.train_files()?,
            true => config
                .eval_files()?
                .ok_or_else(|| Error::new("--eval shows rows of `eval_dataset`, which is not given"))?,
        };
        let look = Look::open(&config)?;
        let mut rows = Vec::new();
        look.each(&files, self.row as usize, |seen| {
            rows.push(seen);
            rows.len() < self.rows as usize
        })?;
        if rows.is_empty() {
            return Err(Error::new(format!(
                "{}: there is no row {} or after it",
                files.name().display(),
                self.row
            )));
        }
        let show = Show { path: files.name(), tokenizer: &look.tokenizer, colours: colours(), ids: self.ids };
        let mut text = String::new();
        for seen in &rows {
            match self.format {
                Format::Text => text += &show.text(seen)?,
                Format::Json => text += &format!("{}\n", show.json(seen)?),
            }
        }
        print(&text)
    }
}

/// Writes to standard output; that nobody reads on is no error.
pub fn print(text: &str) -> Result<(), Error> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::new(format!("standard output: {e}"))),
        _ => Ok(()),
    }
}

/// Whether standard output is one for colours (<https://no-color.org>).
fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|said| said.is_empty())
}

/// How rows are shown.
struct Show<'a> {
    path: &'a Path,
    tokenizer: &'a Tokenizer,
    colours: bool,
    ids: bool,
}

/// What is said of a use, and its colour.
fn described(of: Use) -> (&'static str, &'static str) {
    match of {
        Use::Context => ("context", "36"),
        Use::Scored => ("scored", "32"),
        Use::Cut => ("cut off", "31"),
    }
}

impl Show<'_> {
    fn painted(&self, text: &str, colour: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn text(&self, seen: &Seen) -> Result<String, Error> {
        let head = format!("{}, row {}", self.path.display(), seen.row);
        let columns = seen.columns.as_object().into_iter().flat_map(|columns| columns.keys());
        let columns: Vec<&str> = columns.map(String::as_str).collect();
        let mut text = format!("{}\n  columns: {}\n", self.painted(&head, "1"), columns.join(", "));
        match &seen.refused {
            Some(why) => text += &format!("  {}: {why}\n", self.painted("refused", "31")),
            None => text += &format!("  {}\n", seen.report),
        }
        for (name, part) in named(seen) {
            let cut = part.uses.iter().filter(|of| **of == Use::Cut).count();
            let cut = if cut > 0 { format!(", {cut} of them cut off") } else { String::new() };
            text += &format!("  {name}: {} tokens{cut}\n", part.tokens.len());
            let pieces = self.tokenizer.pieces(&part.tokens)?;
            let mut at = 0;
            for run in part.uses.chunk_by(|a, b| a == b) {
                let (what, colour) = described(run[0]);
                let range = at..at + run.len();
                let said = self.said(&part, &pieces, range.clone())?;
                for (i, line) in said.split('\n').enumerate() {
                    let what = if i == 0 { what } else { "" };
                    text += &format!("    {what:<8}| {}\n", self.painted(line, colour));
                }
                let tokens: Vec<String> = range.map(|i| self.token(&pieces[i], part.tokens[i])).collect();
                text += &format!("    tokens  | {}\n", self.painted(&tokens.join("|"), colour));
                at += run.len();
            }
        }
        Ok(text)
    }

    /// The text of some tokens of a part.
    fn said(&self, part: &Part, pieces: &[String], range: std::ops::Range<usize>) -> Result<String, Error> {
        let before = self.tokenizer.decode(&part.tokens[..range.start], false)?;
        let whole = self.tokenizer.decode(&part.tokens[..range.end], false)?;
        // Where the two share a character, what its tokens are called.
        let said = whole.strip_prefix(&before).map_or_else(|| pieces[range].concat(), str::to_owned);
        // A row must not speak to the terminal.
        let shown = |c: char| match c.is_control() && !matches!(c, '\n' | '\t') {
            true => c.escape_default().to_string(),
            false => c.to_string(),
        };
        Ok(said.chars().map(shown).collect())
    }

    fn token(&self, piece: &str, id: u32) -> String {
        let piece = piece.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\"");
        if self.ids { format!("{piece}={id}") } else { piece }
    }

    fn json(&self, seen: &Seen) -> Result<Value, Error> {
        let dropped = seen.report.dropped();
        let dropped: Vec<&str> =
            dropped.iter().filter(|(count, _)| *count > 0).map(|(_, why)| *why).collect();
        let part = |(name, part): (String, Part)| {
            let pieces = self.tokenizer.pieces(&part.tokens)?;
            let token =
                |i: usize| json!({"id": part.tokens[i], "text": pieces[i], "use": described(part.uses[i]).0});
            Ok(json!({"name": name, "tokens": (0..pieces.len()).map(token).collect::<Vec<_>>()}))
        };
        let parts = named(seen).into_iter().map(part).collect::<Result<Vec<_>, Error>>()?;
        Ok(json!({
            "file": self.path, "row": seen.row, "columns": seen.columns, "refused": seen.refused, "dropped": dropped,
            "parts": parts,
        }))
    }
}

/// All parts of a row, each with its name.
fn named(seen: &Seen) -> Vec<(String, Part)> {
    let groups = seen.whole.iter().flat_map(|whole| whole.groups());
    let mut all = Vec::new();
    for (group, (prompt, responses)) in groups.zip(seen.parts()) {
        all.push(("prompt".to_owned(), prompt));
        let names = (0..responses.len()).map(|i| name(group, i));
        all.extend(names.zip(responses));
    }
    all
}

/// What response `i` of a group is.
fn name(group: Group<'_>, i: usize) -> String {
    let count = group.responses().len();
    match (group.labels(), count, i) {
        (Labels::Unpaired { desirable: true }, ..) => "desirable response".into(),
        (Labels::Unpaired { desirable: false }, ..) => "undesirable response".into(),
        (Labels::Scored(scores), ..) => format!("response {}, of score {}", i + 1, scores[i]),
        (_, 1, _) => "response".into(),
        (Labels::Ranked { margin: Some(margin) }, 2, 0) => format!("chosen, by {margin}"),
        (_, 2, 0) => "chosen".into(),
        (_, 2, _) => "rejected".into(),
        _ => format!("response {}, best first", i + 1),
    }
}
