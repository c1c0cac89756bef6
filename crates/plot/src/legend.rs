//! The names of series above a chart, in as many rows as they need.

use crate::marks::{self, Area, Drawn, WORDS};
use crate::{Series, Style};
use plotters::style::text_anchor::HPos;

/// Height of a row.
pub const ROW: i32 = 20;
const SAMPLE: i32 = 24;
const GAP: i32 = 6;
/// Width of a letter; plotters cannot measure text, so this is an estimate on the safe side.
const LETTER: i32 = 8;

/// Rows of series by their numbers.
pub struct Legend<'a>(Vec<Vec<(usize, &'a Series)>>);

fn width(series: &Series) -> i32 {
    SAMPLE + 3 * GAP + LETTER * series.label.chars().count() as i32
}

impl<'a> Legend<'a> {
    /// Of those that have a name and a point, in rows of this width.
    pub fn of(series: &'a [Series], row: i32) -> Self {
        let named = |s: &&Series| !s.label.is_empty() && !s.points.is_empty();
        let mut rows: Vec<Vec<(usize, &Series)>> = Vec::new();
        let mut left = 0;
        for (number, series) in series.iter().enumerate().filter(|(_, s)| named(s)) {
            let needs = width(series);
            match rows.last_mut().filter(|_| needs <= left) {
                Some(last) => last.push((number, series)),
                None => {
                    rows.push(vec![(number, series)]);
                    left = row;
                }
            }
            left -= needs;
        }
        Legend(rows)
    }

    /// How many rows.
    pub fn rows(&self) -> i32 {
        self.0.len() as i32
    }

    /// Draws them from `top` down, each in the middle of a width.
    ///
    /// # Errors
    /// As plotters.
    pub fn draw(&self, area: &Area, top: i32, row: i32) -> Drawn<()> {
        for (i, all) in self.0.iter().enumerate() {
            let y = top + ROW / 2 + ROW * i as i32;
            let mut x = (row - all.iter().map(|(_, s)| width(s)).sum::<i32>()) / 2 + GAP;
            for (number, series) in all {
                let ends = [(x, y), (x + SAMPLE, y)];
                match series.style {
                    Style::Dashed => marks::dashes(area, *number, 2, &ends)?,
                    Style::Line | Style::LinePoints => marks::line(area, *number, 2, ends.to_vec())?,
                    Style::Points => {}
                }
                if matches!(series.style, Style::Points | Style::LinePoints) {
                    marks::marker(area, *number, (x + SAMPLE / 2, y))?;
                }
                let place = (x + SAMPLE + GAP, y);
                marks::words(area, &series.label, place, marks::style(WORDS, HPos::Left))?;
                x += width(series);
            }
        }
        Ok(())
    }
}
