//! Training a part of a model: gradients exist for what is trained, and are those of the whole backward to the bit.

use duel_backend::{Backend, Real};
use duel_cpu::Cpu;
use duel_model::{
    Config, Family, Folder, Gradients, Keep, LoraSettings, Model, Modules, Shape, Trained, Weights,
};
use duel_optim::{Algorithm, Optimizer};
use duel_tests::{Batch, Case, FAMILIES, How, Objective, Random, TempDir, activations, adapted, host, tiny};
use half::bf16;
use proptest::prelude::*;

/// A backward of random gradients of the hidden states.
fn run<B: Backend>(
    b: &B,
    c: &Config,
    w: &impl Weights<B>,
    grads: &mut impl Gradients<B>,
    batch: &Batch,
    keep: Keep,
) {
    let mut a = activations(b, c, batch.tokens.len(), keep);
    let layout = batch.layout(b);
    duel_model::forward(b, c, w, &layout, &mut a);
    let slopes = Random(77).vec(batch.tokens.len() * c.width);
    let slopes: Vec<B::Real> = slopes.into_iter().map(duel_backend::Float::from_f64).collect();
    b.upload(&mut a.dhidden, 0, &slopes);
    duel_model::backward(b, c, w, grads, &layout, &mut a);
}

fn batch(c: &Config, seed: u64) -> Batch {
    let mut random = Random(seed);
    Batch::packed(&[(2..6, 2), (0..1, 1)].map(|(prompt, k)| random.group(c.vocab, prompt, k, 1..5)))
}

/// Gradients of what `choose` says, in the order of the manifest; it is asked of every parameter in turn.
fn trained<B: Backend>(
    b: &B,
    manifest: &Model<Shape>,
    mut choose: impl FnMut() -> bool,
) -> (Trained<B>, Vec<usize>) {
    let mut chosen = Vec::new();
    let mut places = 0..;
    let grads = Trained::new(b, manifest, |_| {
        let (place, is_chosen) = (places.next(), choose());
        chosen.extend(place.filter(|_| is_chosen));
        is_chosen
    });
    (grads.expect("room for a test"), chosen)
}

fn whole<B: Backend>(b: &B, c: &Config, w: &Model<Real<B>>, batch: &Batch) -> Vec<Vec<f64>> {
    let mut all = Model::manifest(c).alloc::<B, B::Acc>(b).expect("room for a test");
    run(b, c, w, &mut all, batch, Keep::All);
    all.iter().into_iter().map(|g| host(b, g)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_part_has_the_bits_of_the_whole(seed: u64, density in 0.0f64..1.0, family in 0..FAMILIES.len(), checkpoint: bool) {
        let (b, case) = (Cpu::<f64>::new(1), Case::new(tiny(FAMILIES[family]), seed));
        let (c, weights, batch) = (&case.config, case.upload(&b), batch(&case.config, seed));
        let want = whole(&b, c, &weights, &batch);
        let mut random = Random(seed);
        let (mut grads, chosen) = trained(&b, &case.manifest(), || (random.unit() + 1.0) / 2.0 < density);
        let keep = if checkpoint { Keep::Residuals } else { Keep::All };
        run(&b, c, &weights, &mut grads, &batch, keep);
        let got: Vec<Vec<f64>> = grads.list().into_iter().map(|g| host(&b, g)).collect();
        let want: Vec<Vec<f64>> = chosen.iter().map(|&i| want[i].clone()).collect();
        prop_assert_eq!(got, want);
    }
}

/// Each parameter alone: the shortest way down to it, in every place of every family.
#[test]
fn one_parameter_alone_has_the_bits_of_the_whole() {
    let b = Cpu::<f64>::new(1);
    for family in FAMILIES {
        let case = Case::new(tiny(family), 4);
        let (c, weights, batch) = (&case.config, case.upload(&b), batch(&case.config, 4));
        let want = whole(&b, c, &weights, &batch);
        for (i, name) in case.names().iter().enumerate() {
            let mut at = 0..;
            let (mut grads, _) = trained(&b, &case.manifest(), || at.next() == Some(i));
            run(&b, c, &weights, &mut grads, &batch, Keep::All);
            assert_eq!(host::<_, f64>(&b, grads.list()[0]), want[i], "{family:?}: {name}");
        }
    }
}

/// Weights that are not trained may lie in bf16 under those that are, where it holds them.
#[test]
fn a_backward_through_frozen_weights_has_the_same_bits() {
    let b = Cpu::<f32>::new(2);
    for family in FAMILIES {
        let mut case = Case::new(tiny(family), 9);
        case.weights.iter_mut().flatten().for_each(|x| *x = bf16::from_f64(*x).to_f64());
        let (c, weights, batch) = (&case.config, case.upload(&b), batch(&case.config, 9));
        let dir = TempDir::new().unwrap();
        duel_model::save(&b, dir.path(), c, &weights).unwrap();
        let frozen = duel_model::load_frozen(&b, &Folder::open(dir.path()).unwrap()).unwrap();
        assert!(frozen.bytes(&b) < 4 * case.manifest().parameters(), "something is narrow");
        let mut grads = Model::manifest(c).alloc::<_, f32>(&b).unwrap();
        run(&b, c, &frozen, &mut grads, &batch, Keep::All);
        let got: Vec<Vec<f64>> = grads.iter().into_iter().map(|g| host(&b, g)).collect();
        assert_eq!(got, whole(&b, c, &weights, &batch), "{family:?}");
    }
}

/// Adapters alone have the bits that they have beside trained weights, on any number of threads; and those that add
/// nothing leave the model's own as they are.
#[test]
fn adapters_have_the_bits_of_the_whole() {
    for family in FAMILIES {
        let settings = LoraSettings { r: 2, targets: Modules::All, ..LoraSettings::default() };
        let mut case = Case::new(adapted(tiny(family), settings), 8);
        let b = Cpu::<f32>::new(1);
        let (manifest, batch) = (case.manifest(), batch(&case.config, 8));
        let want = whole(&b, &case.config, &case.upload(&b), &batch);
        let trained: Vec<bool> = manifest.iter().into_iter().map(|s| case.config.trains(s)).collect();
        let want: Vec<Vec<f64>> =
            want.into_iter().zip(&trained).filter(|(_, trained)| **trained).map(|(g, _)| g).collect();
        for (threads, keep) in [(1, Keep::All), (3, Keep::All), (2, Keep::Residuals)] {
            let b = Cpu::<f32>::new(threads);
            let mut grads = Trained::of_model(&b, &case.config, keep).unwrap();
            run(&b, &case.config, &case.upload(&b), &mut grads, &batch, keep);
            let got: Vec<Vec<f64>> = grads.list().into_iter().map(|g| host(&b, g)).collect();
            assert_eq!(got, want, "{family:?} on {threads} threads, {keep:?}");
        }
        let how = How::new(Objective::Dpo);
        let plain = tiny(family);
        let rest = case.weights.iter().zip(&trained).filter(|(_, trained)| !**trained);
        let base = Case { config: plain, weights: rest.map(|(w, _)| w.clone()).collect() };
        for (w, shape) in case.weights.iter_mut().zip(manifest.iter()) {
            if shape.pieces[0].name.contains("lora_B") {
                w.fill(0.0);
            }
        }
        assert_eq!(case.score(&b, &batch, how), base.score(&b, &batch, how), "{family:?}");
    }
}

/// The optimizer takes what is trained, and nothing else moves.
#[test]
fn only_what_is_trained_moves() {
    let b = Cpu::<f64>::new(1);
    let case = Case::new(tiny(Family::Llama), 2);
    let (manifest, mut weights) = (case.manifest(), case.upload(&b));
    let mut grads = Trained::new(&b, &manifest, |s| s.vector).unwrap();
    run(&b, &case.config, &weights, &mut grads, &batch(&case.config, 2), Keep::All);
    let shapes = grads.of(manifest.as_ref()).into_iter().map(|s| (s.len(), s.decays()));
    let adamw = Algorithm::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
    let mut optimizer = Optimizer::new(&b, adamw, shapes).unwrap();
    optimizer.step(&b, grads.of(weights.as_mut()), grads.list(), 0.1, 1.0);
    for ((shape, now), before) in manifest.iter().into_iter().zip(weights.iter()).zip(&case.weights) {
        assert_eq!(now != before, shape.vector, "{}", shape.pieces[0].name);
    }
}
