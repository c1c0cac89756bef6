//! What is drawn.

/// A chart: its axes, and what stands between them. One without a point is its title alone.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chart {
    /// What stands above it.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upward.
    pub y: Axis,
    /// In the order of the legend, which decides their colours and markers.
    pub series: Vec<Series>,
}

/// A direction of a chart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Axis {
    /// What it measures, with the unit.
    pub label: String,
    /// Equal ratios are equally far apart; what is not above 0 has no place there and is left out.
    pub log: bool,
    /// What it shows, from where to where; what lies outside is cut off. `None`: everything, with a little air.
    pub range: Option<(f64, f64)>,
}

/// Points that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend; an empty one is not in it.
    pub label: String,
    /// How it is drawn.
    pub style: Style,
    /// In the order in which a line connects them. What is no number is left out.
    pub points: Vec<Point>,
}

/// How a series is drawn. A line of a single point is that point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A line.
    Line,
    /// A line of dashes: what is computed, beside what is measured.
    Dashed,
    /// Markers.
    Points,
    /// Markers on a line.
    LinePoints,
}

/// A place in a chart, and how well it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// To the right.
    pub x: f64,
    /// Upward.
    pub y: f64,
    /// Bounds of x; only markers show them.
    pub x_interval: Option<(f64, f64)>,
    /// Bounds of y; only markers show them.
    pub y_interval: Option<(f64, f64)>,
}

impl Point {
    /// A place that is known exactly.
    pub fn new(x: f64, y: f64) -> Self {
        Point { x, y, x_interval: None, y_interval: None }
    }
}
