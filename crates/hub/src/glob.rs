//! Patterns of paths, as data sets name their files by.

/// Whether a path matches a pattern: `*` and `?` stand for anything in a part of it, `[a-c]` and `[!a-c]` for one
/// character, and `**` for any number of parts.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    parts(&pattern, &path)
}

fn parts(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        (["**"], path) => !path.is_empty(),
        (["**", rest @ ..], path) => (0..=path.len()).any(|n| parts(rest, &path[n..])),
        ([first, rest @ ..], [one, path @ ..]) => {
            let (first, one): (Vec<char>, Vec<char>) = (first.chars().collect(), one.chars().collect());
            part(&first, &one) && parts(rest, path)
        }
        _ => false,
    }
}

fn part(pattern: &[char], text: &[char]) -> bool {
    // Where the last star stands, and how much of the text it stands for so far.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        let one = match pattern.get(p) {
            Some('?') => Some(p + 1),
            Some('[') => match class(&pattern[p..], text[t]) {
                Some((length, holds)) => holds.then_some(p + length),
                None => (text[t] == '[').then_some(p + 1),
            },
            Some(c) => (*c == text[t]).then_some(p + 1),
            None => None,
        };
        match (pattern.get(p), one) {
            (Some('*'), _) => {
                star = Some((p, t));
                p += 1;
            }
            (_, Some(next)) => (p, t) = (next, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// How long the class is that a pattern begins with, and whether a character is of it; `None`: it is none, but a
/// bracket.
fn class(pattern: &[char], c: char) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(1), Some('!' | '^'));
    let first = 1 + usize::from(negated);
    // A bracket that comes first is one of the class.
    let end = first + 1 + pattern.get(first + 1..)?.iter().position(|c| *c == ']')?;
    let (mut i, mut found) = (first, false);
    while i < end {
        match (pattern[i], pattern.get(i + 1), pattern.get(i + 2)) {
            (from, Some('-'), Some(to)) if i + 2 < end => {
                found |= (from..=*to).contains(&c);
                i += 3;
            }
            (one, ..) => {
                found |= one == c;
                i += 1;
            }
        }
    }
    Some((end + 1, found != negated))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_shells() {
        for (pattern, path, holds) in [
            ("data/train-*", "data/train-00000-of-00002.parquet", true),
            ("data/train-*", "data/more/train-1.parquet", false),
            ("*.jsonl", "a/b.jsonl", false),
            ("**/*.jsonl", "a/b.jsonl", true),
            ("**/*.jsonl", "b.jsonl", true),
            ("**", "a/b/c", true),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/c", "a/c", true),
            ("part-[0-2].csv", "part-2.csv", true),
            ("part-[!0-2].csv", "part-2.csv", false),
            ("part-[!0-2].csv", "part-3.csv", true),
            ("a[]x]b", "a]b", true),
            ("a?c", "abc", true),
            ("a*b*c", "axxbyybzzc", true),
            ("a*b*d", "axxbyybzzc", false),
            ("[x", "[x", true),
            ("data", "data/a", false),
        ] {
            assert_eq!(matches(pattern, path), holds, "{pattern} {path}");
        }
    }
}
