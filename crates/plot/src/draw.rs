//! Charts to an image.

use crate::legend::{Legend, ROW};
use crate::marks::{self, Area, Drawn, TITLE, WORDS};
use crate::scale::Scale;
use crate::{Chart, Error, Point, Series, Style, theme};
use plotters::prelude::{IntoDrawingArea, PathElement, SVGBackend};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color, FontTransform};

/// A chart alone on its page, and one among others: width and height with a legend of at most two rows.
const ALONE: (i32, i32) = (860, 560);
const AMONG: (i32, i32) = (520, 340);
/// Room above the legend, and around what is between the axes.
const HEAD: i32 = 34;
const LEFT: i32 = 74;
const RIGHT: i32 = 24;
const FOOT: i32 = 50;

/// Draws charts as one image: a single one large, several in two columns. The same charts give the same bytes.
///
/// # Errors
/// A range that an axis is told to show is none.
pub fn svg(charts: &[Chart]) -> Result<String, Error> {
    let (width, height) = if charts.len() == 1 { ALONE } else { AMONG };
    let legends: Vec<Legend> = charts.iter().map(|c| Legend::of(&c.series, width - 2 * RIGHT)).collect();
    let height = height + ROW * (legends.iter().map(Legend::rows).max().unwrap_or(0) - 2).max(0);
    let panel =
        |(chart, legend)| Panel::of(chart, (width, height), legend).map_err(|what| Error::new(chart, what));
    let panels = charts.iter().zip(&legends).map(panel).collect::<Result<Vec<_>, _>>()?;
    let mut svg = String::new();
    page(&mut svg, &panels, (width, height)).map_err(|e| Error(format!("an image cannot be drawn: {e}")))?;
    // After the tag that opens the image.
    let inside = svg.find('>').map_or(0, |end| end + 1);
    svg.insert_str(inside, &format!("\n{}", theme::style().trim_end()));
    Ok(svg)
}

/// All charts of this size on one page.
fn page(svg: &mut String, panels: &[Panel], (width, height): (i32, i32)) -> Drawn<()> {
    let columns = panels.len().clamp(1, 2);
    let rows = panels.len().div_ceil(2).max(1);
    let size = (width as u32 * columns as u32, height as u32 * rows as u32);
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&theme::PAPER.light)?;
    for (area, panel) in root.split_evenly((rows, columns)).iter().zip(panels) {
        panel.draw(area)?;
    }
    Ok(root.present()?)
}

/// A chart on its part of the page.
struct Panel<'a> {
    chart: &'a Chart,
    legend: &'a Legend<'a>,
    x: Scale,
    y: Scale,
    /// What is between the axes, in pixels.
    left: i32,
    right: i32,
    top: i32,
    bottom: i32,
}

impl<'a> Panel<'a> {
    fn of(chart: &'a Chart, size: (i32, i32), legend: &'a Legend<'a>) -> Result<Self, String> {
        let points = || chart.series.iter().flat_map(|series| &series.points);
        let ends = |value: f64, interval: Option<(f64, f64)>| {
            let (low, high) = interval.unwrap_or((value, value));
            [value, low, high]
        };
        Ok(Panel {
            chart,
            legend,
            x: Scale::of(&chart.x, points().flat_map(|p| ends(p.x, p.x_interval)))?,
            y: Scale::of(&chart.y, points().flat_map(|p| ends(p.y, p.y_interval)))?,
            left: LEFT,
            right: size.0 - RIGHT,
            top: HEAD + ROW * legend.rows() + 6,
            bottom: size.1 - FOOT,
        })
    }

    fn draw(&self, area: &Area) -> Drawn<()> {
        let (chart, middle) = (self.chart, (self.left + self.right) / 2);
        marks::words(area, &chart.title, (middle, 20), marks::style(TITLE, HPos::Center))?;
        if chart.series.iter().all(|series| series.points.is_empty()) {
            return Ok(());
        }
        self.legend.draw(area, HEAD, self.right + RIGHT)?;
        self.draw_axes(area)?;
        for (number, series) in chart.series.iter().enumerate() {
            self.draw_series(area, number, series)?;
        }
        Ok(())
    }

    fn draw_axes(&self, area: &Area) -> Drawn<()> {
        let Panel { left, right, top, bottom, .. } = *self;
        let (middle, style) = ((left + right) / 2, |side| marks::style(WORDS, side));
        for (place, word) in self.x.ticks() {
            let (x, _) = self.pixel((place, 0.0));
            area.draw(&PathElement::new([(x, top), (x, bottom)], theme::GRID.light.stroke_width(1)))?;
            marks::words(area, &word, (x, bottom + 14), style(HPos::Center))?;
        }
        for (place, word) in self.y.ticks() {
            let (_, y) = self.pixel((0.0, place));
            area.draw(&PathElement::new([(left, y), (right, y)], theme::GRID.light.stroke_width(1)))?;
            marks::words(area, &word, (left - 8, y), style(HPos::Right))?;
        }
        let axes = [(left, top), (left, bottom), (right, bottom)];
        area.draw(&PathElement::new(axes, theme::TEXT.light.stroke_width(1)))?;
        marks::words(area, &self.chart.x.label, (middle, bottom + 36), style(HPos::Center))?;
        let upward = style(HPos::Center).transform(FontTransform::Rotate270);
        marks::words(area, &self.chart.y.label, (16, (top + bottom) / 2), upward)
    }

    fn draw_series(&self, area: &Area, number: usize, series: &Series) -> Drawn<()> {
        let lined = series.style != Style::Points;
        let marked = matches!(series.style, Style::Points | Style::LinePoints) || series.points.len() == 1;
        let places: Vec<_> = series.points.iter().filter_map(|p| self.place(p.x, p.y)).collect();
        if lined {
            for piece in visible(&places) {
                let pixels: Vec<_> = piece.into_iter().map(|place| self.pixel(place)).collect();
                match series.style {
                    Style::Dashed => marks::dashes(area, number, 2, &pixels)?,
                    _ => marks::line(area, number, 2, pixels)?,
                }
            }
        }
        for point in series.points.iter().filter(|_| marked) {
            let Some(place) = self.place(point.x, point.y).filter(inside) else { continue };
            for ends in self.intervals(point) {
                for piece in visible(&ends) {
                    let pixels = piece.into_iter().map(|place| self.pixel(place)).collect();
                    marks::line(area, number, 1, pixels)?;
                }
            }
            marks::marker(area, number, self.pixel(place))?;
        }
        Ok(())
    }

    /// The bars through a point.
    fn intervals(&self, p: &Point) -> impl Iterator<Item = [Place; 2]> {
        let across = p.x_interval.and_then(|(a, b)| Some([self.place(a, p.y)?, self.place(b, p.y)?]));
        let upward = p.y_interval.and_then(|(a, b)| Some([self.place(p.x, a)?, self.place(p.x, b)?]));
        across.into_iter().chain(upward)
    }

    fn place(&self, x: f64, y: f64) -> Option<Place> {
        Some((self.x.place(x)?, self.y.place(y)?))
    }

    fn pixel(&self, (x, y): Place) -> marks::Pixel {
        let between =
            |from: i32, to: i32, share: f64| (f64::from(from) + share * f64::from(to - from)).round() as i32;
        (between(self.left, self.right, x), between(self.bottom, self.top, y))
    }
}

/// A place between the axes: 0 to 1 in both directions, or outside.
type Place = (f64, f64);

fn inside((x, y): &Place) -> bool {
    (0.0..=1.0).contains(x) && (0.0..=1.0).contains(y)
}

/// The pieces of a line that can be seen.
fn visible(line: &[Place]) -> Vec<Vec<Place>> {
    let mut pieces: Vec<Vec<Place>> = Vec::new();
    for ends in line.windows(2) {
        let Some([a, b]) = cut(ends[0], ends[1]) else { continue };
        match pieces.last_mut().filter(|piece| piece.last() == Some(&a)) {
            Some(piece) => piece.push(b),
            None => pieces.push(vec![a, b]),
        }
    }
    pieces
}

/// What of a straight line is inside (Liang and Barsky, 1984).
fn cut(a: Place, b: Place) -> Option<[Place; 2]> {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let (mut from, mut to) = (0.0_f64, 1.0_f64);
    for (toward, room) in [(-dx, a.0), (dx, 1.0 - a.0), (-dy, a.1), (dy, 1.0 - a.1)] {
        if toward == 0.0 {
            if room < 0.0 {
                return None;
            }
        } else if toward < 0.0 {
            from = from.max(room / toward);
        } else {
            to = to.min(room / toward);
        }
    }
    let at = |t: f64| match t {
        0.0 => a,
        1.0 => b,
        t => (a.0 + t * dx, a.1 + t * dy),
    };
    (from <= to).then(|| [at(from), at(to)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Axis;

    fn chart(style: Style, points: &[Place]) -> Chart {
        let points = points.iter().map(|(x, y)| Point::new(*x, *y)).collect();
        Chart {
            title: "a <title> & more".into(),
            series: vec![Series { label: "one".into(), style, points }],
            ..Chart::default()
        }
    }

    /// How a line of the first series begins.
    const BLUE_LINE: &str = "<polyline fill=\"none\" opacity=\"1\" stroke=\"#0072B2\"";

    fn count(charts: &[Chart], what: &str) -> usize {
        svg(charts).unwrap().matches(what).count()
    }

    #[test]
    fn every_colour_has_its_dark_one() {
        let series = |i: usize| Series {
            label: format!("s{i}"),
            ..chart(Style::LinePoints, &[(0.0, 1.0), (2.0, 3.0)]).series[0].clone()
        };
        let all = Chart { series: (0..9).map(series).collect(), ..chart(Style::Line, &[]) };
        let svg = svg(&[all]).unwrap();
        let (rules, image) = svg.split_once("</style>").unwrap();
        for property in ["fill", "stroke"] {
            for said in image.split(&format!(" {property}=\"")).skip(1) {
                let color = said.split('"').next().unwrap();
                assert!(color == "none" || rules.contains(&format!("[{property}=\"{color}\"]")), "{color}");
            }
        }
        assert!(image.contains("a &lt;title&gt; &amp; more"), "words are escaped");
    }

    #[test]
    fn a_page_is_as_large_as_its_charts() {
        let one = chart(Style::Line, &[(0.0, 1.0), (1.0, 0.0)]);
        for (n, size) in [(1, "860\" height=\"560"), (2, "1040\" height=\"340"), (3, "1040\" height=\"680")] {
            assert!(svg(&vec![one.clone(); n]).unwrap().contains(&format!("width=\"{size}\"")), "{n}");
        }
        assert!(svg(&[]).unwrap().contains("<svg"));
        let long = Series { label: "a rather long name of a series".into(), ..one.series[0].clone() };
        let many = Chart { series: vec![long; 4], ..one };
        assert!(svg(&vec![many; 2]).unwrap().contains("height=\"380\""), "a legend of four rows");
    }

    #[test]
    fn styles_draw_what_they_say() {
        let points = [(0.0, 0.0), (1.0, 1.0), (2.0, 0.5)];
        // A circle a point and one in the legend; a line's own path and that of the legend.
        for (style, circles, lines) in [(Style::Line, 0, 2), (Style::Points, 4, 0), (Style::LinePoints, 4, 2)]
        {
            let drawn = [chart(style, &points)];
            assert_eq!(count(&drawn, "<circle"), circles, "{style:?}");
            assert_eq!(count(&drawn, BLUE_LINE), lines, "{style:?}");
        }
        assert!(count(&[chart(Style::Dashed, &points)], BLUE_LINE) > 40);
        assert_eq!(count(&[chart(Style::Line, &points[..1])], "<circle"), 1, "a line of one point");
    }

    #[test]
    fn what_lies_outside_is_cut_off() {
        assert_eq!(cut((-1.0, 0.5), (2.0, 0.5)), Some([(0.0, 0.5), (1.0, 0.5)]));
        assert_eq!(cut((0.25, -0.5), (0.25, 0.5)), Some([(0.25, 0.0), (0.25, 0.5)]));
        assert_eq!(cut((-1.0, 0.5), (0.5, 2.0)), None);
        let line = [(-0.5, 0.5), (0.5, 0.5), (1.5, 0.5), (1.5, 0.2), (0.5, 0.2)];
        assert_eq!(visible(&line).len(), 2, "it leaves and comes back");
        let axis = Axis { range: Some((0.0, 1.0)), ..Axis::default() };
        let far = Chart { x: axis, ..chart(Style::Points, &[(0.5, 0.0), (7.0, 1.0), (f64::NAN, 1.0)]) };
        assert_eq!(count(&[far], "<circle"), 2, "one point and the legend");
    }

    #[test]
    fn a_range_that_is_none_names_the_chart() {
        let axis = Axis { label: "loss".into(), log: true, range: Some((0.0, 1.0)) };
        let error = svg(&[Chart { y: axis, ..chart(Style::Line, &[(1.0, 1.0)]) }]).unwrap_err().to_string();
        assert!(error.contains("a <title> & more") && error.contains("`loss`"), "{error}");
    }
}
