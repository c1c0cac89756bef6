//! Where a text can be cut so that its parts have the tokens that it has as a whole.

use tokenizers::Tokenizer;

/// Tokens that `tokenizers` takes out of a text before anything else looks at it, wherever they stand: what is on
/// either side is split, normalised and encoded by itself, so that a text is its parts, cut before one of these.
pub(crate) struct Cuts(Vec<String>);

impl Cuts {
    /// Those that are named in one of `texts`, as chat templates have them.
    pub(crate) fn of<'t>(tokenizer: &Tokenizer, texts: impl Iterator<Item = &'t str> + Clone) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        // One that counts as a word looks at the letters beside it, and so across a cut.
        if added.values().any(|token| token.single_word) {
            return Cuts(Vec::new());
        }
        let free = added.values().filter(|token| {
            let text = token.content.as_str();
            let others = || added.values().map(|other| other.content.as_str()).filter(|other| *other != text);
            !text.is_empty()
                && !token.normalized
                && !token.lstrip
                && texts.clone().any(|said| said.contains(text))
                && !others().any(|other| other.contains(text) || runs_into(other, text))
        });
        Cuts(free.map(|token| token.content.clone()).collect())
    }

    /// The last place in what all of `texts` begin with where they can be cut; 0 where there is none.
    pub(crate) fn last(&self, shared: &str) -> usize {
        self.0.iter().filter_map(|token| shared.rfind(token.as_str())).max().unwrap_or(0)
    }
}

/// Whether `first` can end inside of `second`.
fn runs_into(first: &str, second: &str) -> bool {
    second.char_indices().skip(1).any(|(at, _)| first.ends_with(&second[..at]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// Letters with a merge, words that begin with a mark of their own where they begin the text, and added tokens of
    /// every kind; with one that counts as a word, if asked for.
    fn tokenizer(word: bool) -> Tokenizer {
        let letters = ["▁", "a", "b", "ab", "<", ">", "s", "x", "y", "|", "?"];
        let vocab: serde_json::Map<String, Value> =
            letters.iter().enumerate().map(|(id, text)| ((*text).to_owned(), json!(id))).collect();
        let added = |(i, (text, how)): (usize, (&str, &str))| {
            json!({
                "id": letters.len() + i, "content": text, "special": true, "normalized": how == "normalized",
                "lstrip": how == "lstrip", "rstrip": how == "rstrip", "single_word": how == "word"
            })
        };
        let mut kinds = vec![
            ("<s>", ""),
            ("<r>", "rstrip"),
            ("<l>", "lstrip"),
            ("<n>", "normalized"),
            ("<|x|>", ""),
            ("y<|x|>", ""),
            ("b>|", ""),
            ("|y", ""),
        ];
        kinds.extend(word.then_some(("ba", "word")));
        let json = json!({
            "version": "1.0",
            "added_tokens": kinds.into_iter().enumerate().map(added).collect::<Vec<_>>(),
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true},
            "model": {"type": "BPE", "vocab": vocab, "merges": [["a", "b"]], "unk_token": "?"}
        });
        Tokenizer::from_bytes(json.to_string()).unwrap()
    }

    /// A template that names all of them.
    const NAMED: &str = "<s> <r> <l> <n> <|x|> y<|x|> b>| |y ba";

    fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec()
    }

    proptest! {
        #[test]
        fn the_parts_of_a_text_have_its_tokens(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "<s>", "<r>", "<l>", "<n>", "<|x|>", "y<|x|>", "b>|", "|y", "a", "b", "B", " ", "  ", "<", "|", "s>", "é",
            ]), 0..16),
            word in any::<bool>(),
        ) {
            let tokenizer = tokenizer(word);
            let cuts = Cuts::of(&tokenizer, [NAMED].into_iter());
            let text = pieces.concat();
            for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
                let cut = cuts.last(&text[..end]);
                let parts = [ids(&tokenizer, &text[..cut]), ids(&tokenizer, &text[cut..])].concat();
                prop_assert_eq!(&parts, &ids(&tokenizer, &text), "{:?} cut at {}", &text, cut);
            }
        }
    }

    #[test]
    fn a_cut_is_before_a_token_that_stands_for_itself() {
        let plain = tokenizer(false);
        let cuts = Cuts::of(&plain, [NAMED].into_iter());
        let mut found = cuts.0.clone();
        found.sort();
        // Of the others one takes the space before it, one is sought in the normalised text, others overlap.
        assert_eq!(found, ["<r>", "<s>", "b>|"]);
        assert_eq!(cuts.last("ab<r>b<r>a"), 6);
        assert_eq!(cuts.last("ab"), 0);
        assert!(Cuts::of(&tokenizer(true), [NAMED].into_iter()).0.is_empty());
        assert!(Cuts::of(&plain, ["no token"].into_iter()).0.is_empty());
    }
}
