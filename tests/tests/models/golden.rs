//! Real and tiny models against numbers that PyTorch and transformers computed in single precision.

use duel_backend::{Backend, Real, Segment};
use duel_cpu::Cpu;
use duel_data::Tokenizer;
use duel_loss::Targets;
use duel_model::decode::{Engine, Request, Room, Sampling};
use duel_model::{Config, Folder, Keep, Model, Weights};
use duel_optim::{Algorithm, Optimizer};
use duel_tests::golden::{assert_close, check_gradients, ids, numbers};
use duel_tests::{
    Batch, TempDir, TensorFile, activations, distance, head, host, logits, merge, norm, shared_data, step,
};
use half::{bf16, f16};
use serde_json::{Value, json};
use std::path::Path;

type Device = Cpu<f32>;

fn device() -> Device {
    Cpu::new(2)
}

fn opened<B: Backend>(b: &B, dir: &Path) -> (Config, Model<Real<B>>) {
    let folder = Folder::open(dir).unwrap();
    (folder.config().clone(), duel_model::load(b, &folder).unwrap())
}

fn open(dir: &Path, b: &Device) -> (Config, Model<Real<Device>>, Value) {
    let (config, model) = opened(b, dir);
    let expected = std::fs::read_to_string(dir.join("expected.json")).unwrap();
    (config, model, serde_json::from_str(&expected).unwrap())
}

/// Log-probability of every token of a text but the first: each scored as if it were a response of its own.
fn token_logps(b: &Device, c: &Config, w: &Model<Real<Device>>, tokens: &[u32]) -> Vec<f64> {
    let mut targets = Targets::default();
    let one = |i| Segment { start: i, len: 1, prefix_start: 0, prefix_len: i };
    targets.push_group(tokens, (1..tokens.len()).map(one), &[]);
    let mut a = activations(b, c, tokens.len(), Keep::Nothing);
    duel_model::forward(b, c, w, &Batch::text(tokens).layout(b), &mut a);
    let mut head = head(b, c, tokens.len());
    let rows = head.score(b, w.view().lm_head(), &a.hidden, &targets).unwrap();
    targets.sums(rows).iter().map(|s| s.logp).collect()
}

/// Logits of every row of a text.
fn text_logits(b: &Device, c: &Config, w: &Model<Real<Device>>, tokens: &[u32]) -> Vec<f64> {
    let mut a = activations(b, c, tokens.len(), Keep::Nothing);
    duel_model::forward(b, c, w, &Batch::text(tokens).layout(b), &mut a);
    logits(b, c, w, &a, tokens.len())
}

fn golden(architecture: &str) {
    let Some(dir) = shared_data(architecture) else { return };
    let b = device();
    let (config, mut model, expected) = open(&dir, &b);
    let tokens = ids(&expected["ids"]);
    let tokenizer = Tokenizer::from_dir(&dir).unwrap();
    assert_eq!(tokenizer.encode(expected["text"].as_str().unwrap(), true).unwrap(), tokens);

    // Both sides round to single precision in another order: a few roundings of 6e-8 a layer, on logits of size 1.
    let logits = text_logits(&b, &config, &model, &tokens);
    let last = &logits[(tokens.len() - 1) * config.vocab..];
    assert_close("logits", &last[..32], &numbers(&expected["logits_last"]), 1e-5, 1.0);
    // PyTorch's norm of two million singles is itself 3.2e-5 below that of the same numbers in double precision.
    let want = expected["logits_norm"].as_f64().unwrap();
    assert_close("norm of the logits", &[norm(&logits)], &[want], 1e-4, want);
    let logp = token_logps(&b, &config, &model, &tokens);
    assert_close("logp", &logp, &numbers(&expected["logp"]), 1e-5, 10.0);

    // Greedy decoding before the weights change.
    let want = ids(&expected["greedy_32"]);
    // Up to 32 tokens, fewer where a text ended.
    let (prompt, new) = want.split_at(8);
    assert_eq!(prompt, &tokens[..8]);
    assert_eq!(greedy(&b, &config, &model, &[prompt], new.len())[0], new);

    let parameters: Vec<(usize, bool)> =
        Model::manifest(&config).iter().into_iter().map(|s| (s.len(), true)).collect();
    let adamw = Algorithm::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    let mut optimizer = Optimizer::new(&b, adamw, parameters).unwrap();
    let mut a = activations(&b, &config, tokens.len(), Keep::All);
    let mut head = head(&b, &config, tokens.len());
    let (batch, scored) = (Batch::text(&tokens), (tokens.len() - 1) as f64);
    let want = numbers(&expected["adamw_lr1e-3_wd0.01_losses"]);
    for (i, &want) in want.iter().enumerate() {
        let mut grads = Model::manifest(&config).alloc::<Device, f32>(&b).unwrap();
        let stats = step(&b, &config, &model, &mut grads, &mut a, &mut head, &batch, |_, coefs| {
            coefs.fill(-1.0 / scored);
        });
        let loss = -stats[0].logp / scored;
        if i == 0 {
            assert_close("loss", &[loss], &[expected["loss"].as_f64().unwrap()], 1e-6, loss);
            let all: Vec<Vec<f64>> = grads.iter().into_iter().map(|g| host(&b, g)).collect();
            let mut grads = expected["grads"].clone();
            if let Some(of_file) = expected.get("grads_by_file_name") {
                // Where transformers calls a head otherwise while it computes than in files.
                grads.as_object_mut().unwrap().remove("lm_head.weight");
                merge(&mut grads, of_file.clone());
            }
            check_gradients(&config, &all, &grads, 0.0);
        }
        // Both losses are rounded to 6e-8 and drift apart by little more; a weight decay of the wrong sign would
        // show as 4e-5 after ten steps.
        assert_close(&format!("loss after {i} steps"), &[loss], &[want], 3e-6, want);
        optimizer.step(&b, model.iter_mut(), grads.iter(), 1e-3, 1.0);
    }
    assert_eq!(want.len(), 10);
}

#[test]
fn llama() {
    golden("golden/llama");
}

#[test]
fn gpt2() {
    golden("golden/gpt2");
}

#[test]
fn qwen2() {
    golden("golden/qwen2");
}

#[test]
fn qwen3() {
    golden("golden/qwen3");
}

#[test]
fn mistral() {
    golden("golden2/mistral");
}

#[test]
fn gemma2() {
    golden("golden2/gemma2");
}

#[test]
fn gemma3() {
    golden("golden2/gemma3_text");
}

#[test]
fn gptj() {
    golden("golden2/gptj");
}

#[test]
fn phi() {
    golden("golden2/phi");
}

#[test]
fn phi3() {
    golden("golden2/phi3");
}

#[test]
fn smollm3() {
    golden("golden2/smollm3");
}

#[test]
fn olmo2() {
    golden("golden2/olmo2");
}

#[test]
fn llama_bias_linear() {
    golden("golden2/llama_bias_linear");
}

#[test]
fn llama_yarn() {
    golden("golden2/llama_yarn");
}

#[test]
fn gpt2_relu() {
    golden("golden2/gpt2_relu");
}

#[test]
fn gpt2_gelu() {
    golden("golden2/gpt2_gelu");
}

#[test]
fn gpt_neox() {
    golden("golden2/gpt_neox");
}

fn greedy(b: &Device, c: &Config, w: &Model<Real<Device>>, prompts: &[&[u32]], n: usize) -> Vec<Vec<u32>> {
    let requests = Request::each(prompts);
    let mut engine = Engine::new(b, c, Room::of(requests.iter().copied(), prompts.len(), n)).unwrap();
    let drawn = engine.generate(b, w, &requests, &Sampling::greedy(n), &[]).unwrap();
    drawn.flat().into_iter().map(|completion| completion.tokens).collect()
}

/// Continuations, logits and log-probabilities of a trained model; all prompts are decoded together.
fn trained(model: &str) {
    let Some(dir) = shared_data(&format!("models/{model}")) else { return };
    let b = device();
    let (config, model, expected) = open(&dir, &b);
    let tokenizer = Tokenizer::from_dir(&dir).unwrap();
    let cases = expected.as_array().unwrap();
    let prompts: Vec<Vec<u32>> = cases.iter().map(|case| ids(&case["ids"])).collect();
    let wants: Vec<Vec<u32>> = cases.iter().map(|case| ids(&case["greedy"])).collect();
    let new = wants[0].len() - prompts[0].len();
    let prompt_slices: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let outs = greedy(&b, &config, &model, &prompt_slices, new);
    for (((case, prompt), want), out) in cases.iter().zip(&prompts).zip(&wants).zip(&outs) {
        let text = case["prompt"].as_str().unwrap();
        assert_eq!(&tokenizer.encode(text, true).unwrap(), prompt);
        assert_eq!([&prompt[..], out].concat(), *want, "continuation of {text:?}");
        let logits = text_logits(&b, &config, &model, prompt);
        let last = &logits[(prompt.len() - 1) * config.vocab..];
        assert_close("logits", &last[..16], &numbers(&case["logits_last_first16"]), 1e-5, 10.0);
        let logp = token_logps(&b, &config, &model, want);
        let sum = case["sum_logp"].as_f64().unwrap();
        assert_close("sum of the log-probabilities", &[logp.iter().sum()], &[sum], 2e-6, sum.abs());
    }
}

#[test]
fn stories260k() {
    trained("stories260k");
}

#[test]
fn babyllama() {
    trained("babyllama-1m");
}

fn all_values(b: &Device, model: &Model<Real<Device>>) -> Vec<Vec<f64>> {
    model.iter().into_iter().map(|w| host(b, w)).collect()
}

fn copy_config(from: &Path, to: &Path) {
    std::fs::copy(from.join("config.json"), to.join("config.json")).unwrap();
}

/// What is saved has the tensors of the file that was loaded, bit for bit, and loads again.
#[test]
fn saving_and_loading_changes_no_bit() {
    let first = ["golden/llama", "golden/gpt2", "golden/qwen2", "golden/qwen3", "models/stories260k"];
    for name in first.into_iter().chain([
        "golden2/gpt_neox",
        "golden2/gptj",
        "golden2/phi",
        "golden2/phi3",
        "golden2/olmo2",
        "golden2/llama_yarn",
        "golden2/mistral",
        "golden2/gemma2",
        "golden2/gemma3_text",
    ]) {
        let Some(dir) = shared_data(name) else { return };
        let b = device();
        let (config, model) = opened(&b, &dir);
        let out = TempDir::new().unwrap();
        duel_model::save(&b, out.path(), &config, &model).unwrap();
        let (again, loaded) = opened(&b, out.path());
        assert!(again.is_like(&config), "{name}");
        assert_eq!(all_values(&b, &loaded), all_values(&b, &model), "{name}");

        let [before, after] = [&*dir, out.path()].map(|d| TensorFile::read(&d.join("model.safetensors")));
        assert_eq!(after.names(), before.names(), "{name}");
        for tensor in before.names() {
            assert_eq!(after.header[&tensor]["shape"], before.header[&tensor]["shape"], "{name}: {tensor}");
            assert_eq!(after.header[&tensor]["dtype"], before.header[&tensor]["dtype"], "{name}: {tensor}");
            assert!(after.tensor(&tensor) == before.tensor(&tensor), "{name}: {tensor} has other bits");
        }
        assert_eq!(after.header["__metadata__"]["format"], "pt", "transformers asks for it");
    }
}

/// Tensors dealt to three files with an index are the same model.
#[test]
fn a_sharded_folder_is_the_same_model() {
    let Some(dir) = shared_data("golden/qwen3") else { return };
    let b = device();
    let whole = TensorFile::read(&dir.join("model.safetensors"));
    let out = TempDir::new().unwrap();
    copy_config(&dir, out.path());
    let mut weight_map = serde_json::Map::new();
    for shard in 0..3 {
        let file = format!("model-{:05}-of-00003.safetensors", shard + 1);
        let names: Vec<String> = whole.names().into_iter().skip(shard).step_by(3).collect();
        for name in &names {
            weight_map.insert(name.clone(), Value::String(file.clone()));
        }
        let part = whole.select(&names, "F32", <[u8]>::to_vec);
        std::fs::write(out.path().join(file), part.bytes()).unwrap();
    }
    let index = json!({"metadata": {"total_size": whole.data.len()}, "weight_map": weight_map});
    std::fs::write(out.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let load = |dir: &Path| all_values(&b, &opened(&b, dir).1);
    assert_eq!(load(out.path()), load(&dir));
}

/// Files in half precision load as the numbers that they hold.
#[test]
fn half_precision_files_load() {
    let Some(dir) = shared_data("models/stories260k") else { return };
    let b = device();
    let whole = TensorFile::read(&dir.join("model.safetensors"));
    let singles = all_values(&b, &opened(&b, &dir).1);
    // The bits of the half-precision number, and what it is worth.
    type Half = fn(f32) -> ([u8; 2], f64);
    let to_bf16: Half = |x| (bf16::from_f32(x).to_le_bytes(), bf16::from_f32(x).to_f64());
    let to_f16: Half = |x| (f16::from_f32(x).to_le_bytes(), f16::from_f32(x).to_f64());
    for (dtype, half) in [("BF16", to_bf16), ("F16", to_f16)] {
        let file = whole.select(&whole.names(), dtype, |bytes| {
            let singles = bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap()));
            singles.flat_map(|x| half(x).0).collect()
        });
        let out = TempDir::new().unwrap();
        copy_config(&dir, out.path());
        std::fs::write(out.path().join("model.safetensors"), file.bytes()).unwrap();
        let loaded = all_values(&b, &opened(&b, out.path()).1);
        for (got, single) in loaded.iter().zip(&singles) {
            assert!(got.iter().zip(single).all(|(&g, &s)| g == half(s as f32).1));
            assert!(distance(got, single) < 0.01);
        }
    }
}

/// In bfloat16 what is saved loads again bit for bit, and says so in its config.
#[test]
fn bfloat16_models_survive_saving() {
    let Some(dir) = shared_data("golden/gpt2") else { return };
    let b = Cpu::<bf16>::new(1);
    let (config, model) = opened(&b, &dir);
    let out = TempDir::new().unwrap();
    duel_model::save(&b, out.path(), &config, &model).unwrap();
    let (again, loaded) = opened(&b, out.path());
    assert_eq!(again.json["dtype"], "bfloat16");
    for (a, w) in loaded.iter().into_iter().zip(model.iter()) {
        assert!(a == w);
    }
    assert_eq!(
        TensorFile::read(&out.path().join("model.safetensors")).header["transformer.wte.weight"]["dtype"],
        "BF16"
    );
}
