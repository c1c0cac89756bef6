//! Tables and numbers in Markdown.

/// A Markdown table of equally wide columns; those from `numbers` on are aligned to the right.
pub fn table<const N: usize>(lines: &[[String; N]], numbers: usize) -> String {
    let width = |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for (i, line) in lines.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            let cell = if column < numbers { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
            text += &format!("| {cell} ");
        }
        text += "|\n";
        if i == 0 {
            for (column, width) in widths.into_iter().enumerate() {
                let dashes = "-".repeat(width + 1);
                text += &if column < numbers { format!("|{dashes}-") } else { format!("|{dashes}:") };
            }
            text += "|\n";
        }
    }
    text
}

/// Seconds with a prefix.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// A share as a percentage.
pub fn percent(share: f64, decimals: usize) -> String {
    format!("{:.decimals$} %", share * 100.0)
}

/// A paragraph in lines of at most `width` characters, where its words allow that; code between backticks is a word.
pub fn wrap(text: &str, width: usize) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match words.last_mut() {
            Some(last) if last.matches('`').count() % 2 == 1 => *last += &format!(" {word}"),
            _ => words.push(word.to_owned()),
        }
    }
    let mut lines = String::new();
    let mut used = 0;
    for word in words {
        let len = word.chars().count();
        if used > 0 {
            let fits = used + 1 + len <= width;
            lines.push(if fits { ' ' } else { '\n' });
            used = if fits { used + 1 } else { 0 };
        }
        lines += &word;
        used += len;
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_wrapped() {
        assert_eq!(wrap("a bb\n  ccc dddddd e", 6), "a bb\nccc\ndddddd\ne\n");
        assert_eq!(wrap("aa (`b c`) d", 6), "aa\n(`b c`)\nd\n");
    }

    #[test]
    fn tables_are_aligned() {
        let lines = [["a".into(), "b".into()], ["ccc".into(), "22".into()]];
        assert_eq!(table(&lines, 1), "| a   |  b |\n|-----|---:|\n| ccc | 22 |\n");
    }
}
