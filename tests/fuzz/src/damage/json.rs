//! Damage to a tree of JSON: keys, values, order, types, and texts that are almost JSON.

use super::one;
use duel_tests::Random;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// In front of a key that is written although its object has it already.
const TWICE: &str = "@twice@";

/// A string of this and a number stands for one of [`UNHOLDABLE`].
const RAW: &str = "@raw@";

/// Names and texts that some code might take for more than a text.
const WORDS: &[&str] = &[
    "",
    " ",
    "\0",
    "\n",
    "é",
    "▁",
    "Ġ",
    "a\u{301}",
    "👩\u{200d}👧",
    "\u{feff}",
    "\u{202e}",
    "<s>",
    "</s>",
    "assistant",
    "user",
    "system",
    "none",
    "NaN",
    "1e9",
    "-1",
    "0",
    "..",
    "(",
    "[",
    "\\",
    "(a*)*$",
    "(?=a)",
    "(?<a>b)\\k<a>",
    "\\p{L}+",
    "$A:0 $B:1",
    "{{ a }}",
    "{% for %}",
    "type",
    "Sequence",
];

const WHOLE: &[i128] = &[
    0,
    1,
    -1,
    2,
    3,
    255,
    256,
    65_536,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 53,
    (1 << 63) - 1,
    -(1 << 63),
    1 << 63,
    (1 << 64) - 1,
];

const BROKEN: &[f64] = &[0.5, -0.0, 1.0, -1.0, 3.0, 1e-320, 1e-9, 1e18, 1e308, -1e308];

/// Values that a file can have and a tree cannot.
static UNHOLDABLE: LazyLock<Vec<String>> = LazyLock::new(|| {
    let texts = [
        "NaN",
        "-Infinity",
        "1e999",
        "-1e-999",
        "00",
        "18446744073709551616",
        "-9223372036854775809",
        "0.1234567890123456789012345678901234567890",
        r#""\ud800""#,
        r#""\u0000""#,
        "'a'",
        "tru",
        "[1,]",
        r#"{"a":1,"a":2}"#,
    ];
    let deep =
        [("[", "]"), (r#"{"a":"#, "}")].map(|(open, close)| open.repeat(50_000) + &close.repeat(50_000));
    texts.map(String::from).into_iter().chain(deep).collect()
});

/// A JSON file with one thing changed; none where it is not JSON.
pub fn damage(file: &[u8], other: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut tree = serde_json::from_slice(file).ok()?;
    let other = serde_json::from_slice(other).unwrap_or_default();
    Some(change(&mut tree, &other, random))
}

/// Changes one thing somewhere in a tree, maybe into a piece of `other`; the text of the whole.
pub fn change(tree: &mut Value, other: &Value, random: &mut Random) -> Vec<u8> {
    let place = somewhere(tree, random);
    match place {
        Value::Object(map) if !map.is_empty() && random.pick(0..8) > 0 => members(map, other, random),
        Value::Array(list) if !list.is_empty() && random.pick(0..8) > 0 => elements(list, other, random),
        Value::Number(n) if random.pick(0..2) == 0 => *place = near(n, random),
        Value::String(text) if random.pick(0..2) == 0 => *place = bent(text, random).into(),
        _ => *place = instead(place, other, random),
    }
    text(tree).into_bytes()
}

/// A value anywhere in a tree: the deeper, the rarer, however many leaves there are.
fn somewhere<'a>(tree: &'a mut Value, random: &mut Random) -> &'a mut Value {
    let children = children(tree);
    if children == 0 || random.pick(0..5) == 0 {
        return tree;
    }
    let n = random.pick(0..children);
    let child = match tree {
        Value::Object(map) => map.values_mut().nth(n),
        Value::Array(list) => list.get_mut(n),
        _ => None,
    };
    somewhere(child.expect("there are that many"), random)
}

/// As [`somewhere`], to look at.
fn piece<'a>(tree: &'a Value, random: &mut Random) -> &'a Value {
    let children = children(tree);
    if children == 0 || random.pick(0..5) == 0 {
        return tree;
    }
    let n = random.pick(0..children);
    let child = match tree {
        Value::Object(map) => map.values().nth(n),
        Value::Array(list) => list.get(n),
        _ => None,
    };
    piece(child.expect("there are that many"), random)
}

fn children(tree: &Value) -> usize {
    match tree {
        Value::Object(map) => map.len(),
        Value::Array(list) => list.len(),
        _ => 0,
    }
}

fn members(map: &mut Map<String, Value>, other: &Value, random: &mut Random) {
    let key = |random: &mut Random| map.keys().nth(random.pick(0..map.len())).cloned().unwrap_or_default();
    let (a, b) = (key(random), key(random));
    match random.pick(0..6) {
        0 => drop(map.remove(&a)),
        1 => {
            let value = map.remove(&a).unwrap_or_default();
            map.insert(bent(&a, random), value);
        }
        2 => {
            let value = map[&a].clone();
            map.insert(format!("{TWICE}{a}"), instead(&value, other, random));
        }
        3 => {
            // The value of one under the name of another.
            let value = map[&b].clone();
            map.insert(a, value);
        }
        4 => {
            let name = one(WORDS, random);
            map.insert((*name).into(), instead(&Value::Null, other, random));
        }
        _ => {
            let value = instead(&map[&a], other, random);
            map.insert(a, value);
        }
    }
}

fn elements(list: &mut Vec<Value>, other: &Value, random: &mut Random) {
    let (a, b) = (random.pick(0..list.len()), random.pick(0..list.len()));
    match random.pick(0..6) {
        0 => drop(list.remove(a)),
        1 => list.insert(b, list[a].clone()),
        2 => list.swap(a, b),
        3 => list.truncate(a),
        4 => list.insert(a, instead(&Value::Null, other, random)),
        _ => list[a] = instead(&list[b], other, random),
    }
}

/// What stands in the place of a value.
fn instead(value: &Value, other: &Value, random: &mut Random) -> Value {
    let whole = |n: i128| u64::try_from(n).map_or_else(|_| json!(n as i64), |n| json!(n));
    match random.pick(0..14) {
        0..3 => piece(other, random).clone(),
        3..5 => whole(*one(WHOLE, random)),
        5 => (*one(BROKEN, random)).into(),
        6 => Value::Null,
        7 => (random.pick(0..2) == 0).into(),
        8..10 => (*one(WORDS, random)).into(),
        10 => json!([value]),
        11 => json!({*one(WORDS, random): value}),
        12 => {
            let nested = (0..100).fold(value.clone(), |inner, _| json!([inner]));
            one(&[json!([]), json!({}), json!("a".repeat(100_000)), nested], random).clone()
        }
        _ => format!("{RAW}{}@", random.pick(0..UNHOLDABLE.len())).into(),
    }
}

/// A number beside this one, or the same number as something else.
fn near(n: &serde_json::Number, random: &mut Random) -> Value {
    let x = n.as_f64().unwrap_or_default();
    match (n.as_i64(), random.pick(0..6)) {
        (Some(i), 0) => i.wrapping_add(1).into(),
        (Some(i), 1) => i.wrapping_sub(1).into(),
        (Some(i), 2) => i.wrapping_mul(2).into(),
        (Some(i), 3) => i.wrapping_neg().into(),
        (_, 4) => n.to_string().into(),
        _ => (x * one(&[1.0, -1.0, 1e300, 1e-300, 0.5], random)).into(),
    }
}

/// A text with something put in or left out.
fn bent(text: &str, random: &mut Random) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let at = super::run(chars.len(), 8, random);
    if random.pick(0..3) == 0 {
        chars.drain(at);
    } else {
        chars.splice(at.start..at.start, one(WORDS, random).chars());
    }
    chars.into_iter().collect()
}

/// A tree as text, with what no tree can hold.
fn text(tree: &Value) -> String {
    let mut text = tree.to_string().replace(TWICE, "");
    if text.contains(RAW) {
        for (n, raw) in UNHOLDABLE.iter().enumerate() {
            text = text.replace(&format!("\"{RAW}{n}@\""), raw);
        }
    }
    text
}
