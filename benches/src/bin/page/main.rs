//! Writes the GPU section of `SPEED.md` from the newest results of a GPU, or from predictions where there are none.

mod measured;
mod predict;
mod predicted;
mod published;
mod results;
mod rows;

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
    let path = page();
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let old = std::fs::read_to_string(&path).map_err(failed)?;
    let new = with_section(&old, &section()?)?;
    std::fs::write(&path, new).map_err(failed)
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("SPEED.md")
}

/// The section as it should be.
fn section() -> Result<String, String> {
    let newest = results::newest(&Path::new(env!("CARGO_MANIFEST_DIR")).join("results"))?;
    Ok(match newest {
        Some((name, results)) => measured::section(&name, &results),
        None => predicted::section(),
    })
}

/// The text with another section between the markers.
fn with_section(text: &str, section: &str) -> Result<String, String> {
    let [begin, end] = MARKERS;
    let missing = || format!("SPEED.md has no lines {} and {}", begin.trim(), end.trim());
    let (before, rest) = text.split_once(begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(end).ok_or_else(missing)?;
    Ok(format!("{before}{begin}\n{section}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_up_to_date() {
        let text = std::fs::read_to_string(page()).unwrap();
        let new = with_section(&text, &section().unwrap()).unwrap();
        assert!(
            text == new,
            "the GPU section of SPEED.md is not what the results and predictions give; run `cargo xtask bench --page`"
        );
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
        let text = format!("a\n{begin}old\n{end}b\n");
        assert_eq!(with_section(&text, "new\n"), Ok(format!("a\n{begin}\nnew\n\n{end}b\n")));
        assert!(with_section("a\nb\n", "new\n").is_err_and(|what| what.contains("gpu performance: begin")));
    }
}
