//! A step allocates no buffer: what it needs was allocated before the first one, and as much as was planned.

use duel_backend::{Backend, Storage, Update};
use duel_cpu::Cpu;
use duel_data::{Builder, Options, Task, Truncation, Whole};
use duel_loss::{Head, Row};
use duel_model::decode;
use duel_model::{Config, Keep, Model, Output};
use duel_optim::{Algorithm, Optimizer};
use duel_train::Cut;
use duel_train::critic::Critic;
use duel_train::engine::{Beside, Engine, Room};
use duel_train::memory::Bytes;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The system's allocator, with the size of the largest request and of all that is held.
struct Counting;

static LARGEST: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);

/// One test at a time: the counts are of the whole process. Threads of the one before may still be giving back what
/// they held.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut held = usize::MAX;
    while std::mem::replace(&mut held, HELD.load(Relaxed)) != held {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    alone
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        HELD.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ADAMW: Algorithm = Algorithm::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
const RMSPROP: Algorithm = Algorithm::Rmsprop { alpha: 0.99, eps: 1e-8, weight_decay: 0.0 };

fn config(model_type: &str) -> Config {
    let json = serde_json::json!({
        "model_type": model_type, "vocab_size": 512, "hidden_size": 96, "intermediate_size": 256,
        "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 512, "tie_word_embeddings": true
    });
    Config::from_json(json.as_object().unwrap().clone()).unwrap()
}

/// What is planned is what a device is asked for; beside that there are a few lists of what there is.
#[test]
fn the_plan_is_what_is_allocated() {
    let _alone = alone();
    #[track_caller]
    fn check<T>(plan: usize, make: impl FnOnce() -> T) {
        let before = HELD.load(Relaxed);
        let made = make();
        let held = HELD.load(Relaxed) - before;
        drop(made);
        assert!((plan..plan + 16384).contains(&held), "{held} bytes are held, {plan} were planned");
    }
    let cpu = Cpu::<f32>::new(1);
    let models = ["llama", "qwen3", "gpt2"].map(config);
    for config in &models {
        let manifest = Model::manifest(config);
        let shapes = manifest.iter().into_iter().map(|s| (s.len(), s.decays()));
        for (algorithm, keep) in [(ADAMW, Keep::All), (RMSPROP, Keep::Lend), (ADAMW, Keep::Relay)] {
            let plan = Bytes::of_parameters::<Cpu<f32>>(&manifest, keep, (algorithm, Cut::NONE, 0), true);
            check(plan.total(), || {
                let [weights, reference] = [(); 2].map(|()| manifest.alloc::<Cpu<f32>, f32>(&cpu).unwrap());
                let grads = manifest.gradients(&cpu, keep).unwrap();
                (weights, reference, grads, Optimizer::new(&cpu, algorithm, shapes.clone()).unwrap())
            });
        }
    }
    for config in models.iter().cloned().chain(models.iter().map(|config| config.clone().with_score())) {
        for keep in [Keep::Nothing, Keep::Residuals, Keep::Relay, Keep::All, Keep::Lend] {
            let room = Room::of::<Cpu<f32>>(cpu.portions(), 700, 300, config.vocab);
            let plan = Engine::<Cpu<f32>>::bytes(&config, room, keep).total();
            check(plan, || Engine::new(&cpu, &config, room, keep).unwrap());
            if config.output == Output::Score {
                continue;
            }
            for beside in [(true, false), (false, true), (true, true)] {
                let beside = Beside { reference: beside.0, critic: beside.1 };
                let plan = Engine::<Cpu<f32>>::bytes_with(&config, room, keep, beside).total();
                check(plan, || Engine::with(&cpu, &config, room, keep, beside).unwrap());
            }
        }
        if config.output == Output::Score {
            continue;
        }
        let (width, vocab) = (config.width, config.vocab);
        let plan = Head::<Cpu<f32>>::comparing_bytes(cpu.portions(), width, vocab, 300);
        check(plan, || Head::comparing(&cpu, width, vocab, 300).unwrap());
        let room = decode::Room { sequences: 7, longest: 200, prompts: 900, new_tokens: 100 };
        let plan = decode::Engine::<Cpu<f32>>::plan(cpu.portions(), &config, room);
        check(plan.bytes(), || decode::Engine::new(&cpu, &config, room).unwrap());
        let plan = decode::Engine::<Cpu<f32>>::mixing_plan(cpu.portions(), &config, room);
        check(plan.bytes(), || decode::Engine::mixing(&cpu, &config, room).unwrap());
    }
}

#[test]
fn a_step_allocates_no_buffer() {
    let _alone = alone();
    let config = config("llama");
    let options = Options {
        task: Task::Preference,
        whole: Whole::default(),
        max_length: None,
        truncation: Truncation::KeepStart,
    };
    let mut builder = Builder::new(&options);
    for row in 0..6u32 {
        let tokens = |n: u32, seed: u32| (0..n).map(|i| (i * 97 + seed * 31) % 512).collect::<Vec<u32>>();
        let (prompt, best, worst) = (tokens(90 + row, row), tokens(60, row + 10), tokens(50 + row, row + 20));
        builder.push(row as usize + 1, &prompt, &[&best, &worst]).unwrap();
    }
    let ds = builder.finish().unwrap();
    let ways = [Keep::All, Keep::Lend].map(|keep| [(2, keep, false), (2, keep, true)]);
    for (threads, keep, online) in [(1, Keep::All, false)].into_iter().chain(ways.into_iter().flatten()) {
        let cpu = Cpu::<f32>::new(threads);
        let manifest = Model::manifest(&config);
        let mut seed = 0u64;
        let mut weights = manifest
            .init(&cpu, &config, || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 40) as f64 / (1u64 << 23) as f64 - 1.0
            })
            .unwrap();
        let mut grads = manifest.gradients(&cpu, keep).unwrap();
        // Memory is lent in steps of a single micro-batch.
        let groups = if keep == Keep::Lend { 2 } else { ds.len() };
        let room = Room { rows: 512, ..Room::plan(&cpu, &ds, groups, 512, config.vocab) };
        assert_eq!(room.single, keep == Keep::Lend);
        let beside = Beside { reference: online, critic: online };
        let mut engine = Engine::with(&cpu, &config, room, keep, beside).unwrap();
        let shapes = manifest.iter().into_iter().map(|s| (s.len(), s.decays()));
        let mut optimizer = Optimizer::new(&cpu, ADAMW, shapes).unwrap();
        let mut critic = Critic::<Cpu<f32>>::new(&cpu, config.width).unwrap();
        let reference = manifest.alloc::<Cpu<f32>, f32>(&cpu).unwrap();
        let all: Vec<u32> = (0..groups as u32).collect();
        let mut step = || {
            for g in grads.iter_mut() {
                cpu.zero(g);
            }
            let responses = if online {
                let values = Some(&critic.weight);
                let said = engine.survey(&weights, &reference, values, &ds, &all).unwrap();
                let critic = Some((&critic.weight, &mut critic.gradient));
                let of = |_, _: &[Row], _: &[f64], coefs: &mut [f64], slopes: &mut [f64]| {
                    coefs.fill(0.1);
                    slopes.fill(0.1);
                };
                engine.accumulate_tokens(&weights, &mut grads, critic, &ds, &all, of).unwrap();
                said.len()
            } else {
                engine.accumulate(&weights, &mut grads, &ds, &all, |_, _, c| c.fill(0.1)).unwrap().len()
            };
            let norm: f64 = cpu.square_sums(&grads.iter()).unwrap().iter().sum();
            optimizer.step(&cpu, weights.iter_mut(), grads.iter(), 1e-4, 1.0);
            engine.take_back(&mut grads);
            (responses, norm)
        };
        // Which thread meets the largest task first, and sizes its scratch by it, is up to the scheduler.
        // Of samples the host is told seven numbers a token.
        let smallest_buffer = room.rows * if online { 8 * size_of::<f64>() } else { size_of::<f32>() };
        let largest_of_a_step = || {
            LARGEST.store(0, Relaxed);
            let (responses, norm) = step();
            assert_eq!(responses, 2 * groups);
            assert!(norm > 0.0);
            LARGEST.load(Relaxed)
        };
        let steps: Vec<usize> = std::iter::repeat_with(largest_of_a_step).take(12).collect();
        assert!(
            steps.iter().any(|&largest| largest < smallest_buffer),
            "every step allocates a buffer (the smallest takes {smallest_buffer} bytes): {steps:?}"
        );
        assert!(steps[0] > smallest_buffer, "the first step sizes the scratch: nothing was counted");
    }
}
