//! A command line to words, as a shell has them, without the rest of a shell.

/// The words of a command: apart by spaces, but for what stands in '' or "" or behind a backslash.
///
/// # Errors
/// A quote has no end, or there is no word.
pub fn words(command: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = command.chars();
    while let Some(c) = rest.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            quote @ ('\'' | '"') => {
                let inside = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or("has a quote without an end")? {
                        c if c == quote => break,
                        '\\' if quote == '"' => inside.push(rest.next().ok_or("has a quote without an end")?),
                        c => inside.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(rest.next().ok_or("ends in a backslash")?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match words.is_empty() {
        true => Err("has no words".to_owned()),
        false => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn words_are_those_of_a_shell() {
        assert_eq!(words(" python3  judge.py ").unwrap(), ["python3", "judge.py"]);
        assert_eq!(words(r#"a 'b c'"d \"e" f\ g '' "\x""#).unwrap(), ["a", r#"b cd "e"#, "f g", "", "x"]);
        assert_eq!(words(r"sh -c 'exit \1'").unwrap(), ["sh", "-c", r"exit \1"]);
        assert!(
            words("a 'b").is_err() && words(" ").is_err() && words("a\\").is_err() && words("\"a\\").is_err()
        );
    }
}
