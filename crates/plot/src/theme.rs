//! Colours: each as it is on paper and in the dark.

use plotters::style::RGBColor;
use std::fmt::Write;

/// A colour on white, and what stands for it on black.
pub struct Ink {
    /// On paper: what the attributes of the image say.
    pub light: RGBColor,
    dark: RGBColor,
}

const fn ink(light: u32, dark: u32) -> Ink {
    const fn color(code: u32) -> RGBColor {
        RGBColor((code >> 16) as u8, (code >> 8) as u8, code as u8)
    }
    Ink { light: color(light), dark: color(dark) }
}

/// Behind everything.
pub const PAPER: Ink = ink(0xFFFFFF, 0x16181D);
/// Words and axes.
pub const TEXT: Ink = ink(0x323232, 0xE6E6E6);
/// Lines of the grid.
pub const GRID: Ink = ink(0xE4E4E4, 0x353A42);
/// Series, of different lightness as well as hue: three kinds of colour-blindness tell neighbours apart.
pub const SERIES: [Ink; 7] = [
    ink(0x0072B2, 0x4DB1F0),
    ink(0xD55E00, 0xFF8A3D),
    ink(0x009E73, 0x2CCB9B),
    ink(0xAA3377, 0xF08CC0),
    ink(0xB8860B, 0xF2C744),
    ink(0x5B4FC7, 0xA99BFF),
    ink(0x7A4B23, 0xC99A6B),
];

/// The colour of the series of this number.
pub fn series(number: usize) -> RGBColor {
    SERIES[number % SERIES.len()].light
}

/// Rules that turn the colours of an image into those of the dark, where its reader wants that.
pub fn style() -> String {
    let mut rules = String::from("<style>@media (prefers-color-scheme: dark) {");
    for Ink { light, dark } in [PAPER, TEXT, GRID].iter().chain(&SERIES) {
        let (light, dark) = (code(*light), code(*dark));
        for property in ["fill", "stroke"] {
            // Writing to a string cannot fail.
            let _ = write!(rules, " [{property}=\"{light}\"] {{ {property}: {dark} }}");
        }
    }
    rules + " }</style>\n"
}

/// As the image writes a colour.
fn code(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}
