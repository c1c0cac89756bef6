//! `--device`: the whole program on a GPU's code path, on the stand-in for CUDA's libraries, against the CPU; and what
//! it says where there is no GPU.

use crate::common::{self, Ended, RESULT, Run, Temp, assert_same, shared_data};
use duel_cpu::Cpu;
use duel_train::config::Options;
use duel_train::train;
use half::bf16;
use safetensors::{Dtype, SafeTensors};
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};

/// Runs commands where the stand-in is found before anything of NVIDIA's.
struct StandIn {
    temp: Temp,
    path: OsString,
}

impl StandIn {
    fn new(name: &str) -> Self {
        let temp = Temp::with_model(name);
        let path = duel_cuda_standin::install(&temp.path("libraries")).unwrap();
        StandIn { temp, path }
    }

    /// Six steps on the device into `out`.
    fn run(&self, out: &str) -> Run {
        let mut run = Run::new(&self.temp, out).set("device", "cuda");
        run.forget("threads");
        run
    }

    fn command(&self, run: &Run, more: &[(&str, &str)]) -> Command {
        let mut command = run.command();
        command.env("LD_LIBRARY_PATH", &self.path).env("XDG_CACHE_HOME", self.temp.path("cubins"));
        command.env_remove("CUDA_VISIBLE_DEVICES").envs(more.iter().copied());
        command
    }

    fn go(&self, run: &Run, more: &[(&str, &str)]) -> Ended {
        Ended::of(self.command(run, more).output().unwrap())
    }

    /// Starts it on ranks with a GPU each, as `torchrun` would start one on each of as many machines.
    fn ranks<const N: usize>(&self, run: &Run, more: [&[(&str, &str)]; N]) -> [Child; N] {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        std::array::from_fn(|i| {
            let (size, rank) = (N.to_string(), i.to_string());
            let launch =
                [("WORLD_SIZE", &*size), ("RANK", &rank), ("LOCAL_RANK", "0"), ("NCCL_HOSTID", &rank)];
            let met = [("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &port)];
            self.command(run, &[&launch[..], &met, more[i]].concat()).spawn().unwrap()
        })
    }

    fn ok(&self, run: &Run, more: &[(&str, &str)]) -> String {
        let ended = self.go(run, more);
        assert_eq!(ended.code, Some(0), "{:?}:\n{}", run.args(), ended.stderr);
        ended.stderr
    }
}

/// Every number of a model's file.
fn weights(path: &Path) -> Vec<f64> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut names = file.names();
    names.sort_unstable();
    let tensors = names.into_iter().map(|name| file.tensor(name).unwrap());
    let numbers = tensors.flat_map(|t| match t.dtype() {
        Dtype::BF16 => {
            let number = |b: &[u8]| bf16::from_le_bytes([b[0], b[1]]).to_f64();
            t.data().chunks_exact(2).map(number).collect::<Vec<f64>>()
        }
        Dtype::F32 => {
            let number = |b: &[u8]| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            t.data().chunks_exact(4).map(number).collect()
        }
        Dtype::F64 => t.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        other => panic!("weights in {other:?}"),
    });
    numbers.collect()
}

/// Distance of two curves or models, relative to the norm of the second.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

/// What is compared of a run: its curves, and how far its weights went.
fn curves(run: &Run) -> Vec<(&'static str, Vec<f64>)> {
    let names = ["loss", "grad_norm", "rewards/margins", "logps/chosen", "logps/rejected", "entropy"];
    names.into_iter().map(|name| (name, run.metric(name))).collect()
}

/// The same run on the CPU, in the same precision.
fn on_the_cpu(run: &Run, out: &Path) -> Run {
    let run = run.clone().set("device", "cpu").set("threads", 1).set("output-dir", out.display());
    run.ok();
    run
}

/// The same run in double precision, in this process.
fn in_double(run: &Run, out: &Path) -> Run {
    let value = |text: &str| match text.parse::<f64>() {
        Ok(_) => text.to_string(),
        Err(_) => format!("'{text}'"),
    };
    let lines = run.options().iter().filter(|(key, _)| !["device", "bf16"].contains(&key.as_str()));
    let toml: String = lines.map(|(key, text)| format!("{key} = {}\n", value(text))).collect();
    let mut options = Options::parse(&toml).unwrap();
    options.output_dir = Some(out.into());
    train(&Cpu::<f64>::new(1), &duel_comm::Alone, &options.resolve().unwrap()).unwrap();
    run.clone().set("output-dir", out.display())
}

/// The precision rule over a whole run: its curves and its weights are as near to those in double precision as a run on
/// the CPU in the same precision is, to a factor of two and `floor` roundings.
fn follows_the_cpu(name: &str, bits: &[(&str, &str)], bf16_run: bool) {
    let gpu = StandIn::new(name);
    let run = gpu.run("gpu").set("bf16", bf16_run);
    let said = gpu.ok(&run, bits);
    assert!(said.contains("duel stand-in"), "{said}");
    let right = in_double(&run, &gpu.temp.path("right"));
    let naive = on_the_cpu(&run, &gpu.temp.path("naive"));
    let epsilon = if bf16_run { 1.0 / 256.0 } else { f64::from(f32::EPSILON) };
    for (((what, got), (_, naive)), (_, right)) in curves(&run).iter().zip(curves(&naive)).zip(curves(&right))
    {
        let (error, excused) = (distance(got, &right), distance(&naive, &right));
        eprintln!("{name}: {what}: error {error:.3e}, naive {excused:.3e}");
        assert!(error <= 2.0 * excused + 3.0 * epsilon, "{name}: {what}: {error:e}, naive {excused:e}");
    }
    let of = |run: &Run| weights(&run.out().join("model.safetensors"));
    let (error, excused) = (distance(&of(&run), &of(&right)), distance(&of(&naive), &of(&right)));
    eprintln!("{name}: weights: error {error:.3e}, naive {excused:.3e}");
    assert!(error <= 2.0 * excused + 3.0 * epsilon, "{name}: weights: {error:e}, naive {excused:e}");
    assert_eq!(run.metric("loss")[0], std::f64::consts::LN_2, "the policy begins as the reference");
}

#[test]
fn a_run_in_float32_follows_the_cpu() {
    follows_the_cpu("f32", &[], false);
}

#[test]
fn a_run_in_bfloat16_follows_the_cpu() {
    follows_the_cpu("bf16", &[], true);
}

#[test]
fn a_run_on_duels_own_products_follows_the_cpu() {
    follows_the_cpu("own", &[("DUEL_CUBLASLT", "0")], true);
}

#[test]
fn a_run_on_an_older_device_follows_the_cpu() {
    follows_the_cpu("older", &[("DUEL_STANDIN_CAPABILITY", "80")], true);
}

/// Twice the same, and stopped and continued, to the bit; in bf16, where the masters must come back too.
#[test]
fn runs_are_reproducible_and_resume_to_the_bit() {
    let gpu = StandIn::new("again");
    let (a, b) = (gpu.run("a"), gpu.run("b").set("save-steps", 2).set("save-total-limit", "none"));
    gpu.ok(&a, &[]);
    gpu.ok(&b, &[]);
    assert_same(&a, &b, RESULT);
    // As if it had been stopped after the second step.
    for later in ["model.safetensors", "checkpoint-4", "checkpoint-6"] {
        let path = b.out().join(later);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap()
        } else {
            std::fs::remove_file(path).unwrap()
        }
    }
    gpu.ok(&b.clone().resume(), &[]);
    assert_same(&a, &b, RESULT);
    // Checkpoints of another precision are no continuation.
    let ended = gpu.go(&b.clone().resume().set("bf16", false), &[]);
    assert!(ended.error().contains("bf16 was true and is now false"), "{}", ended.error());
}

/// Ranks that send each other gradients and weights over NCCL end in the bytes of one process, with gradients of one
/// layer at a time too; and go on where one process stopped.
#[test]
fn ranks_over_nccl_write_the_same_files() {
    let gpu = StandIn::new("ranks");
    let run = |out: &str| gpu.run(out).set("gradient-shares", 2).set("max-steps", 3).set("save-steps", 2);
    let whole = |ranks: [Child; 2]| {
        let [first, other] = ended(ranks);
        assert!(first.code == Some(0) && other.code == Some(0), "{}\n{}", first.stderr, other.stderr);
        first.stderr
    };
    let (one, two) = (run("one"), run("two").set("gradient-checkpointing", true));
    gpu.ok(&one, &[]);
    let said = whole(gpu.ranks(&two, [&[]; 2]));
    assert!(said.contains("2 processes"), "{said}");
    assert_same(&one, &two, RESULT);
    std::fs::remove_file(one.out().join("model.safetensors")).unwrap();
    std::fs::remove_dir_all(one.out().join("checkpoint-3")).unwrap();
    whole(gpu.ranks(&one.clone().resume(), [&[]; 2]));
    assert_same(&one, &two, RESULT);
}

fn ended<const N: usize>(ranks: [Child; N]) -> [Ended; N] {
    ranks.map(|rank| Ended::of(rank.wait_with_output().unwrap()))
}

/// A rank that is killed, or whose GPU has too little memory, ends the run of all with one error that names it.
#[test]
fn a_rank_that_is_lost_is_named_by_the_others() {
    let gpu = StandIn::new("lost");
    let run = gpu.run("killed").set("gradient-shares", 2).set("max-steps", 1000).set("save-steps", 1);
    let [first, mut other] = gpu.ranks(&run, [&[]; 2]);
    while run.checkpoints().is_empty() {
        assert!(other.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    other.kill().unwrap();
    let [first, _] = ended([first, other]);
    assert!(first.error().contains("rank 1"), "{}", first.stderr);
    assert!(run.half_written().is_empty(), "{:?}", run.half_written());

    let run = gpu.run("memory").set("gradient-shares", 2);
    let [first, other] = ended(gpu.ranks(&run, [&[], &[("DUEL_STANDIN_MEMORY", "34000000")]]));
    assert!(first.code != Some(0) && other.code != Some(0), "{}\n{}", first.stderr, other.stderr);
    let said = first.error();
    assert!(said.contains("rank 1") && said.contains("memory"), "{said}");
    // There is no launcher here that ends it before it says so itself.
    assert_eq!(other.error(), said);
}

/// GPT-2 brings GELU, LayerNorm, biases and learned positions; recomputed activations may not change a bit.
#[test]
fn checkpointed_activations_of_a_gpt2_give_the_same_bits() {
    let gpu = StandIn::new("gpt2");
    let vocab = duel_experiments::grammar::vocabulary().len() + 3;
    let config = serde_json::json!({
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": vocab, "n_embd": 32, "n_layer": 2,
        "n_head": 4, "n_positions": 64, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
        "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": true, "torch_dtype": "float32"
    });
    common::write_model(&gpu.temp.path("gpt2"), config);
    let run = |out: &str| gpu.run(out).set("model", gpu.temp.path("gpt2").display()).set("max-steps", 3);
    let (all, recomputed) = (run("all"), run("recomputed").set("gradient-checkpointing", true));
    gpu.ok(&all, &[]);
    gpu.ok(&recomputed, &[]);
    assert_same(&all, &recomputed, RESULT);
    assert!(all.metric("loss")[2] < std::f64::consts::LN_2, "nothing was learned");
}

/// An evaluation with samples and their KL, and a run that keeps no checkpoints, on the device.
#[test]
fn evaluation_and_samples_run_on_the_device() {
    let gpu = StandIn::new("evaluation");
    let run = gpu
        .run("out")
        .set("max-steps", 2)
        .set("eval-dataset", gpu.temp.path("eval.jsonl").display())
        .set("generate-during-eval", true)
        .set("max-new-tokens", 6)
        .set("save-strategy", "no");
    let said = gpu.ok(&run, &[]);
    assert!(said.contains("more while their KL is measured"), "{said}");
    assert_eq!(run.metric("eval_kl").len(), 1, "{said}");
    assert!(run.metric("eval_loss")[0].is_finite());
    assert_eq!(String::from_utf8(run.file("samples.jsonl")).unwrap().lines().count(), 4);
    assert!(run.checkpoints().is_empty());
    assert!(!run.file("model.safetensors").is_empty());
}

/// Decoding repeats recorded work from the third token on.
#[test]
fn generation_gives_the_tokens_of_the_cpu() {
    let gpu = StandIn::new("generate");
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duel"));
        command.args(["generate", "--bf16=false", "--max-new-tokens", "12", "--device"]).args(args);
        command.arg("--model").arg(gpu.temp.path("model")).args(["--prompt", "the film was"]);
        command.env("LD_LIBRARY_PATH", &gpu.path).env("XDG_CACHE_HOME", gpu.temp.path("cubins"));
        command.output().unwrap()
    };
    let generate = |device: &str| {
        let output = run(&[device]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = generate("cpu");
    assert!(text.split_whitespace().count() > 3, "{text}");
    assert_eq!(generate("cuda:0"), text);
    let refused = Ended::of(run(&["cuda:0", "--load-in-8bit"]));
    assert!(refused.error().contains("weights in blocks have no products on"), "{}", refused.stderr);
}

#[test]
fn auto_takes_the_gpu_and_the_run_says_which() {
    let gpu = StandIn::new("auto");
    let run = gpu.run("out").set("device", "auto").set("max-steps", 1);
    let said = gpu.ok(&run, &[]);
    assert!(said.contains("duel stand-in") && said.contains("GB were in use at most"), "{said}");
    let written = String::from_utf8(run.file("duel.toml")).unwrap();
    assert!(written.contains("device = \"cuda:0\"") && written.contains("bf16 = true"), "{written}");
    let results: serde_json::Value = serde_json::from_slice(&run.file("train_results.json")).unwrap();
    assert!(results["peak_device_bytes"].as_u64().is_some_and(|peak| peak > 0), "{results}");
    assert_eq!(results["step_seconds"].as_array().map(Vec::len), Some(1), "{results}");
}

/// Wherever memory ends, the run ends with one sentence that says what to do.
#[test]
fn too_little_memory_is_one_error() {
    let gpu = StandIn::new("memory");
    let run = gpu.run("out").set("max-steps", 1).set("overwrite-output-dir", true);
    gpu.ok(&run, &[]);
    let results: serde_json::Value = serde_json::from_slice(&run.file("train_results.json")).unwrap();
    let peak = results["peak_device_bytes"].as_u64().unwrap();
    // Beside what the run counts there is the workspace of cuBLASLt.
    for eighths in 0..8 {
        let limit = ((32 << 20) + peak * eighths / 8).to_string();
        let ended = gpu.go(&run, &[("DUEL_STANDIN_MEMORY", &limit)]);
        let error = ended.error();
        // By the plan, or where that leaves out what the device has beside.
        let said = ["of memory are free", "out of memory"].iter().any(|what| error.contains(what));
        for (part, is) in ["max_length", "micro_batch_tokens"].map(|part| (part, error.contains(part))) {
            assert!(said && is, "{eighths}/8 of the memory, without {part}: {error}");
        }
    }
}

#[test]
fn a_device_that_is_not_there_is_one_error() {
    let gpu = StandIn::new("absent");
    let error = |device: &str, more: &[(&str, &str)]| {
        let ended = gpu.go(&gpu.run("out").set("device", device), more);
        ended.error().to_string()
    };
    assert!(error("cuda:1", &[]).contains("there is no device 1: the NVIDIA driver shows 1"));
    assert!(error("cuda", &[("DUEL_STANDIN_CAPABILITY", "75")]).contains("the kernels need 8.0 or more"));
    let hidden = error("cuda", &[("CUDA_VISIBLE_DEVICES", "")]);
    assert!(hidden.contains("CUDA_VISIBLE_DEVICES") && hidden.contains("--device cpu"), "{hidden}");
}

/// A machine without a driver: this one, unless it has one.
#[test]
fn without_a_driver_cuda_is_an_error_and_auto_is_the_cpu() {
    if duel_cuda::has_driver() {
        use std::io::Write as _;
        drop(writeln!(std::io::stderr(), "SKIPPED: there is a driver here"));
        return;
    }
    let temp = Temp::with_model("no-driver");
    let run = Run::new(&temp, "out").set("max-steps", 1);
    let mut on_gpu = run.clone().set("device", "cuda");
    on_gpu.forget("threads");
    let ended = on_gpu.go();
    for part in ["libcuda", "LD_LIBRARY_PATH", "--device cpu"] {
        assert!(ended.error().contains(part), "{part}: {}", ended.error());
    }
    let said = run.ok();
    assert!(said.contains("device auto: the CPU, since there is no NVIDIA driver"), "{said}");
}

/// stories260k on real pairs, where they are there: two steps of DPO on the stand-in follow those of the CPU.
#[test]
fn stories260k_follows_the_cpu() {
    let Some(shared) = shared_data("stories260k_follows_the_cpu") else { return };
    let gpu = StandIn::new("stories");
    let rows = std::fs::read_to_string(shared.join("preference/rasbt_polite_pairs.jsonl")).unwrap();
    let shortest: String = rows.lines().filter(|l| l.len() < 200).take(8).map(|l| format!("{l}\n")).collect();
    std::fs::write(gpu.temp.path("train.jsonl"), shortest).unwrap();
    let run = gpu.run("gpu").set("model", shared.join("models/stories260k").display());
    let run = run.set("bf16", false).set("max-steps", 2).set("per-device-train-batch-size", 4);
    gpu.ok(&run, &[]);
    let right = in_double(&run, &gpu.temp.path("right"));
    let naive = on_the_cpu(&run, &gpu.temp.path("naive"));
    for (((what, got), (_, naive)), (_, right)) in curves(&run).iter().zip(curves(&naive)).zip(curves(&right))
    {
        let (error, excused) = (distance(got, &right), distance(&naive, &right));
        eprintln!("stories260k: {what}: error {error:.3e}, naive {excused:.3e}");
        let floor = 3.0 * f64::from(f32::EPSILON);
        assert!(error <= 2.0 * excused + floor, "stories260k: {what}: {error:e}, naive {excused:e}");
    }
}

/// Times that the host waits for the device in a step: the difference between runs of one step and of three, which find
/// what the reference says in the cache.
fn waits_a_step(gpu: &StandIn, run: &Run) -> usize {
    let waits = |steps: usize| {
        let file = gpu.temp.path(&format!("waits-{steps}"));
        let run = run.clone().set("max-steps", steps).set("overwrite-output-dir", true);
        gpu.ok(&run, &[("DUEL_STANDIN_WAITS", file.to_str().unwrap())]);
        let said = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        said.lines().count()
    };
    let (one, three) = (waits(1), waits(3));
    assert_eq!((three - one) % 2, 0, "{one} waits in one step, {three} in three");
    (three - one) / 2
}

/// A step of sigmoid, ipo or hinge waits for the norm of its gradient and for its statistics, however many
/// micro-batches it has; one whose objective the host makes waits in each.
#[test]
fn a_step_of_pairs_does_not_wait_between_forward_and_backward() {
    let gpu = StandIn::new("waits");
    let run = gpu.run("waits").set("micro-batch-tokens", 64);
    gpu.ok(&run, &[]);
    for loss in ["sigmoid", "ipo", "hinge"] {
        assert_eq!(waits_a_step(&gpu, &run.clone().set("loss-type", loss)), 2, "{loss}");
    }
    let on_host = run.set("loss-type", "exo_pair").set("label-smoothing", 0.1);
    assert!(waits_a_step(&gpu, &on_host) > 10);
}
