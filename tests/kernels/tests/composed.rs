//! Whole DPO steps, composed of the kernels on the host emulation, against `Cpu<f32>` and `Cpu<f64>` by the precision
//! rule: whatever the kernels get right alone, they must also get right together.

use duel_backend::{Acc, Backend, Float, Heads, Real};
use duel_cpu::Cpu;
use duel_cuda::{Cuda, CudaReal};
use duel_data::{Dataset, Options, Task, Tokenizer, Truncation, Whole};
use duel_kernel_tests::{Copies, Emulation, Order, Schedule};
use duel_loss::{Head, ResponseStats, sigmoid};
use duel_model::{Config, Family, Folder, Keep, LayerKind, Model, Norm};
use duel_optim::{Algorithm, Optimizer, clip_scale};
use duel_tests::{
    Batch, Case, Group, How, Objective, Random, activations, distance, head, host, norm, shared_data, step,
    tiny,
};
use half::bf16;

const BETA: f64 = 0.1;
const MAX_NORM: f64 = 1.0;
const RATE: f64 = 1e-3;

/// Roundings in `f32` that a result may always be off by, as in the conformance suite.
const FLOOR: f64 = 3.0 * f32::EPSILON as f64;

/// Orders of the residual stream's channels in which `Cpu<f32>` computes a step. The error of a gradient is a sum of
/// the roundings of some fifty verbs, and how far those that matter cancel is chance: in one order or another of the
/// same sums it is twice as large (the largest of these by the least, 1.8 to 2.4 in the mean). One run of `Cpu<f32>`
/// therefore does not say what its precision allows. Over 24 seeds the kernels' error was 0.80 (OLMo 2), 0.91 (Qwen3)
/// and 0.88 (Gemma 3) of the root mean square over these orders, and yet 13 of 1416 gradients were beyond twice that
/// of one of them; none was beyond 0.8 of twice the largest.
const FORMS: u64 = 8;

/// A model, its micro-batches, and what the reference model says of them.
struct Run {
    case: Case,
    batches: Vec<Batch>,
    /// The reference's log-probabilities are the policy's less this a token of the first response of a group, twice
    /// this of the second, and so on. 0 is the first step of a training run.
    drift: f64,
}

/// What a step gives.
struct Outcome {
    loss: f64,
    /// Summed log-probability of every response.
    logps: Vec<f64>,
    grads: Vec<Vec<f64>>,
    updated: Updated,
}

/// A step with the channels of the residual stream in some order: the same function as sums of other orders.
struct Form {
    naive: Outcome,
    right: Outcome,
}

impl Form {
    /// That of order `i`; 0 is as it is.
    fn of(run: &Run, i: u64) -> Self {
        let case = if i == 0 { run.case.clone() } else { reordered(&run.case, i) };
        let run = Run { case, batches: run.batches.clone(), drift: run.drift };
        Form { naive: run.step(&Cpu::<f32>::new(2)), right: run.step(&Cpu::<f64>::new(2)) }
    }
}

/// The same model with the channels of its residual stream in another order.
fn reordered(case: &Case, seed: u64) -> Case {
    let width = case.config.width;
    let mut random = Random(seed);
    let mut order: Vec<usize> = (0..width).collect();
    (1..width).for_each(|i| order.swap(i, random.pick(0..i + 1)));
    // Which of a parameter's axes the stream is: a map out of it reads it along its rows, a map into it has a row for
    // each channel.
    let rows = |values: &mut Vec<f64>| {
        let cols = values.len() / width;
        *values = order.iter().flat_map(|&i| values[i * cols..][..cols].to_vec()).collect();
    };
    let cols = |values: &mut Vec<f64>| {
        *values = values.chunks_exact(width).flat_map(|row| order.iter().map(|&i| row[i])).collect();
    };
    let mut weights = case.weights.clone().into_iter();
    let mut model = case.manifest().as_ref().map(|_| weights.next().expect("weights of every shape"));
    let norms = |norm: Option<&mut Norm<Vec<f64>>>| {
        norm.into_iter()
            .flat_map(|norm| [Some(&mut norm.weight), norm.bias.as_mut()])
            .flatten()
            .for_each(cols);
    };
    for layer in &mut model.layers {
        for norm in [&mut layer.attn_norm, &mut layer.attn_post, &mut layer.mlp_norm, &mut layer.mlp_post] {
            norms(norm.as_mut());
        }
        [&mut layer.qkv.weight, &mut layer.up.weight].into_iter().for_each(cols);
        for map in [&mut layer.out, &mut layer.down] {
            [Some(&mut map.weight), map.bias.as_mut()].into_iter().flatten().for_each(rows);
        }
    }
    norms(Some(&mut model.norm));
    [Some(&mut model.embed), model.positions.as_mut(), model.head.as_mut()]
        .into_iter()
        .flatten()
        .for_each(cols);
    Case { weights: model.into_vec(), config: case.config.clone() }
}

/// What an update gives.
struct Updated {
    /// Of the gradient, before the clip.
    norm: f64,
    weights: Vec<Vec<f64>>,
}

impl Run {
    fn new(case: Case, groups: &[Group], drift: f64) -> Self {
        let batches = groups.chunks(2).map(Batch::packed).collect();
        Run { case, batches, drift }
    }

    fn rows(&self) -> usize {
        self.batches.iter().map(|batch| batch.tokens.len()).max().unwrap_or(0)
    }

    /// Pairs of all groups.
    fn pairs(&self) -> f64 {
        let groups = self.batches.iter().flat_map(|batch| &batch.scored);
        groups.map(|g| g.len() * (g.len() - 1) / 2).sum::<usize>() as f64
    }

    fn head<B: Backend>(&self, b: &B) -> Head<B> {
        head(b, &self.case.config, 64)
    }

    /// Summed log-probability of every response: the forward alone.
    fn score<B: Backend>(&self, b: &B) -> Vec<f64> {
        let weights = self.case.upload(b);
        let mut a = activations(b, &self.case.config, self.rows(), Keep::Nothing);
        let mut head = self.head(b);
        let mut logps = Vec::new();
        for batch in &self.batches {
            duel_model::forward(b, &self.case.config, &weights, &batch.layout(b), &mut a);
            let targets = batch.targets();
            let rows = head.score(b, weights.head(), &a.hidden, &targets).expect("the device works");
            logps.extend(targets.sums(rows).iter().map(|s| s.logp));
        }
        logps
    }

    /// A reference pass, a forward and backward of every micro-batch, a clip and an update.
    fn step<B: Backend>(&self, b: &B) -> Outcome {
        let reference = self.score(b);
        let config = &self.case.config;
        let weights = self.case.upload(b);
        let mut grads = self.case.manifest().alloc::<B, B::Acc>(b).expect("room for a test");
        let mut a = activations(b, config, self.rows(), Keep::All);
        let mut head = self.head(b);
        let (mut loss, mut logps) = (0.0, Vec::new());
        for batch in &self.batches {
            let mut first = logps.len();
            let objective = |stats: &[ResponseStats], coefs: &mut [f64]| {
                let drift = |i: usize| self.drift * ((i + 1) * stats[i].tokens) as f64;
                let score = |i: usize| stats[i].score(reference[first + i] - drift(i));
                coefs.fill(0.0);
                for chosen in 0..stats.len() {
                    for rejected in chosen + 1..stats.len() {
                        let pair = sigmoid(BETA, 0.0, score(chosen), score(rejected));
                        loss += pair.value / self.pairs();
                        coefs[chosen] += pair.d_chosen / self.pairs();
                        coefs[rejected] += pair.d_rejected / self.pairs();
                    }
                }
                first += stats.len();
            };
            let stats = step(b, config, &weights, &mut grads, &mut a, &mut head, batch, objective);
            logps.extend(stats.iter().map(|s| s.logp));
        }
        let updated = self.update(b, weights, &grads);
        b.finish().unwrap_or_else(|e| panic!("{e}"));
        Outcome { loss, logps, grads: all::<B, B::Acc>(b, &grads), updated }
    }

    /// A clip and an update by these gradients.
    fn update<B: Backend>(&self, b: &B, mut weights: Model<Real<B>>, grads: &Model<Acc<B>>) -> Updated {
        let squares = b.square_sums(&grads.iter()).expect("the device works");
        let norm = squares.iter().sum::<f64>().sqrt();
        let parameters = self.case.manifest();
        let parameters = parameters.iter().into_iter().map(|s| (s.len(), s.decays()));
        let adamw = Algorithm::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
        let mut optimizer = Optimizer::new(b, adamw, parameters).expect("room for a test");
        optimizer.step(b, weights.iter_mut(), grads.iter(), RATE, clip_scale(norm, MAX_NORM));
        Updated { norm, weights: all::<B, B::Real>(b, &weights) }
    }

    /// The same by gradients of another backend.
    fn update_by<B: Backend>(&self, b: &B, grads: &[Vec<f64>]) -> Updated {
        let mut on_device = self.case.manifest().alloc::<B, B::Acc>(b).expect("room for a test");
        for (buf, grad) in on_device.iter_mut().into_iter().zip(grads) {
            let grad: Vec<B::Acc> = grad.iter().map(|&g| B::Acc::from_f64(g)).collect();
            b.upload(buf, 0, &grad);
        }
        self.update(b, self.case.upload(b), &on_device)
    }
}

/// Every parameter on the host.
fn all<B: Backend, T: Float>(b: &B, model: &Model<B::Buf<T>>) -> Vec<Vec<f64>> {
    model.iter().into_iter().map(|buf| host::<B, T>(b, buf)).collect()
}

/// Checks that `got` is as near to `right` as the precision rule asks, where the same in the same precision may be
/// `excused` of it away.
fn check(what: &str, got: &[f64], right: &[f64], excused: f64) {
    let error = distance(got, right);
    assert!(
        error <= 2.0 * excused + FLOOR,
        "{what}: relative error {error:.3e}, that of Cpu<f32> is {excused:.3e}"
    );
}

fn emulation(order: Order) -> Cuda<Emulation, f32> {
    Cuda::new(Emulation::new(Schedule { os_threads: 2, ..Schedule::new(order, Copies::Lazy) }))
}

/// One step on the emulation, compared.
fn check_step(run: &Run) {
    let forms: Vec<Form> = (0..FORMS).map(|i| Form::of(run, i)).collect();
    let Form { naive, right } = &forms[0];
    let got = run.step(&emulation(Order::Forward));
    if run.drift == 0.0 {
        // The policy is the reference: every log-ratio is exactly 0.
        assert_eq!(got.loss, naive.loss, "the loss of the first step");
        assert!(
            (got.loss - std::f64::consts::LN_2).abs() <= 4.0 * f64::EPSILON,
            "the loss of the first step"
        );
    }
    let largest = |error: &dyn Fn(&Form) -> f64| forms.iter().map(error).fold(0.0, f64::max);
    let excused = largest(&|form| distance(&form.naive.logps, &form.right.logps));
    check("log-probabilities", &got.logps, &right.logps, excused);
    // The loss changes by at most BETA for each unit of a log-probability.
    let rounding = BETA * FLOOR * norm(&right.logps);
    let (error, excused) =
        ((got.loss - right.loss).abs(), largest(&|form| (form.naive.loss - form.right.loss).abs()));
    assert!(error <= 2.0 * excused + rounding, "loss: error {error:.3e}, that of Cpu<f32> is {excused:.3e}");
    for (i, name) in run.case.names().iter().enumerate() {
        let excused = largest(&|form| distance(&form.naive.grads[i], &form.right.grads[i]));
        check(&format!("gradient of {name}"), &got.grads[i], &right.grads[i], excused);
    }
    // The update by the same gradients: AdamW's first step turns a gradient that is nearly 0 by its sign.
    let (right, naive) =
        (run.update_by(&Cpu::<f64>::new(2), &got.grads), run.update_by(&Cpu::<f32>::new(2), &got.grads));
    let excused = distance(&[naive.norm], &[right.norm]);
    check("gradient norm", &[got.updated.norm], &[right.norm], excused);
    for (i, name) in run.case.names().iter().enumerate() {
        let (got, naive, right) = (&got.updated.weights[i], &naive.weights[i], &right.weights[i]);
        check(&format!("updated {name}"), got, right, distance(naive, right));
    }
}

/// Groups of pairs and of a ranking, one of them without a prompt.
fn random_groups(vocab: usize) -> Vec<Group> {
    let mut random = Random(11);
    let mut groups = vec![
        random.group(vocab, 3..9, 2, 2..9),
        random.group(vocab, 3..9, 3, 1..6),
        random.group(vocab, 3..9, 2, 4..9),
    ];
    groups[1].prompt.clear();
    groups
}

fn check_random_model(config: Config) {
    let groups = random_groups(config.vocab);
    let mut case = Case::new(config, 17);
    // What is compared has the same weights in either precision.
    case.weights.iter_mut().flatten().for_each(|w| *w = f64::from(*w as f32));
    for drift in [0.0, 0.2] {
        check_step(&Run::new(case.clone(), &groups, drift));
    }
}

#[test]
fn a_step_of_a_llama() {
    check_random_model(tiny(Family::Llama));
}

#[test]
fn a_step_of_a_qwen2() {
    check_random_model(tiny(Family::Qwen2));
}

#[test]
fn a_step_of_a_qwen3() {
    check_random_model(tiny(Family::Qwen3));
}

#[test]
fn a_step_of_a_gpt2() {
    check_random_model(tiny(Family::Gpt2));
}

#[test]
fn a_step_of_a_gpt_neox() {
    check_random_model(tiny(Family::GptNeoX));
}

/// A whole norm is of as many keys as queries on a device.
#[test]
fn a_step_of_an_olmo2() {
    let olmo2 = tiny(Family::Olmo2);
    let heads = Heads { kv_heads: olmo2.heads.heads, ..olmo2.heads };
    check_random_model(Config { heads, ..olmo2 });
}

/// What Gemma has and kernels know: its gate, norms, their place and their factors above 1, a scaled embedding, a scale
/// of scores of its own, capped logits; and not its windows and its capped scores.
#[test]
fn a_step_of_most_of_a_gemma() {
    let (kinds, logit_cap) = (vec![LayerKind::default()], Some(3.0));
    check_random_model(Config { kinds, logit_cap, ..tiny(Family::Gemma3) });
}

/// What has no kernel is named before it is computed; a window that no sequence leaves is none.
#[test]
fn what_has_no_kernel_is_refused() {
    let b = emulation(Order::Forward);
    let check = |family, positions| tiny(family).check_device(&b, positions);
    let refused = |family, positions| check(family, positions).unwrap_err().to_string();
    assert!(refused(Family::Mistral, 4).contains("sees 3 of 4 positions (`sliding_window`)"));
    assert!(refused(Family::Gemma2, 3).contains("`attn_logit_softcapping`"));
    for (family, positions) in [(Family::Mistral, 3), (Family::Gemma3, 4), (Family::Llama, 64)] {
        assert_eq!(check(family, positions), Ok(()));
    }
    assert!(refused(Family::Olmo2, 64).contains("a norm of all queries and of fewer keys"));
    assert!(refused(Family::GptJ, 64).contains("the bias of a head of 19 words"));
    assert_eq!(tiny(Family::Gemma2).check_device(&Cpu::<f32>::new(1), 64), Ok(()));
}

/// The order in which the emulation lets threads run changes no bit of a step.
#[test]
fn a_step_is_reproducible() {
    let config = tiny(Family::Llama);
    let run = Run::new(Case::new(config.clone(), 17), &random_groups(config.vocab), 0.2);
    let first = run.step(&emulation(Order::Forward));
    for order in [Order::Reverse, Order::Random(5)] {
        let again = run.step(&emulation(order));
        assert_eq!((again.loss, again.logps), (first.loss, first.logps.clone()), "{order:?}");
        assert!(again.grads == first.grads, "{order:?}");
        assert!(again.updated.weights == first.updated.weights, "{order:?}");
    }
}

/// Gradients in the memory of activations, of the same type and of a narrower one, are those with memory of their own.
#[test]
fn lent_memory_does_not_change_a_bit() {
    fn check<R: CudaReal>(case: &Case, batch: &[Batch]) {
        let b = Cuda::<_, R>::new(Emulation::new(Schedule::new(Order::Forward, Copies::Lazy)));
        let how = How::new(Objective::Dpo);
        let twice = [batch, batch].concat();
        let own = case.run(&b, batch, how).grads;
        assert!(case.lent(&b, &twice, how).iter().all(|lent| *lent == own), "{}", b.describe());
    }
    let case = Case::new(Config { layers: 3, ..tiny(Family::Qwen3) }, 17);
    let batch = [Batch::packed(&random_groups(case.config.vocab))];
    check::<f32>(&case, &batch);
    check::<bf16>(&case, &batch);
}

/// stories260k on the shortest pairs of the shared data, where that is there.
fn stories(pairs: usize) -> Option<Run> {
    let folder = shared_data("models/stories260k")?;
    let rows = shared_data("preference/rasbt_polite_pairs.jsonl")?;
    let model = Folder::open(&folder).expect("a model");
    let cpu = Cpu::<f32>::new(1);
    let weights = duel_model::load(&cpu, &model).expect("weights");
    let options = Options {
        task: Task::Preference,
        whole: Whole::default(),
        max_length: None,
        truncation: Truncation::KeepStart,
    };
    let tokenizer = Tokenizer::from_dir(&folder).expect("a tokenizer");
    let dataset = Dataset::load(&rows, &tokenizer, &options).expect("rows");
    let mut groups: Vec<Group> = dataset
        .groups()
        .map(|g| Group { prompt: g.prompt.to_vec(), responses: g.responses().map(<[u32]>::to_vec).collect() })
        .collect();
    groups.sort_by_key(|g| g.prompt.len() + g.responses.iter().map(Vec::len).sum::<usize>());
    groups.truncate(pairs);
    let case = Case { config: model.config().clone(), weights: all::<_, f32>(&cpu, &weights) };
    Some(Run::new(case, &groups, 0.0))
}

#[test]
fn a_step_of_stories260k() {
    if let Some(run) = stories(3) {
        check_step(&run);
    }
}

/// The forward alone in bf16: as near to the same weights in double precision as `Cpu<bf16>` is.
#[test]
fn scores_of_stories260k_in_bf16() {
    let Some(mut run) = stories(2) else { return };
    for w in run.case.weights.iter_mut().flatten() {
        *w = bf16::from_f64(*w).to_f64();
    }
    let right = run.score(&Cpu::<f64>::new(2));
    let naive = run.score(&Cpu::<bf16>::new(2));
    for compute_capability in [80, 90] {
        let driver = Emulation::new(Schedule::new(Order::Forward, Copies::Lazy));
        let b = Cuda::<_, bf16>::new(driver.with_compute_capability(compute_capability));
        check(&b.describe(), &run.score(&b), &right, distance(&naive, &right));
    }
}
