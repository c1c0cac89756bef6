//! Filters, tests and functions as Jinja2 has them, where minijinja has them otherwise.

use super::json::{self, spaces_of};
use super::methods::method;
use super::print::{self, shown};
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, FormatStyle, State, filters, format_filter, functions};

/// Sets up an environment as transformers sets up Jinja2's.
pub(super) fn install(env: &mut Environment<'_>) {
    env.set_formatter(print::print);
    env.set_unknown_method_callback(method);
    env.add_filter("tojson", json::dumps);
    env.add_filter("string", |value: Value| shown(&value));
    env.add_filter("format", |text: &str, args: Rest<Value>| {
        // A mapping that is asked by name stays one; what is printed as a whole is printed as Python does.
        let whole = |v: &Value| matches!(v.kind(), ValueKind::Seq | ValueKind::Map) && !text.contains("%(");
        let args: Vec<Value> =
            args.iter().map(|v| if whole(v) { shown(v).into() } else { v.clone() }).collect();
        format_filter(FormatStyle::Printf, text, &args)
    });
    env.add_filter("join", join);
    env.add_filter("title", |text: Value| title(&shown(&text)));
    env.add_filter("upper", |text: Value| shown(&text).to_uppercase());
    env.add_filter("lower", |text: Value| shown(&text).to_lowercase());
    env.add_filter("capitalize", |text: Value| capitalized(&shown(&text)));
    env.add_filter("trim", |text: Value, chars: Option<&str>| match chars {
        Some(chars) => shown(&text).trim_matches(|c| chars.contains(c)).to_owned(),
        None => shown(&text).trim().to_owned(),
    });
    env.add_filter("replace", |text: Value, old: &str, new: &str, count: Option<usize>| {
        shown(&text).replacen(old, new, count.unwrap_or(usize::MAX))
    });
    // What is no number is the default.
    env.add_filter("int", |state: &State<'_, '_>, value: Value, default: Option<Value>| {
        let value = value.as_str().map_or_else(|| value.clone(), |text| text.trim().into());
        filters::int(state, &value).unwrap_or_else(|_| default.unwrap_or_else(|| 0.into()))
    });
    env.add_filter("float", |state: &State<'_, '_>, value: Value, default: Option<Value>| {
        let value = value.as_str().map_or_else(|| value.clone(), |text| text.trim().into());
        filters::float(state, &value).unwrap_or_else(|_| default.unwrap_or_else(|| 0.0.into()))
    });
    for name in ["length", "count"] {
        env.add_filter(name, |value: &Value| match value.kind() {
            ValueKind::Undefined => Ok(0),
            _ => filters::length(value),
        });
    }
    env.add_filter("indent", indent);
    env.add_function("namespace", |from: Option<Value>, named: Kwargs| {
        functions::namespace(Some(merged(from, &named)?))
    });
    env.add_test("number", |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
    env.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    env.add_test("sequence", |value: &Value| {
        use ValueKind::{Iterable, Map, Seq, String, Undefined};
        matches!(value.kind(), String | Seq | Iterable | Map | Undefined)
    });
}

/// Pairs by name over those of a mapping.
fn merged(from: Option<Value>, named: &Kwargs) -> Result<Value, Error> {
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    if let Some(from) = from {
        for key in from.try_iter()? {
            let item = from.get_item(&key)?;
            pairs.push((key, item));
        }
    }
    for name in named.args() {
        pairs.push((name.into(), named.get(name)?));
    }
    Ok(pairs.into_iter().collect())
}

/// `join(separator='', attribute=None)`.
fn join(list: Value, by: Option<&str>, named: Kwargs) -> Result<String, Error> {
    let attribute: Option<&str> = named.get("attribute")?;
    named.assert_all_used()?;
    let items = list.try_iter()?.map(|item| match attribute {
        Some(name) => item.get_attr(name).map(|v| shown(&v)),
        None => Ok(shown(&item)),
    });
    Ok(items.collect::<Result<Vec<_>, Error>>()?.join(by.unwrap_or_default()))
}

/// The first letter as a capital, the others not.
fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars.flat_map(char::to_lowercase)).collect()
}

/// Every word with a capital; words begin behind spaces, hyphens and brackets, as Jinja2 has it.
fn title(text: &str) -> String {
    let mut begins = true;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if begins {
            out.extend(c.to_uppercase())
        } else {
            out.extend(c.to_lowercase())
        }
        begins = c.is_whitespace() || "-({[<".contains(c);
    }
    out
}

/// `indent(width=4, first=False, blank=False)`, with a text as width too.
fn indent(
    text: &str,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    named: Kwargs,
) -> Result<String, Error> {
    let width = match width.or(named.get("width")?) {
        Some(width) => width.as_str().map_or_else(|| spaces_of(&width), |text| Ok(text.to_owned()))?,
        None => " ".repeat(4),
    };
    let first = first.or(named.get("first")?).unwrap_or(false);
    let blank = blank.or(named.get("blank")?).unwrap_or(false);
    named.assert_all_used()?;
    let line = |(i, line): (usize, &str)| match (i == 0 && !first) || (line.is_empty() && !blank && i > 0) {
        true => line.to_owned(),
        false => format!("{width}{line}"),
    };
    Ok(text.split('\n').enumerate().map(line).collect::<Vec<_>>().join("\n"))
}
