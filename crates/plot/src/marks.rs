//! What stands for a series: a marker of its own, a line.

use crate::theme;
use plotters::coord::Shift;
use plotters::prelude::{Circle, DrawingArea, IntoFont, PathElement, Polygon, SVGBackend, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, TextStyle};

/// What is drawn on, in pixels from its upper left corner.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What comes of drawing.
pub type Drawn<T> = Result<T, Box<dyn std::error::Error>>;
/// A place in pixels.
pub type Pixel = (i32, i32);

/// Corners of the markers in pixels from their middle, one after another; of no corner: a circle.
const MARKERS: [&[(i32, i32)]; 6] = [
    &[],
    &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
    &[(0, -5), (5, 4), (-5, 4)],
    &[(0, -6), (6, 0), (0, 6), (-6, 0)],
    &[(-5, -4), (5, -4), (0, 5)],
    &[
        (-2, -5),
        (2, -5),
        (2, -2),
        (5, -2),
        (5, 2),
        (2, 2),
        (2, 5),
        (-2, 5),
        (-2, 2),
        (-5, 2),
        (-5, -2),
        (-2, -2),
    ],
];
/// Dashes and the gaps between them.
const DASH: f64 = 7.0;
const GAP: f64 = 4.0;

/// The marker of the series of this number.
///
/// # Errors
/// As plotters.
pub fn marker(area: &Area, number: usize, (x, y): Pixel) -> Drawn<()> {
    let style = theme::series(number).filled();
    match MARKERS[number % MARKERS.len()] {
        [] => area.draw(&Circle::new((x, y), 4, style))?,
        corners => {
            let corners: Vec<Pixel> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
            area.draw(&Polygon::new(corners, style))?;
        }
    }
    Ok(())
}

/// A line of the series of this number, so wide, through these places.
///
/// # Errors
/// As plotters.
pub fn line(area: &Area, number: usize, width: u32, places: Vec<Pixel>) -> Drawn<()> {
    Ok(area.draw(&PathElement::new(places, theme::series(number).stroke_width(width)))?)
}

/// The same in dashes, which go on round corners.
///
/// # Errors
/// As plotters.
pub fn dashes(area: &Area, number: usize, width: u32, places: &[Pixel]) -> Drawn<()> {
    let mut phase = 0.0;
    for ends in places.windows(2) {
        let [a, b] = [ends[0], ends[1]].map(|(x, y)| (f64::from(x), f64::from(y)));
        let length = (b.0 - a.0).hypot(b.1 - a.1);
        let at = |d: f64| {
            let share = d / length;
            ((a.0 + share * (b.0 - a.0)).round() as i32, (a.1 + share * (b.1 - a.1)).round() as i32)
        };
        let mut from = -phase;
        while from < length {
            let (begin, end) = (from.max(0.0), (from + DASH).min(length));
            if begin < end {
                line(area, number, width, vec![at(begin), at(end)])?;
            }
            from += DASH + GAP;
        }
        // What of the last dash and its gap is left for the next piece.
        phase = (phase + length) % (DASH + GAP);
    }
    Ok(())
}

/// Size of ordinary words: plotters draws text at 1/1.24 of what it is given.
pub const WORDS: f64 = 13.0 * 1.24;
/// Size of a title.
pub const TITLE: f64 = 16.0 * 1.24;

/// Words of this size, on this side of a place.
pub fn style(size: f64, side: HPos) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", size).into_font())
        .color(&theme::TEXT.light)
        .pos(Pos::new(side, VPos::Center))
}

/// Writes words.
///
/// # Errors
/// As plotters.
pub fn words(area: &Area, text: &str, place: Pixel, style: TextStyle<'_>) -> Drawn<()> {
    Ok(area.draw(&Text::new(text, place, style))?)
}
