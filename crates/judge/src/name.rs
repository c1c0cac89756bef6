//! Judges by name: a word, and what it needs behind a colon.

#[cfg(feature = "http")]
use crate::Http;
use crate::{Error, Judge, Lexicon, Program, Result, Settings, Stop};
use std::path::Path;

/// What makes judges of one kind. Programs add their own to [`built_in`].
pub struct Maker<'a> {
    /// The word: `lexicon`.
    pub word: &'static str,
    /// What stands behind the colon: `FILE`; empty where nothing does.
    pub argument: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Makes one of what stands behind the colon.
    pub make: Box<Make<'a>>,
}

type Make<'a> = dyn Fn(&str, &Settings, &Stop) -> Result<Box<dyn Judge + 'a>> + 'a;

impl<'a> Maker<'a> {
    /// A maker of the judges `word:argument`.
    pub fn new(
        word: &'static str,
        argument: &'static str,
        help: &'static str,
        make: impl Fn(&str, &Settings, &Stop) -> Result<Box<dyn Judge + 'a>> + 'a,
    ) -> Self {
        Maker { word, argument, help, make: Box::new(make) }
    }

    /// How its judges are called: `lexicon:FILE`.
    pub fn form(&self) -> String {
        match self.argument {
            "" => self.word.to_owned(),
            argument => format!("{}:{argument}", self.word),
        }
    }
}

/// The judges of this crate.
pub fn built_in<'a>() -> Vec<Maker<'a>> {
    vec![
        Maker::new(
            "lexicon",
            "FILE",
            "sums the weights of words, `word<TAB>weight` a line",
            |file, settings, _| Ok(Box::new(Lexicon::read(Path::new(file), settings.scale()?)?)),
        ),
        Maker::new("program", "COMMAND", "asks a program, in JSON lines", |command, settings, stop| {
            Ok(Box::new(Program::start(command, settings, stop.clone())?))
        }),
        #[cfg(feature = "http")]
        Maker::new(
            "http",
            "URL",
            "asks a model behind an OpenAI-compatible endpoint",
            |url, settings, stop| Ok(Box::new(Http::new(url, settings, stop.clone())?)),
        ),
    ]
}

/// The judge of this name. An address needs no word before it: `http://localhost:8000/v1` is one of the judge `http`.
///
/// # Errors
/// No maker has that name, a setting has no effect on it, or it cannot be made.
pub fn open<'a>(
    name: &str,
    settings: &Settings,
    makers: &[Maker<'a>],
    stop: &Stop,
) -> Result<Box<dyn Judge + 'a>> {
    let (word, argument) = match name.split_once(':') {
        Some(("http" | "https", rest)) if rest.starts_with("//") => ("http", name),
        Some(parts) => parts,
        None => (name, ""),
    };
    let Some(maker) = makers.iter().find(|maker| maker.word == word) else {
        let forms: Vec<String> = makers.iter().map(Maker::form).collect();
        return Err(Error::new(format!(
            "there is no judge `{word}`; a judge is one of {}",
            forms.join(", ")
        )));
    };
    if argument.is_empty() != maker.argument.is_empty() {
        return Err(Error::new(format!("the judge `{name}` is not of the form {}", maker.form())));
    }
    settings.fit(word)?;
    (maker.make)(argument, settings, stop)
}
