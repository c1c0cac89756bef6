//! What may not change a result: packing, sharing of prompts, micro-batches, checkpointing, threads; and how much
//! the precision may.

use duel_backend::{Backend, Float};
use duel_cpu::Cpu;
use duel_model::decode::{Engine, Request, Room, Sampling};
use duel_model::{Activations, Config, Family, Folder, Keep};
use duel_tests::{
    Batch, Case, FAMILIES, Group, How, Objective, Outcome, Random, TempDir, activations, config, distance,
    host, tiny,
};
use half::bf16;
use proptest::prelude::*;
use serde_json::json;

const DPO: How = How { objective: Objective::Dpo, keep: Keep::All, head_rows: 512 };

/// Roundings that a result may differ by, in units of the precision: about 20 verbs a layer, each adding the
/// rounding of one sum, amplified by what follows.
const ROUNDINGS: f64 = 256.0;

fn assert_same(what: &str, case: &Case, a: &Outcome, b: &Outcome) {
    assert!(a.loss == b.loss && a.stats == b.stats, "{what}: {} or {}", a.loss, b.loss);
    assert!(a.hidden == b.hidden, "{what}: hidden states differ");
    for ((name, a), b) in case.names().iter().zip(&a.grads).zip(&b.grads) {
        assert!(a == b, "{what}: the gradient of {name} has other bits");
    }
}

fn assert_near(what: &str, case: &Case, a: &Outcome, b: &Outcome, bound: f64) {
    assert!((a.loss - b.loss).abs() <= bound * b.loss.abs(), "{what}: {} or {}", a.loss, b.loss);
    for (a, b) in a.stats.iter().zip(&b.stats) {
        assert_eq!((a.tokens, a.hits), (b.tokens, b.hits), "{what}");
        assert!((a.logp - b.logp).abs() <= bound * b.logp.abs(), "{what}: {} or {}", a.logp, b.logp);
        assert!((a.entropy - b.entropy).abs() <= bound * b.tokens as f64, "{what}: entropy");
        assert!((a.mean_logit - b.mean_logit).abs() <= bound * b.tokens as f64, "{what}: mean logit");
    }
    assert!(!b.grads.is_empty());
    for ((name, a), b) in case.names().iter().zip(&a.grads).zip(&b.grads) {
        let far = distance(a, b);
        assert!(far <= bound, "{what}: the gradient of {name} is off by {far:e}");
    }
}

/// Several groups with shared prompts, and one without a prompt.
fn groups(seed: u64, vocab: usize) -> Vec<Group> {
    let mut random = Random(seed);
    let shapes = [(1..9, 2), (0..1, 2), (3..9, 3), (1..2, 4)];
    shapes.map(|(prompt, k)| random.group(vocab, prompt, k, 2..8)).to_vec()
}

fn sharing_is_exact<B: Backend>(b: &B) {
    for (i, family) in FAMILIES.into_iter().enumerate() {
        let case = Case::new(tiny(family), 5 + i as u64);
        let groups = groups(i as u64, case.config.vocab);
        let one = case.run(b, &[Batch::packed(&groups)], DPO);
        let plain = case.run(b, &[Batch::unshared(&groups)], DPO);
        let what = format!("{family:?} {}", b.describe());
        assert_near(&what, &case, &one, &plain, ROUNDINGS * B::Acc::EPSILON);
        // A sequence at a time: what a pair at a time gives, when the loss does not tie them together.
        let sft = How { objective: Objective::Sft(0.1), ..DPO };
        let alone: Vec<Batch> = groups
            .iter()
            .flat_map(|g| {
                g.responses.iter().map(|r| Group { prompt: g.prompt.clone(), responses: vec![r.clone()] })
            })
            .map(|g| Batch::unshared(&[g]))
            .collect();
        let (one, plain) = (case.run(b, &[Batch::packed(&groups)], sft), case.run(b, &alone, sft));
        assert_near(&what, &case, &one, &plain, ROUNDINGS * B::Acc::EPSILON);
    }
}

#[test]
fn sharing_a_prompt_is_exact_in_double() {
    sharing_is_exact(&Cpu::<f64>::new(1));
}

#[test]
fn sharing_a_prompt_is_exact_in_single() {
    sharing_is_exact(&Cpu::<f32>::new(1));
}

#[test]
fn micro_batches_add_up() {
    fn check<B: Backend>(b: &B) {
        for family in FAMILIES {
            let case = Case::new(tiny(family), 9);
            let groups = groups(7, case.config.vocab);
            let one = case.run(b, &[Batch::packed(&groups)], DPO);
            for size in [1, 2, 3] {
                let batches: Vec<Batch> = groups.chunks(size).map(Batch::packed).collect();
                let many = case.run(b, &batches, DPO);
                assert_near(
                    &format!("{family:?}, {size} a batch"),
                    &case,
                    &many,
                    &one,
                    ROUNDINGS * B::Acc::EPSILON,
                );
                // Rows do not see each other: values are the same bits, only sums over rows are taken otherwise.
                assert!(one.loss == many.loss && one.stats == many.stats);
            }
        }
    }
    check(&Cpu::<f64>::new(1));
    check(&Cpu::<f32>::new(1));
}

fn packing_keeps_every_bit<B: Backend>(b: &B, case: &Case, seed: u64) {
    let groups = groups(seed, case.config.vocab);
    let all = case.score(b, &Batch::packed(&groups), DPO);
    let rows = |g: &[Group]| -> usize { Batch::packed(g).tokens.len() };
    let mut first = 0;
    for i in 0..groups.len() {
        let alone = case.score(b, &Batch::packed(&groups[i..=i]), DPO);
        let k = groups[i].responses.len();
        assert_eq!(alone.stats, all.stats[first..first + k], "group {i} {}", b.describe());
        first += k;
        let from = rows(&groups[..i]) * case.config.width;
        assert!(alone.hidden == all.hidden[from..from + alone.hidden.len()], "group {i} {}", b.describe());
    }
    let mut reversed = groups.clone();
    reversed.reverse();
    let mut stats: Vec<Vec<_>> = Vec::new();
    let mut rest = &case.score(b, &Batch::packed(&reversed), DPO).stats[..];
    for g in &reversed {
        let (head, tail) = rest.split_at(g.responses.len());
        stats.insert(0, head.to_vec());
        rest = tail;
    }
    assert_eq!(stats.concat(), all.stats);
}

/// Large enough that every verb splits its work.
fn middling() -> Case {
    let json = json!({
        "model_type": "qwen3", "vocab_size": 300, "hidden_size": 48, "intermediate_size": 80,
        "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10,
        "max_position_embeddings": 512, "tie_word_embeddings": true, "attention_bias": true,
    });
    Case::new(config(json), 21)
}

fn middling_groups() -> Vec<Group> {
    let mut random = Random(33);
    // The first prompt is longer than a block of query rows; in all about 600 rows.
    let shapes = [(150..151, 2), (20..40, 2), (0..1, 2), (20..40, 4)];
    shapes.map(|(prompt, k)| random.group(300, prompt, k, 20..60)).to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn log_probabilities_do_not_depend_on_the_packing(seed: u64, family in prop::sample::select(&FAMILIES[..])) {
        let case = Case::new(tiny(family), seed);
        packing_keeps_every_bit(&Cpu::<f64>::new(1), &case, seed);
        packing_keeps_every_bit(&Cpu::<f32>::new(1), &case, seed);
        packing_keeps_every_bit(&Cpu::<bf16>::new(1), &case, seed);
    }
}

#[test]
fn log_probabilities_do_not_depend_on_the_packing_of_long_rows() {
    let (case, groups, b) = (middling(), middling_groups(), Cpu::<f32>::new(2));
    let all = case.score(&b, &Batch::packed(&groups), DPO);
    let alone: Vec<_> = groups
        .iter()
        .flat_map(|g| case.score(&b, &Batch::packed(std::slice::from_ref(g)), DPO).stats)
        .collect();
    assert_eq!(all.stats, alone);
}

#[test]
fn threads_do_not_change_a_bit() {
    let case = middling();
    let batch = [Batch::packed(&middling_groups())];
    let gpt2 = json!({
        "model_type": "gpt2", "vocab_size": 300, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 512,
    });
    for case in [case, Case::new(config(gpt2), 22)] {
        let one = case.run(&Cpu::<f32>::new(1), &batch, DPO);
        for threads in [2, 3] {
            let b = Cpu::<f32>::new(threads);
            assert_eq!(b.threads(), threads);
            assert_same(&format!("{threads} threads"), &case, &case.run(&b, &batch, DPO), &one);
        }
    }
}

#[test]
fn checkpointing_does_not_change_a_bit() {
    for family in FAMILIES {
        let case = Case::new(tiny(family), 2);
        let groups = groups(3, case.config.vocab);
        // Two batches of different size: what the first leaves in the buffers must not matter.
        let batches = [Batch::packed(&groups), Batch::packed(&groups[1..3])];
        let residuals = How { keep: Keep::Residuals, ..DPO };
        let b = Cpu::<f32>::new(1);
        let what = format!("{family:?}");
        assert_same(&what, &case, &case.run(&b, &batches, residuals), &case.run(&b, &batches, DPO));
        let b = Cpu::<bf16>::new(1);
        assert_same(&what, &case, &case.run(&b, &batches, residuals), &case.run(&b, &batches, DPO));
    }
}

/// Whatever is larger, the gradients or the activations whose memory they lie in, and where it is that of the layer
/// above: what is left there does not matter.
#[test]
fn lent_memory_does_not_change_a_bit() {
    fn check<B: Backend>(b: &B, case: &Case, batches: &[Batch]) {
        let ways = [case.lent(b, batches, DPO), case.relayed(b, batches, DPO)];
        for (grads, batch) in ways.iter().flat_map(|way| way.iter().zip(batches)) {
            let own = case.run(b, std::slice::from_ref(batch), DPO).grads;
            let differs = case.names().into_iter().zip(grads.iter().zip(&own)).find(|(_, (a, b))| a != b);
            assert!(differs.is_none(), "{}: {differs:?}", b.describe());
        }
    }
    for family in FAMILIES {
        let case = Case::new(Config { layers: 4, ..tiny(family) }, 2);
        let [few, many] = [1, 4].map(|n| Batch::packed(&groups(3, case.config.vocab)[..n]));
        for batches in [[few.clone(), few.clone()], [many, few]] {
            check(&Cpu::<f32>::new(2), &case, &batches);
            check(&Cpu::<f64>::new(1), &case, &batches);
        }
    }
}

/// A small room for logits cuts the head's work into pieces.
#[test]
fn the_room_for_logits_does_not_matter() {
    let case = Case::new(tiny(Family::Llama), 2);
    let batch = [Batch::packed(&groups(3, case.config.vocab))];
    let b = Cpu::<f32>::new(1);
    let whole = case.run(&b, &batch, DPO);
    for head_rows in [1, 7, 16] {
        let cut = case.run(&b, &batch, How { head_rows, ..DPO });
        assert_near(&format!("{head_rows} rows"), &case, &cut, &whole, ROUNDINGS * f64::from(f32::EPSILON));
    }
}

/// Storing bfloat16 rounds every result of a verb to 8 bits; sums are taken in single precision.
#[test]
fn bfloat16_agrees_within_its_rounding() {
    for family in FAMILIES {
        let mut case = Case::new(tiny(family), 4);
        for w in case.weights.iter_mut().flatten() {
            // Both start from numbers that bfloat16 has.
            *w = bf16::from_f64(*w).to_f64();
        }
        let sft = How { objective: Objective::Sft(0.1), ..DPO };
        let batch = [Batch::packed(&groups(5, case.config.vocab))];
        let exact = case.run(&Cpu::<f64>::new(1), &batch, sft);
        let rounded = case.run(&Cpu::<bf16>::new(1), &batch, sft);
        // Roundings of 2^-8 that are independent add up as their squares do: about 10 a layer on the way to the
        // hidden states, and twice as many again on the way back; what follows may triple them.
        let bound = |roundings: f64| 3.0 * roundings.sqrt() * bf16::EPSILON.to_f64() / 2.0;
        let hidden = distance(&rounded.hidden, &exact.hidden);
        assert!(hidden < bound(20.0), "{family:?}: hidden states are off by {hidden}");
        assert!(hidden > 1e-4, "{family:?}: nothing was rounded");
        for (a, b) in rounded.stats.iter().zip(&exact.stats) {
            // Logits are a few units large; the tokens' errors are again independent.
            let bound = 3.0 * bound(20.0) * (b.tokens as f64).sqrt();
            assert!((a.logp - b.logp).abs() < bound, "{family:?}: logp {} or {}", a.logp, b.logp);
        }
        for ((name, a), b) in case.names().iter().zip(&rounded.grads).zip(&exact.grads) {
            let far = distance(a, b);
            assert!(far < bound(60.0), "{family:?}: the gradient of {name} is off by {far}");
        }
    }
}

/// A model that is only read takes half the memory where bf16 holds its weights, and gives the same bits.
#[test]
fn a_frozen_model_gives_the_same_bits() {
    let b = Cpu::<f32>::new(1);
    let rounded = |x: &f64| bf16::from_f64(*x).to_f64();
    for family in FAMILIES {
        for narrow in [true, false] {
            let mut case = Case::new(tiny(family), 9);
            let config = case.config.clone();
            let batch = Batch::packed(&groups(5, config.vocab));
            if narrow {
                case.weights.iter_mut().flatten().for_each(|x| *x = rounded(x));
            }
            let dir = TempDir::new().unwrap();
            let weights = case.upload(&b);
            duel_model::save(&b, dir.path(), &config, &weights).unwrap();
            let frozen = duel_model::load_frozen(&b, &Folder::open(dir.path()).unwrap()).unwrap();
            let score = |w: &dyn Fn(&mut Activations<Cpu<f32>>)| {
                let mut a = activations(&b, &config, batch.tokens.len(), Keep::Nothing);
                w(&mut a);
                host::<_, f32>(&b, &a.hidden)
            };
            let layout = batch.layout(&b);
            let want = score(&|a| duel_model::forward(&b, &config, &weights, &layout, a));
            let got = score(&|a| duel_model::forward(&b, &config, &frozen, &layout, a));
            assert_eq!(got, want, "{family:?}");
            let requests = [Request { prompt: &[1, 2, 3], samples: 1, id: 0 }];
            let how = Sampling::greedy(9);
            let mut engine = Engine::new(&b, &config, Room::of(requests, 1, 9)).unwrap();
            let continued = engine.generate(&b, &weights, &requests, &how, &[]).unwrap().flat();
            let again = engine.generate(&b, &frozen, &requests, &how, &[]).unwrap().flat();
            assert_eq!(again, continued, "{family:?}");
            let all = 4 * case.manifest().parameters();
            let taken = frozen.bytes(&b);
            if narrow {
                assert!(taken < all * 2 / 3, "{family:?}: {taken} of {all} bytes");
            } else {
                assert_eq!(taken, all, "{family:?}");
            }
        }
    }
}

/// Sequences that are decoded together do not see each other, and draw numbers of their own.
#[test]
fn sampling_does_not_depend_on_the_batch() {
    let b = Cpu::<f64>::new(1);
    for family in FAMILIES {
        let case = Case::new(tiny(family), 8);
        let (c, weights, mut random) = (&case.config, case.upload(&b), Random(1));
        let prompts = [3, 1, 9, 70].map(|n| random.tokens(n.min(c.max_positions - 24), c.vocab));
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let how = Sampling { max_new_tokens: 20, top_p: 0.95, ..Sampling::default() };
        let generate = |prompts: &[&[u32]]| {
            let requests = Request::each(prompts);
            let room = Room::of(requests.iter().copied(), prompts.len(), how.max_new_tokens);
            let mut engine = Engine::new(&b, c, room).unwrap();
            engine.generate(&b, &weights, &requests, &how, &[]).unwrap().flat()
        };
        let all = generate(&prompts);
        assert!(all.iter().all(|completion| completion.tokens.len() == 20));
        for n in 1..prompts.len() {
            assert_eq!(generate(&prompts[..n]), all[..n], "{family:?}, {n} together");
        }
    }
}
