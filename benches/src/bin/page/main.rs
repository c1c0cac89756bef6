//! Writes the GPU section of `SPEED.md` from the newest results of a GPU, or from predictions where there are none, and
//! the tables of `docs/scaling.md`.

mod measured;
mod predict;
mod predicted;
mod published;
mod results;
mod rows;
mod scaling;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What stands around the section.
const MARKERS: [&str; 2] = ["<!-- gpu performance: begin -->\n", "<!-- gpu performance: end -->\n"];
/// Columns of a line that is not of a table.
const WIDTH: usize = 118;

fn main() -> ExitCode {
    match update() {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::FAILURE
        }
    }
}

fn update() -> Result<(), String> {
    for page in pages()? {
        let failed = |e: std::io::Error| format!("{}: {e}", page.path.display());
        let old = std::fs::read_to_string(&page.path).map_err(failed)?;
        std::fs::write(&page.path, page.with_section(&old)?).map_err(failed)?;
    }
    Ok(())
}

/// A document of which code writes a part.
struct Page {
    path: PathBuf,
    markers: [&'static str; 2],
    section: String,
}

fn pages() -> Result<[Page; 2], String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = |path, markers, section| Page { path: folder.join(path), markers, section };
    Ok([
        page("SPEED.md", MARKERS, section()?),
        page("../docs/scaling.md", scaling::MARKERS, scaling::section()),
    ])
}

/// The section as it should be.
fn section() -> Result<String, String> {
    let newest = results::newest(&Path::new(env!("CARGO_MANIFEST_DIR")).join("results"))?;
    Ok(match newest {
        Some((name, results)) => measured::section(&name, &results),
        None => predicted::section(),
    })
}

impl Page {
    /// The text with its section between the markers.
    fn with_section(&self, text: &str) -> Result<String, String> {
        let Page { path, markers: [begin, end], section } = self;
        let missing = || format!("{} has no lines {} and {}", path.display(), begin.trim(), end.trim());
        let (before, rest) = text.split_once(begin).ok_or_else(missing)?;
        let (_, after) = rest.split_once(end).ok_or_else(missing)?;
        Ok(format!("{before}{begin}\n{section}\n{end}{after}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_up_to_date() {
        for page in pages().unwrap() {
            let text = std::fs::read_to_string(&page.path).unwrap();
            assert!(
                text == page.with_section(&text).unwrap(),
                "{} is not what results, predictions and models give; run `cargo xtask bench --page`",
                page.path.display()
            );
        }
    }

    #[test]
    fn lines_outside_of_tables_are_short() {
        for line in section().unwrap().lines().filter(|line| !line.starts_with('|')) {
            assert!(line.chars().count() < 120, "{line}");
        }
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let [begin, end] = MARKERS;
        let page = Page { path: "SPEED.md".into(), markers: MARKERS, section: "new\n".into() };
        let text = format!("a\n{begin}old\n{end}b\n");
        assert_eq!(page.with_section(&text), Ok(format!("a\n{begin}\nnew\n\n{end}b\n")));
        assert!(page.with_section("a\nb\n").is_err_and(|what| what.contains("gpu performance: begin")));
    }
}
