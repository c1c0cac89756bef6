//! Reward models of transformers: scores, the Bradley-Terry loss with its gradients and ten updates, in single
//! precision.

use duel_backend::Real;
use duel_cpu::Cpu;
use duel_loss::{Objective, ScalarHead, Score, Settings, Totals, word};
use duel_model::{Config, Folder, Keep, Model};
use duel_optim::{Algorithm, Optimizer};
use duel_tests::golden::{assert_close, check_gradients, ids, numbers};
use duel_tests::{Batch, Group, TempDir, TensorFile, activations, host, norm, shared_data};
use serde_json::Value;

type Device = Cpu<f32>;

/// Texts packed as one batch; each one's score is read at its last token.
struct Texts {
    batch: Batch,
    last: Vec<u32>,
}

impl Texts {
    fn new(ids: impl IntoIterator<Item = Vec<u32>>) -> Self {
        let group = |text| Group { prompt: Vec::new(), responses: vec![text] };
        let batch = Batch::packed(&ids.into_iter().map(group).collect::<Vec<_>>());
        let last = batch.scored.iter().map(|text| (text[0].start + text[0].len - 1) as u32).collect();
        Texts { batch, last }
    }
}

/// The values of the texts.
fn scores(
    b: &Device,
    c: &Config,
    w: &Model<Real<Device>>,
    a: &mut duel_model::Activations<Device>,
    head: &mut ScalarHead<Device>,
    texts: &Texts,
) -> Vec<f64> {
    duel_model::forward(b, c, w, &texts.batch.layout(b), a);
    head.values(b, w.score(), &a.hidden, &texts.last).unwrap()
}

/// The loss of a reward model, Bradley and Terry's, and its derivative by each value.
fn bradley_terry(values: &[f64], pairs: &[Vec<u32>]) -> (f64, Vec<f64>) {
    let settings = Settings { beta: 1.0, ..Settings::default() };
    let objective = Objective::new(vec![(1.0, word("sigmoid").unwrap())], settings).without_reference();
    let score = |&text: &u32| Score { logp: values[text as usize], tokens: 1, ..Score::default() };
    let scores: Vec<Vec<Score>> = pairs.iter().map(|pair| pair.iter().map(score).collect()).collect();
    let mut totals = Totals::default();
    pairs.iter().for_each(|_| totals.add(2, 1, 0));
    let groups: Vec<_> = scores.iter().map(|pair| duel_loss::Group::ranked(pair)).collect();
    let mut of_pairs = vec![0.0; 2 * pairs.len()];
    let loss = objective.slopes(&groups, totals, &mut of_pairs);
    let mut slopes = vec![0.0; values.len()];
    for (text, slope) in pairs.iter().flatten().zip(of_pairs) {
        slopes[*text as usize] += slope;
    }
    (loss, slopes)
}

fn golden(name: &str) {
    let Some(dir) = shared_data(&format!("golden2/{name}")) else { return };
    let b = Device::new(2);
    let folder = Folder::open(&dir).unwrap();
    assert!(folder.notes().is_empty(), "{:?}", folder.notes());
    let c = folder.config().clone();
    let mut weights = duel_model::load(&b, &folder).unwrap();
    let expected: Value = serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
    let list = |key: &str| expected[key].as_array().unwrap().iter().map(ids).collect::<Vec<_>>();
    let (texts, pairs) = (Texts::new(list("ids")), list("pairs"));

    let rows = texts.batch.tokens.len();
    let mut a = activations(&b, &c, rows, Keep::All);
    let mut head = ScalarHead::new(&b, c.width, 4).unwrap();
    let values = scores(&b, &c, &weights, &mut a, &mut head, &texts);
    // Scores of size 1, of hidden states to which both sides round in another order: a few roundings of 6e-8 a layer.
    assert_close("scores", &values, &numbers(&expected["logits"]), 1e-5, 1.0);
    assert_close("scores of a batch", &values, &numbers(&expected["logits_batched"]), 1e-5, 1.0);

    let manifest = Model::manifest(&c);
    let parameters = manifest.iter().into_iter().map(|s| (s.len(), true));
    let adamw = Algorithm::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    let mut optimizer = Optimizer::new(&b, adamw, parameters).unwrap();
    let want = numbers(&expected["bt_adamw_lr1e_3_wd0_01_losses"]);
    for (i, &want) in want.iter().enumerate() {
        let values = scores(&b, &c, &weights, &mut a, &mut head, &texts);
        let (loss, slopes) = bradley_terry(&values, &pairs);
        let mut grads = manifest.alloc::<Device, f32>(&b).unwrap();
        a.dhidden.fill(0.0);
        let dw = grads.score_mut();
        head.backward(&b, weights.score(), dw, &a.hidden, &mut a.dhidden, &texts.last, &slopes);
        duel_model::backward(&b, &c, &weights, &mut grads, &texts.batch.layout(&b), &mut a);
        if i == 0 {
            assert_close("loss", &[loss], &[expected["bt_loss"].as_f64().unwrap()], 1e-5, 1.0);
            let all: Vec<Vec<f64>> = grads.iter().into_iter().map(|g| host(&b, g)).collect();
            // The bias of the last norm gets the same from both sides of a pair: nothing, but for a rounding a term.
            let terms = slopes.iter().map(|s| s.abs()).sum::<f64>() * norm(&host(&b, weights.score()));
            check_gradients(&c, &all, &expected["grads"], f64::from(f32::EPSILON) * terms);
        }
        // A loss is as exact as its margin: its slope by that is at most the loss itself, and the two scores of a
        // margin are off by 1e-5 together.
        assert_close(&format!("loss after {i} steps"), &[loss], &[want], 1e-5, want);
        optimizer.step(&b, weights.iter_mut(), grads.iter(), 1e-3, 1.0);
    }
    assert_eq!(want.len(), 10);
}

#[test]
fn seqcls_llama() {
    golden("seqcls_llama");
}

#[test]
fn seqcls_gpt2() {
    golden("seqcls_gpt2");
}

/// What is saved has the config and the tensors that were loaded, bit for bit; only the token that pads is set where it
/// was null.
#[test]
fn saving_a_reward_model_changes_no_bit() {
    for name in ["seqcls_llama", "seqcls_gpt2", "trl/reward_stories260k"] {
        let Some(dir) = shared_data(&format!("golden2/{name}")) else { return };
        let (b, out) = (Device::new(1), TempDir::new().unwrap());
        let folder = Folder::open(&dir).unwrap();
        let weights = duel_model::load(&b, &folder).unwrap();
        duel_model::save(&b, out.path(), folder.config(), &weights).unwrap();
        let again = Folder::open(out.path()).unwrap();
        assert!(again.config().is_like(folder.config()), "{name}");
        let mut json = folder.config().json.clone();
        // transformers reads the score at the last token that is not this one: it must not be one that ends a text.
        if json["pad_token_id"].is_null() || json["pad_token_id"] == json["eos_token_id"] {
            json.insert("pad_token_id".into(), u64::from(json["eos_token_id"] == 0).into());
        }
        for (key, value) in &json {
            assert_eq!(&again.config().json[key], value, "{name}: {key}");
        }
        let [before, after] = [&*dir, out.path()].map(|d| TensorFile::read(&d.join("model.safetensors")));
        assert_eq!(after.names(), before.names(), "{name}");
        for tensor in before.names() {
            assert_eq!(after.header[&tensor]["shape"], before.header[&tensor]["shape"], "{name}: {tensor}");
            assert!(after.tensor(&tensor) == before.tensor(&tensor), "{name}: {tensor} has other bits");
        }
    }
}
