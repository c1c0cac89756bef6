//! Chat templates: the Jinja dialect that Hugging Face tokenizers ship, with its extra functions.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant` or whatever else the model's template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of `role` that says `content`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message { role: role.into(), content: content.into() }
    }
}

const NAME: &str = "chat";

/// Compiles a template; `specials` (`bos_token`, `eos_token`, ...) are visible in it as variables.
pub(crate) fn compile(source: String, specials: &[(String, String)]) -> Result<Environment<'static>, String> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    env.add_function("strftime_now", |format: String| strftime(&format, now()));
    env.add_filter("tojson", to_json);
    for (name, text) in specials {
        env.add_global(name.clone(), text.clone());
    }
    env.add_template_owned(NAME, source).map_err(|e| format!("the chat template does not compile: {e}"))?;
    Ok(env)
}

/// Renders `messages` with a compiled template.
pub(crate) fn render(
    env: &Environment<'_>,
    messages: &[Message],
    add_generation_prompt: bool,
) -> Result<String, String> {
    env.get_template(NAME)
        .and_then(|t| {
            t.render(minijinja::context! { messages, add_generation_prompt, tools => Value::from(()) })
        })
        .map_err(|e| {
            format!("the chat template refuses the conversation: {}", e.detail().unwrap_or(&e.to_string()))
        })
}

/// Python's `json.dumps(value, ensure_ascii=False)`: unlike minijinja's own filter it does not escape for HTML.
fn to_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let mut out = Vec::new();
    let indent = options.get::<Option<usize>>("indent")?;
    let done = match indent.map(|n| " ".repeat(n)) {
        Some(indent) => {
            let pretty = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut out, pretty))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut out, Spaced)),
    };
    let text =
        done.map_err(|e| e.to_string()).and_then(|()| String::from_utf8(out).map_err(|e| e.to_string()));
    text.map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("tojson: {e}")))
}

/// The separators of `json.dumps`: `", "` and `": "`.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

/// Seconds since 1970, UTC.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The directives of `strftime` that templates use, for a UTC time; others are an error.
fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let (day_number, second) = (seconds / 86_400, seconds % 86_400);
    let weekday = DAYS[(day_number % 7) as usize];
    let (year, month, day) = civil(day_number);
    let month_name = MONTHS[month as usize - 1];

    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => text += &year.to_string(),
            Some('y') => text += &format!("{:02}", year % 100),
            Some('m') => text += &format!("{month:02}"),
            Some('d') => text += &format!("{day:02}"),
            Some('B') => text += month_name,
            Some('b') => text += &month_name[..3],
            Some('A') => text += weekday,
            Some('a') => text += &weekday[..3],
            Some('H') => text += &format!("{:02}", second / 3600),
            Some('M') => text += &format!("{:02}", second / 60 % 60),
            Some('S') => text += &format!("{:02}", second % 60),
            Some('%') => text.push('%'),
            other => {
                let directive = other.map(String::from).unwrap_or_default();
                let message = format!(
                    "strftime_now does not know %{directive} (known: %Y %y %m %d %B %b %A %a %H %M %S)"
                );
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
    }
    Ok(text)
}

/// Year, month and day of a day counted from 1970-01-01. Years start in March here, so that the leap day is the
/// last of its year and month lengths follow one formula.
fn civil(day_number: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097; // days in 400 years
    let z = day_number + 719_468; // from 0000-03-01
    let (era, day) = (z / ERA, z % ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153; // 0 is March
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(template: &str, messages: &[Message]) -> Result<String, String> {
        let env = compile(template.into(), &[("bos_token".into(), "<s>".into())])?;
        render(&env, messages, true)
    }

    #[test]
    fn dates() {
        let full = "%A %a %d %B %b %Y %y-%m %H:%M:%S %%";
        assert_eq!(strftime(full, 0).unwrap(), "Thursday Thu 01 January Jan 1970 70-01 00:00:00 %");
        assert_eq!(strftime("%Y-%m-%d %H:%M:%S", 951_827_696).unwrap(), "2000-02-29 12:34:56");
        assert_eq!(strftime("%a %d %b %Y", 1_735_689_599).unwrap(), "Tue 31 Dec 2024");
        assert_eq!(strftime("%Y-%m-%d", 4_107_542_400).unwrap(), "2100-03-01");
        assert!(strftime("%Z", 0).unwrap_err().to_string().contains("%Z"));
        let year: u64 = run("{{ strftime_now('%Y') }}", &[]).unwrap().parse().unwrap();
        assert!((2025..3000).contains(&year), "{year}");
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
    }

    #[test]
    fn errors_carry_the_templates_words() {
        let e = run("{{ raise_exception('roles must alternate') }}", &[]).unwrap_err();
        assert!(e.contains("roles must alternate"), "{e}");
        let e = run("{% for %}", &[]).unwrap_err();
        assert!(e.contains("does not compile"), "{e}");
    }
}
