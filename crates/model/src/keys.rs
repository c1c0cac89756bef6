//! A `config.json` key by key: a value of the wrong kind is an error that names its key.

use serde_json::{Map, Value};

/// What a key says, or what is wrong with it.
pub(crate) type Read<T> = Result<T, String>;

/// An object of a config whose values are asked for by key; `null` is as good as no key, as in transformers.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    json: &'a Map<String, Value>,
    /// Key of the object itself; empty for the whole file.
    place: &'a str,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(json: &'a Map<String, Value>) -> Self {
        Keys { json, place: "" }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.json.is_empty()
    }

    /// How a message names `key`.
    pub(crate) fn named(self, key: &str) -> String {
        if self.place.is_empty() { format!("`{key}`") } else { format!("`{}.{key}`", self.place) }
    }

    pub(crate) fn get(self, key: &str) -> Option<&'a Value> {
        self.json.get(key).filter(|v| !v.is_null())
    }

    /// Whether the key is there with `null`, in the few places where that says something.
    pub(crate) fn is_null(self, key: &str) -> bool {
        self.json.get(key).is_some_and(Value::is_null)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.json.iter()
    }

    /// Of two names of one key the one to read: the first where both are there.
    pub(crate) fn either(self, first: &'static str, second: &'static str) -> &'static str {
        if self.get(first).is_some() { first } else { second }
    }

    pub(crate) fn count(self, key: &str) -> Read<Option<usize>> {
        self.read(key, "a whole number", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    /// A count that the model cannot be without.
    pub(crate) fn need(self, key: &str) -> Read<usize> {
        self.count(key)?.ok_or_else(|| format!("lacks {}", self.named(key)))
    }

    pub(crate) fn number(self, key: &str) -> Read<Option<f64>> {
        self.read(key, "a number", Value::as_f64)
    }

    /// A number above 0.
    pub(crate) fn positive(self, key: &str) -> Read<Option<f64>> {
        self.read(key, "a number above 0", |v| v.as_f64().filter(|x| *x > 0.0))
    }

    pub(crate) fn flag(self, key: &str) -> Read<Option<bool>> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub(crate) fn text(self, key: &str) -> Read<Option<&'a str>> {
        self.read(key, "text", Value::as_str)
    }

    pub(crate) fn list(self, key: &str) -> Read<Option<&'a Vec<Value>>> {
        self.read(key, "a list", Value::as_array)
    }

    pub(crate) fn object(self, key: &'a str) -> Read<Option<Keys<'a>>> {
        self.read(key, "an object", |v| v.as_object().map(|json| Keys { json, place: key }))
    }

    fn read<T>(self, key: &str, kind: &str, of: impl FnOnce(&'a Value) -> Option<T>) -> Read<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match of(value) {
            Some(x) => Ok(Some(x)),
            None => {
                let shown: String = value.to_string().chars().take(60).collect();
                Err(format!("{} is {shown}; it must be {kind}", self.named(key)))
            }
        }
    }
}
