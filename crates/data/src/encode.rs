//! Text to tokens, and which of the tokens are learned.

use crate::row::common_prefix;
use crate::template::Context;
use crate::{Error, Message, Options, Row, Task, Tokenizer};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The turn marker before which Anthropic's HH files, which have no prompt column, end their prompts.
pub(crate) const ASSISTANT: &str = "\n\nAssistant:";

/// A row as tokens.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Encoded {
    /// What is trained on; a conversation can give one group for each of its turns, unpaired responses are one each.
    /// None where there is nothing to learn.
    pub(crate) groups: Vec<Tokens>,
    pub(crate) facts: Facts,
}

/// One group as tokens: every prompt + response as one sequence, all of which start with the same prompt.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Tokens {
    wholes: Vec<Vec<u32>>,
    prompt: usize,
    /// Tokens of the only response that are given rather than learned: other turns than the assistant's.
    pub(crate) given: Vec<Range<usize>>,
    /// Where in the only response the turns that are learned begin; none where it is learned as a whole.
    pub(crate) turns: Vec<usize>,
    /// The prompt is shorter than its own encoding, because the tokenizer merges across its end.
    pub(crate) moved: bool,
}

/// What a user should hear of a row.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// No turn of it is the response.
    pub(crate) conversation: bool,
    /// The prompt's text is not how the whole begins: the template's generation prompt is not how its turns begin.
    pub(crate) other_opening: bool,
    /// Those that are context only: excluded by the row, empty, or before anything was said.
    pub(crate) given_turns: usize,
    /// Turns after the last one that is learned.
    pub(crate) after: usize,
    /// What the chat template never reads.
    pub(crate) unread: Vec<String>,
}

impl Tokens {
    pub(crate) fn prompt(&self) -> &[u32] {
        self.wholes.first().map_or(&[], |w| &w[..self.prompt])
    }

    pub(crate) fn responses(&self) -> Vec<&[u32]> {
        self.wholes.iter().map(|w| &w[self.prompt..]).collect()
    }

    /// One sequence of which the `runs` are learned.
    fn of_runs(ids: Vec<u32>, runs: &[Range<usize>]) -> Self {
        // Without any, the last token keeps the sequence a group.
        let prompt = runs.first().map_or(ids.len().saturating_sub(1), |run| run.start);
        let ends = runs.iter().map(|run| run.end - prompt);
        let next = runs.iter().skip(1).map(|run| run.start).chain([ids.len()]).map(|at| at - prompt);
        let given = ends.zip(next).map(|(from, to)| from..to).filter(|run| !run.is_empty()).collect();
        let turns = runs.iter().map(|run| run.start - prompt).collect();
        Tokens { given, turns, ..Tokens::at(prompt, vec![ids]) }
    }

    /// The end of a conversation of several learned turns where it has more than `most` tokens and its prompt alone
    /// cannot give up enough: the turns that are learned there, after at least one token. Whether that was so.
    pub(crate) fn last(self, most: usize) -> (Self, bool) {
        let [ids] = &self.wholes[..] else { return (self, false) };
        let cut = ids.len().saturating_sub(most);
        if cut < self.prompt || self.turns.len() < 2 {
            return (self, false);
        }
        let learned =
            (0..ids.len() - self.prompt).filter(|at| !self.given.iter().any(|run| run.contains(at)));
        let mut runs: Vec<Range<usize>> = Vec::new();
        // A turn whose start is cut off goes on being learned behind the first token that is left.
        for at in learned.map(|at| at + self.prompt).filter(|at| *at > cut).map(|at| at - cut) {
            match runs.last_mut() {
                Some(run) if run.end == at && !self.turns.contains(&(at + cut - self.prompt)) => run.end += 1,
                _ => runs.push(at..at + 1),
            }
        }
        (Tokens::of_runs(ids[cut..].to_vec(), &runs), true)
    }

    /// A prompt of `prompt` tokens with responses.
    fn at(prompt: usize, wholes: Vec<Vec<u32>>) -> Self {
        Tokens { wholes, prompt, given: Vec::new(), turns: Vec::new(), moved: false }
    }

    /// A prompt with responses. The boundary is decided in token space: the prompt is what its own encoding and all the
    /// whole encodings begin with in common, so that prompt + response is always exactly the encoding of the whole
    /// text.
    fn split(alone: &[u32], wholes: Vec<Vec<u32>>) -> Self {
        let prompt = wholes.iter().fold(alone.len(), |len, whole| shared(&alone[..len], whole));
        Tokens { moved: prompt < alone.len(), ..Tokens::at(prompt, wholes) }
    }
}

/// A row's groups: one of all responses, or one of each where the task does not compare them.
fn groups(task: Task, wholes: Vec<Vec<u32>>, group: impl Fn(Vec<Vec<u32>>) -> Tokens) -> Vec<Tokens> {
    match task {
        Task::Unpaired => wholes.into_iter().map(|whole| group(vec![whole])).collect(),
        _ => vec![group(wholes)],
    }
}

/// Tokenises a row. `None` is a row of identical whole texts, which show no boundary.
pub(crate) fn encode(row: &Row, tok: &Tokenizer, opt: &Options) -> Result<Option<Encoded>, String> {
    match row {
        Row::Chat { .. } if opt.completions_whole() && !opt.conversations_whole() => {
            Err("has a prompt and a completion of messages, of which all is to be learned and yet only the assistant's \
                 turns; give the turns as `messages`, or set assistant_only_loss to false"
                .to_owned())
        }
        Row::Text { prompt, responses } => encode_text(prompt.as_deref(), responses, opt.task, tok),
        Row::Chat { prompt, responses, context } => {
            let mut encoded = match opt.task {
                Task::Unpaired => encode_apart(prompt, responses, context, tok),
                _ => encode_chat(prompt, responses, context, tok),
            }
            .map_err(text)?;
            encoded.facts.unread = unread(prompt, responses, context, tok).map_err(text)?;
            Ok(Some(encoded))
        }
        Row::Talk { turns, context } if opt.conversations_whole() => {
            encode_whole(turns, context, tok).map(Some)
        }
        Row::Talk { turns, context } if opt.task == Task::Sft => encode_talk(turns, context, tok).map(Some),
        Row::Talk { turns, context } => encode_last(turns, context, tok).map(Some),
    }
}

fn encode_text(
    prompt: Option<&str>,
    responses: &[String],
    task: Task,
    tok: &Tokenizer,
) -> Result<Option<Encoded>, String> {
    if let Some(i) = responses.iter().position(String::is_empty) {
        return Err(format!("response {} is empty", i + 1));
    }
    let split = prompt.or_else(|| {
        let common = common_prefix(responses);
        common.rfind(ASSISTANT).map(|at| &common[..at + ASSISTANT.len()])
    });
    let alone = split.map(|text| tok.encode_prompt(text)).transpose().map_err(text)?;
    let wholes =
        responses.iter().map(|response| closed([prompt.unwrap_or_default(), response].concat(), tok));
    let wholes = wholes.collect::<Result<Vec<_>, _>>()?;
    let groups = match (alone, wholes.first()) {
        (Some(alone), _) => groups(task, wholes, |wholes| Tokens::split(&alone, wholes)),
        (None, Some(first)) if wholes.iter().all(|w| w == first) => return Ok(None),
        (None, first) => {
            // One whole text can start another; it still keeps a token to respond with.
            let lengths = wholes.iter().map(|w| first.map_or(0, |first| shared(first, w).min(w.len() - 1)));
            let prompt = lengths.min().unwrap_or(0);
            groups(task, wholes, |wholes| Tokens::at(prompt, wholes))
        }
    };
    Ok(Some(Encoded { groups, facts: Facts::default() }))
}

fn encode_chat(
    prompt: &[Message],
    responses: &[Vec<Message>],
    context: &Context,
    tok: &Tokenizer,
) -> crate::Result<Encoded> {
    // A response that opens with another turn than the assistant's does not continue a generation prompt.
    let generate = responses.iter().all(|r| r.first().is_some_and(|m| m.role() == "assistant"));
    let alone = tok.chat(prompt, generate, context)?.text;
    let wholes: Vec<String> = responses
        .iter()
        .map(|response| Ok(tok.chat(&[prompt, response].concat(), false, context)?.text))
        .collect::<crate::Result<_>>()?;
    let texts: Vec<&str> = [&alone].into_iter().chain(&wholes).map(String::as_str).collect();
    let mut ids = tok.encode_alike(&texts)?;
    let open = ids.remove(0);
    let mut group = Tokens::split(&open, ids);
    let other_opening = !wholes.iter().all(|whole| whole.starts_with(&alone));
    group.moved &= !other_opening;
    Ok(Encoded { groups: vec![group], facts: Facts { other_opening, ..Facts::default() } })
}

/// Each response as if it were the only one.
fn encode_apart(
    prompt: &[Message],
    responses: &[Vec<Message>],
    context: &Context,
    tok: &Tokenizer,
) -> crate::Result<Encoded> {
    let mut all = Encoded::default();
    for response in responses {
        let one = encode_chat(prompt, std::slice::from_ref(response), context, tok)?;
        all.facts.other_opening |= one.facts.other_opening;
        all.groups.extend(one.groups);
    }
    Ok(all)
}

/// What no response of a row shows to be read by the template.
fn unread(
    prompt: &[Message],
    responses: &[Vec<Message>],
    context: &Context,
    tok: &Tokenizer,
) -> crate::Result<Vec<String>> {
    let template = tok.template(context)?;
    let mut read: Vec<String> = Vec::new();
    let mut unread: Vec<String> = Vec::new();
    for response in responses {
        let turns = [prompt, response].concat();
        let names = template.unread(&turns, context).map_err(Error::Tokenizer)?;
        let fields = turns.iter().flat_map(|m| m.fields().keys());
        read.extend(fields.filter(|name| !names.contains(name)).cloned());
        unread.extend(names);
    }
    unread.sort();
    unread.dedup();
    unread.retain(|name| !read.contains(name));
    Ok(unread)
}

/// A conversation of which every turn of the assistant is learned, each once. Where the template marks what is
/// generated, that is learned; elsewhere what a turn adds to the generation prompt before it. A template that writes
/// past turns otherwise than the last (Qwen3 drops their reasoning) has no whole text in which each turn stands as the
/// model says it: then every turn is a group of its own, after the turns before it.
fn encode_talk(turns: &[Message], context: &Context, tok: &Tokenizer) -> Result<Encoded, String> {
    let template = tok.template(context).map_err(text)?;
    let marked = template.marks_generation();
    let said = |&i: &usize| turns[i].role() == "assistant";
    // Nothing comes before a first turn that could ask for it, but for the template's own marks.
    let learned = |i: &usize| turns[*i].learned() && !turns[*i].is_empty() && (marked || *i > 0);
    let assistant: Vec<usize> = (0..turns.len()).filter(said).collect();
    let wanted: Vec<usize> = assistant.iter().copied().filter(learned).collect();
    let end = wanted.last().map_or(0, |last| last + 1);
    let mut facts = Facts {
        conversation: true,
        given_turns: assistant.iter().filter(|i| **i < end).count() - wanted.len(),
        after: turns.len() - end,
        unread: template.unread(turns, context)?,
        ..Facts::default()
    };
    let turns = &turns[..end];
    if turns.is_empty() {
        return Ok(Encoded { groups: Vec::new(), facts });
    }

    let spans = if marked {
        Some(marked_spans(turns, &wanted, context, tok)?)
    } else {
        turn_spans(turns, &wanted, context, tok, &mut facts).map_err(text)?
    };
    let groups = match spans {
        Some((whole, spans)) => vec![masked(&whole, &spans, tok).map_err(text)?],
        None => {
            let mut groups = Vec::new();
            for &i in &wanted {
                let one = encode_chat(&turns[..i], &[vec![turns[i].clone()]], context, tok).map_err(text)?;
                facts.other_opening |= one.facts.other_opening;
                groups.extend(one.groups.into_iter().map(|group| Tokens { turns: vec![0], ..group }));
            }
            groups
        }
    };
    Ok(Encoded { groups, facts })
}

/// A conversation all of which is learned.
fn encode_whole(turns: &[Message], context: &Context, tok: &Tokenizer) -> Result<Encoded, String> {
    let unread = tok.template(context).map_err(text)?.unread(turns, context)?;
    let whole = tok.chat(turns, false, context).map_err(text)?.text;
    let ids = tok.encode(&whole, false).map_err(text)?;
    if ids.is_empty() {
        return Err("has nothing to learn: the chat template makes an empty text of it".to_owned());
    }
    Ok(Encoded {
        groups: vec![Tokens::at(0, vec![ids])],
        facts: Facts { conversation: true, unread, ..Facts::default() },
    })
}

/// A conversation whose last turn of the assistant is the response.
fn encode_last(turns: &[Message], context: &Context, tok: &Tokenizer) -> Result<Encoded, String> {
    let Some(last) = turns.iter().rposition(|m| m.role() == "assistant") else {
        return Err("has no assistant turn".to_owned());
    };
    let mut encoded =
        encode_chat(&turns[..last], &[vec![turns[last].clone()]], context, tok).map_err(text)?;
    encoded.facts.after = turns.len() - last - 1;
    encoded.facts.unread = tok.template(context).map_err(text)?.unread(&turns[..=last], context)?;
    Ok(encoded)
}

/// A conversation's text and the parts of it that are learned.
type Spans = (String, Vec<Range<usize>>);

/// What the template marks as generated; of the turns that are `wanted` where a row excludes some.
fn marked_spans(
    turns: &[Message],
    wanted: &[usize],
    context: &Context,
    tok: &Tokenizer,
) -> Result<Spans, String> {
    let rendered = tok.chat(turns, false, context).map_err(text)?;
    let assistant: Vec<usize> = (0..turns.len()).filter(|&i| turns[i].role() == "assistant").collect();
    let mut spans = rendered.generated;
    if wanted.len() < assistant.len() {
        if spans.len() != assistant.len() {
            return Err(format!(
                "excludes turns, and the chat template marks {} passages of {} assistant turns as generated, so it \
                 cannot be told which they are; split the row",
                spans.len(),
                assistant.len()
            ));
        }
        let mut turn = assistant.iter();
        spans.retain(|_| turn.next().is_some_and(|i| wanted.contains(i)));
    }
    spans.retain(|span| !span.is_empty());
    if spans.is_empty() {
        return Err("has no passage that the chat template marks as generated ({% generation %})".into());
    }
    Ok((rendered.text, spans))
}

/// What every turn that is `wanted` adds to the generation prompt before it; `None` where the template does not write
/// the turns one after the other.
fn turn_spans(
    turns: &[Message],
    wanted: &[usize],
    context: &Context,
    tok: &Tokenizer,
    facts: &mut Facts,
) -> crate::Result<Option<Spans>> {
    let whole = tok.chat(turns, false, context)?.text;
    let mut spans: Vec<Range<usize>> = Vec::new();
    for &i in wanted {
        let before = tok.chat(&turns[..i], true, context)?.text;
        let after =
            if i + 1 == turns.len() { whole.clone() } else { tok.chat(&turns[..=i], false, context)?.text };
        let start = common_prefix(&[&before, &after]).len();
        if !whole.starts_with(&after) || spans.last().is_some_and(|last| start < last.end) {
            return Ok(None);
        }
        facts.other_opening |= start < before.len();
        spans.push(start..after.len());
    }
    Ok(Some((whole, spans)))
}

/// The tokens of a text of which `spans` are learned. A token that reaches into a span belongs to it.
fn masked(whole: &str, spans: &[Range<usize>], tok: &Tokenizer) -> crate::Result<Tokens> {
    let (ids, places) = tok.encode_with_places(whole)?;
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut from = 0;
    for span in spans {
        let reaches =
            |place: &Range<usize>| place.start < span.end && place.end.max(place.start + 1) > span.start;
        let Some(start) = (from..ids.len()).find(|&i| reaches(&places[i])) else { continue };
        let end = (start..ids.len()).find(|&i| !reaches(&places[i])).unwrap_or(ids.len());
        runs.push(start..end);
        from = end;
    }
    Ok(Tokens::of_runs(ids, &runs))
}

pub(crate) fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The ids of a text that ends: with one EOS, whether the text, the post-processor or neither brings it.
pub(crate) fn closed(mut whole: String, tok: &Tokenizer) -> Result<Vec<u32>, String> {
    let Some((eos, id)) = tok.eos() else {
        return Err(
            "needs an EOS token to end its responses; set eos_token in tokenizer_config.json".to_owned()
        );
    };
    let ends = whole.ends_with(eos);
    if ends && tok.appends_eos() {
        whole.truncate(whole.len() - eos.len());
    } else if !ends && !tok.appends_eos() {
        whole.push_str(eos);
    }
    let ids = tok.encode_with_one_bos(&whole).map_err(text)?;
    if ids.last() != Some(&id) {
        return Err(format!(
            "does not end in EOS: the tokenizer splits `{eos}` instead of reading it as token {id}"
        ));
    }
    Ok(ids)
}

pub(crate) fn text(e: Error) -> String {
    e.to_string()
}
