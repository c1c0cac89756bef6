//! Python's `json.dumps`, which is what transformers makes of the filter `tojson`.

use super::print::float;
use minijinja::value::{Kwargs, Rest, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind};

/// `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`. Unlike Jinja's own filter it
/// does not escape for HTML.
pub(super) fn dumps(value: Value, args: Rest<Value>) -> Result<String, Error> {
    type Args = (Option<Value>, Option<Value>, Option<Vec<String>>, Option<Value>, Kwargs);
    let (ensure_ascii, indent, separators, sort_keys, named): Args = from_args(&args)?;
    let ensure_ascii = ensure_ascii.or(named.get("ensure_ascii")?).is_some_and(|v| v.is_true());
    let indent = match indent.or(named.get("indent")?) {
        Some(text) if text.kind() == ValueKind::String => text.as_str().map(str::to_owned),
        Some(spaces) if !spaces.is_none() => Some(spaces_of(&spaces)?),
        _ => None,
    };
    let separators = separators.or(named.get::<Option<Vec<String>>>("separators")?);
    let sort_keys = sort_keys.or(named.get("sort_keys")?).is_some_and(|v| v.is_true());
    named.assert_all_used()?;
    let comma = if indent.is_some() { "," } else { ", " };
    let separators = separators.unwrap_or_else(|| vec![comma.into(), ": ".into()]);
    let [item, key] = <[String; 2]>::try_from(separators).map_err(|_| {
        Error::new(
            ErrorKind::InvalidOperation,
            "tojson: separators are two texts, between items and after keys",
        )
    })?;
    let mut out = String::new();
    Writer { ensure_ascii, indent, item, key, sort_keys }.write(&mut out, &value, 0)?;
    Ok(out)
}

/// As many spaces as a template asks for, within reason: it may ask for more than there is memory.
pub(super) fn spaces_of(width: &Value) -> Result<String, Error> {
    const MOST: usize = 1000;
    match usize::try_from(width.clone())? {
        n if n <= MOST => Ok(" ".repeat(n)),
        n => Err(Error::new(ErrorKind::InvalidOperation, format!("an indent of {n} is above {MOST}"))),
    }
}

struct Writer {
    ensure_ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
}

impl Writer {
    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        /// Deeper than any real value; recursion has to end before the stack does.
        const DEEPEST: usize = 500;
        if depth > DEEPEST {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson: the value is nested too deeply"));
        }
        match value.kind() {
            ValueKind::None => *out += "null",
            ValueKind::Bool => *out += if value.is_true() { "true" } else { "false" },
            ValueKind::Number if value.is_integer() => *out += &value.to_string(),
            ValueKind::Number => *out += &float(value.clone().try_into()?, ["NaN", "Infinity", "-Infinity"]),
            ValueKind::String => self.text(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.all(out, ['[', ']'], &items, depth, |out, item| self.write(out, item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.all(out, ['{', '}'], &keys, depth, |out, key| {
                    match key.kind() {
                        ValueKind::String => self.write(out, key, depth + 1)?,
                        // Python writes other keys as their JSON in quotes.
                        _ => {
                            let mut text = String::new();
                            self.write(&mut text, key, depth + 1)?;
                            self.text(out, &text);
                        }
                    }
                    *out += &self.key;
                    self.write(out, &value.get_item(key)?, depth + 1)
                })?;
            }
            other => {
                let message = format!("tojson: {other} has no form in JSON");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    fn all(
        &self,
        out: &mut String,
        brackets: [char; 2],
        items: &[Value],
        depth: usize,
        each: impl Fn(&mut String, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line = |out: &mut String, depth: usize| {
            if let Some(indent) = self.indent.as_ref().filter(|_| !items.is_empty()) {
                out.push('\n');
                *out += &indent.repeat(depth);
            }
        };
        out.push(brackets[0]);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                *out += &self.item;
            }
            line(out, depth + 1);
            each(out, item)?;
        }
        line(out, depth);
        out.push(brackets[1]);
        Ok(())
    }

    fn text(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => *out += "\\\"",
                '\\' => *out += "\\\\",
                '\n' => *out += "\\n",
                '\r' => *out += "\\r",
                '\t' => *out += "\\t",
                '\u{8}' => *out += "\\b",
                '\u{c}' => *out += "\\f",
                c if c < ' ' || self.ensure_ascii && c > '~' => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        *out += &format!("\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}
