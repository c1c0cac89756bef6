//! Short film reviews from a probabilistic grammar, with a known ground-truth reward: the controlled-sentiment
//! experiment of the DPO paper, small enough to train from scratch and with nothing to download.
//!
//! A review has a latent sentiment; clauses mostly follow it, some do not. Because the words were made to have a
//! meaning, [`reward`] is the exact P(positive), for any sequence of words: negation flips ("hardly boring"),
//! intensifiers scale ("very", "slightly"), and of two contrasted clauses the one that carries the point weighs more
//! ("dull , but moving"). Word counts alone do not give it away, and repeating a word gains nothing.

mod parse;

use fastrand::Rng;
pub use parse::grammatical;
use serde_json::json;
use std::collections::BTreeMap;

/// The grammar: each symbol with its expansions and their weights. Upper-case words are symbols, all others are
/// words of a review. An expansion inherits the sentiment of its symbol; `~` in front of a symbol reverses it.
const RULES: &[(&str, &[(u32, &str)])] = &[
    ("REVIEW", &[(4, "FIRST S"), (4, "FIRST S S"), (3, "S S"), (1, "FIRST S FIRST S")]),
    (
        "FIRST",
        &[
            (2, "i watched this FILM WITH TIME ."),
            (2, "we saw it at the cinema TIME ."),
            (3, "the story follows a PERSON in a PLACE ."),
            (2, "this is a FILM about a PERSON and a PERSON ."),
            (1, "it takes place in a PLACE ."),
            (1, "it runs for two hours ."),
            (4, "this is AFILM END"),
            (1, "my friends told me that CLAUSE ."),
        ],
    ),
    (
        "S",
        &[
            (8, "C END"),
            (5, "C , and C END"),
            (5, "~C , but C END"),
            (2, "~C , yet C END"),
            (3, "although ~C , C END"),
            (1, "~C . however , C END"),
        ],
    ),
    ("END", &[(9, "."), (1, "!")]),
    // The noise: some clauses say the opposite of what the review as a whole says.
    ("C", &[(17, "CLAUSE"), (3, "~CLAUSE")]),
    (
        "CLAUSE",
        &[
            (6, "ONE IS ADJP"),
            (4, "MANY ARE ADJP"),
            (4, "i HOW VERB NP"),
            (1, "i never ~VERB NP"),
            (3, "ONE DOES"),
            (1, "ONE never ~DOES"),
            (2, "MANY DO"),
            (1, "MANY never ~DO"),
            (3, "it is a THING"),
            (1, "it is a ADJ THING"),
            (1, "it is not a ~THING"),
            (1, "it is hardly a ~THING"),
            (2, "it was AFILM"),
            (2, "ONE and ONE are ADJP"),
        ],
    ),
    (
        "AFILM",
        &[(4, "a ADJ FILM"), (3, "a DEGREE ADJ FILM"), (1, "not a ~ADJ FILM"), (1, "hardly a ~ADJ FILM")],
    ),
    (
        "ADJP",
        &[
            (6, "ADJ"),
            (4, "DEGREE ADJ"),
            (2, "ADJ and ADJ"),
            (2, "not ~ADJ"),
            (1, "never ~ADJ"),
            (1, "hardly ~ADJ"),
            (1, "not DEGREE ~ADJ"),
        ],
    ),
    ("IS", &[(5, "is"), (3, "was"), (1, "feels"), (1, "seems"), (1, "looks")]),
    ("ARE", &[(5, "are"), (3, "were"), (1, "feel"), (1, "seem"), (1, "look")]),
    ("HOW", &[(5, ""), (2, "really"), (1, "truly"), (1, "somewhat")]),
    (
        "DEGREE",
        &[
            (4, "very"),
            (3, "really"),
            (2, "truly"),
            (2, "extremely"),
            (2, "quite"),
            (2, "rather"),
            (2, "slightly"),
            (1, "somewhat"),
        ],
    ),
    ("NP", &[(3, "ONE"), (2, "MANY"), (1, "this FILM"), (1, "it")]),
    (
        "ONE",
        &[
            (4, "the film"),
            (3, "the movie"),
            (3, "the plot"),
            (3, "the acting"),
            (2, "the story"),
            (2, "the script"),
            (2, "the music"),
            (2, "the ending"),
            (2, "the dialogue"),
            (2, "the director"),
            (1, "the cast"),
            (1, "the camera work"),
            (1, "the pacing"),
            (1, "the humor"),
            (1, "the opening"),
            (1, "the lead actor"),
            (1, "the first half"),
            (1, "the second half"),
        ],
    ),
    (
        "MANY",
        &[
            (3, "the characters"),
            (2, "the actors"),
            (2, "the scenes"),
            (2, "the jokes"),
            (2, "the songs"),
            (1, "the effects"),
            (1, "the costumes"),
            (1, "the performances"),
            (1, "the final minutes"),
        ],
    ),
    ("FILM", &[(5, "film"), (4, "movie"), (2, "comedy"), (2, "drama"), (1, "thriller"), (1, "sequel")]),
    ("WITH", &[(2, "with my friends"), (2, "with my family"), (1, "at home"), (1, "alone"), (2, "")]),
    ("TIME", &[(2, "last night"), (2, "last week"), (1, "on sunday"), (1, "yesterday")]),
    (
        "PERSON",
        &[
            (2, "young woman"),
            (2, "young man"),
            (2, "detective"),
            (1, "teacher"),
            (1, "soldier"),
            (1, "singer"),
            (1, "doctor"),
            (1, "thief"),
            (1, "ghost"),
            (1, "father"),
            (1, "mother"),
            (1, "king"),
        ],
    ),
    (
        "PLACE",
        &[
            (2, "small town"),
            (2, "big city"),
            (1, "village"),
            (1, "school"),
            (1, "castle"),
            (1, "desert"),
            (1, "war"),
        ],
    ),
];

/// The words with a sentiment: each class with its words and their weights, positive ones first.
const LEXICON: &[(&str, &[(&str, f64)])] = &[
    (
        "ADJ",
        &[
            ("good", 1.0),
            ("great", 1.6),
            ("wonderful", 1.9),
            ("brilliant", 2.0),
            ("charming", 1.3),
            ("funny", 1.1),
            ("moving", 1.3),
            ("clever", 1.2),
            ("beautiful", 1.5),
            ("superb", 2.0),
            ("fresh", 0.9),
            ("gripping", 1.4),
            ("excellent", 1.9),
            ("smart", 1.1),
            ("warm", 0.8),
            ("delightful", 1.7),
            ("fine", 0.6),
            ("pleasant", 0.7),
            ("honest", 0.8),
            ("lovely", 1.3),
            ("memorable", 1.2),
            ("stunning", 1.8),
            ("bad", -1.0),
            ("awful", -1.9),
            ("terrible", -2.0),
            ("boring", -1.4),
            ("dull", -1.3),
            ("slow", -0.7),
            ("weak", -1.0),
            ("stupid", -1.5),
            ("silly", -0.6),
            ("predictable", -0.9),
            ("ugly", -1.3),
            ("flat", -0.9),
            ("clumsy", -1.1),
            ("empty", -0.9),
            ("tired", -0.8),
            ("messy", -1.0),
            ("painful", -1.6),
            ("dreadful", -2.0),
            ("horrible", -1.9),
            ("lazy", -1.1),
            ("annoying", -1.3),
            ("tedious", -1.4),
        ],
    ),
    (
        "VERB",
        &[
            ("loved", 1.8),
            ("liked", 1.0),
            ("enjoyed", 1.3),
            ("admired", 1.2),
            ("hated", -1.9),
            ("disliked", -1.1),
            ("regretted", -1.2),
            ("endured", -0.9),
        ],
    ),
    (
        "DOES",
        &[
            ("works", 0.9),
            ("shines", 1.5),
            ("sparkles", 1.3),
            ("delights", 1.5),
            ("fails", -1.4),
            ("drags", -1.1),
            ("disappoints", -1.4),
            ("annoys", -1.3),
        ],
    ),
    (
        "DO",
        &[
            ("work", 0.9),
            ("shine", 1.5),
            ("sparkle", 1.3),
            ("delight", 1.5),
            ("fail", -1.4),
            ("drag", -1.1),
            ("disappoint", -1.4),
            ("annoy", -1.3),
        ],
    ),
    (
        "THING",
        &[
            ("masterpiece", 2.0),
            ("joy", 1.5),
            ("gem", 1.6),
            ("triumph", 1.8),
            ("treat", 1.2),
            ("mess", -1.4),
            ("disaster", -2.0),
            ("failure", -1.7),
            ("bore", -1.4),
            ("chore", -1.3),
        ],
    ),
];

/// How much a word scales the sentiment word after it.
const DEGREES: &[(&str, f64)] = &[
    ("very", 1.5),
    ("really", 1.4),
    ("truly", 1.5),
    ("extremely", 1.8),
    ("quite", 1.2),
    ("rather", 0.8),
    ("slightly", 0.4),
    ("somewhat", 0.6),
];

/// Negations. They turn the next sentiment word of the clause round; "not great" is less bad than "terrible".
const NEGATIONS: &[(&str, f64)] = &[("not", -0.8), ("never", -1.0), ("hardly", -0.7)];

/// How many words further a negation still reaches ("not a very good film").
const REACH: usize = 3;

/// What the side that concedes and the side that makes the point weigh in a contrast.
const CONCESSION: f64 = 0.5;
const POINT: f64 = 1.5;

/// Turns the sum of the weights into log-odds, which end at plus or minus `LIMIT`: a pile of praise gains nothing more.
const SCALE: f64 = 0.8;
const LIMIT: f64 = 8.0;

const SPECIALS: [&str; 3] = ["<unk>", "<s>", "</s>"];

fn find(table: &[(&str, f64)], word: &str) -> Option<f64> {
    table.iter().find(|(known, _)| *known == word).map(|&(_, value)| value)
}

fn sentiment(word: &str) -> Option<f64> {
    LEXICON.iter().find_map(|(_, words)| find(words, word))
}

/// The ground-truth probability that a review is positive, in (0, 1); 0.5 for words without sentiment. Defined for any
/// text; unknown words mean nothing. Each word counts once per polarity, where it is strongest.
pub fn reward(text: &str) -> f64 {
    let mut strongest: BTreeMap<(&str, bool), f64> = BTreeMap::new();
    for (word, value) in contributions(text) {
        let entry = strongest.entry((word, value > 0.0)).or_insert(value);
        if value.abs() > entry.abs() {
            *entry = value;
        }
    }
    let log_odds = SCALE * strongest.values().sum::<f64>();
    1.0 / (1.0 + (-log_odds.clamp(-LIMIT, LIMIT)).exp())
}

/// The sentiment words of a text in order, each with its value after negation, degree and contrast.
fn contributions(text: &str) -> Vec<(&str, f64)> {
    let mut found: Vec<(&str, f64)> = Vec::new();
    // `but` looks back at everything since here; a sentence that opens with "however" concedes the one before.
    let (mut sentence, mut previous) = (0, 0);
    let (mut weight, mut degree) = (1.0, 1.0);
    let mut negation: Option<(f64, usize)> = None;
    for word in text.split_whitespace() {
        if let Some(factor) = find(NEGATIONS, word) {
            negation = Some((negation.map_or(1.0, |(outer, _)| outer) * factor, REACH));
            continue;
        }
        if let Some(factor) = find(DEGREES, word) {
            degree *= factor;
        } else {
            if let Some(value) = sentiment(word) {
                let negated = negation.take().map_or(1.0, |(factor, _)| factor);
                found.push((word, value * degree * negated * weight));
            }
            degree = 1.0;
        }
        negation = negation.and_then(|(factor, reach)| Some((factor, reach.checked_sub(1)?)));
        match word {
            "but" | "yet" | "however" => {
                let conceded = if word == "however" && found.len() == sentence { previous } else { sentence };
                found[conceded..].iter_mut().for_each(|(_, value)| *value *= CONCESSION / weight);
                (sentence, weight) = (found.len(), POINT);
            }
            "although" => weight = CONCESSION,
            "," if weight == CONCESSION => weight = POINT,
            "." | "!" => (previous, sentence, weight) = (sentence, found.len(), 1.0),
            _ => {}
        }
        if matches!(word, "but" | "yet" | "however" | "although" | "and" | "," | "." | "!") {
            negation = None;
        }
    }
    found
}

/// A review of 10 to 25 words (punctuation not counted), words and punctuation separated by single spaces.
pub fn sample_review(rng: &mut Rng) -> String {
    loop {
        let mut words = Vec::new();
        let positive = rng.bool();
        expand("REVIEW", positive, rng, &mut words);
        let length = words.iter().filter(|word| !is_punctuation(word)).count();
        if (10..=25).contains(&length) {
            for i in 1..words.len() {
                if words[i - 1] == "a" && words[i].starts_with(['a', 'e', 'i', 'o', 'u']) {
                    words[i - 1] = "an";
                }
            }
            return words.join(" ");
        }
    }
}

/// The first 2 to 8 words (punctuation counted) of a review: what the paper prompts with.
pub fn sample_prefix(rng: &mut Rng) -> String {
    let review = sample_review(rng);
    let length = rng.usize(2..=8);
    review.split(' ').take(length).collect::<Vec<_>>().join(" ")
}

fn is_punctuation(word: &str) -> bool {
    !word.starts_with(|c: char| c.is_alphabetic())
}

fn rule(symbol: &str) -> Option<&'static [(u32, &'static str)]> {
    RULES.iter().find(|(name, _)| *name == symbol).map(|&(_, expansions)| expansions)
}

fn expand(symbol: &'static str, positive: bool, rng: &mut Rng, words: &mut Vec<&'static str>) {
    let (symbol, positive) =
        symbol.strip_prefix('~').map_or((symbol, positive), |symbol| (symbol, !positive));
    if let Some(expansions) = rule(symbol) {
        let mut drawn = rng.u32(0..expansions.iter().map(|(weight, _)| weight).sum());
        for &(weight, expansion) in expansions {
            if drawn < weight {
                expansion.split_whitespace().for_each(|part| expand(part, positive, rng, words));
                return;
            }
            drawn -= weight;
        }
    } else if let Some((_, class)) = LEXICON.iter().find(|(name, _)| *name == symbol) {
        let fitting: Vec<_> = class.iter().filter(|(_, value)| (*value > 0.0) == positive).collect();
        words.extend(rng.choice(fitting).map(|(word, _)| *word));
    } else {
        words.push(symbol);
    }
}

/// Every word and punctuation mark that a review can hold, each once, in the order of the tokenizer's ids.
pub fn vocabulary() -> Vec<&'static str> {
    let from_rules =
        RULES.iter().flat_map(|(_, expansions)| *expansions).flat_map(|(_, text)| text.split_whitespace());
    let is_symbol = |part: &&str| part.trim_start_matches('~').starts_with(|c: char| c.is_uppercase());
    let from_lexicon = LEXICON.iter().flat_map(|(_, words)| *words).map(|(word, _)| *word);
    let mut words: Vec<_> =
        from_rules.filter(|part| !is_symbol(part)).chain(from_lexicon).chain(["an"]).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// The contents of `tokenizer.json` and `tokenizer_config.json` for a Hugging Face tokenizer with one token per word:
/// `<unk>`, `<s>` (put in front of every text), `</s>`, then the [`vocabulary`]. Decoding joins words by spaces.
pub fn tokenizer_files() -> (String, String) {
    let words: Vec<&str> = SPECIALS.into_iter().chain(vocabulary()).collect();
    let vocab: serde_json::Map<_, _> =
        words.iter().enumerate().map(|(id, word)| (word.to_string(), id.into())).collect();
    let added = |(id, content): (usize, &str)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    let [_, bos, eos] = SPECIALS;
    let sequence = |id: &str, type_id: u32| json!({ "Sequence": { "id": id, "type_id": type_id } });
    let begin = |type_id: u32| json!({ "SpecialToken": { "id": bos, "type_id": type_id } });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": SPECIALS.into_iter().enumerate().map(added).collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin(0), sequence("A", 0)],
            "pair": [begin(0), sequence("A", 0), begin(1), sequence("B", 1)],
            "special_tokens": { bos: { "id": bos, "ids": [1], "tokens": [bos] } },
        },
        // Joins by spaces; its `##` never occurs, and without clean-up "film ." stays as it is.
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": false },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": SPECIALS[0] },
    });
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": SPECIALS[0],
        "bos_token": bos,
        "eos_token": eos,
        "pad_token": eos,
        "clean_up_tokenization_spaces": false,
        "model_max_length": 1024,
    });
    (format!("{tokenizer:#}\n"), format!("{config:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reviews(count: usize) -> Vec<String> {
        let mut rng = Rng::with_seed(1);
        (0..count).map(|_| sample_review(&mut rng)).collect()
    }

    #[test]
    fn every_symbol_is_defined_and_every_table_word_can_occur() {
        let parts = RULES
            .iter()
            .flat_map(|(_, expansions)| *expansions)
            .flat_map(|(_, text)| text.split_whitespace());
        for part in
            parts.map(|part| part.trim_start_matches('~')).filter(|part| part.starts_with(char::is_uppercase))
        {
            assert!(
                rule(part).is_some() || LEXICON.iter().any(|(name, _)| *name == part),
                "{part} is not defined"
            );
        }
        let vocabulary = vocabulary();
        for (word, _) in DEGREES.iter().chain(NEGATIONS) {
            assert!(vocabulary.contains(word) && sentiment(word).is_none(), "{word}");
        }
        let (_, degrees) = RULES.iter().find(|(name, _)| *name == "DEGREE").unwrap();
        assert!(degrees.iter().all(|(_, word)| find(DEGREES, word).is_some()));
    }

    #[test]
    fn reviews_have_the_promised_form() {
        let vocabulary = vocabulary();
        assert!((150..=250).contains(&vocabulary.len()), "{} words", vocabulary.len());
        let mut seen = std::collections::BTreeSet::new();
        let reviews = reviews(20_000);
        for review in &reviews {
            let words: Vec<&str> = review.split(' ').collect();
            assert!(
                (10..=25).contains(&words.iter().filter(|word| !is_punctuation(word)).count()),
                "{review}"
            );
            assert!(words.iter().all(|word| vocabulary.binary_search(word).is_ok()), "{review}");
            assert!(review.ends_with(['.', '!']) && *review == review.to_lowercase(), "{review}");
            seen.extend(words);
        }
        let never: Vec<_> = vocabulary.iter().filter(|word| !seen.contains(**word)).collect();
        assert!(never.is_empty(), "never used: {never:?}");
        let distinct: std::collections::BTreeSet<_> = reviews.iter().collect();
        assert!(distinct.len() > 19_000, "only {} distinct reviews", distinct.len());
    }

    #[test]
    fn rewards_are_balanced_and_spread() {
        let rewards: Vec<f64> = reviews(20_000).iter().map(|review| reward(review)).collect();
        let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
        let variance = rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / rewards.len() as f64;
        let between =
            rewards.iter().filter(|r| (0.3..0.7).contains(*r)).count() as f64 / rewards.len() as f64;
        eprintln!("mean {mean:.3}, std {:.3}, {:.0}% mixed", variance.sqrt(), 100.0 * between);
        assert!((0.45..0.55).contains(&mean), "mean {mean}");
        assert!(variance.sqrt() > 0.25, "std {}", variance.sqrt());
        assert!(between > 0.1, "{between} mixed");
    }

    #[test]
    fn negation_is_not_a_bag_of_words() {
        // The share of reviews that a word count without negation and contrast would judge wrongly.
        let naive = |review: &str| review.split(' ').filter_map(sentiment).sum::<f64>();
        let reviews = reviews(5_000);
        let wrong = reviews.iter().filter(|review| (naive(review) > 0.0) != (reward(review) > 0.5)).count();
        assert!(wrong > reviews.len() / 12, "{wrong} of {}", reviews.len());
    }

    #[test]
    fn sampling_follows_the_seed() {
        let draw = |seed| {
            let mut rng = Rng::with_seed(seed);
            (sample_review(&mut rng), sample_prefix(&mut rng))
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn prefixes_begin_reviews_and_vary_in_length() {
        let mut rng = Rng::with_seed(2);
        let mut lengths = [0; 9];
        for _ in 0..2_000 {
            let mut ahead = rng.clone();
            let review = sample_review(&mut ahead);
            let prefix = sample_prefix(&mut rng);
            assert!(review.starts_with(&format!("{prefix} ")), "{prefix} | {review}");
            lengths[prefix.split(' ').count()] += 1;
        }
        assert!(lengths[..2] == [0, 0] && lengths[2..].iter().all(|&count| count > 200), "{lengths:?}");
    }

    #[test]
    fn articles_fit() {
        let text = reviews(3_000).join(" ");
        assert!(text.contains("an awful"));
        assert!(!text.contains("a awful") && !text.contains("an film"));
    }

    #[test]
    fn the_reward_knows_negation_degree_and_contrast() {
        let r = reward;
        assert_eq!(r(""), 0.5);
        assert_eq!(r("the film </s> zebra ,"), 0.5);
        assert!(r("good") > 0.5 && r("bad") < 0.5 && r("brilliant") > r("good"));
        assert!(
            r("the film is not bad") > 0.5 && r("it is hardly boring") > 0.5 && r("i never liked it") < 0.5
        );
        assert!(r("not great") < 0.5 && r("not great") > r("terrible"));
        assert!(r("not a very good film") < 0.5, "a negation reaches over an article and a degree");
        assert!(r("not the film that i saw was good") > 0.5, "but not over half a sentence");
        assert!(r("not bad and dull") < r("not bad"), "a negation turns one word round");
        assert!(r("never and good") > 0.5 && r("never . good") > 0.5, "a negation ends with its clause");
        assert_eq!(r("never never good"), r("good"));
        assert!(r("very good") > r("good") && r("good") > r("slightly good") && r("slightly good") > 0.5);
        assert!(r("very bad") < r("bad") && r("bad") < r("slightly bad"));
        assert_eq!(r("very the good"), r("good"), "a degree belongs to the next word");
        for pair in [["the plot is good", "the music is bad"], ["i loved it", "it is a disaster"]] {
            let [good, bad] = pair;
            for link in [",", ", and"] {
                assert_eq!(r(&format!("{good} {link} {bad} .")), r(&format!("{bad} {link} {good} .")));
            }
            for link in [", but", ", yet", ". however ,"] {
                assert!(
                    r(&format!("{good} {link} {bad} .")) < 0.5 && r(&format!("{bad} {link} {good} .")) > 0.5,
                    "{link}"
                );
            }
            assert!(
                r(&format!("although {good} , {bad} .")) < 0.5
                    && r(&format!("although {bad} , {good} .")) > 0.5
            );
        }
        assert_eq!(r("good . but"), r("good"), "a contrast stays in its sentence");
    }

    #[test]
    fn repetition_does_not_help_and_the_reward_is_bounded() {
        assert_eq!(reward("good good good good"), reward("good"));
        assert_eq!(reward("not bad . not bad ."), reward("not bad"));
        assert_eq!(reward("good . very good"), reward("very good"));
        assert_ne!(reward("good . not good"), reward("good"));
        let (mut best, mut worst) = (String::new(), String::new());
        for (word, value) in LEXICON.iter().flat_map(|(_, words)| *words) {
            let side = if *value > 0.0 { &mut best } else { &mut worst };
            side.push_str(&format!("extremely {word} "));
        }
        let (best, worst) = (reward(&best.repeat(20)), reward(&worst.repeat(20)));
        assert!(best < 1.0 && best > 0.999 && worst > 0.0 && worst < 0.001);
    }

    #[test]
    fn the_tokenizer_has_one_id_per_word() {
        let (tokenizer, config) = tokenizer_files();
        let tokenizer: serde_json::Value = serde_json::from_str(&tokenizer).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let vocab = tokenizer["model"]["vocab"].as_object().unwrap();
        assert_eq!(vocab.len(), vocabulary().len() + 3);
        for (id, word) in SPECIALS.iter().chain(&vocabulary()).enumerate() {
            assert_eq!(vocab[*word], id);
        }
        let begin = &tokenizer["post_processor"]["special_tokens"]["<s>"]["ids"][0];
        assert_eq!(*begin, vocab[config["bos_token"].as_str().unwrap()]);
        assert_eq!(config["eos_token"], "</s>");
    }
}
