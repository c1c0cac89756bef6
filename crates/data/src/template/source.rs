//! A template's source as minijinja takes it: what Jinja2 has and minijinja has not is written in other words, without
//! moving a line.

/// Variables that mark where what the model is to say begins and ends; the renderer gives them their text.
pub(super) const MARKS: [&str; 2] = ["__generation_begins", "__generation_ends"];

/// A template in minijinja's words.
#[derive(Debug, PartialEq)]
pub(super) struct Source {
    pub text: String,
    /// Whether it has `{% generation %}`.
    pub generation: bool,
}

/// Line ends become `\n`, also inside literals, as Jinja2's lexer has it; `{% generation %}` becomes a block that
/// prints its mark (a block, so that whitespace control works as before); and a literal that is formatted by `%` goes
/// through the filter `format`.
pub(super) fn translate(source: &str) -> Source {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = Source { text: String::with_capacity(source.len()), generation: false };
    let (mut rest, mut open) = (source.as_str(), 0);
    while let Some(at) = rest.find('{') {
        out.text += &rest[..at];
        rest = &rest[at..];
        let tag = match rest.as_bytes() {
            [b'{', b'#', ..] => &rest[..rest.find("#}").map_or(rest.len(), |end| end + 2)],
            [b'{', b'%', ..] => until_close(rest, "%}"),
            [b'{', b'{', ..] => until_close(rest, "}}"),
            _ => &rest[..1],
        };
        rest = &rest[tag.len()..];
        match block_name(tag) {
            Some("raw") => {
                // Everything up to the end of the raw block is text.
                let end = raw_end(rest);
                out.text += tag;
                out.text += &rest[..end];
                rest = &rest[end..];
            }
            Some("generation") => {
                out.generation = true;
                open += 1;
                out.text += &mark(tag, MARKS[0], false);
            }
            // One that ends nothing stays, for the compiler to name.
            Some("endgeneration") if open > 0 => {
                open -= 1;
                out.text += &mark(tag, MARKS[1], true);
            }
            _ if tag.starts_with("{#") || tag.len() == 1 => out.text += tag,
            _ => out.text += &format_operators(tag),
        }
    }
    out.text += rest;
    out
}

/// The tag at the start of `text`, with its end; strings and brackets in it may hold what looks like an end.
fn until_close<'t>(text: &'t str, close: &str) -> &'t str {
    let (mut at, mut depth) = (2, 0usize);
    while at < text.len() {
        match text.as_bytes()[at] {
            quote @ (b'"' | b'\'') => {
                at = string_end(text, at, quote);
                continue;
            }
            _ if depth == 0 && text[at..].starts_with(close) => return &text[..at + close.len()],
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += text[at..].chars().next().map_or(1, char::len_utf8);
    }
    text
}

/// Where the string that starts at `at` ends.
fn string_end(text: &str, at: usize, quote: u8) -> usize {
    let bytes = text.as_bytes();
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != quote {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    // An escape may stand before a letter of several bytes.
    let mut end = (end + 1).min(text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    end
}

/// The first word of a `{% %}` tag.
fn block_name(tag: &str) -> Option<&str> {
    let inside = tag.strip_prefix("{%")?.trim_start_matches(['-', '+']).trim_start();
    Some(&inside[..inside.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inside.len())])
}

/// How much of `text` belongs to a raw block, without the tag that ends it.
fn raw_end(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find("{%").map(|at| at + from) {
        if block_name(&text[at..]) == Some("endraw") {
            return at;
        }
        from = at + 2;
    }
    text.len()
}

/// `{%- generation %}` or its end as blocks around what prints `variable`, with the same whitespace control and as many
/// lines. What is set between the two is theirs alone.
fn mark(tag: &str, variable: &str, end: bool) -> String {
    let sign = |c: Option<char>| c.filter(|c| ['-', '+'].contains(c)).map(String::from).unwrap_or_default();
    let open = sign(tag.chars().nth(2));
    let close = sign(tag.strip_suffix("%}").and_then(|t| t.chars().last()));
    let lines = "\n".repeat(tag.matches('\n').count());
    match end {
        false => format!("{{%{open} with %}}{{{{ {variable} }}}}{{% if true %}}{{% endif {lines}{close}%}}"),
        true => {
            format!("{{%{open} if true %}}{{% endif %}}{{{{ {variable} }}}}{{% endwith {lines}{close}%}}")
        }
    }
}

/// Rewrites `"..." % operand` to `("..."|format(operand))` in a tag.
fn format_operators(tag: &str) -> String {
    let mut out = String::with_capacity(tag.len());
    let mut at = 0;
    // A product on the left would take the literal first; nothing sensible has that, and it stays an error.
    while at < tag.len() {
        let quote = tag.as_bytes()[at];
        if !matches!(quote, b'"' | b'\'') {
            let len = tag[at..].chars().next().map_or(1, char::len_utf8);
            out += &tag[at..at + len];
            at += len;
            continue;
        }
        let end = string_end(tag, at, quote);
        let literal = &tag[at..end];
        let after = skip_space(tag, end);
        let percent = tag[after..].starts_with('%') && !tag[after..].starts_with("%}");
        let operand = skip_space(tag, after + 1);
        let operand_end = if percent { operand_end(tag, operand) } else { operand };
        if percent && operand_end > operand {
            let inside = &tag[operand..operand_end];
            // A tuple gives one argument each.
            let tuple =
                inside.starts_with('(') && inside.ends_with(')') && matching(inside, 0) == inside.len();
            let arguments = if tuple { &inside[1..inside.len() - 1] } else { inside };
            out +=
                &format!("({literal}|format({}))", format_operators(arguments.trim().trim_end_matches(',')));
            at = operand_end;
        } else {
            out += literal;
            at = end;
        }
    }
    out
}

fn skip_space(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    at + text[at..].len() - text[at..].trim_start().len()
}

/// Where the operand that starts at `at` ends: a name, number, string or bracket with what is attached to it.
fn operand_end(text: &str, at: usize) -> usize {
    let word = |from: usize| {
        let end = text[from..].find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.');
        end.map_or(text.len(), |n| from + n)
    };
    let mut end = match text.as_bytes().get(at) {
        Some(quote @ (b'"' | b'\'')) => string_end(text, at, *quote),
        Some(b'(' | b'[' | b'{') => matching(text, at),
        Some(_) => word(at),
        None => return at,
    };
    loop {
        end = match text.as_bytes().get(end) {
            Some(b'(' | b'[') => matching(text, end),
            Some(b'.') => word(end + 1),
            _ => {
                let next = skip_space(text, end);
                match text[next.min(text.len())..].strip_prefix('|') {
                    Some(_) => word(skip_space(text, next + 1)),
                    None => return end,
                }
            }
        };
    }
}

/// Behind the bracket that closes the one at `at`, or the end of the text.
fn matching(text: &str, at: usize) -> usize {
    let (mut depth, mut end) = (0usize, at);
    while end < text.len() {
        match text.as_bytes()[end] {
            quote @ (b'"' | b'\'') => {
                end = string_end(text, end, quote);
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        end += text[end..].chars().next().map_or(1, char::len_utf8);
        if depth == 0 {
            return end;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: &str) -> String {
        translate(source).text
    }

    #[test]
    fn line_ends() {
        assert_eq!(text("a\r\nb\rc\n{{ 'x\r\ny' }}"), "a\nb\nc\n{{ 'x\ny' }}");
    }

    #[test]
    fn generation_becomes_a_block_that_prints() {
        let made = translate("{%- generation %}x{% endgeneration -%}");
        assert!(made.generation);
        assert_eq!(
            made.text,
            "{%- with %}{{ __generation_begins }}{% if true %}{% endif %}x\
             {% if true %}{% endif %}{{ __generation_ends }}{% endwith -%}"
        );
        // Not in comments, raw blocks, strings or longer words.
        for same in [
            "{# {% generation %} #}",
            "{% raw %}{% generation %}{{ '%' % 2 }}{%- endraw %}",
            "{{ '{% generation %}' }}",
            "{% generations %}",
            "{ % generation % }",
        ] {
            assert_eq!(translate(same), Source { text: same.into(), generation: false });
        }
        assert_eq!(text("a{%\ngeneration\n%}b").matches('\n').count(), 2);
    }

    #[test]
    fn formatting_by_percent() {
        for (from, to) in [
            ("{{ 'a %s' % x }}", "{{ ('a %s'|format(x)) }}"),
            ("{{ \"%d\" % (a, 'b)') ~ c }}", "{{ (\"%d\"|format(a, 'b)')) ~ c }}"),
            ("{{ '%s' % m['a'].b(1)|upper + 1 }}", "{{ ('%s'|format(m['a'].b(1)|upper)) + 1 }}"),
            ("{{ '%s' % ('%s' % y,) }}", "{{ ('%s'|format(('%s'|format(y)))) }}"),
            ("{% set a = 'x%' %}", "{% set a = 'x%' %}"),
            ("{{ a % 2 }}{{ 'b' }}%", "{{ a % 2 }}{{ 'b' }}%"),
            ("{{ '\\'%s' % 'ü' }}", "{{ ('\\'%s'|format('ü')) }}"),
            ("'%s' % x", "'%s' % x"),
        ] {
            assert_eq!(text(from), to);
        }
    }

    /// What is broken stays as it is, for the compiler to name.
    #[test]
    fn unfinished_tags() {
        for source in [
            "{",
            "{%",
            "{{ 'a",
            "{{ '\\",
            "{{ '%s' % ",
            "{#",
            "{% raw %}{{",
            "{{ '\\ü",
            "{{ '%s' %",
            "{{ '%s' % )",
        ] {
            assert_eq!(text(source), source);
        }
        assert_eq!(text("{{ '%s' % (a"), "{{ ('%s'|format((a))");
        assert_eq!(text("{{ {'a': {'b': '%s' % 1}} }}"), "{{ {'a': {'b': ('%s'|format(1))}} }}");
    }
}
