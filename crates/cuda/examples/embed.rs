//! Attention and the preference head inside a program that has a CUDA context, a stream and buffers of its own: nothing
//! of `duel-model` or `duel-train`.
//!
//!     cargo run --release --package duel-cuda --example embed
//!
//! The program packs one prompt with two responses, `[prompt | chosen | rejected]`, and wants the DPO loss of the pair
//! and the gradient of its head's weights.

use cudarc::driver::CudaContext;
use duel_backend::{
    Attention, Backend, Error, Gather, Gemm, Grouped, Heads, Layout, LogProbs, Logits, PairObjective,
    Preference, PreferenceOut, Products, ResponseGroups, ResponseSums, Result, RowStats, Rule, Segment,
    Storage,
};
use duel_cuda::{Cuda, Device, Settings};
use half::bf16;
use std::process::ExitCode;

const HEADS: Heads = Heads { heads: 8, kv_heads: 2, head_dim: 64 };
const VOCAB: usize = 32_000;
const PROMPT: usize = 192;
const CHOSEN: usize = 64;
const REJECTED: usize = 48;
const ROWS: usize = PROMPT + CHOSEN + REJECTED;
const BETA: f64 = 0.1;

/// Numbers in (-1, 1) that look random.
fn noise(n: usize, seed: u32) -> Vec<bf16> {
    let hash =
        |i: usize| (i as u32 ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b).rotate_left(13);
    (0..n)
        .map(|i| bf16::from_f32(hash(i).wrapping_mul(0xc2b2_ae35) as f32 / u32::MAX as f32 * 2.0 - 1.0))
        .collect()
}

fn of_cuda(e: cudarc::driver::DriverError) -> Error {
    Error::Device(e.to_string())
}

fn run() -> Result<()> {
    duel_cuda::load_libraries()?;

    // What such a program has: a context, a stream, and memory with its queries, keys and values in it.
    let context = CudaContext::new(0).map_err(of_cuda)?;
    let stream = context.new_stream().map_err(of_cuda)?;
    let qkv = stream.clone_htod(&noise(ROWS * HEADS.qkv_width(), 1)).map_err(of_cuda)?;

    // duel on that stream, and that memory as a buffer, without a copy.
    let cuda = Cuda::<_, bf16>::new(Device::on_stream(stream.clone(), Settings::default())?);
    let qkv = cuda.driver().buffer(qkv);
    println!("{}", cuda.describe());

    // ---- attention: the prompt once, both responses see it ----
    let width = HEADS.q_width();
    let mut layout = Layout::new(&cuda, ROWS)?;
    let response = |start, len| Segment { start, len, prefix_start: 0, prefix_len: PROMPT };
    let prompt = Segment { start: 0, len: PROMPT, prefix_start: 0, prefix_len: 0 };
    let tokens: Vec<u32> = (0..ROWS as u32).map(|i| i * 7919 % VOCAB as u32).collect();
    layout.set(&cuda, &tokens, [prompt, response(PROMPT, CHOSEN), response(PROMPT + CHOSEN, REJECTED)]);
    let (mut hidden, mut lse) = (cuda.alloc(ROWS * width)?, cuda.alloc(ROWS * HEADS.heads)?);
    cuda.attention(&mut hidden, &mut lse, &qkv, &layout, HEADS, HEADS.scores());

    // ---- the head, where a response token is predicted and nowhere else ----
    let scored = CHOSEN + REJECTED;
    let last_of_prompt = PROMPT as u32 - 1;
    let before = |start: usize, len: usize| (start as u32..).take(len - 1);
    let rows: Vec<u32> = std::iter::once(last_of_prompt)
        .chain(before(PROMPT, CHOSEN))
        .chain(std::iter::once(last_of_prompt))
        .chain(before(PROMPT + CHOSEN, REJECTED))
        .collect();
    let (mut index, mut targets) = (cuda.alloc::<u32>(scored)?, cuda.alloc::<u32>(scored)?);
    cuda.upload(&mut index, 0, &rows);
    cuda.upload(&mut targets, 0, &tokens[PROMPT..]);
    let mut w = cuda.alloc(VOCAB * width)?;
    cuda.upload(&mut w, 0, &noise(VOCAB * width, 2));
    let (mut x, mut logits) = (cuda.alloc(scored * width)?, cuda.alloc(scored * VOCAB)?);
    let dims = Gemm::dense(scored, VOCAB, width);
    let of_logits = Logits::dense(scored, VOCAB);
    cuda.gather(&mut x, &hidden, &index, scored, width);
    cuda.gemm(&mut logits, &x, &w, None, None, dims);
    let mut stats = Vec::new();
    for _ in 0..6 {
        stats.push(cuda.alloc::<f32>(scored)?);
    }
    let [logp, lse, entropy, mean_logit, hit, collision] = &mut stats[..] else {
        unreachable!("six were made")
    };
    let of_rows = RowStats { logp, lse, entropy, mean_logit, hit, collision };
    cuda.logprob(of_rows, &logits, &targets, of_logits);

    // ---- the loss on the device, and the gradient of the head ----
    let [logp, lse, entropy, mean_logit, hit, collision] = &mut stats[..] else {
        unreachable!("six were made")
    };
    let of_rows = RowStats { logp, lse, entropy, mean_logit, hit, collision };
    let mut groups = ResponseGroups::new(&cuda, scored)?;
    let content = Grouped {
        first_rows: &[0, CHOSEN as u32, scored as u32],
        first_responses: &[0, 2],
        weights: &[1.0; CHOSEN + REJECTED],
        // The reference model's log-probabilities of both responses, which the program has from elsewhere.
        reference: &[-900.0, -700.0],
        margins: &[0.0],
    };
    groups.set(&cuda, content)?;
    let mut coef = cuda.alloc(scored)?;
    let mut sums = cuda.alloc(2 * ResponseSums::COLUMNS)?;
    let objective = PairObjective {
        // A GPU goes by the word; a program that also runs on the CPU says here what it means.
        host: Box::new(|_, _| unreachable!("this is a GPU")),
        rule: Rule::Sigmoid { label_smoothing: 0.0 },
        beta: BETA,
        share: 1.0,
    };
    cuda.preference(
        PreferenceOut { coef: &mut coef, sums: &mut sums, first: 0 },
        &of_rows,
        &groups,
        &objective,
    );
    cuda.logprob_bw(&mut logits, of_rows.lse, &coef, &targets, None, of_logits);
    let mut dw = cuda.alloc::<f32>(VOCAB * width)?;
    cuda.gemm_dw(&mut dw, &logits, &x, dims);

    // Nothing has waited for the device so far.
    let mut of_responses = [0.0; 2 * ResponseSums::COLUMNS];
    cuda.download(&mut of_responses, &sums, 0)?;
    let [chosen, rejected] = [0, 1].map(|i| {
        let (columns, _) = of_responses.as_chunks::<{ ResponseSums::COLUMNS }>();
        ResponseSums::from(columns[i])
    });
    let margin = BETA * (chosen.logp - content.reference[0] - rejected.logp + content.reference[1]);
    println!("DPO loss {:.4}, reward margin {margin:.4}", chosen.loss);

    // The gradient as the program's own memory, on its own stream.
    let dw = stream.clone_dtoh(&dw.into_slice()).map_err(of_cuda)?;
    println!("norm of the head's gradient {:.4}", dw.iter().map(|x| x * x).sum::<f32>().sqrt());
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
