//! Text drawn by the engine, timed: duel's side of `peers/generate.py`.
//!
//! `generate MODEL WORK.json OUT.json [--load-in-8bit]`: the work has `prompts` (lists of token ids), `samples` of
//! each, `new_tokens`, `temperature` and `seed`. No token ends a sequence, so that all contestants draw as many. A
//! first, short call is not timed.

use duel_backend::Backend;
use duel_cpu::Cpu;
use duel_model::decode::{Engine, Request, Room, Sampling};
use duel_model::{Folder, load_frozen, load_in_8bit};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

struct Work {
    prompts: Vec<Vec<u32>>,
    samples: usize,
    how: Sampling,
    threads: usize,
}

impl Work {
    fn of(work: &Value) -> Option<Self> {
        let prompt =
            |prompt: &Value| prompt.as_array()?.iter().map(|t| t.as_u64()?.try_into().ok()).collect();
        let count = |name: &str| work[name].as_u64().map(|n| n as usize);
        let how = Sampling {
            max_new_tokens: count("new_tokens")?,
            temperature: work["temperature"].as_f64()?,
            seed: work["seed"].as_u64()?,
            ..Sampling::default()
        };
        let prompts = work["prompts"].as_array()?.iter().map(prompt).collect::<Option<_>>()?;
        Some(Work { prompts, samples: count("samples")?, how, threads: count("threads")? })
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (model, work, out, blocks) = match args[..] {
        [model, work, out] => (model, work, out, false),
        [model, work, out, "--load-in-8bit"] => (model, work, out, true),
        _ => {
            eprintln!("generate MODEL WORK.json OUT.json [--load-in-8bit]");
            return ExitCode::from(2);
        }
    };
    match run(Path::new(model), Path::new(work), Path::new(out), blocks) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::FAILURE
        }
    }
}

fn run(model: &Path, work: &Path, out: &Path, blocks: bool) -> Result<(), String> {
    let about = |path: &Path, e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let text = std::fs::read_to_string(work).map_err(|e| about(work, &e))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| about(work, &e))?;
    let missing = || about(work, &"one of its six keys is missing or of another type");
    let Work { prompts, samples, how, threads } = Work::of(&value).ok_or_else(missing)?;
    let isa = duel_cpu::instruction_set().map_err(|e| e.to_string())?;
    let folder = Folder::open(model).and_then(Folder::language_model).map_err(|e| e.to_string())?;
    let (cpu, config) = (Cpu::<f32>::new(threads), folder.config().clone());
    let weights = if blocks { load_in_8bit(&cpu, &folder) } else { load_frozen(&cpu, &folder) };
    let weights = weights.map_err(|e| e.to_string())?;
    drop(folder);

    let requests = Request::repeated(&prompts, samples);
    let sequences = requests.iter().map(|r| r.samples).sum();
    let room = Room::of(requests.iter().copied(), sequences, how.max_new_tokens);
    eprintln!("{}; {}", cpu.describe(), Engine::<Cpu<f32>>::plan(cpu.portions(), &config, room));
    let mut engine = Engine::new(&cpu, &config, room).map_err(|e| e.to_string())?;
    let mut draw = |requests: &[Request<'_>], max_new_tokens| {
        let how = Sampling { max_new_tokens, ..how };
        engine.generate(&cpu, &weights, requests, &how, &[]).map_err(|e| e.to_string())
    };
    draw(&requests[..requests.len().min(1)], how.max_new_tokens.min(2))?;
    let begin = Instant::now();
    let drawn = draw(&requests, how.max_new_tokens)?;
    let seconds = begin.elapsed().as_secs_f64();
    let pace = drawn.pace;
    let result = json!({
        "isa": isa.to_string(), "weight_bytes": weights.bytes(&cpu), "seconds": seconds, "prefill_seconds": pace.prefill.as_secs_f64(),
        "prompt_tokens": pace.prompt_tokens, "new_tokens": pace.new_tokens,
        "completions": drawn.flat().into_iter().map(|c| c.tokens).collect::<Vec<_>>(),
    });
    std::fs::write(out, result.to_string()).map_err(|e| about(out, &e))
}
