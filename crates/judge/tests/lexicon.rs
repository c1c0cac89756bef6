//! The lexicon: what a text is worth, and files that are none.

mod common;

use common::{Temp, never};
use duel_judge::{Case, Judge, Lexicon, Opinion, Scale, Settings, built_in, open, sigmoid};
use std::path::Path;

fn scores(lexicon: &mut Lexicon, texts: &[&str]) -> Vec<f64> {
    let case = Case::new("", texts.iter().copied());
    lexicon.scores(&[case]).unwrap()[0].iter().map(|s| s.said().unwrap()).collect()
}

#[test]
fn distinct_words_are_added_up() {
    let temp = Temp::new("words");
    let path = temp.write("words.tsv", "__bias__\t0.25\ngood\t1\ndon't\t-2\nbr\t100\n'\t8\n");
    let mut lexicon = Lexicon::read(&path, Scale::LogOdds).unwrap();
    let texts = ["", "good", "Good, GOOD!", "good don't", "goods", "a<br />good<br />b", "it ' is"];
    assert_eq!(scores(&mut lexicon, &texts), [0.25, 1.25, 1.25, -0.75, 0.25, 1.25, 8.25]);
    let mut p = Lexicon::read(&path, Scale::Probability).unwrap();
    assert_eq!(scores(&mut p, &["good"]), [sigmoid(1.25)]);
    assert_ne!(lexicon.identity(), p.identity());
    // The content decides, not the name.
    let other = temp.write("other.tsv", "__bias__\t0.25\ngood\t1\ndon't\t-2\nbr\t100\n'\t8\n");
    assert_eq!(Lexicon::read(&other, Scale::LogOdds).unwrap().identity(), lexicon.identity());
    let changed = temp.write("other.tsv", "good\t1\n");
    assert_ne!(Lexicon::read(&changed, Scale::LogOdds).unwrap().identity(), lexicon.identity());
    let pairs = Case::new("", ["good", "bad"]);
    let pairs: Vec<_> = pairs.pairs().collect();
    assert_eq!(lexicon.compare(&pairs).unwrap(), [Opinion::Said(1.0)]);
}

#[test]
fn the_shared_lexicon_tells_praise_from_blame() {
    let Some(data) = common::shared_data("the_shared_lexicon_tells_praise_from_blame") else { return };
    let mut lexicon = Lexicon::read(&data.join("sentiment/imdb_lr_uni.tsv"), Scale::LogOdds).unwrap();
    let found = scores(&mut lexicon, &["", "a wonderful, excellent film", "the worst, a boring waste"]);
    assert_eq!(found[0], 0.115922);
    assert!(found[1] > 1.0 && found[2] < -1.0, "{found:?}");
}

#[test]
fn a_wrong_line_is_named() {
    let temp = Temp::new("wrong");
    for (text, expected) in [
        ("a\t1\nb 2\n", "line 2 has no tab"),
        ("a\t1\nb\tNaN\n", "line 2 has the weight `NaN`, which is no finite number"),
        ("a\tinf\n", "line 1 has the weight `inf`"),
        ("a\t\n", "line 1 has the weight ``"),
        ("a\t1\nb\t1\na\t1\n", "line 3 has `a`, which an earlier line has too; keep one"),
        ("Good\t1\n", "line 1 has the feature `Good`, which no text has"),
        ("\t1\n", "line 1 has the feature ``"),
        ("", "has no words"),
        ("__bias__\t1\n", "has no words"),
    ] {
        let path = temp.write("words.tsv", text);
        let error = Lexicon::read(&path, Scale::LogOdds).unwrap_err().to_string();
        assert!(error.contains("words.tsv: ") && error.contains(expected), "{text:?}: {error}");
    }
    std::fs::write(temp.path("bytes.tsv"), b"a\t1\n\xff\t1\n").unwrap();
    let error = Lexicon::read(&temp.path("bytes.tsv"), Scale::LogOdds).unwrap_err().to_string();
    assert!(error.contains("is not UTF-8 (byte 5)"), "{error}");
    assert!(Lexicon::read(Path::new("/nowhere.tsv"), Scale::LogOdds).is_err());
}

#[test]
fn names_are_checked() {
    let error = |name: &str, said: &[(&str, &str)]| {
        let settings = Settings::new(said.iter().copied()).unwrap();
        open(name, &settings, &built_in(), &never()).err().unwrap().to_string()
    };
    let unknown = error("oracle:x", &[]);
    assert!(
        unknown.starts_with("there is no judge `oracle`; a judge is one of lexicon:FILE, program:COMMAND"),
        "{unknown}"
    );
    assert_eq!(error("lexicon", &[]), "the judge `lexicon` is not of the form lexicon:FILE");
    let idle = error("lexicon:x", &[("judge_timeout", "3")]);
    assert!(idle.starts_with("`judge_timeout` has no effect on the judge `lexicon`"), "{idle}");
}
