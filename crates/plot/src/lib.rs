#![doc = include_str!("../README.md")]

mod chart;
mod draw;
mod legend;
mod marks;
mod scale;
mod theme;

pub use chart::{Axis, Chart, Point, Series, Style};
pub use draw::svg;
use std::fmt;

/// Why a chart cannot be drawn: its title, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    fn new(chart: &Chart, what: impl fmt::Display) -> Self {
        Error(format!("the chart `{}`: {what}", chart.title))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
