//! Chat templates: the Jinja dialect that Hugging Face tokenizers ship, with its extra functions.

mod filters;
mod json;
mod methods;
mod print;
mod source;
mod watch;

use crate::Message;
use crate::contain::contain;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value as Jinja, context};
use serde_json::{Map, Value, json};
use source::MARKS;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
pub use watch::watch_templates;
use watch::watched;

/// What a conversation's template gets beside its messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    /// Descriptions of functions that the model may call.
    pub tools: Vec<Value>,
    /// Documents that the answer may rest on.
    pub documents: Vec<Value>,
    /// Variables by name (`enable_thinking`, ...), before all others of that name.
    pub kwargs: Map<String, Value>,
}

impl Context {
    /// The columns of rows that it is read from.
    pub const COLUMNS: [&str; 3] = ["tools", "documents", "chat_template_kwargs"];

    /// That of these columns of a row.
    ///
    /// # Errors
    /// One of them is of another type; the message starts with a verb.
    pub fn of(mut columns: Map<String, Value>) -> std::result::Result<Self, String> {
        crate::row::context(&mut columns)
    }

    /// The columns that say something.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &'static str> {
        let given = [!self.tools.is_empty(), !self.documents.is_empty(), !self.kwargs.is_empty()];
        Self::COLUMNS.into_iter().zip(given).filter_map(|(name, given)| given.then_some(name))
    }

    /// The columns that it was read from, as a row has them.
    pub(crate) fn into_columns(self) -> impl Iterator<Item = (String, Value)> {
        let said: Vec<&str> = self.columns().collect();
        let all = [
            ("tools", Value::Array(self.tools)),
            ("documents", Value::Array(self.documents)),
            ("chat_template_kwargs", Value::Object(self.kwargs)),
        ];
        all.into_iter()
            .filter(move |(name, _)| said.contains(name))
            .map(|(name, value)| (name.to_owned(), value))
    }
}

/// A compiled template.
pub(crate) struct Template {
    env: Environment<'static>,
    /// The folder that it is from.
    place: Arc<str>,
    generation: bool,
    takes: OnceLock<Takes>,
    /// What it was told of the time: formats of `strftime`, and the texts.
    told: Arc<Mutex<BTreeSet<(String, String)>>>,
}

/// What a template does with the two forms of a message's content.
#[derive(Clone, Copy)]
struct Takes {
    text: bool,
    parts: bool,
}

/// A conversation as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text, special tokens included.
    pub text: String,
    /// Bytes of the text between `{% generation %}` and `{% endgeneration %}`.
    pub generated: Vec<Range<usize>>,
}

const NAME: &str = "chat";
/// Instructions of a template for one conversation, which take a second or less.
const MOST_STEPS: u64 = 10_000_000;
/// Bytes of a conversation's text.
const MOST_TEXT: usize = 1 << 28;

/// A text that does not become longer than [`MOST_TEXT`].
#[derive(Default)]
struct Text(Vec<u8>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_TEXT {
            return Err(io::Error::other(format!("it writes more than {} MB", MOST_TEXT >> 20)));
        }
        self.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Template {
    /// Compiles a template from the folder `place`; `specials` (`bos_token`, `eos_token`, ...) are visible in it as
    /// variables.
    pub(crate) fn compile(source: &str, specials: &Map<String, Value>, place: &Path) -> Result<Self, String> {
        let mut env = Environment::new();
        env.set_fuel(Some(MOST_STEPS));
        env.set_trim_blocks(true);
        env.set_lstrip_blocks(true);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        filters::install(&mut env);
        env.add_function("raise_exception", |message: String| -> Result<Jinja, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        let told = Arc::new(Mutex::new(BTreeSet::new()));
        let tells = Arc::clone(&told);
        env.add_function("strftime_now", move |format: String| -> Result<String, Error> {
            let text = strftime(&format, &jiff::ZonedDateTime::now())?;
            tells.lock().unwrap_or_else(PoisonError::into_inner).insert((format, text.clone()));
            Ok(text)
        });
        for (name, value) in specials {
            env.add_global(name.clone(), Jinja::from_serialize(value));
        }
        let place = place.display().to_string().into();
        let translated = source::translate(source);
        contain(|| env.add_template_owned(NAME, translated.text))
            .map_err(|panic| format!("the chat template does not compile: {panic}"))?
            .map_err(|e| format!("the chat template does not compile: {}", explain(&e)))?;
        Ok(Template { env, place, generation: translated.generation, takes: OnceLock::new(), told })
    }

    /// Whether it says what is learned, by `{% generation %}`.
    pub(crate) fn marks_generation(&self) -> bool {
        self.generation
    }

    /// What it was told of the time so far: formats of `strftime`, and the texts.
    pub(crate) fn told(&self) -> BTreeSet<(String, String)> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a row gives that changes nothing in the text: an error where the row means nothing without it, else names.
    pub(crate) fn unread(&self, messages: &[Message], context: &Context) -> Result<Vec<String>, String> {
        // An empty value says nothing: files with columns of one shape have them everywhere.
        let says = |(_, v): &(&String, &Value)| *v != &json!([]) && *v != &json!({}) && *v != &json!("");
        let given = messages.iter().flat_map(|m| m.fields().iter().filter(says));
        let mut fields: Vec<&String> = given.map(|(key, _)| key).collect();
        fields.retain(|key| *key != "role" && *key != "content");
        fields.sort();
        fields.dedup();
        let mut unread = Vec::new();
        if fields.is_empty() && context.columns().next().is_none() {
            return Ok(unread);
        }
        // Texts are compared, so nothing is marked in them.
        let plain = |messages: &[Message], context: &Context| {
            self.run(&self.fitted(messages), false, context, ["", ""])
        };
        let text = plain(messages, context)?;
        let same =
            |messages: &[Message], context: &Context| plain(messages, context).is_ok_and(|t| t == text);
        for column in context.columns().filter(|column| *column != "chat_template_kwargs") {
            let mut without = context.clone();
            if column == "tools" {
                without.tools.clear()
            } else {
                without.documents.clear()
            }
            if same(messages, &without) {
                return Err(format!(
                    "has `{column}`, which the model's chat template does not use; remove the column or take a model \
                     whose template does"
                ));
            }
        }
        for key in context.kwargs.keys() {
            let mut without = context.clone();
            without.kwargs.shift_remove(key);
            if same(messages, &without) {
                unread.push(format!("chat_template_kwargs.{key}"));
            }
        }
        for key in fields {
            let without: Vec<Message> = messages.iter().map(|m| m.without(key)).collect();
            match same(&without, context) {
                true if key == "tool_calls" => {
                    return Err(
                        "has `tool_calls` in a message, which the model's chat template does not use; write \
                                them into the content or take a model whose template does"
                            .into(),
                    );
                }
                true => unread.push(key.clone()),
                false => {}
            }
        }
        Ok(unread)
    }

    /// Renders `messages`.
    pub(crate) fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        given: &Context,
    ) -> Result<Rendered, String> {
        let messages = self.fitted(messages);
        let plain = self.run(&messages, add_generation_prompt, given, ["", ""])?;
        if !self.generation {
            return Ok(Rendered { text: plain, generated: Vec::new() });
        }
        // Letters that Unicode keeps free for marks like these; a conversation that holds some is marked by others.
        let mut pairs = (0xFDD0..0xFDEF)
            .step_by(2)
            .filter_map(|c| Some([char::from_u32(c)?.to_string(), char::from_u32(c + 1)?.to_string()]));
        let marks = pairs.find(|marks| !marks.iter().any(|mark| plain.contains(mark.as_str())));
        let marks = marks.ok_or("holds every letter that Unicode keeps free, none is left to mark with")?;
        let marked = self.run(&messages, add_generation_prompt, given, [&marks[0], &marks[1]])?;
        let rendered = unmark(&marked, &marks);
        match rendered.text == plain {
            true => Ok(rendered),
            false => Err("the chat template computes with what stands between {% generation %} and \
                          {% endgeneration %}, so its place cannot be told"
                .into()),
        }
    }

    /// Messages as the template sees them.
    fn fitted(&self, messages: &[Message]) -> Vec<Value> {
        messages.iter().map(|m| self.fit(m.view())).collect()
    }

    /// A message in the form that the template expects its content in.
    fn fit(&self, mut message: Map<String, Value>) -> Value {
        let takes = *self.takes.get_or_init(|| self.probe());
        match message.get("content") {
            Some(Value::Array(parts)) if !takes.parts => {
                let text: String = parts.iter().filter_map(|p| p["text"].as_str()).collect();
                message.insert("content".into(), text.into());
            }
            Some(Value::String(text)) if !takes.text && takes.parts => {
                let parts = json!([{"type": "text", "text": text}]);
                message.insert("content".into(), parts);
            }
            _ => {}
        }
        message.into()
    }

    /// Finds out which forms of content the template prints, by asking it.
    fn probe(&self) -> Takes {
        const WORD: &str = "duelprobe";
        let prints = |content: Value| {
            let message = json!({"role": "user", "content": content});
            let text = self.run(&[message], false, &Context::default(), ["", ""]).unwrap_or_default();
            // A list that is printed as a list is not understood.
            text.contains(WORD) && !text.contains("type")
        };
        Takes { text: prints(json!(WORD)), parts: prints(json!([{"type": "text", "text": WORD}])) }
    }

    fn run(
        &self,
        messages: &[Value],
        add_generation_prompt: bool,
        given: &Context,
        marks: [&str; 2],
    ) -> Result<String, String> {
        let list = |list: &[Value]| (!list.is_empty()).then(|| Jinja::from_serialize(list));
        let [begins, ends] = MARKS;
        let base = context! {
            messages => Jinja::from_serialize(messages),
            add_generation_prompt,
            tools => list(&given.tools),
            documents => list(&given.documents),
        };
        let marks = BTreeMap::from([(begins, Jinja::from(marks[0])), (ends, Jinja::from(marks[1]))]);
        let marks = Jinja::from(marks);
        let variables = context! { ..Jinja::from_serialize(&given.kwargs), ..marks, ..base };
        let mut text = Text::default();
        let render = || self.env.get_template(NAME)?.render_captured_to(variables, &mut text).map(drop);
        contain(|| watched(&self.place, render))
            .map_err(|panic| format!("the chat template cannot be rendered: {panic}"))?
            .map_err(|e| format!("the chat template refuses the conversation: {}", explain(&e)))?;
        String::from_utf8(text.0).map_err(|e| format!("the chat template's text is not UTF-8: {e}"))
    }
}

/// What a template's error says, and in which line.
fn explain(e: &Error) -> String {
    let what = match (e.kind(), e.detail()) {
        // What a template raises is for the user as it stands.
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        (ErrorKind::OutOfFuel, _) => {
            format!("it takes more than {MOST_STEPS} steps; it may never end: look at the template")
        }
        (ErrorKind::WriteFailure, _) => e.source().map_or("its text is too long".into(), ToString::to_string),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    match e.line() {
        Some(line) => format!("{what} (line {line} of the template)"),
        None => what,
    }
}

/// Takes the marks out of a text; what was between them is generated.
fn unmark(text: &str, [begin, end]: &[String; 2]) -> Rendered {
    let mut rendered = Rendered { text: String::with_capacity(text.len()), generated: Vec::new() };
    let mut started = None;
    for piece in
        text.split_inclusive([begin.as_str(), end.as_str()].map(|m| m.chars().next().unwrap_or_default()))
    {
        let bare = piece.strip_suffix(begin.as_str()).or(piece.strip_suffix(end.as_str()));
        rendered.text += bare.unwrap_or(piece);
        if piece.ends_with(begin.as_str()) {
            started = Some(rendered.text.len());
        } else if piece.ends_with(end.as_str())
            && let Some(start) = started.take()
        {
            rendered.generated.push(start..rendered.text.len());
        }
    }
    rendered
}

/// What a template is told now that asks for the time in this format; `None` where it is no format.
pub(crate) fn tells(format: &str) -> Option<String> {
    strftime(format, &jiff::ZonedDateTime::now()).ok()
}

/// `strftime` of a time; a directive that is not known is an error.
fn strftime(format: &str, time: &jiff::ZonedDateTime) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, time)
        .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now('{format}'): {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specials() -> Map<String, Value> {
        Map::from_iter([("bos_token".to_owned(), json!("<s>"))])
    }

    fn run(template: &str, messages: &[Message]) -> Result<String, String> {
        let template = Template::compile(template, &specials(), Path::new("model"))?;
        template.render(messages, true, &Context::default()).map(|r| r.text)
    }

    #[test]
    fn dates() {
        let at = |seconds| {
            jiff::Timestamp::from_second(seconds).unwrap().to_zoned_datetime(jiff::tz::TimeZone::UTC)
        };
        let full = "%A %a %d %B %b %Y %y-%m %H:%M:%S %% %-d";
        assert_eq!(strftime(full, &at(0)).unwrap(), "Thursday Thu 01 January Jan 1970 70-01 00:00:00 % 1");
        assert_eq!(strftime("%Y-%m-%d %H:%M:%S", &at(951_827_696)).unwrap(), "2000-02-29 12:34:56");
        assert!(strftime("%!", &at(0)).unwrap_err().to_string().contains("%!"));
        let year: u64 = run("{{ strftime_now('%Y') }}", &[]).unwrap().parse().unwrap();
        assert!((2025..3000).contains(&year), "{year}");
        let template =
            Template::compile("{{ strftime_now('%Y') }}", &specials(), Path::new("model")).unwrap();
        assert_eq!(template.told().len(), 0);
        template.render(&[], true, &Context::default()).unwrap();
        assert!(template.told().contains(&("%Y".into(), tells("%Y").unwrap())), "{:?}", template.told());
    }

    /// Each in bounded time and memory, with what is wrong and where.
    #[test]
    fn what_does_not_end_is_refused() {
        for (template, part) in [
            (
                "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
                "steps; it may never end",
            ),
            ("{% for i in range(9999) %}{{ 'a' * 1000000 }}{% endfor %}", "more than 256 MB"),
            ("{{ 'a' * 1000000000 }}", "too large"),
            ("{{ range(1000000000) | list }}", "range has too many elements"),
            ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion limit"),
            ("{% for i in range(2) recursive %}{{ loop([1]) }}{% endfor %}", "recursion limit"),
        ] {
            let error = run(template, &[]).unwrap_err();
            assert!(error.contains(part), "{template}: {error}");
        }
    }

    #[test]
    fn blocks_are_trimmed_and_specials_visible() {
        let template = "{{ bos_token }}\n  {% for m in messages %}\n{{ m['role'].upper() }}:{{ m.content.strip() }}\n  {% endfor %}\n{% if tools %}T{% endif %}{{ nothing }}";
        let messages = [Message::new("user", " <hi> "), Message::new("assistant", "ho")];
        assert_eq!(run(template, &messages).unwrap(), "<s>\nUSER:<hi>\nASSISTANT:ho\n");
    }

    #[test]
    fn json_as_python_writes_it() {
        let messages = [Message::new("user", "<é&'\"\n>")];
        let got =
            run("{{ messages | tojson }} {{ [1, true, none, []] | tojson(indent=2) }}", &messages).unwrap();
        let want = r#"[{"role": "user", "content": "<é&'\"\n>"}] "#.to_owned()
            + "[\n  1,\n  true,\n  null,\n  []\n]";
        assert_eq!(got, want);
        let e = run("{{ 1 | tojson(colour=2) }}", &[]).unwrap_err();
        assert!(e.contains("colour"), "{e}");
    }

    #[test]
    fn errors_carry_the_templates_words_and_its_line() {
        let e = run("{{ raise_exception('roles must alternate') }}", &[]).unwrap_err();
        assert!(e.contains("roles must alternate"), "{e}");
        let e = run("\n{% for %}", &[]).unwrap_err();
        assert!(e.contains("does not compile") && e.contains("line 2"), "{e}");
        let e = run("\n\n{{ [1].append(2) }}", &[]).unwrap_err();
        assert!(e.contains("append") && e.contains("line 3"), "{e}");
    }

    #[test]
    fn generated_spans() {
        let source = "{% for m in messages %}{% if m.role == 'a' %}A{% generation %}\n{{ m.content }}!{% endgeneration %}\n{% else %}{{ m.content }}{% endif %}{% endfor %}";
        let template = Template::compile(source, &specials(), Path::new("model")).unwrap();
        let say =
            |text: &str| [Message::new("u", "hé\u{fdd0}"), Message::new("a", text), Message::new("a", "z")];
        let rendered = template.render(&say("ü"), false, &Context::default()).unwrap();
        assert_eq!(rendered.text, "hé\u{fdd0}Aü!Az!");
        let spans: Vec<&str> = rendered.generated.iter().map(|r| &rendered.text[r.clone()]).collect();
        assert_eq!(spans, ["ü!", "z!"]);
        let counted = "{% set x %}{% generation %}a{% endgeneration %}{% endset %}{{ x | length }}";
        assert!(run(counted, &[]).unwrap_err().contains("generation"));
    }

    /// A list of parts goes to templates that read parts, its text to those that do not.
    #[test]
    fn content_in_the_form_that_the_template_reads() {
        let message =
            |content: Value| [Message::from_json("m", json!({"role": "user", "content": content})).unwrap()];
        let (text, parts) = (message(json!("ab")), message(json!([{"type": "text", "text": "a"}, "b"])));
        let plain = "{% for m in messages %}<{{ m.content }}>{% endfor %}";
        assert_eq!([run(plain, &text), run(plain, &parts)], [Ok("<ab>".into()), Ok("<ab>".into())]);
        let each = "{% for m in messages %}{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endfor %}";
        assert_eq!([run(each, &text), run(each, &parts)], [Ok("<ab>".into()), Ok("<a><b>".into())]);
        let both = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endif %}{% endfor %}";
        assert_eq!([run(both, &text), run(both, &parts)], [Ok("ab".into()), Ok("<a><b>".into())]);
    }
}
