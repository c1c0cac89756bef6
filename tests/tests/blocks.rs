//! Weights in 8-bit blocks: their error is what the format says, and all else is exact.

use duel_backend::{Backend, Blocks, Float, Gemm, LogProbs, Logits, Products, Real, Storage, Weight};
use duel_cpu::Cpu;
use duel_model::decode::{Engine, Request, Room, Sampling};
use duel_model::{Config, Folder, Frozen, Keep, Model, Weights, load, load_in_8bit, save};
use duel_tests::golden::ids;
use duel_tests::{Batch, Case, FAMILIES, Random, TempDir, activations, host, shared_data, tiny};
use half::bf16;
use proptest::prelude::*;
use serde_json::Value;
use std::path::Path;

/// Half of every weight's scale, by the layout that [`Blocks`] documents.
fn bounds<B: Backend>(b: &B, blocks: &Blocks<B>) -> Vec<f64> {
    let (rows, cols) = blocks.dims();
    let mut scales = vec![bf16::ZERO; b.len(blocks.scales())];
    b.download(&mut scales, blocks.scales(), 0).unwrap();
    let of = |r: usize, c: usize| scales[(r / 16 * cols.div_ceil(32) + c / 32) * 16 + r % 16].to_f64() / 2.0;
    (0..rows).flat_map(|r| (0..cols).map(move |c| (r, c))).map(|(r, c)| of(r, c)).collect()
}

/// A matrix against its blocks: each weight, and its product with random numbers, in double precision.
fn is_within_its_bounds(matrix: &[f64], rows: usize, cols: usize) {
    let b = Cpu::<f64>::new(1);
    let blocks = Blocks::of(&b, matrix, rows, cols).unwrap();
    let (bounds, widened) = (bounds(&b, &blocks), blocks.to_f32(&b).unwrap());
    for (i, ((w, near), bound)) in matrix.iter().zip(&widened).zip(&bounds).enumerate() {
        assert!((w - f64::from(*near)).abs() <= *bound, "weight {i} is {w:e}, not {near:e} to {bound:e}");
        let block = &matrix[i - i % cols..][..cols][i % cols / 32 * 32..];
        let most = block.iter().take(32).fold(0.0f64, |most, w| most.max(w.abs()));
        // Rounded up to 8 bits, or to the smallest step that there is.
        let scale = (most / 127.0 * (1.0 + <bf16 as Float>::EPSILON)).max(most / 127.0 + 2f64.powi(-133));
        assert!(2.0 * bound <= scale && 2.0 * bound * 127.0 >= most, "a scale of {bound:e} for {most:e}");
    }
    let m = 3;
    let x = Random(rows as u64).vec(m * cols);
    let (mut y, mut exact) = (vec![0.0; m * rows], vec![0.0; m * rows]);
    let dims = Gemm::dense(m, rows, cols);
    b.gemm(&mut y, &x, Weight::Blocks(&blocks), None, None, dims);
    b.gemm(&mut exact, &x, &matrix.to_vec(), None, None, dims);
    for (i, (got, want)) in y.iter().zip(&exact).enumerate() {
        let terms = |of: &dyn Fn(usize) -> f64| -> f64 {
            x[i / rows * cols..][..cols]
                .iter()
                .enumerate()
                .map(|(c, x)| x.abs() * of(i % rows * cols + c))
                .sum()
        };
        // What the format costs, and the roundings of two sums of so many terms, each at most twice the weight's.
        let sums = (2 * cols + 3) as f64 * f64::EPSILON * terms(&|at| 3.0 * matrix[at].abs());
        let bound = terms(&|at| bounds[at]) + sums;
        assert!((got - want).abs() <= bound, "result {i} is {got:e}, not {want:e} to {bound:e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Of every size: blocks of zeros, of one large number among small ones, near the ends of float32.
    #[test]
    fn errors_are_within_half_a_scale(rows in 1usize..40, cols in 1usize..100, seed: u64, range in 0..120) {
        let mut random = Random(seed);
        let size = |random: &mut Random| match random.pick(0..8) {
            0 => 0.0,
            1 => 1.0,
            _ => 2f64.powf(f64::from(range) * random.unit()),
        };
        let matrix: Vec<f64> = (0..rows * cols).map(|_| {
            let size = size(&mut random);
            f64::from((size * random.unit()) as f32)
        }).collect();
        is_within_its_bounds(&matrix, rows, cols);
    }
}

/// The folders of real models that are at hand.
fn folders() -> impl Iterator<Item = std::path::PathBuf> {
    let names = [
        "golden/llama",
        "golden/gpt2",
        "golden/qwen2",
        "golden/qwen3",
        "models/stories260k",
        "models/babyllama-1m",
    ];
    names.into_iter().filter_map(shared_data)
}

#[test]
fn errors_of_real_weights_are_within_half_a_scale() {
    let b = Cpu::<f64>::new(1);
    for dir in folders() {
        let folder = Folder::open(&dir).unwrap();
        let weights = load(&b, &folder).unwrap();
        for (shape, w) in Model::manifest(folder.config()).iter().into_iter().zip(weights.iter()) {
            is_within_its_bounds(w, shape.rows, shape.cols);
        }
    }
}

/// The weights that a frozen model's blocks are, exactly.
fn widened<B: Backend>(b: &B, frozen: &Frozen<B>) -> Model<Real<B>> {
    frozen.view().map(|w| {
        let values: Vec<B::Real> = match w {
            Weight::Blocks(blocks) => blocks.to_f32(b).unwrap().into_iter().map(B::Real::from_f32).collect(),
            other => host::<B, B::Real>(b, other.real()).into_iter().map(B::Real::from_f64).collect(),
        };
        let mut buf = b.alloc(values.len()).unwrap();
        b.upload(&mut buf, 0, &values);
        buf
    })
}

/// Prompts, samples and log-probabilities: prefilling and decoding read the same weights.
fn samples_as_its_widened_weights<B: Backend>(b: &B, dir: &Path) {
    let folder = Folder::open(dir).unwrap();
    let (frozen, c) = (load_in_8bit(b, &folder).unwrap(), folder.config());
    let parameters = Model::manifest(c);
    let matrices =
        parameters.iter().into_iter().filter(|s| !s.vector && parameters.positions.as_ref() != Some(s));
    let rest = parameters.parameters() - matrices.clone().map(|s| s.len()).sum::<usize>();
    let blocks: usize = matrices.map(|s| Blocks::<B>::size(s.rows, s.cols)).sum();
    assert_eq!(frozen.bytes(b), blocks + rest * size_of::<B::Real>());
    let mut random = Random(3);
    let prompts: Vec<_> = [4, 1, 30].map(|n| random.tokens(n, c.vocab)).into();
    let requests = Request::repeated(&prompts, 7);
    let how = Sampling { max_new_tokens: 9, ..Sampling::default() };
    let mut engine = Engine::new(b, c, Room::of(requests.iter().copied(), 64, 9)).unwrap();
    let got = engine.generate(b, &frozen, &requests, &how, &[]).unwrap().completions;
    let want = engine.generate(b, &widened(b, &frozen), &requests, &how, &[]).unwrap().completions;
    assert_eq!(got, want, "{}", dir.display());
}

#[test]
fn a_model_samples_as_the_one_that_its_blocks_are() {
    let b = Cpu::<f32>::new(2);
    for family in FAMILIES {
        let (case, dir) = (Case::new(tiny(family), 9), TempDir::new().unwrap());
        save(&b, dir.path(), &case.config, &case.upload(&b)).unwrap();
        samples_as_its_widened_weights(&b, dir.path());
        samples_as_its_widened_weights(&Cpu::<f64>::new(1), dir.path());
    }
    folders().for_each(|dir| samples_as_its_widened_weights(&b, &dir));
}

/// Log-probabilities of every token after each of a text's.
fn log_probabilities(b: &Cpu, c: &Config, w: &impl Weights<Cpu>, tokens: &[u32]) -> Vec<Vec<f64>> {
    let mut a = activations(b, c, tokens.len(), Keep::Nothing);
    duel_model::forward(b, c, w, &Batch::text(tokens).layout(b), &mut a);
    let mut y = b.alloc::<f32>(tokens.len() * c.vocab).unwrap();
    b.gemm(&mut y, &a.hidden, *w.view().head(), None, None, Gemm::dense(tokens.len(), c.vocab, c.width));
    if let Some(cap) = c.logit_cap {
        b.soft_cap(&mut y, cap, Logits::dense(tokens.len(), c.vocab));
    }
    let rows = y.chunks(c.vocab).map(|row| {
        let most = row.iter().fold(f64::MIN, |most, x| most.max(x.to_f64()));
        let sum: f64 = row.iter().map(|x| (x.to_f64() - most).exp()).sum();
        row.iter().map(|x| x.to_f64() - most - sum.ln()).collect()
    });
    rows.collect()
}

/// What the README of duel-model says of it, on the texts that models at hand wrote.
#[test]
fn trained_models_lose_a_thousandth_of_a_nat_a_token() {
    let b = Cpu::<f32>::new(2);
    for name in ["stories260k", "babyllama-1m"] {
        let Some(dir) = shared_data(&format!("models/{name}")) else { continue };
        let folder = Folder::open(&dir).unwrap();
        let (exact, blocks, c) =
            (load(&b, &folder).unwrap(), load_in_8bit(&b, &folder).unwrap(), folder.config());
        let texts: Value =
            serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
        let (mut kl, mut tokens) = (0.0, 0.0);
        for text in texts.as_array().unwrap() {
            let text = ids(&text["greedy"]);
            let (p, q) = (log_probabilities(&b, c, &exact, &text), log_probabilities(&b, c, &blocks, &text));
            for (p, q) in p.iter().zip(&q) {
                kl += p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
                tokens += 1.0;
            }
        }
        println!("{name}: {:.2e} nats a token", kl / tokens);
        assert!(tokens > 100.0 && kl / tokens < 1e-3, "{name}: {:.2e} nats a token", kl / tokens);
    }
}
