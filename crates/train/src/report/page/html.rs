//! Pieces of a page. Whatever was read from a file is text, never markup.

use std::fmt::Write;

/// Text as a page shows it.
pub fn escaped(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => all += "&amp;",
            '<' => all += "&lt;",
            '>' => all += "&gt;",
            '"' => all += "&quot;",
            '\'' => all += "&#39;",
            c => all.push(c),
        }
    }
    all
}

/// A cell of a table.
pub enum Cell {
    /// What its row is of.
    Name(String),
    /// Text.
    Text(String),
    /// A number, or none.
    Number(Option<f64>),
}

impl Cell {
    fn html(&self) -> String {
        match self {
            Cell::Name(text) => format!("<th scope=\"row\">{}</th>", escaped(text)),
            Cell::Text(text) => format!("<td>{}</td>", escaped(text)),
            Cell::Number(value) => {
                let shown = value.map_or(String::new(), short);
                format!("<td class=\"number\">{shown}</td>")
            }
        }
    }
}

/// A number to five digits.
fn short(value: f64) -> String {
    if value == 0.0 || (1e-3..1e6).contains(&value.abs()) {
        let digits = (4 - value.abs().max(1e-3).log10().floor() as i32).clamp(0, 7) as usize;
        let text = format!("{value:.digits$}");
        match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text,
        }
    } else {
        format!("{value:.4e}")
    }
}

/// A table that can be wider than the page.
pub fn table(head: &[String], rows: impl Iterator<Item = Vec<Cell>>) -> String {
    let mut all = String::from("<div class=\"wide\"><table>\n<thead><tr>");
    for name in head {
        // Writing to a string cannot fail.
        let _ = write!(all, "<th scope=\"col\">{}</th>", escaped(name));
    }
    all += "</tr></thead>\n<tbody>\n";
    for row in rows {
        let _ = writeln!(all, "<tr>{}</tr>", row.iter().map(Cell::html).collect::<String>());
    }
    all + "</tbody></table></div>"
}

/// Text with tables in Markdown's form, as studies write it: the tables, and the lines between them.
pub fn tabled(text: &str) -> String {
    let mut all = String::new();
    let mut lines = text.lines().filter(|line| !line.is_empty()).peekable();
    while let Some(line) = lines.next() {
        if !line.starts_with('|') {
            let _ = writeln!(all, "<p>{}</p>", escaped(line));
            continue;
        }
        let head = cells(line);
        let mut rows = Vec::new();
        while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
            // The line below the head has nothing but dashes.
            if !row.chars().all(|c| "|-: ".contains(c)) {
                rows.push(cells(row).into_iter().map(Cell::Text).collect());
            }
        }
        all += &table(&head, rows.into_iter());
    }
    all
}

/// The cells of a line of a table; a bar inside one has a backslash before it.
fn cells(line: &str) -> Vec<String> {
    const BAR: &str = "\u{0}";
    let line = line.replace("\\|", BAR);
    let inside = line.trim().trim_start_matches('|').trim_end_matches('|');
    inside.split('|').map(|cell| cell.trim().replace(BAR, "|")).collect()
}

/// An image inside the page. As an image nothing in it can run, whoever wrote it.
pub fn image(what: &str, svg: &str) -> String {
    let mut data = String::with_capacity(svg.len() * 3 / 2);
    for byte in svg.bytes() {
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b' '
            | b'='
            | b':'
            | b'/'
            | b'.'
            | b','
            | b'-'
            | b';'
            | b'('
            | b')' => data.push(byte as char),
            byte => {
                let _ = write!(data, "%{byte:02X}");
            }
        }
    }
    format!("<p><img alt=\"{}\" src=\"data:image/svg+xml,{data}\"></p>\n", escaped(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_text_are_tables() {
        let page = tabled("Found:\n\n| a | KL(p \\|\\| q) |\n|---|---|\n| <b> |  |\n");
        let want = "<p>Found:</p>\n<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">a</th>\
                    <th scope=\"col\">KL(p || q)</th></tr></thead>\n<tbody>\n\
                    <tr><td>&lt;b&gt;</td><td></td></tr>\n</tbody></table></div>";
        assert_eq!(page, want);
    }

    #[test]
    fn numbers_have_five_digits() {
        for (value, shown) in [
            (0.0, "0"),
            (0.123_456_78, "0.12346"),
            (-12.5, "-12.5"),
            (123_456.0, "123456"),
            (0.001, "0.001"),
            (1.234_567e-9, "1.2346e-9"),
            (2e7, "2.0000e7"),
        ] {
            assert_eq!(short(value), shown);
        }
    }
}
