//! Every backward against central differences, in double precision.
//!
//! A function's outputs are contracted with random numbers `r`; the claimed gradient by a few random input elements
//! is compared with a difference quotient. The bound is derived, not tuned: two step widths give two quotients whose
//! difference is three quarters of the wider one's truncation error, which bounds the far smaller one (fourth order)
//! of their extrapolation; rounding of the outputs, divided by the step, adds to it.

use duel_backend::{
    Activation, Attention, FeedForward, Gather, Gemm, Heads, Layout, LogProbs, Logits, Norm, Norms, Products,
    QkNorm, RowStats, Scores,
};
use duel_cpu::Cpu;
use duel_model::{Config, Family, Keep, LoraSettings, Modules};
use duel_tests::{
    Batch, Case, FAMILIES, Group, How, Objective, Random, activations, adapted, config, merge, tiny,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

type Inputs = Vec<Vec<f64>>;

fn cpu() -> Cpu<f64> {
    Cpu::new(1)
}

/// The wider of the two steps, for inputs of size 1: truncation falls with it, rounding grows as it shrinks.
const STEP: f64 = 1e-3;

/// Compares `grads` (one for each input) with differences of `f` at `probes` random elements of each input.
/// `operations` bounds how many roundings an output goes through.
fn check(
    random: &mut Random,
    inputs: &Inputs,
    grads: &Inputs,
    r: &[f64],
    (probes, operations): (usize, f64),
    f: impl Fn(&Inputs) -> Vec<f64>,
) -> TestCaseResult {
    for (which, (input, grad)) in inputs.iter().zip(grads).enumerate() {
        prop_assert_eq!(input.len(), grad.len());
        for _ in 0..probes.min(input.len()) {
            let i = random.pick(0..input.len());
            let at = |x: f64| {
                let mut inputs = inputs.clone();
                inputs[which][i] += x;
                f(&inputs)
            };
            let mut rounding = 0.0;
            let mut quotient = |step: f64| {
                let (up, down) = (at(step), at(-step));
                let mut sum = 0.0;
                for ((up, down), r) in up.iter().zip(&down).zip(r) {
                    sum += r * (up - down) / (2.0 * step);
                    // An output that this input does not reach is the same twice and rounds to nothing.
                    if up != down {
                        rounding += r.abs() * up.abs().max(1.0) * operations * f64::EPSILON / step;
                    }
                }
                sum
            };
            let (wide, narrow) = (quotient(STEP), quotient(STEP / 2.0));
            let slope = narrow + (narrow - wide) / 3.0;
            let bound = (narrow - wide).abs() + rounding + 1e-12;
            // A bound that lets everything pass would be no test.
            prop_assert!(bound < 1e-4 * (1.0 + slope.abs()), "bound {bound:e} at slope {slope}");
            prop_assert!(
                (slope - grad[i]).abs() <= bound,
                "input {which}, element {i}: claimed {}, difference {slope}, bound {bound:e}",
                grad[i]
            );
        }
    }
    Ok(())
}

/// A gradient buffer that is not empty, for verbs that add to it.
fn started(len: usize) -> Vec<f64> {
    (0..len).map(|i| (i % 7) as f64 - 3.0).collect()
}

/// What a verb added to a buffer of [`started`].
fn added(mut grad: Vec<f64>) -> Vec<f64> {
    let start = started(grad.len());
    for (g, start) in grad.iter_mut().zip(start) {
        *g -= start;
    }
    grad
}

/// What verbs that overwrite must not leave behind.
fn dirty(len: usize) -> Vec<f64> {
    vec![f64::NAN; len]
}

/// Random groups in a packed layout.
fn batch(random: &mut Random, groups: usize, vocab: usize) -> Batch {
    let groups: Vec<Group> = (0..groups)
        .map(|_| {
            let k = random.pick(1..5);
            random.group(vocab, 0..6, k, 1..6)
        })
        .collect();
    Batch::packed(&groups)
}

fn heads() -> impl Strategy<Value = Heads> {
    (1usize..5, 1usize..3, prop::sample::select(vec![2usize, 6, 8, 10]))
        .prop_map(|(ratio, kv_heads, head_dim)| Heads { heads: ratio * kv_heads, kv_heads, head_dim })
}

/// Those with a derivative everywhere.
fn activation() -> impl Strategy<Value = Activation> {
    use Activation::*;
    prop::sample::select(vec![Silu, Gelu, GeluTanh, GeluSigmoid])
}

/// Around the edges of the micro-kernels, and beyond the depth of a packed block.
fn extent() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 1usize..36, 1 => 255usize..260, 1 => 767usize..772]
}

/// Attention over a batch, with all of its queries, keys and values.
fn attention_of(random: &mut Random, batch: &Batch, d: Heads, scores: Scores) -> TestCaseResult {
    let b = cpu();
    let layout: Layout<Cpu<f64>> = batch.layout(&b);
    let rows = layout.rows;
    let inputs: Inputs = vec![random.vec(rows * d.qkv_width())];
    let r = random.vec(rows * d.q_width());
    let forward = |x: &Inputs| {
        let (mut o, mut lse) = (dirty(rows * d.q_width()), dirty(rows * d.heads));
        b.attention(&mut o, &mut lse, &x[0], &layout, d, scores);
        (o, lse)
    };
    let (o, lse) = forward(&inputs);
    let mut dx = dirty(inputs[0].len());
    b.attention_bw(&mut dx, &r, &o, &lse, &inputs[0], &layout, d, scores);
    check(random, &inputs, &vec![dx], &r, (16, 64.0), |x| forward(x).0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gemm(seed: u64, m in extent(), n in extent(), k in extent()) {
        prop_assume!(m * n * k < 1 << 18);
        let (b, mut random, d) = (cpu(), Random(seed), Gemm::dense(m, n, k));
        let inputs: Inputs = [m * k, n * k, n, m * n].map(|len| random.vec(len)).to_vec();
        let r = random.vec(m * n);
        let (mut dx, mut dw, mut db) = (dirty(m * k), started(n * k), started(n));
        b.gemm_dx(&mut dx, &r, &inputs[1], d);
        b.gemm_dw(&mut dw, &r, &inputs[0], d);
        b.bias_dw(&mut db, &r, d);
        let grads = vec![dx, added(dw), added(db), r.clone()];
        check(&mut random, &inputs, &grads, &r, (3, 2.0 * k as f64), |x| {
            let mut y = dirty(m * n);
            b.gemm(&mut y, &x[0], &x[1], Some(&x[2]), Some(&x[3]), d);
            y
        })?;
    }

    #[test]
    fn embed(seed: u64, groups in 1usize..4, width in 1usize..9, learned: bool) {
        let (b, mut random, vocab, positions) = (cpu(), Random(seed), 7, 12);
        let layout: Layout<Cpu<f64>> = batch(&mut random, groups, vocab).layout(&b);
        let mut inputs = vec![random.vec(vocab * width)];
        if learned {
            inputs.push(random.vec(positions * width));
        }
        let r = random.vec(layout.rows * width);
        let mut grads: Inputs = inputs.iter().map(|x| started(x.len())).collect();
        let (table, pos) = grads.split_at_mut(1);
        b.embed_bw(Some(&mut table[0]), pos.first_mut(), &r, &layout, width);
        let grads = grads.into_iter().map(added).collect();
        check(&mut random, &inputs, &grads, &r, (8, 2.0), |x| {
            let mut y = dirty(layout.rows * width);
            b.embed(&mut y, &x[0], x.get(1), &layout, width);
            y
        })?;
    }

    #[test]
    fn rmsnorm(seed: u64, rows in 1usize..6, width in 1usize..40, plus_one: bool) {
        let (b, mut random) = (cpu(), Random(seed));
        let d = Norm { rows, width, eps: 0.01, plus_one };
        let inputs: Inputs = vec![random.vec(rows * width), random.vec(width)];
        let r = random.vec(rows * width);
        let forward = |x: &Inputs| {
            let (mut y, mut rstd) = (dirty(rows * width), dirty(rows));
            b.rmsnorm(&mut y, &mut rstd, &x[0], &x[1], d);
            (y, rstd)
        };
        let (mut dx, mut dw) = (started(rows * width), started(width));
        b.rmsnorm_bw(&mut dx, Some(&mut dw), &r, &inputs[0], &forward(&inputs).1, &inputs[1], d);
        let grads = vec![added(dx), added(dw)];
        check(&mut random, &inputs, &grads, &r, (6, 8.0 + width as f64), |x| forward(x).0)?;
    }

    // With one or two columns a LayerNorm is nearly constant and its difference quotient mostly truncation.
    #[test]
    fn layernorm(seed: u64, rows in 1usize..6, width in 3usize..40) {
        let (b, mut random) = (cpu(), Random(seed));
        let d = Norm { rows, width, eps: 0.01, plus_one: false };
        let inputs: Inputs = vec![random.vec(rows * width), random.vec(width), random.vec(width)];
        let r = random.vec(rows * width);
        let forward = |x: &Inputs| {
            let (mut y, mut stats) = (dirty(rows * width), dirty(2 * rows));
            b.layernorm(&mut y, &mut stats, &x[0], &x[1], &x[2], d);
            (y, stats)
        };
        let (mut dx, mut dw, mut db) = (started(rows * width), started(width), started(width));
        b.layernorm_bw(&mut dx, Some(&mut dw), Some(&mut db), &r, &inputs[0], &forward(&inputs).1, &inputs[1], d);
        let grads = vec![added(dx), added(dw), added(db)];
        check(&mut random, &inputs, &grads, &r, (6, 8.0 + 2.0 * width as f64), |x| forward(x).0)?;
    }

    #[test]
    fn qk_norm(seed: u64, rows in 1usize..6, plus_one: bool, whole: bool, heads in heads()) {
        let (b, mut random) = (cpu(), Random(seed));
        let d = QkNorm { rows, heads, eps: 0.01, plus_one, whole };
        let (len, [(_, q), (_, k)]) = (rows * heads.qkv_width(), d.parts());
        let inputs: Inputs = vec![random.vec(len), random.vec(q), random.vec(k)];
        let r = random.vec(len);
        let forward = |x: &Inputs| {
            let (mut y, mut rstd) = (dirty(len), dirty(rows * d.stats()));
            b.qk_norm(&mut y, &mut rstd, &x[0], &x[1], &x[2], d);
            (y, rstd)
        };
        let (mut dx, mut dq, mut dk) = (r.clone(), started(q), started(k));
        let rstd = forward(&inputs).1;
        b.qk_norm_bw(&mut dx, Some(&mut dq), Some(&mut dk), &inputs[0], &rstd, &inputs[1], &inputs[2], d);
        let grads = vec![dx, added(dq), added(dk)];
        check(&mut random, &inputs, &grads, &r, (6, 8.0 + q as f64), |x| forward(x).0)?;
    }

    // Of two elements a LayerNorm is nearly constant.
    #[test]
    fn qk_layernorm(seed: u64, rows in 1usize..6, heads in heads()) {
        prop_assume!(heads.head_dim > 2);
        let (b, mut random) = (cpu(), Random(seed));
        let d = QkNorm { rows, heads, eps: 0.01, plus_one: false, whole: false };
        let (len, n) = (rows * heads.qkv_width(), heads.head_dim);
        let mut inputs: Inputs = vec![random.vec(len)];
        inputs.extend([(); 4].map(|()| random.vec(n)));
        let r = random.vec(len);
        let forward = |x: &Inputs| {
            let (mut y, mut stats) = (dirty(len), dirty(2 * rows * d.stats()));
            b.qk_layernorm(&mut y, &mut stats, &x[0], [&x[1], &x[2]], [&x[3], &x[4]], d);
            (y, stats)
        };
        let (mut dx, mut grads) = (r.clone(), [(); 4].map(|()| started(n)));
        let [dq, dk, dbq, dbk] = &mut grads;
        let (dw, db) = ([Some(dq), Some(dk)], [Some(dbq), Some(dbk)]);
        b.qk_layernorm_bw(&mut dx, dw, db, &inputs[0], &forward(&inputs).1, [&inputs[1], &inputs[2]], d);
        let grads = std::iter::once(dx).chain(grads.map(added)).collect();
        check(&mut random, &inputs, &grads, &r, (6, 8.0 + 2.0 * n as f64), |x| forward(x).0)?;
    }

    #[test]
    fn rope(seed: u64, rows in 1usize..8, d in heads()) {
        let (b, mut random) = (cpu(), Random(seed));
        let (len, positions) = (rows * d.qkv_width(), random.tokens(rows, 9));
        let angles = random.vec(9 * d.head_dim / 2);
        let table: Vec<f64> = angles
            .chunks_exact(d.head_dim / 2)
            .flat_map(|a| a.iter().map(|a| (3.0 * a).cos()).chain(a.iter().map(|a| (3.0 * a).sin())))
            .collect();
        let inputs: Inputs = vec![random.vec(len)];
        let r = random.vec(len);
        let mut dx = r.clone();
        b.rope(&mut dx, &table, &positions, rows, true, d);
        check(&mut random, &inputs, &vec![dx], &r, (8, 4.0), |x| {
            let mut y = x[0].clone();
            b.rope(&mut y, &table, &positions, rows, false, d);
            y
        })?;
    }

    #[test]
    fn attention(seed: u64, groups in 1usize..4, d in heads()) {
        let mut random = Random(seed);
        let batch = batch(&mut random, groups, 7);
        attention_of(&mut random, &batch, d, d.scores())?;
    }

    // A prompt of 5 and responses of 7 and 3: windows of one position, shorter than a response, of the prompt, longer
    // than it, and of everything.
    #[test]
    fn windows_and_caps(
        seed: u64,
        d in heads(),
        scale in 0.2..2.0f64,
        cap in prop::option::of(0.3..3.0f64),
        window in prop::sample::select(vec![None, Some(1), Some(2), Some(5), Some(6), Some(12)]),
    ) {
        let mut random = Random(seed);
        let groups = [(5, vec![7, 3]), (0, vec![4])].map(|(prompt, responses)| Group {
            prompt: random.tokens(prompt, 7),
            responses: responses.into_iter().map(|n| random.tokens(n, 7)).collect(),
        });
        attention_of(&mut random, &Batch::packed(&groups), d, Scores { scale, cap, window })?;
    }

    #[test]
    fn glu(seed: u64, rows in 1usize..6, width in 1usize..20, f in activation()) {
        let (b, mut random) = (cpu(), Random(seed));
        let inputs: Inputs = vec![random.vec(rows * 2 * width).into_iter().map(|x| 4.0 * x).collect()];
        let r = random.vec(rows * width);
        let mut dx = dirty(rows * 2 * width);
        b.glu_bw(&mut dx, &r, &inputs[0], rows, width, f);
        check(&mut random, &inputs, &vec![dx], &r, (8, 16.0), |x| {
            let mut y = dirty(rows * width);
            b.glu(&mut y, &x[0], rows, width, f);
            y
        })?;
    }

    #[test]
    fn activate(seed: u64, len in 1usize..60, f in activation()) {
        let (b, mut random) = (cpu(), Random(seed));
        let inputs: Inputs = vec![random.vec(len).into_iter().map(|x| 4.0 * x).collect()];
        let r = random.vec(len);
        let mut dx = dirty(len);
        b.activate_bw(&mut dx, &r, &inputs[0], len, f);
        check(&mut random, &inputs, &vec![dx], &r, (8, 16.0), |x| {
            let mut y = dirty(len);
            b.activate(&mut y, &x[0], len, f);
            y
        })?;
    }

    #[test]
    fn gather(seed: u64, height in 1usize..6, rows in 1usize..12, width in 1usize..20) {
        let (b, mut random) = (cpu(), Random(seed));
        let index = random.tokens(rows, height);
        let inputs: Inputs = vec![random.vec(height * width)];
        let r = random.vec(rows * width);
        let mut dx = started(height * width);
        b.scatter_add(&mut dx, &r, &index, rows, width);
        check(&mut random, &inputs, &vec![added(dx)], &r, (8, 1.0), |x| {
            let mut y = dirty(rows * width);
            b.gather(&mut y, &x[0], &index, rows, width);
            y
        })?;
    }

    #[test]
    fn logprob(seed: u64, rows in 1usize..6, vocab in 1usize..40, cap in prop::option::of(1.0..9.0f64)) {
        let (b, mut random) = (cpu(), Random(seed));
        let targets = random.tokens(rows, vocab);
        let inputs: Inputs = vec![random.vec(rows * vocab).into_iter().map(|x| 3.0 * x).collect()];
        let r = random.vec(rows);
        let capped = |x: &Inputs| {
            let mut logits = x[0].clone();
            if let Some(cap) = cap {
                b.soft_cap(&mut logits, cap, Logits::dense(rows, vocab));
            }
            logits
        };
        let forward = |x: &Inputs| {
            let [mut logp, mut lse, mut entropy, mut mean_logit, mut hit, mut collision] =
                [(); 6].map(|()| dirty(rows));
            let out = RowStats {
                logp: &mut logp,
                lse: &mut lse,
                entropy: &mut entropy,
                mean_logit: &mut mean_logit,
                hit: &mut hit,
                collision: &mut collision,
            };
            b.logprob(out, &capped(x), &targets, Logits::dense(rows, vocab));
            [logp, lse, entropy, mean_logit, hit, collision]
        };
        let stats = forward(&inputs);
        // Two roundings a term of the longest sum, on numbers below 8.
        let close = |a: f64, b: f64| (a - b).abs() <= 16.0 * vocab as f64 * f64::EPSILON;
        for (i, row) in capped(&inputs).chunks_exact(vocab).enumerate() {
            let total: f64 = row.iter().map(|x| x.exp()).sum();
            let p: Vec<f64> = row.iter().map(|x| x.exp() / total).collect();
            let target = p[targets[i] as usize];
            prop_assert!(close(stats[0][i], target.ln()) && close(stats[1][i], total.ln()));
            prop_assert!(close(stats[2][i], -p.iter().map(|p| p * p.ln()).sum::<f64>()));
            prop_assert!(close(stats[3][i], row.iter().sum::<f64>() / vocab as f64));
            prop_assert!(close(stats[5][i], p.iter().map(|p| p * p).sum::<f64>().ln()));
            prop_assert_eq!(stats[4][i] == 1.0, p.iter().all(|&p| p <= target));
        }
        let mut dx = capped(&inputs);
        b.logprob_bw(&mut dx, &stats[1], &r, &targets, cap, Logits::dense(rows, vocab));
        let operations = 8.0 + vocab as f64;
        check(&mut random, &inputs, &vec![dx], &r, (8, operations), |x| forward(x)[0].clone())?;
    }
}

/// Embedding to loss: every parameter of every family, with a shared prompt, responses of different length, and a
/// group without prompt.
fn whole_model(family: Family, objective: Objective) {
    whole(tiny(family), objective);
}

fn whole(config: Config, objective: Objective) {
    let (b, mut random) = (cpu(), Random(config.family as u64 + 11));
    let case = Case::new(config, 3);
    let family = case.config.family;
    let vocab = case.config.vocab;
    let groups = [(2..6, 2), (0..1, 2), (1..2, 2)].map(|(prompt, k)| random.group(vocab, prompt, k, 1..5));
    let batch = Batch::packed(&groups);
    let how = How::new(objective);
    let grads = case.run(&b, std::slice::from_ref(&batch), how).grads;
    let loss = |w: &Inputs| vec![Case { weights: w.clone(), ..case.clone() }.score(&b, &batch, how).loss];
    // About 25 verbs one after another, with sums of up to 20 terms.
    let checked = check(&mut random, &case.weights, &grads, &[1.0], (6, 500.0), loss);
    checked.unwrap_or_else(|e| panic!("{family:?} {objective:?}: {e}"));
}

/// Norms of heads whose elements lie in another order than in files.
#[test]
fn a_whole_phi_with_layernorms_of_heads() {
    let mut json = serde_json::Value::Object(tiny(Family::Phi).json);
    merge(&mut json, serde_json::json!({"qk_layernorm": true}));
    whole(config(json), Objective::Dpo);
}

#[test]
fn whole_models() {
    for family in FAMILIES {
        whole_model(family, Objective::Dpo);
        whole_model(family, Objective::Sft(0.1));
    }
}

/// Adapters that a test trains: on every map, and on some parts of products that have several.
fn settings() -> [LoraSettings; 2] {
    let ranks = vec![("[kc]_.*".to_owned(), 1)];
    let all = LoraSettings { r: 3, alpha: 1.0, targets: Modules::All, ranks, ..LoraSettings::default() };
    let pattern = r".*(q_proj|v_proj|up_proj|c_attn|mlp\.c_proj|query_key_value|qkv_proj)".to_owned();
    [
        all,
        LoraSettings {
            r: 2,
            alpha: 0.5,
            rslora: true,
            targets: Modules::Pattern(pattern),
            ..LoraSettings::default()
        },
    ]
}

#[test]
fn whole_with_adapters() {
    for family in FAMILIES {
        settings().into_iter().for_each(|settings| whole(adapted(tiny(family), settings), Objective::Dpo));
    }
}

/// What is dropped is the same in both directions, and where a layer is computed again.
#[test]
fn adapters_that_drop_inputs() {
    // With a gate and without, some parts of a product and all of it; layers computed again, or not.
    let cases =
        [(Family::Llama, Keep::All), (Family::Gpt2, Keep::Residuals), (Family::Qwen3, Keep::Residuals)];
    for (family, keep) in cases {
        let [settings, _] = settings();
        let (b, mut random) = (cpu(), Random(5));
        let case = Case::new(adapted(tiny(family), LoraSettings { dropout: 0.4, alpha: 0.3, ..settings }), 6);
        let (c, batch) = (&case.config, batch(&mut random, 2, case.config.vocab));
        let rows = batch.tokens.len();
        let keys: Vec<u32> = (0..2 * rows as u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
        let (layout, slopes) = (batch.layout(&b), random.vec(rows * c.width));
        let pass = |case: &Case, dropping: bool| {
            let (weights, mut a) = (case.upload(&b), activations(&b, c, rows, keep));
            a.drop_by(&b, dropping.then_some(&keys[..]));
            duel_model::forward(&b, c, &weights, &layout, &mut a);
            (weights, a)
        };
        let (weights, mut a) = pass(&case, true);
        assert_ne!(a.hidden, pass(&case, false).1.hidden);
        a.dhidden.copy_from_slice(&slopes);
        let mut grads = case.manifest().alloc::<_, f64>(&b).unwrap();
        duel_model::backward(&b, c, &weights, &mut grads, &layout, &mut a);
        let grads: Inputs = grads.into_vec();
        let hidden = |w: &Inputs| pass(&Case { weights: w.clone(), ..case.clone() }, true).1.hidden;
        let checked = check(&mut random, &case.weights, &grads, &slopes, (4, 500.0), hidden);
        checked.unwrap_or_else(|e| panic!("{family:?}: {e}"));
    }
}
