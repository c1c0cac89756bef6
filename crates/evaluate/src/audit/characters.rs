//! Characters that people do not write: what was broken on the way to a file, and what no reader sees.

/// What is odd in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oddity {
    /// U+FFFD, which stands where a character could not be read.
    Replacement,
    /// UTF-8 that was read as Latin-1 or Windows-1252 (`Ã©` for `é`).
    Mojibake,
    /// A control character other than tabs and ends of lines.
    Control,
    /// A character without width or look of its own: zero-width spaces and joiners where no script joins, byte-order
    /// marks, soft hyphens, tags.
    Invisible,
    /// A mark that turns the direction of writing.
    Direction,
    /// Scripts that are written from the right beside some that are from the left, which few readers show right.
    Mixed,
}

impl Oddity {
    /// All, the worst first.
    pub const ALL: [Oddity; 6] = [
        Oddity::Replacement,
        Oddity::Mojibake,
        Oddity::Control,
        Oddity::Invisible,
        Oddity::Direction,
        Oddity::Mixed,
    ];

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Oddity::Replacement => "replacement",
            Oddity::Mojibake => "mojibake",
            Oddity::Control => "control",
            Oddity::Invisible => "invisible",
            Oddity::Direction => "direction_marks",
            Oddity::Mixed => "mixed_direction",
        }
    }

    /// In words.
    pub fn described(self) -> &'static str {
        match self {
            Oddity::Replacement => "U+FFFD, where a character was lost",
            Oddity::Mojibake => "UTF-8 read as Windows-1252 (mojibake)",
            Oddity::Control => "control characters",
            Oddity::Invisible => "invisible characters",
            Oddity::Direction => "marks of direction",
            Oddity::Mixed => "scripts of both directions",
        }
    }

    /// Whether something was damaged, and is not only unusual.
    pub fn is_damage(self) -> bool {
        matches!(self, Oddity::Replacement | Oddity::Mojibake)
    }
}

/// What is odd in `text`, each kind once, with the place in bytes where it is first.
pub fn oddities(text: &str) -> Vec<(Oddity, usize)> {
    let mut found: Vec<(Oddity, usize)> = Vec::new();
    // Most texts are of what this passes at once.
    if text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\n' | b'\t' | b'\r')) {
        return found;
    }
    let mut add = |what: Oddity, at: usize| {
        if !found.iter().any(|(known, _)| *known == what) {
            found.push((what, at));
        }
    };
    let (mut left, mut right) = (false, None);
    let mut before = ' ';
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let after = chars.peek().map_or(' ', |(_, c)| *c);
        match c {
            '\n' | '\t' | '\r' => {}
            '\u{FFFD}' => add(Oddity::Replacement, at),
            c if c.is_control() => add(Oddity::Control, at),
            // Arabic, Indic scripts and emoji are written with joiners.
            '\u{200C}' | '\u{200D}' if before >= '\u{600}' || after >= '\u{600}' => {}
            '\u{200B}'..='\u{200D}' | '\u{2060}'..='\u{2064}' | '\u{FEFF}' | '\u{AD}' | '\u{180E}'
            // Tags, but for those of flags.
            | '\u{E0001}' => add(Oddity::Invisible, at),
            '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{61C}' => {
                add(Oddity::Direction, at);
            }
            c if is_from_right(c) => right = right.or(Some(at)),
            c => left |= c.is_alphabetic(),
        }
        before = c;
    }
    if let Some(at) = right.filter(|_| left) {
        add(Oddity::Mixed, at);
    }
    if let Some(at) = mojibake(text) {
        add(Oddity::Mojibake, at);
    }
    found.sort();
    found
}

/// Hebrew, Arabic, Syriac, Thaana, N'Ko and what follows them, and their forms for presentation.
fn is_from_right(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{8FF}' | '\u{FB1D}'..='\u{FDFF}' | '\u{FE70}'..='\u{FEFC}' | '\u{10800}'..='\u{10FFF}')
        && c.is_alphabetic()
}

/// The byte that Windows-1252 writes as this character; what it leaves undefined is as in Latin-1.
fn byte(c: char) -> Option<u8> {
    const HIGH: [(char, u8); 27] = [
        ('€', 0x80),
        ('‚', 0x82),
        ('ƒ', 0x83),
        ('„', 0x84),
        ('…', 0x85),
        ('†', 0x86),
        ('‡', 0x87),
        ('ˆ', 0x88),
        ('‰', 0x89),
        ('Š', 0x8A),
        ('‹', 0x8B),
        ('Œ', 0x8C),
        ('Ž', 0x8E),
        ('‘', 0x91),
        ('’', 0x92),
        ('“', 0x93),
        ('”', 0x94),
        ('•', 0x95),
        ('–', 0x96),
        ('—', 0x97),
        ('˜', 0x98),
        ('™', 0x99),
        ('š', 0x9A),
        ('›', 0x9B),
        ('œ', 0x9C),
        ('ž', 0x9E),
        ('Ÿ', 0x9F),
    ];
    let high = || HIGH.iter().find(|(known, _)| *known == c).map(|(_, byte)| *byte);
    u8::try_from(u32::from(c)).ok().or_else(high)
}

/// Where characters stand that are the bytes of one character in UTF-8. It is told from text that is meant (`ß“`, or
/// `é` before a French quotation mark) by its first byte, of letters of western Europe, punctuation and emoji, or by
/// another one right behind it.
fn mojibake(text: &str) -> Option<usize> {
    let chars: Vec<(usize, u8)> = text.char_indices().map(|(at, c)| (at, byte(c).unwrap_or(0))).collect();
    let length = |i: usize| {
        let needed = match chars.get(i)?.1 {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => return None,
        };
        let bytes: Vec<u8> = chars.get(i..i + needed)?.iter().map(|(_, byte)| *byte).collect();
        std::str::from_utf8(&bytes).ok().map(|_| needed)
    };
    (0..chars.len()).find_map(|i| {
        let behind = i + length(i)?;
        let (at, first) = chars[i];
        (matches!(first, 0xC2 | 0xC3 | 0xE2 | 0xEF | 0xF0) || length(behind).is_some()).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Oddity> {
        oddities(text).into_iter().map(|(what, _)| what).collect()
    }

    #[test]
    fn what_people_write_is_not_odd() {
        for text in [
            "plain, with a tab\t and lines\r\n",
            "Straße, „Spaß“, naïve café — “quoted”, señor Ñandú, São João",
            "été « là » «\u{A0}été\u{A0}» ça ÷ 3 £5 ±2 Â la carte",
            "日本語のテキスト。Привет, мир! Ελληνικά",
            "שלום עולם 123",
            "می‌خواهم",   // Persian joins, and does not, by U+200C
            "👩‍👩‍👧 and 👍🏽", // families of emoji are joined
            "क्‍ष",
        ] {
            assert_eq!(kinds(text), [], "{text}");
        }
    }

    #[test]
    fn what_is_broken_is_found() {
        for (text, what, at) in [
            ("lost \u{FFFD} here", Oddity::Replacement, 5),
            ("caf\u{C3}\u{A9}", Oddity::Mojibake, 3),
            ("it\u{E2}\u{20AC}\u{2122}s", Oddity::Mojibake, 2),
            ("\u{C2}\u{A0}x", Oddity::Mojibake, 0),
            ("\u{D0}\u{178}\u{D1}\u{20AC}", Oddity::Mojibake, 0), // Russian
            ("\u{F0}\u{178}\u{2DC}\u{20AC}", Oddity::Mojibake, 0), // an emoji
            ("bell \u{7}", Oddity::Control, 5),
            ("c1 \u{85}", Oddity::Control, 3),
            ("a\u{200B}b", Oddity::Invisible, 1),
            ("a\u{200D}b", Oddity::Invisible, 1),
            ("\u{FEFF}mark", Oddity::Invisible, 0),
            ("soft\u{AD}hyphen", Oddity::Invisible, 4),
            ("\u{202E}turned", Oddity::Direction, 0),
            ("see שלום", Oddity::Mixed, 4),
        ] {
            assert_eq!(oddities(text), [(what, at)], "{text:?}");
        }
        assert_eq!(kinds("\u{FFFD}\u{7}\u{7}"), [Oddity::Replacement, Oddity::Control]);
    }
}
