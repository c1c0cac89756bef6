//! Weights in blocks: their error is what the format says, and all else is exact.

use duel_backend::{Backend, Bits, Blocks, Float, Gemm, LogProbs, Logits, Products, Real, Storage, Weight};
use duel_cpu::Cpu;
use duel_model::decode::{Engine, Request, Room, Sampling};
use duel_model::{
    Config, Family, Folder, Form, Held, InBlocks, Keep, LoraSettings, Model, Modules, Numbers, PolicyBytes,
    Shape, Trained, Weights, load, load_in_8bit, load_policy, policy_bytes, save,
};
use duel_tests::golden::ids;
use duel_tests::{Batch, Case, FAMILIES, Random, TempDir, activations, adapted, host, shared_data, tiny};
use half::bf16;
use proptest::prelude::*;
use serde_json::Value;
use std::path::Path;

const BITS: [Bits; 2] = [Bits::Four, Bits::Eight];

/// Half of every weight's scale and its minimum, by the layout that [`Blocks`] documents.
fn factors<B: Backend>(b: &B, blocks: &Blocks<B>) -> Vec<(f64, f64)> {
    let (rows, cols) = blocks.dims();
    let mut factors = vec![bf16::ZERO; b.len(blocks.factors())];
    b.download(&mut factors, blocks.factors(), 0).unwrap();
    let of = |r: usize, c: usize| {
        let (block, lane) = (r / 16 * cols.div_ceil(32) + c / 32, r % 16);
        match blocks.bits() {
            Bits::Eight => (factors[block * 16 + lane].to_f64() / 2.0, 0.0),
            Bits::Four => {
                (factors[block * 32 + lane].to_f64() / 2.0, factors[block * 32 + 16 + lane].to_f64())
            }
        }
    };
    (0..rows).flat_map(|r| (0..cols).map(move |c| (r, c))).map(|(r, c)| of(r, c)).collect()
}

/// A matrix against its blocks: each weight, and its product with random numbers, in double precision.
fn is_within_its_bounds(bits: Bits, matrix: &[f64], rows: usize, cols: usize) {
    let b = Cpu::<f64>::new(1);
    let blocks = Blocks::of(&b, bits, matrix, rows, cols).unwrap();
    let (factors, widened) = (factors(&b, &blocks), blocks.to_f32(&b).unwrap());
    let mut bounds = Vec::new();
    for (i, ((w, near), (half, least))) in matrix.iter().zip(&widened).zip(&factors).enumerate() {
        // Of 4 bits the sum with the minimum is rounded to float32.
        let near = f64::from(*near);
        let bound = half + if bits == Bits::Four { near.abs() * 2f64.powi(-24) } else { 0.0 };
        assert!((w - near).abs() <= bound, "weight {i} is {w:e}, not {near:e} to {bound:e}");
        bounds.push(bound);
        let block = &matrix[i - i % cols..][..cols][i % cols / 32 * 32..];
        let block = &block[..block.len().min(32)];
        // Rounded up to 8 bits, or to the smallest step that there is.
        let (ulp, step) = (<bf16 as Float>::EPSILON, 2f64.powi(-133));
        let up = |x: f64| (x * (1.0 + ulp)).max(x + step);
        let (most, numbers) = match bits {
            Bits::Eight => (block.iter().fold(0.0f64, |most, w| most.max(w.abs())), 127.0),
            Bits::Four => {
                let low = block.iter().fold(f64::MAX, |low, w| low.min(*w));
                let high = block.iter().fold(f64::MIN, |high, w| high.max(*w));
                let below = low - *least;
                assert!(
                    (0.0..=(low.abs() * ulp).max(step)).contains(&below),
                    "a minimum of {least:e} for {low:e}"
                );
                (high - *least, 15.0)
            }
        };
        let scale = 2.0 * half;
        assert!(scale <= up(most / numbers) && scale * numbers >= most, "a scale of {scale:e} for {most:e}");
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
        // What the format costs, and the roundings of two sums of so many terms, of the weights and of those near them.
        let sums = (2 * cols + 3) as f64 * f64::EPSILON * terms(&|at| 3.0 * matrix[at].abs() + bounds[at]);
        let bound = terms(&|at| bounds[at]) + sums;
        assert!((got - want).abs() <= bound, "result {i} is {got:e}, not {want:e} to {bound:e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Of every size: blocks of zeros, of one large number among small ones, near the ends of float32.
    #[test]
    fn errors_are_within_half_a_scale(rows in 1usize..40, cols in 1usize..100, seed: u64, range in 0..120, offset: bool) {
        let mut random = Random(seed);
        let size = |random: &mut Random| match random.pick(0..8) {
            0 => 0.0,
            1 => 1.0,
            _ => 2f64.powf(f64::from(range) * random.unit()),
        };
        let matrix: Vec<f64> = (0..rows * cols).map(|_| {
            let size = size(&mut random);
            let x = size * random.unit();
            f64::from((if offset { 1.0 + x / 64.0 } else { x }) as f32)
        }).collect();
        BITS.into_iter().for_each(|bits| is_within_its_bounds(bits, &matrix, rows, cols));
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
            BITS.into_iter().for_each(|bits| is_within_its_bounds(bits, w, shape.rows, shape.cols));
        }
    }
}

/// The weights that a frozen model's blocks are, exactly.
fn widened<B: Backend>(b: &B, frozen: &Held<B>) -> Model<Real<B>> {
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
    let blocks: usize = matrices.map(|s| Blocks::<B>::size(Bits::Eight, s.rows, s.cols)).sum();
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

/// Every form that a model may be held in under adapters, as it is planned.
#[test]
fn weights_under_adapters_take_what_was_planned() {
    let b = Cpu::<f32>::new(1);
    let settings = LoraSettings { r: 2, targets: Modules::All, ..LoraSettings::default() };
    for family in FAMILIES {
        let mut case = Case::new(tiny(family), 9);
        for rounded in [false, true] {
            if rounded {
                case.weights.iter_mut().flatten().for_each(|x| *x = bf16::from_f64(*x).to_f64());
            }
            let dir = TempDir::new().unwrap();
            save(&b, dir.path(), &case.config, &case.upload(&b)).unwrap();
            let folder = Folder::open(dir.path()).unwrap();
            let c = folder.with_lora(settings.clone()).unwrap();
            let manifest = Model::manifest(&c);
            let maps =
                || manifest.layers.iter().flat_map(|l| [&l.qkv, &l.out, &l.up, &l.down]).map(|m| &m.weight);
            let elements = |narrow: bool| {
                let all = manifest.iter().into_iter().filter(|s| !c.trains(s));
                let is = |s: &&Shape| s.vector || manifest.positions.as_ref() == Some(*s);
                all.filter(|s| is(s) != narrow).map(|s| s.len()).sum::<usize>()
            };
            let in_maps: usize = maps().map(|s| s.len()).sum();
            let plan = |numbers, blocks| {
                let form = Form { numbers, blocks };
                let held = load_policy(&b, &folder, &c, form).unwrap();
                let bytes = policy_bytes::<Cpu>(&folder, &c, form).unwrap();
                let PolicyBytes { trained, real, narrow, blocks } = bytes;
                assert_eq!(held.bytes(&b), trained + real + narrow + blocks, "{family:?}: {form:?}");
                let adapters = manifest.iter().into_iter().filter(|s| c.trains(s)).map(|s| s.len());
                assert_eq!(trained, 4 * adapters.sum::<usize>(), "{family:?}: {form:?}");
                (real, narrow, blocks)
            };
            let (fixed, free) = (4 * elements(false), elements(true));
            let stored = if rounded { (fixed, 2 * free, 0) } else { (fixed + 4 * free, 0, 0) };
            assert_eq!(plan(Numbers::AsStored, InBlocks::Nothing), stored, "{family:?}");
            assert_eq!(plan(Numbers::Real, InBlocks::Nothing), (fixed + 4 * free, 0, 0), "{family:?}");
            assert_eq!(plan(Numbers::Narrow, InBlocks::Nothing), (fixed, 2 * free, 0), "{family:?}");
            for bits in BITS {
                let blocks = maps().map(|s| Blocks::<Cpu>::size(bits, s.rows, s.cols)).sum();
                let want = (fixed, 2 * (free - in_maps), blocks);
                assert_eq!(plan(Numbers::Narrow, InBlocks::Maps(bits)), want, "{family:?}");
            }
        }
    }
}

/// Hidden states, and the gradients of what is trained by those of `slopes`.
fn pass<B: Backend>(
    b: &B,
    c: &Config,
    w: &impl Weights<B>,
    batch: &Batch,
    slopes: &[f64],
) -> (Vec<f64>, Vec<Vec<f64>>) {
    let (mut a, layout) = (activations(b, c, batch.tokens.len(), Keep::All), batch.layout(b));
    let mut grads = Trained::of_model(b, c, Keep::All).unwrap();
    duel_model::forward(b, c, w, &layout, &mut a);
    let slopes: Vec<B::Real> = slopes.iter().map(|x| B::Real::from_f64(*x)).collect();
    b.upload(&mut a.dhidden, 0, &slopes);
    duel_model::backward(b, c, w, &mut grads, &layout, &mut a);
    (host::<B, B::Real>(b, &a.hidden), grads.list().into_iter().map(|g| host(b, g)).collect())
}

/// Puts `at(tensor, element)` into what is trained.
fn put<B: Backend>(b: &B, c: &Config, weights: &mut Held<B>, at: impl Fn(usize, usize) -> f64) {
    let trained = Trained::of_model(b, c, Keep::All).unwrap();
    for (i, buf) in weights.trained_mut(&trained).into_iter().enumerate() {
        let host: Vec<B::Real> = (0..b.len(buf)).map(|j| B::Real::from_f64(at(i, j))).collect();
        b.upload(buf, 0, &host);
    }
}

/// Hidden states and gradients of adapters over blocks: those of the matrices that the blocks are, to the bit; and in
/// double precision the derivative by differences.
fn over_blocks<B: Backend>(b: &B, family: Family, bits: Bits, differences: bool) {
    let (case, dir) = (Case::new(tiny(family), 3), TempDir::new().unwrap());
    save(b, dir.path(), &case.config, &case.upload(b)).unwrap();
    // Not so strong that the model is no smooth function of what is drawn.
    let settings = LoraSettings { r: 2, alpha: 0.3, targets: Modules::All, ..LoraSettings::default() };
    let (folder, c) = (Folder::open(dir.path()).unwrap(), adapted(tiny(family), settings));
    let form = Form { numbers: Numbers::Real, blocks: InBlocks::Maps(bits) };
    let mut weights = load_policy(b, &folder, &c, form).unwrap();
    let mut random = Random(8);
    let batch = Batch::packed(&[random.group(c.vocab, 2..6, 2, 1..5)]);
    let slopes = random.vec(batch.tokens.len() * c.width);
    // B of fresh adapters is 0.
    let drawn: Vec<Vec<f64>> =
        pass(b, &c, &weights, &batch, &slopes).1.iter().map(|g| random.vec(g.len())).collect();
    put(b, &c, &mut weights, |i, j| drawn[i][j]);
    let (hidden, grads) = pass(b, &c, &weights, &batch, &slopes);
    let of_widened = pass(b, &c, &widened(b, &weights), &batch, &slopes);
    assert_eq!((&hidden, &grads), (&of_widened.0, &of_widened.1), "{family:?} over {bits:?}");
    if !differences {
        return;
    }
    let along: Vec<Vec<f64>> = grads.iter().map(|g| random.vec(g.len())).collect();
    let mut value = |h: f64| -> f64 {
        put(b, &c, &mut weights, |i, j| drawn[i][j] + h * along[i][j]);
        pass(b, &c, &weights, &batch, &slopes).0.iter().zip(&slopes).map(|(x, slope)| x * slope).sum()
    };
    // Off by the fifth derivative times h^4 / 30, and by the roundings of the values over h.
    let h = 2e-4;
    let got = (8.0 * (value(h) - value(-h)) - (value(2.0 * h) - value(-2.0 * h))) / (12.0 * h);
    let terms = || grads.iter().flatten().zip(along.iter().flatten()).map(|(g, d)| g * d);
    let (want, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
    assert!((got - want).abs() <= 1e-8 * size, "{family:?} over {bits:?}: {got:e}, not {want:e}");
}

#[test]
fn adapters_over_blocks_are_over_what_the_blocks_are() {
    for family in FAMILIES {
        for bits in BITS {
            over_blocks(&Cpu::<f64>::new(1), family, bits, true);
            over_blocks(&Cpu::<f32>::new(2), family, bits, false);
        }
    }
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
fn trained_models_lose_little_a_token() {
    let b = Cpu::<f32>::new(2);
    for name in ["stories260k", "babyllama-1m"] {
        let Some(dir) = shared_data(&format!("models/{name}")) else { continue };
        let folder = Folder::open(&dir).unwrap();
        let c = folder.config();
        let under = |bits| {
            let form = Form { numbers: Numbers::AsStored, blocks: InBlocks::Maps(bits) };
            let c =
                folder.with_lora(LoraSettings { targets: Modules::All, ..LoraSettings::default() }).unwrap();
            (load_policy(&b, &folder, &c, form).unwrap(), c)
        };
        let ((eights, adapted), (fours, _)) = (under(Bits::Eight), under(Bits::Four));
        let all = load_in_8bit(&b, &folder).unwrap();
        let forms = [
            ("8 bits", &all, c, 1e-3),
            ("maps of 8", &eights, &adapted, 1e-3),
            ("maps of 4", &fours, &adapted, 0.05),
        ];
        let exact = load(&b, &folder).unwrap();
        let texts: Value =
            serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
        let texts: Vec<_> = texts.as_array().unwrap().iter().map(|text| ids(&text["greedy"])).collect();
        let said: Vec<_> = texts.iter().map(|text| log_probabilities(&b, c, &exact, text)).collect();
        for (form, weights, c, most) in forms {
            let (mut kl, mut tokens) = (0.0, 0.0);
            for (text, said) in texts.iter().zip(&said) {
                for (p, q) in said.iter().zip(&log_probabilities(&b, c, weights, text)) {
                    kl += p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
                    tokens += 1.0;
                }
            }
            println!("{name}, {form}: {:.2e} nats a token", kl / tokens);
            assert!(tokens > 100.0 && kl / tokens < most, "{name}, {form}: {:.2e} nats a token", kl / tokens);
        }
    }
}
