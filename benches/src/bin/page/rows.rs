//! Which of the benchmarks the page shows, and which steps.

use duel_backend::Gemm;
use duel_benches::gpu::{Case, Gpu, cases};
use duel_benches::models::{self, GPT2, LLAMA, QWEN2};
use duel_benches::pair::{Batch, Pair};
use duel_benches::verb::{Call, Verb, Work, step_calls};
use duel_data::{Builder, Options, Task, Truncation, Whole, pack};
use duel_model::{Config, Keep, Model};
use duel_optim::Algorithm;
use duel_train::Cut;
use duel_train::engine::{Engine, Room};
use duel_train::memory::Bytes;

/// Lengths of sequences at which attention is shown.
const SHOWN_LENGTHS: [usize; 3] = [512, 2048, 8192];

/// The benchmarks that the page shows.
pub fn shown() -> Vec<Case> {
    cases().into_iter().filter(is_shown).collect()
}

/// A selection that can be read: attention at some lengths, the feed-forward's products of Llama-3.2-1B, and each verb
/// that memory bounds at the shape that it has there.
fn is_shown(case: &Case) -> bool {
    let up = |d: Gemm| (d.n, d.k) == (16_384, 2048);
    match case.verb {
        Verb::Attention { batch, .. } | Verb::AttentionBw { batch, .. } => {
            let lone = batch.pair.responses() == 0;
            if lone { SHOWN_LENGTHS.contains(&batch.positions()) } else { case.shape().starts_with("hd64") }
        }
        Verb::Gemm { dims, .. } | Verb::GemmDw(dims) => up(dims),
        Verb::GemmDx(dims) => up(dims) && !case.own,
        Verb::Head { width, .. } => width != 2048 && !case.own,
        Verb::LogProb { rows, .. } | Verb::LogProbBw { rows, .. } => rows == 4096,
        Verb::RmsNorm(d) | Verb::RmsNormBw(d) => d.width == 2048,
        Verb::LayerNorm(_) | Verb::LayerNormBw(_) => true,
        Verb::Rope { .. } | Verb::SwiGlu { .. } | Verb::SwiGluBw { .. } => true,
        Verb::AttentionCached { cached, .. } => cached.prefix == 0,
        Verb::Gelu { .. } | Verb::EmbedBw { .. } | Verb::AdamW(_) => true,
        _ => false,
    }
}

/// The pairs of a step.
pub const STEP: Batch = Batch { pairs: 8, pair: Pair { prompt: 512, chosen: 512, rejected: 384 } };

/// A model that a step is shown of.
pub struct Step {
    /// Its name.
    pub model: &'static str,
    /// Its shape.
    pub config: Config,
}

/// The models.
pub fn steps() -> Vec<Step> {
    [(GPT2, models::gpt2()), (LLAMA, models::llama()), (QWEN2, models::qwen2())]
        .map(|(model, config)| Step { model, config })
        .into()
}

const ADAMW: Algorithm = Algorithm::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };

impl Step {
    /// The room that the trainer plans for such pairs.
    fn room(&self) -> Room {
        let options = Options {
            task: Task::Preference,
            whole: Whole::default(),
            max_length: None,
            truncation: Truncation::KeepStart,
        };
        let mut pairs = Builder::new(&options);
        let tokens = |n| vec![1; n];
        let Pair { prompt, chosen, rejected } = STEP.pair;
        for i in 0..STEP.pairs {
            let added = pairs.push(i + 1, &tokens(prompt), &[&tokens(chosen), &tokens(rejected)]);
            added.expect("a pair of tokens");
        }
        let pairs = pairs.finish().expect("there are pairs");
        Room::for_portions::<Gpu>(Gpu::PORTIONS, &pairs, STEP.pairs, 0, self.config.vocab)
    }

    /// Every call of a step: its micro-batches' passes, as the trainer cuts them, and one update.
    pub fn calls(&self) -> Vec<Call> {
        let groups = std::iter::repeat_n(STEP.pair.rows(), STEP.pairs);
        let micro = pack(groups, self.room().budget);
        let once = |call: &Call| matches!(call.verb, Verb::Zero(_) | Verb::SumSq(_) | Verb::AdamW(_));
        let of = |pairs| step_calls(self.model, &self.config, Batch { pairs, ..STEP });
        let passes = micro.iter().flat_map(|m| of(m.len()).into_iter().filter(|c| !once(c)));
        passes.chain(of(STEP.pairs).into_iter().filter(once)).collect()
    }

    fn parameters(&self) -> usize {
        Model::manifest(&self.config).parameters()
    }

    /// Bytes of weights, gradients, moments and masters: the trainer's own number.
    pub fn state_bytes(&self) -> usize {
        Bytes::of_parameters::<Gpu>(&Model::manifest(&self.config), Keep::All, (ADAMW, Cut::NONE, 0), false)
            .total()
    }

    /// Bytes of activations and of the head's chunk: the trainer's own number.
    pub fn pass_bytes(&self) -> usize {
        Engine::<Gpu>::bytes(&self.config, self.room(), Keep::All).total()
    }

    /// Bytes that the optimizer's update moves.
    pub fn update_bytes(&self) -> u64 {
        let Work::Bytes(bytes) = Verb::AdamW(self.parameters()).work(Case::precision()) else { return 0 };
        bytes
    }
}
