//! Methods of Python's types: those that `pycompat` lacks or has in another way.

use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

/// What a method gives that minijinja itself does not know.
pub(super) fn method(
    state: &State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    // Python has a list where the engine has something that is only walked through.
    let list =
        (value.kind() == ValueKind::Iterable).then(|| value.try_iter().map(|items| items.collect::<Value>()));
    let value = &list.transpose()?.unwrap_or_else(|| value.clone());
    let ours = match (value.kind(), value.as_str()) {
        (_, Some(text)) => text_method(text, name, args)?,
        (ValueKind::Seq, _) => list_method(value, name, args)?,
        (ValueKind::Map, _) if name == "copy" => Some(value.clone()),
        _ => None,
    };
    match ours {
        Some(result) => Ok(result),
        None => pycompat::unknown_method_callback(state, value, name, args),
    }
}

fn list_method(list: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match name {
        "copy" => list.clone(),
        "index" => {
            let (what,): (&Value,) = from_args(args)?;
            match list.try_iter()?.position(|item| &item == what) {
                Some(at) => at.into(),
                None => {
                    return Err(Error::new(
                        ErrorKind::InvalidOperation,
                        format!("{what} is not in the list"),
                    ));
                }
            }
        }
        _ => return Ok(None),
    }))
}

/// Where Python's `splitlines` splits.
const LINE_ENDS: [char; 10] =
    ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];

/// What Python counts as whitespace: Unicode's, and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn text_method(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let all = |what: fn(char) -> bool| !text.is_empty() && text.chars().all(what);
    // Python asks whether the letters that have a case have this one, and that there is one.
    let cased =
        |this: fn(char) -> bool, other: fn(char) -> bool| text.chars().any(this) && !text.chars().any(other);
    Ok(Some(match name {
        "isspace" => all(is_space).into(),
        "strip" | "lstrip" | "rstrip" if args.iter().all(Value::is_none) => {
            let text = if name == "rstrip" { text } else { text.trim_start_matches(is_space) };
            if name == "lstrip" { text } else { text.trim_end_matches(is_space) }.into()
        }
        "isdigit" | "isnumeric" | "isdecimal" => all(char::is_numeric).into(),
        "isalnum" => all(char::is_alphanumeric).into(),
        "isalpha" => all(char::is_alphabetic).into(),
        "islower" => cased(char::is_lowercase, char::is_uppercase).into(),
        "isupper" => cased(char::is_uppercase, char::is_lowercase).into(),
        "casefold" => text.to_lowercase().into(),
        "swapcase" => text
            .chars()
            .flat_map(|c| -> Vec<char> {
                if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
            })
            .collect::<String>()
            .into(),
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "partition" | "rpartition" => {
            let (by,): (&str,) = from_args(args)?;
            let split = if name == "partition" { text.split_once(by) } else { text.rsplit_once(by) };
            let parts = match (split, name) {
                (Some((left, right)), _) => [left, by, right],
                (None, "partition") => [text, "", ""],
                (None, _) => ["", "", text],
            };
            parts.map(Value::from).to_vec().into()
        }
        "split" | "rsplit" => {
            let (by, most, named): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
            let by = by.or(named.get("sep")?).filter(|by| !by.is_none());
            let most = most.or(named.get("maxsplit")?).and_then(|most| usize::try_from(most).ok());
            named.assert_all_used()?;
            let by = by
                .as_ref()
                .map(|by| by.as_str().ok_or_else(|| wrong(name, "a text to split at")))
                .transpose()?;
            if by == Some("") {
                return Err(wrong(name, "a separator that is not empty"));
            }
            let parts = if name == "split" { split(text, by, most) } else { rsplit(text, by, most) };
            parts.into_iter().map(Value::from).collect::<Vec<_>>().into()
        }
        "splitlines" => {
            let (keep,): (Option<bool>,) = from_args(args)?;
            let lines = text.split_inclusive(LINE_ENDS);
            let mut joined: Vec<String> = Vec::new();
            for line in lines {
                match joined.last_mut() {
                    // A line end of two letters is one.
                    Some(last) if line == "\n" && last.ends_with('\r') => last.push('\n'),
                    _ => joined.push(line.into()),
                }
            }
            let bare = |line: String| line.trim_end_matches(LINE_ENDS).to_owned();
            let keep = keep.unwrap_or(false);
            joined
                .into_iter()
                .map(|line| Value::from(if keep { line } else { bare(line) }))
                .collect::<Vec<_>>()
                .into()
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let (from, part) = slice(text, start, end);
            let chars = |bytes: usize| part[..bytes].chars().count();
            let at = if name.starts_with('r') { part.rfind(what) } else { part.find(what) };
            match (name, at) {
                ("count", _) if what.is_empty() => (part.chars().count() + 1).into(),
                ("count", _) => part.matches(what).count().into(),
                (_, Some(at)) => (from + chars(at)).into(),
                ("find" | "rfind", None) => (-1).into(),
                (_, None) => return Err(wrong(name, "a text that is in there")),
            }
        }
        "startswith" | "endswith" => {
            let (what, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
            let (_, part) = slice(text, start, end);
            let fits = |what: &Value| {
                let what = what.as_str().ok_or_else(|| wrong(name, "a text or a tuple of texts"))?;
                Ok(if name == "startswith" { part.starts_with(what) } else { part.ends_with(what) })
            };
            match what.kind() {
                ValueKind::Seq => {
                    let each = what.try_iter()?.map(|w| fits(&w)).collect::<Result<Vec<bool>, Error>>()?;
                    each.contains(&true).into()
                }
                _ => fits(what)?.into(),
            }
        }
        "zfill" | "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            let most = 1 << 20;
            let missing = width.min(most).saturating_sub(text.chars().count());
            let fill = |n: usize| fill.unwrap_or(" ").repeat(n);
            match name {
                "ljust" => format!("{text}{}", fill(missing)),
                "rjust" => format!("{}{text}", fill(missing)),
                "center" => {
                    // Python puts the odd one to the left where the width is odd.
                    let left = missing / 2 + (missing & width & 1);
                    format!("{}{text}{}", fill(left), fill(missing - left))
                }
                _ => {
                    let sign = usize::from(text.starts_with(['+', '-']));
                    format!("{}{}{}", &text[..sign], "0".repeat(missing), &text[sign..])
                }
            }
            .into()
        }
        "join" => {
            let (parts,): (&Value,) = from_args(args)?;
            let part = |v: Value| v.as_str().map(str::to_owned).ok_or_else(|| wrong(name, "a list of texts"));
            parts.try_iter()?.map(part).collect::<Result<Vec<_>, Error>>()?.join(text).into()
        }
        _ => return Ok(None),
    }))
}

fn wrong(method: &str, needs: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{method}() needs {needs}"))
}

/// Letters `start..end` as Python slices, with the number of letters before them.
fn slice(text: &str, start: Option<i64>, end: Option<i64>) -> (usize, &str) {
    let len = text.chars().count();
    let place = |at: i64| usize::try_from(if at < 0 { at + len as i64 } else { at }).unwrap_or(0).min(len);
    let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(i64::MAX)));
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    (start, &text[byte(start)..byte(end.max(start))])
}

/// At most `most` splits from the left; without a separator at runs of whitespace, as Python does.
fn split(text: &str, by: Option<&str>, most: Option<usize>) -> Vec<String> {
    let Some(by) = by else {
        let mut parts = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            match rest.find(char::is_whitespace).filter(|_| most.is_none_or(|most| parts.len() < most)) {
                Some(at) => {
                    parts.push(rest[..at].to_owned());
                    rest = rest[at..].trim_start();
                }
                None => {
                    parts.push(if most.is_some() { rest.trim_end() } else { rest }.to_owned());
                    break;
                }
            }
        }
        return parts;
    };
    match most {
        Some(most) => text.splitn(most.saturating_add(1), by).map(str::to_owned).collect(),
        None => text.split(by).map(str::to_owned).collect(),
    }
}

/// As [`split`], from the right.
fn rsplit(text: &str, by: Option<&str>, most: Option<usize>) -> Vec<String> {
    let (Some(most), by) = (most, by) else { return split(text, by, None) };
    let mut parts: Vec<String> = match by {
        Some(by) => text.rsplitn(most.saturating_add(1), by).map(str::to_owned).collect(),
        None => {
            let backwards: String = text.chars().rev().collect();
            split(&backwards, None, Some(most)).iter().map(|part| part.chars().rev().collect()).collect()
        }
    };
    parts.reverse();
    parts
}
