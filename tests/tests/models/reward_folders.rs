//! Folders of reward models: which are read, what is refused, and how a language model becomes one.

use duel_backend::{Backend, Real};
use duel_cpu::Cpu;
use duel_model::{Config, Family, Folder, Model, Output};
use duel_tests::{Case, FAMILIES, TempDir, TensorFile, host, merge, tiny};
use half::bf16;
use serde_json::{Value, json};
use std::fs;

const WEIGHTS: &str = "model.safetensors";

fn cpu() -> Cpu<f32> {
    Cpu::new(1)
}

fn folder_of(config: Config) -> TempDir {
    let (dir, case) = (TempDir::new().unwrap(), Case::new(config, 1));
    duel_model::save(&cpu(), dir.path(), &case.config, &case.upload(&cpu())).unwrap();
    dir
}

fn reward_folder(family: Family) -> TempDir {
    folder_of(tiny(family).with_score())
}

fn open(dir: &TempDir) -> Folder {
    Folder::open(dir.path()).unwrap_or_else(|e| panic!("{e}"))
}

fn refusal(dir: &TempDir) -> String {
    Folder::open(dir.path()).err().expect("refused").to_string()
}

fn configure(dir: &TempDir, change: impl FnOnce(&mut Value)) {
    let path = dir.path().join("config.json");
    let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(&path, json.to_string()).unwrap();
}

fn edit(dir: &TempDir, change: impl FnOnce(&mut TensorFile)) {
    let path = dir.path().join(WEIGHTS);
    let mut file = TensorFile::read(&path);
    change(&mut file);
    fs::write(&path, file.bytes()).unwrap();
}

fn values<B: Backend>(b: &B, model: &Model<Real<B>>) -> Vec<Vec<f64>> {
    model.iter().into_iter().map(|w| host::<_, B::Real>(b, w)).collect()
}

#[test]
fn every_family_is_saved_as_transformers_class_and_loads_again() {
    let classes = [
        "Llama",
        "Mistral",
        "Qwen2",
        "Qwen3",
        "Gemma",
        "Gemma2",
        "Gemma3Text",
        "GPT2",
        "GPTNeoX",
        "GPTJ",
        "Phi",
        "Phi3",
        "SmolLM3",
        "Olmo2",
        "Granite",
        "Starcoder2",
    ];
    assert_eq!(FAMILIES.len(), classes.len());
    for (family, class) in FAMILIES.into_iter().zip(classes) {
        let dir = reward_folder(family);
        let folder = open(&dir);
        assert!(folder.notes().is_empty(), "{:?}", folder.notes());
        assert_eq!(folder.config().output, Output::Score);
        let json = &folder.config().json;
        assert_eq!(json["architectures"], json!([format!("{class}ForSequenceClassification")]));
        assert_eq!(
            (&json["id2label"], &json["label2id"]),
            (&json!({"0": "LABEL_0"}), &json!({"LABEL_0": 0}))
        );
        assert_eq!((&json["num_labels"], json.get("pad_token_id")), (&json!(1), None));
        let names = TensorFile::read(&dir.path().join(WEIGHTS)).names();
        assert!(names.iter().any(|n| n == "score.weight") && !names.iter().any(|n| n == "lm_head.weight"));
        let case = Case::new(tiny(family).with_score(), 1);
        let loaded = values(&cpu(), &duel_model::load(&cpu(), &folder).unwrap());
        assert_eq!(loaded, values(&cpu(), &case.upload(&cpu())));
    }
}

/// Base models are saved without the model's own name; the score has none.
#[test]
fn names_without_the_models_own_are_read() {
    for family in FAMILIES {
        let dir = reward_folder(family);
        let before = values(&cpu(), &duel_model::load(&cpu(), &open(&dir)).unwrap());
        edit(&dir, |file| {
            for name in file.names() {
                let short = name
                    .split_once('.')
                    .filter(|(root, _)| ["model", "transformer", "gpt_neox"].contains(root));
                if let Some((_, short)) = short {
                    file.rename(&name, short);
                }
            }
        });
        assert_eq!(values(&cpu(), &duel_model::load(&cpu(), &open(&dir)).unwrap()), before, "{family:?}");
    }
}

#[test]
fn one_label_is_known_by_any_sign_and_more_are_refused() {
    let dir = reward_folder(Family::Llama);
    let label = |json: &mut Value, more: Value| {
        for key in ["num_labels", "id2label", "label2id"] {
            json.as_object_mut().unwrap().remove(key);
        }
        merge(json, more);
    };
    for right in
        [json!({"num_labels": 1}), json!({"id2label": {"0": "good"}}), json!({}), json!({"num_labels": null})]
    {
        configure(&dir, |json| label(json, right.clone()));
        assert_eq!(open(&dir).config().output, Output::Score, "{right}");
    }
    for (wrong, key) in [
        (json!({"num_labels": 3}), "num_labels"),
        (json!({"num_labels": 0}), "num_labels"),
        (json!({"num_labels": 1, "id2label": {"0": "a", "1": "b"}}), "id2label"),
        (json!({"num_labels": "one"}), "num_labels"),
    ] {
        configure(&dir, |json| label(json, wrong.clone()));
        let message = refusal(&dir);
        let path = dir.path().join("config.json").display().to_string();
        assert!(message.starts_with(&path) && message.contains(&format!("`{key}`")), "{message}");
    }
    configure(&dir, |json| label(json, json!({})));
    edit(&dir, |file| {
        let width = tiny(Family::Llama).width;
        file.rename("score.weight", "old");
        file.add("score.weight", &[2, width]);
    });
    let message = refusal(&dir);
    assert!(message.contains("`score.weight` gives 2 scores a text"), "{message}");
    edit(&dir, |file| file.rename("score.weight", "older"));
    let message = refusal(&dir);
    assert!(message.contains("`score.weight` is missing") && message.contains("LlamaForSeq"), "{message}");
}

/// A config that does not name the class, beside weights that do.
#[test]
fn a_score_without_its_class_says_what_to_name() {
    let dir = reward_folder(Family::Llama);
    configure(&dir, |json| merge(json, json!({"architectures": null})));
    let message = refusal(&dir);
    for part in [
        "`lm_head.weight` is missing",
        "reward model that `score.weight` is of",
        "LlamaForSequenceClassification",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

/// It has no head for words, whatever is asked of it.
#[test]
fn a_reward_model_is_no_language_model() {
    for family in FAMILIES {
        let dir = reward_folder(family);
        let message = open(&dir).language_model().err().expect("refused").to_string();
        assert!(message.starts_with(&dir.path().display().to_string()), "{message}");
        assert!(
            message.contains("ForSequenceClassification") && message.contains("--method reward"),
            "{message}"
        );
        assert!(open(&folder_of(tiny(family))).language_model().is_ok());
    }
}

/// A language model's weights stay what they are; the new head is of the seed alone and has the deviation of its width.
#[test]
fn a_language_model_becomes_a_reward_model() {
    for family in FAMILIES {
        let dir = folder_of(tiny(family));
        let load = |seed| duel_model::load(&cpu(), &open(&dir).with_score(seed)).unwrap();
        let (language, [one, again, other]) =
            (duel_model::load(&cpu(), &open(&dir)).unwrap(), [7, 7, 8].map(load));
        assert_eq!(values(&cpu(), &one), values(&cpu(), &again), "{family:?}");
        assert!(one.head.is_none() && one.score != other.score, "{family:?}");
        assert_eq!((&one.embed, &one.norm.weight), (&language.embed, &language.norm.weight));

        // What is rounded twice is what is rounded once: weights are the rounding of their masters.
        let (narrow, folder) = (Cpu::<bf16>::new(1), open(&dir).with_score(7));
        let mut masters = Vec::new();
        let keep = |master| {
            masters.push(master);
            Ok::<(), duel_model::Error>(())
        };
        duel_model::each_master(&narrow, &folder, folder.config(), keep).unwrap();
        for (w, master) in duel_model::load(&narrow, &folder).unwrap().iter().into_iter().zip(&masters) {
            assert!(w.iter().zip(master).all(|(w, m)| *w == bf16::from_f32(*m)));
        }

        // A folder that has a head keeps it, and the words of its config.
        let out = TempDir::new().unwrap();
        duel_model::save(&cpu(), out.path(), folder.config(), &one).unwrap();
        let kept = open(&out).with_score(9);
        assert!(kept.config().is_like(folder.config()), "{family:?}");
        assert_eq!(values(&cpu(), &duel_model::load(&cpu(), &kept).unwrap()), values(&cpu(), &one));
    }
}

#[test]
fn a_fresh_head_is_normal_with_the_deviation_of_its_width() {
    let mut config = tiny(Family::Llama);
    config.width = 4096;
    let dir = folder_of(config.clone());
    configure(&dir, |json| merge(json, json!({"hidden_size": 4096})));
    let folder = open(&dir).with_score(3);
    let score = duel_model::load(&cpu(), &folder).unwrap().score.unwrap();
    let moment = |power: i32| {
        let scaled = |x: &f32| (f64::from(*x) * 4097f64.sqrt()).powi(power);
        score.iter().map(scaled).sum::<f64>() / 4096.0
    };
    // Five standard errors of the first, second and fourth moment of 4096 normal numbers: sqrt(1, 2, 96) / 64.
    assert!(moment(1).abs() < 0.079 && (moment(2) - 1.0).abs() < 0.111 && (moment(4) - 3.0).abs() < 0.766);
}

/// Everything that the head does not change stays; the token that pads is none that ends a text.
#[test]
fn the_config_of_the_language_model_stays_beside_the_new_head() {
    for (ends, pads, want) in [
        (json!(5), Value::Null, json!(0)),
        (json!([0, 1, 7]), Value::Null, json!(2)),
        (json!(5), json!(3), json!(3)),
        (json!(5), json!(5), json!(0)),
        (json!(5), json!(-1), json!(0)),
        (Value::Null, Value::Null, Value::Null),
    ] {
        let more = json!({
            "architectures": ["GPT2LMHeadModel"], "eos_token_id": ends, "pad_token_id": pads, "use_cache": true,
            "id2label": {"0": "a", "1": "b"}, "something": {"of": ["mine"]},
        });
        let mut json = Value::Object(tiny(Family::Gpt2).json);
        merge(&mut json, more);
        let dir = folder_of(duel_tests::config(json.clone()));
        let before = Value::Object(open(&dir).config().json.clone());
        let (folder, out) = (open(&dir).with_score(1), TempDir::new().unwrap());
        duel_model::save(&cpu(), out.path(), folder.config(), &duel_model::load(&cpu(), &folder).unwrap())
            .unwrap();
        let mut wanted = before;
        let labels = json!({"num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}});
        merge(&mut wanted, labels);
        merge(&mut wanted, json!({"architectures": ["GPT2ForSequenceClassification"], "pad_token_id": want}));
        assert_eq!(Value::Object(open(&out).config().json.clone()), wanted);
    }
}
