//! Values as Python prints them.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, Output, State};

/// Prints a value as Python's `str` does.
pub(super) fn print(out: &mut Output<'_>, _: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    out.write_str(&shown(value)).map_err(Error::from)
}

/// Python's `str` of a value; an undefined one prints nothing.
pub(super) fn shown(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => String::new(),
        ValueKind::Number | ValueKind::Seq | ValueKind::Iterable | ValueKind::Map if is_plain(value) => {
            repr(value, 0)
        }
        _ => value.to_string(),
    }
}

/// Whether a value is data: not an object of the engine's own, such as `loop`, which prints itself.
fn is_plain(value: &Value) -> bool {
    value.kind() != ValueKind::Map || value.try_iter().is_ok()
}

/// Python's `repr` of data.
fn repr(value: &Value, depth: usize) -> String {
    /// Deeper than any real value; recursion has to end before the stack does.
    const DEEPEST: usize = 500;
    let list = |items: Vec<String>| items.join(", ");
    match value.kind() {
        _ if depth > DEEPEST => "...".into(),
        ValueKind::Number if !value.is_integer() => f64::try_from(value.clone())
            .map_or_else(|_| value.to_string(), |x| float(x, ["nan", "inf", "-inf"])),
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().into_iter().flatten();
            format!("[{}]", list(items.map(|item| repr(&item, depth + 1)).collect()))
        }
        ValueKind::Map => {
            let pair = |key: Value| {
                let item = value.get_item(&key).unwrap_or_default();
                format!("{}: {}", repr(&key, depth + 1), repr(&item, depth + 1))
            };
            format!("{{{}}}", list(value.try_iter().into_iter().flatten().map(pair).collect()))
        }
        _ => value.to_string(),
    }
}

/// Python's `repr` of a text: in single quotes, unless it holds them and no double ones.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            '\\' => out += "\\\\",
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() || is_invisible(c) => {
                let code = u32::from(c);
                out += &if code < 256 { format!("\\x{code:02x}") } else { format!("\\u{code:04x}") };
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// Letters that Python does not print as they are: those that only format, and line ends.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Python's `repr` of a number, with the words for what is no number and for the infinities.
pub(super) fn float(x: f64, [nan, up, down]: [&str; 3]) -> String {
    match x {
        _ if x.is_nan() => nan.into(),
        f64::INFINITY => up.into(),
        f64::NEG_INFINITY => down.into(),
        // Both languages give the shortest digits and change to exponents at the same sizes.
        _ if x == 0.0 || (1e-4..1e16).contains(&x.abs()) => format!("{x:?}"),
        _ => {
            let text = format!("{x:e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}
