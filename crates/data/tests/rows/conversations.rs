//! What of a conversation is learned, and that nothing it says gets lost on the way to the template.

use crate::common::{CHAT, PREFERENCE, SFT, TINY, Tiny, load, show};
use duel_data::{Batch, Dataset, Options, Tokenizer, Truncation};

fn with(template: &str) -> Tokenizer {
    Tiny { template: Some(template), ..TINY }.build()
}

fn sft(rows: &str, tok: &Tokenizer) -> Dataset {
    load("rows.jsonl", rows, tok, &SFT).unwrap_or_else(|e| panic!("{rows}: {e}"))
}

fn error(rows: &str, tok: &Tokenizer, opt: &Options) -> String {
    load("rows.jsonl", rows, tok, opt).expect_err(rows).to_string()
}

/// Every group, with what is given of its response in brackets.
fn learned(data: &Dataset) -> Vec<[String; 2]> {
    let group = |group: duel_data::Group<'_>| {
        let shown = show(group);
        let mut response: String = shown[1].clone();
        let given: Vec<_> = group.given().collect();
        for run in given.iter().rev() {
            response.insert(run.end, ']');
            response.insert(run.start, '[');
        }
        [shown[0].clone(), response]
    };
    data.groups().map(group).collect()
}

const THREE: &str = r#"{"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "one"}, {"role": "user", "content": "B"}, {"role": "assistant", "content": "two"}, {"role": "user", "content": "C"}]}"#;

#[test]
fn every_assistant_turn_is_learned_once() {
    let data = sft(THREE, &with(CHAT));
    assert_eq!(learned(&data), [["u:A$a:".to_owned(), "one$[u:B$a:]two$".to_owned()]]);
    assert_eq!((data.report().turns, data.report().turns_after), (2, 1));
    assert_eq!(data.group(0).scored_of_best(), 8);
    let line = data.report().to_string();
    assert!(line.contains("the loss is on all 2 assistant turns; 1 turns after the last answer"), "{line}");
    // The rows that are given lie where the batch puts the response.
    let both = sft(&format!("{THREE}\n{THREE}"), &with(CHAT));
    let batch = Batch::new(&both, &[1, 0]);
    let given: String =
        batch.given.iter().flat_map(|run| &batch.tokens[run.clone()]).map(|&t| letter(t)).collect();
    assert_eq!(given, "u:B$a:u:B$a:");
}

fn letter(token: u32) -> char {
    if token == 2 { '$' } else { (token as u8 + 27) as char }
}

/// A template that writes past turns otherwise than the last has no text that holds all turns as they are said.
#[test]
fn turns_that_templates_rewrite_are_groups_of_their_own() {
    let forgetful = "{% for m in messages %}{{ m.role[0] }}:{% if m.role == 'assistant' and loop.last %}(think){% endif %}\
                     {{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}";
    let data = sft(THREE, &with(forgetful));
    let want = [["u:A$a:", "(think)one$"], ["u:A$a:one$u:B$a:", "(think)two$"]];
    assert_eq!(learned(&data), want.map(|group| group.map(str::to_owned)));
    assert_eq!((data.report().rows, data.report().groups, data.report().turns), (1, 2, 2));
}

#[test]
fn what_a_template_marks_is_what_is_learned() {
    let marked = "{% for m in messages %}{{ m.role[0] }}:{% if m.role == 'assistant' %}{% generation %}{{ m.content }}!\
                  {% endgeneration %}{% else %}{{ m.content }}{% endif %}{{ eos_token }}{% endfor %}";
    let data = sft(THREE, &with(marked));
    assert_eq!(learned(&data), [["u:A$a:".to_owned(), "one![$u:B$a:]two![$]".to_owned()]]);
    // Also the first turn, which nothing asks for; and not those that the row excludes.
    let rows = r#"{"messages": [{"role": "assistant", "content": "hi"}, {"role": "user", "content": "A"}, {"role": "assistant", "content": "one", "weight": 0}, {"role": "user", "content": "B"}, {"role": "assistant", "content": "two", "weight": 1}]}"#;
    let data = sft(rows, &with(marked));
    assert_eq!(learned(&data), [["a:".to_owned(), "hi![$u:A$a:one!$u:B$a:]two![$]".to_owned()]]);
    let none = "{% for m in messages %}{{ m.content }}{% generation %}{% endgeneration %}{% endfor %}";
    assert!(error(THREE, &with(none), &SFT).contains("no passage that the chat template marks"));
    let once = "{% generation %}{% for m in messages %}{{ m.content }}{% endfor %}{% endgeneration %}";
    assert!(error(rows, &with(once), &SFT).contains("marks 1 passages of 3 assistant turns"));
}

#[test]
fn turns_can_be_excluded() {
    let tok = with(CHAT);
    for flag in [
        r#""weight": 0"#,
        r#""weight": 0.0"#,
        r#""train": false"#,
        r#""training": false"#,
        r#""loss": false"#,
    ] {
        let row = THREE.replace(r#""content": "one""#, &format!(r#""content": "one", {flag}"#));
        let data = sft(&row, &tok);
        assert_eq!(learned(&data), [["u:A$a:one$u:B$a:".to_owned(), "two$".to_owned()]], "{flag}");
        assert_eq!((data.report().turns, data.report().given_turns), (1, 1));
    }
    // An empty turn and an opening one have nothing to teach.
    let row = THREE.replace("one", "");
    assert_eq!(learned(&sft(&row, &tok)), [["u:A$a:$u:B$a:".to_owned(), "two$".to_owned()]]);
    let opened = THREE.replace(r#"[{"role": "user", "content": "A"}, "#, "[");
    assert_eq!(learned(&sft(&opened, &tok)), [["a:one$u:B$a:".to_owned(), "two$".to_owned()]]);
    // A row that excludes all is left out; the flags never reach the template.
    let all = THREE.replace(r#""assistant","#, r#""assistant", "train": false,"#);
    let data = sft(&format!("{all}\n{THREE}"), &tok);
    assert_eq!((data.report().unlearned, data.len()), (1, 1));
    assert!(data.report().unread.is_empty());
    for (bad, what) in [
        (r#""weight": 0.5"#, "`messages[1]` has 0.5 as its `weight`"),
        (r#""train": "yes""#, "`messages[1]` has \"yes\" as its `train`"),
        (r#""train_detail": []"#, "`train_detail`"),
    ] {
        let row = THREE.replace(r#""content": "one""#, &format!(r#""content": "one", {bad}"#));
        let e = error(&row, &tok, &SFT);
        assert!(e.contains(what), "{bad}: {e}");
    }
    let pair = r#"{"prompt": [{"role": "user", "content": "Q"}], "chosen": [{"role": "assistant", "content": "y", "weight": 0}], "rejected": "n"}"#;
    assert!(error(pair, &tok, &PREFERENCE).contains("`chosen` has a turn that is marked as not learned"));
}

#[test]
fn truncation_cuts_what_is_given_too() {
    let tok = with(CHAT);
    let at = |max, truncation| {
        load("r.jsonl", THREE, &tok, &Options { max_length: Some(max), truncation, ..SFT }).unwrap()
    };
    let start = at(13, Truncation::KeepStart);
    assert_eq!(learned(&start), [["u:A$a:".to_owned(), "one$[u:B]".to_owned()]]);
    assert_eq!((start.report().turns, start.report().truncated), (1, 1));
    assert_eq!(learned(&at(8, Truncation::KeepStart)), [["u:A$a:".to_owned(), "on".to_owned()]]);
    // The end of a conversation is its last answers.
    for (max, want, turns) in [
        (20, ["u:A$a:", "one$[u:B$a:]two$"], 2),
        (18, ["A$a:", "one$[u:B$a:]two$"], 2),
        (13, ["n", "e$[u:B$a:]two$"], 2),
        (9, [":B$a:", "two$"], 1),
        (3, ["w", "o$"], 1),
    ] {
        let end = at(max, Truncation::KeepEnd);
        assert_eq!(learned(&end), [want.map(str::to_owned)], "{max}");
        assert_eq!((end.report().turns, end.group(0).tokens()), (turns, max.min(20)), "{max}");
    }
}

/// Every field of a message, and every variable of a row, is there for the template.
#[test]
fn fields_reach_the_template() {
    let template = "{% if tools %}T{{ tools | tojson }}{% endif %}{% if documents %}D{{ documents[0].text }}{% endif %}{{ mood }}\
                    {% for m in messages %}{{ m.name or m.role[0] }}:\
                    {% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}{% if m.tool_calls %}C{{ m.tool_calls[0].function.name }}{% endif %}\
                    {{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
    let tok = with(&template.replace("m.role[0]", "m.role"));
    let talk = |user: &str, assistant: &str, more: &str| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "Q"{user}}}, {{"role": "assistant", "content": "y"{assistant}}}]{more}}}"#
        )
    };
    for (user, assistant, more, want) in [
        (r#", "name": "Al""#, "", "", ["Al:Q$assistant:", "y$"]),
        ("", r#", "reasoning_content": "hm""#, "", ["user:Q$assistant:", "(hm)y$"]),
        // The other names that datasets have for it.
        ("", r#", "thinking": "hm""#, "", ["user:Q$assistant:", "(hm)y$"]),
        ("", r#", "reasoning": "hm", "name": null"#, "", ["user:Q$assistant:", "(hm)y$"]),
        ("", r#", "tool_calls": [{"function": {"name": "f"}}]"#, "", ["user:Q$assistant:", "Cfy$"]),
        ("", "", r#", "tools": [{"n": null, "k": 1}]"#, ["T[{\"k\": 1}]user:Q$assistant:", "y$"]),
        ("", "", r#", "tools": "[{\"k\": 1}]""#, ["T[{\"k\": 1}]user:Q$assistant:", "y$"]),
        ("", "", r#", "tools": ["{\"k\": 1}"]"#, ["T[{\"k\": 1}]user:Q$assistant:", "y$"]),
        ("", "", r#", "tools": "", "documents": []"#, ["user:Q$assistant:", "y$"]),
        ("", "", r#", "documents": [{"text": "x"}]"#, ["Dxuser:Q$assistant:", "y$"]),
        ("", "", r#", "chat_template_kwargs": {"mood": "m!"}"#, ["m!user:Q$assistant:", "y$"]),
        ("", "", r#", "chat_template_kwargs": "{\"mood\": null}""#, ["user:Q$assistant:", "y$"]),
    ] {
        let row = talk(user, assistant, more);
        let data = sft(&row, &tok);
        assert_eq!(learned(&data), [want.map(str::to_owned)], "{row}");
        assert!(data.report().unread.is_empty(), "{row}: {:?}", data.report().unread);
        // The same as prompt and response.
        let pair = row
            .replace(r#""messages": ["#, r#""prompt": ["#)
            .replace(r#"}, {"role": "assistant""#, r#"}], "completion": [{"role": "assistant""#);
        assert_eq!(learned(&sft(&pair, &tok)), [want.map(str::to_owned)], "{pair}");
    }
    // A call without words.
    let silent = talk("", "", "")
        .replace(r#""content": "y""#, r#""content": null, "tool_calls": [{"function": {"name": "f"}}]"#);
    assert_eq!(learned(&sft(&silent, &tok))[0][1], "Cf$");
}

/// What is read is seen by what changes, not by the words of the source.
#[test]
fn templates_that_read_whole_messages() {
    let whole = with(
        "{% for m in messages %}{{ m | tojson }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}{% endif %}",
    );
    let row =
        r#"{"prompt": [{"role": "user", "name": "Al", "content": "Q"}], "chosen": "y", "rejected": "n"}"#;
    let data = load("r.jsonl", row, &whole, &PREFERENCE).unwrap();
    assert!(data.report().unread.is_empty());
    // The fields stand as in the file.
    assert!(show(data.group(0))[0].starts_with(r#"{"role": "user", "name": "Al", "content": "Q"}$"#));
    let comment = with(&format!("{{# tools and name #}}{CHAT}"));
    assert_eq!(load("r.jsonl", row, &comment, &PREFERENCE).unwrap().report().unread["name"], 1);
    let tools = row.replace(r#""chosen""#, r#""tools": [{"k": 1}], "chosen""#);
    assert!(error(&tools, &comment, &PREFERENCE).contains("has `tools`"));
}

/// What a template never reads is named, and refused where the row means nothing without it.
#[test]
fn what_no_template_reads_is_said() {
    let tok = with(CHAT);
    let row = r#"{"messages": [{"role": "user", "content": "Q", "name": "Al"}, {"role": "assistant", "content": "y", "thinking": "hm"}], "chat_template_kwargs": {"enable_thinking": false}}"#;
    let data = sft(&format!("{row}\n{row}"), &tok);
    let line = data.report().to_string();
    for name in ["`name`", "`thinking`", "`chat_template_kwargs.enable_thinking`"] {
        assert!(line.contains(&format!("{name} in 2 rows is not read by the chat template")), "{line}");
    }
    // What is empty says nothing.
    let empty =
        THREE.replace(r#""content": "one""#, r#""content": "one", "tool_calls": [], "name": "", "x": {}"#);
    assert!(sft(&empty, &tok).report().unread.is_empty());
    for (more, what) in [
        (r#""tools": [{"type": "function"}]"#, "has `tools`, which the model's chat template does not use"),
        (r#""documents": [{"text": "x"}]"#, "has `documents`"),
        (r#""images": ["a.png"]"#, "has `images`"),
        (r#""image": {"bytes": "x"}"#, "has `image`"),
        (r#""videos": ["a"]"#, "has `videos`"),
        (r#""history": [["a", "b"]]"#, "has `history`"),
        (r#""weight": 0.5"#, "has a `weight` of 0.5"),
        (r#""train": false"#, "has `train` set to false"),
        (r#""tools": 3"#, "`tools` is a number, not a list"),
        (r#""tools": "[{""#, "`tools` is a text that is no JSON"),
        (r#""chat_template_kwargs": [1]"#, "`chat_template_kwargs` is a list"),
        (r#""chat_template_kwargs": {"messages": []}"#, "sets `messages`"),
    ] {
        let row = format!("{}, {more}}}", &THREE[..THREE.len() - 1]);
        let e = error(&row, &tok, &SFT);
        assert!(e.contains("row 1: ") && e.contains(what), "{more}: {e}");
    }
    for empty in
        [r#""images": []"#, r#""image": null"#, r#""history": """#, r#""weight": 1"#, r#""train": true"#]
    {
        sft(&format!("{}, {empty}}}", &THREE[..THREE.len() - 1]), &tok);
    }
    for (part, what) in [(r#"{"type": "image_url", "image_url": "u"}"#, "only text"), (r#"3"#, "only text")] {
        let row = THREE.replace(r#""content": "A""#, &format!(r#""content": [{part}]"#));
        assert!(error(&row, &tok, &SFT).contains(what));
    }
}

#[test]
fn a_system_column_opens_the_conversation() {
    let tok = with(CHAT);
    let pair = |prompt: &str, before: &str| {
        let turn = |text: &str| format!(r#"[{before}{{"role": "assistant", "content": "{text}"}}]"#);
        format!(r#"{{"system": "S", {prompt}"chosen": {}, "rejected": {}}}"#, turn("y"), turn("n"))
    };
    let user = r#"{"role": "user", "content": "Q"}"#;
    for row in [
        pair(&format!(r#""prompt": [{user}], "#), ""),
        pair(r#""prompt": "Q", "#, ""),
        pair("", &format!("{user}, ")),
        pair(&format!(r#""prompt": [{user}], "#), &format!("{user}, ")),
        pair(r#""prompt": "Q", "#, &format!("{user}, ")),
        pair(&format!(r#""prompt": [{{"role": "system", "content": "S"}}, {user}], "#), ""),
    ] {
        let data = load("r.jsonl", &row, &tok, &PREFERENCE).unwrap_or_else(|e| panic!("{row}: {e}"));
        assert_eq!(show(data.group(0)), ["s:S$u:Q$a:", "y$", "n$"], "{row}");
    }
    let other = pair(&format!(r#""prompt": [{{"role": "system", "content": "R"}}, {user}], "#), "");
    assert!(error(&other, &tok, &PREFERENCE).contains("opens with another system message"));
    // Without a conversation there is no place for it.
    for row in [
        r#"{"system": "S", "prompt": "Q", "chosen": "y", "rejected": "n"}"#,
        r#"{"system": "S", "chosen": "Qy", "rejected": "Qn"}"#,
        r#"{"system": "S", "instruction": "Q", "chosen": "y", "rejected": "n"}"#,
    ] {
        let e = error(row, &TINY.build(), &PREFERENCE);
        assert!(e.contains("has `system`, but no conversation"), "{row}: {e}");
    }
    assert!(error(r#"{"system": "S", "text": "once"}"#, &tok, &SFT).contains("has `system`"));
    sft(r#"{"system": null, "tools": [], "text": "once"}"#, &tok);
}

#[test]
fn a_generation_prompt_that_is_not_how_turns_begin_is_said() {
    let tok = with(&CHAT.replace("a:{% endif", "a:think {% endif"));
    let pair = r#"{"prompt": [{"role": "user", "content": "Q"}], "chosen": "y", "rejected": "n"}"#;
    let data = load("r.jsonl", pair, &tok, &PREFERENCE).unwrap();
    assert_eq!(show(data.group(0)), ["u:Q$a:", "y$", "n$"]);
    assert_eq!((data.report().other_opening, data.report().boundary_moved), (1, 0));
    assert!(data.report().to_string().contains("generation prompt"));
    let data = sft(THREE, &tok);
    assert_eq!((data.report().other_opening, data.report().boundary_moved), (1, 0));
    assert_eq!(learned(&data)[0][0], "u:A$a:");
}
