"""Every family against transformers, on tiny random models that are made here: log-probabilities, the gradient's norm,
continuations over the cache, and the folder that a run leaves, loaded again.

    DUEL=target/release/duel python3 -m unittest discover -s tests/transformers

Skipped, and said so, where transformers or the binary is not.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARIES = [os.environ.get("DUEL"), TARGET / "release/duel", TARGET / "debug/duel"]
DUEL = next((Path(path) for path in BINARIES if path and Path(path).exists()), None)

try:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    MISSING = None if DUEL else "no binary of duel; build it (cargo build --package duel), or name it as DUEL"
except ImportError as e:
    MISSING = f"{e}; pip install torch transformers"

WORDS = 43
EOS = 1
LLAMA = {
    "vocab_size": WORDS,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": EOS,
    "pad_token_id": None,
}
GPT2 = {
    "vocab_size": WORDS,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": None,
    "eos_token_id": EOS,
    "attn_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
}
NEOX = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
SMALL_PHI = {**LLAMA, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 3.0,
    "low_freq_factor": 0.7,
    "high_freq_factor": 5.0,
    "original_max_position_embeddings": 20,
}
YARN = {"rope_type": "yarn", "rope_theta": 300.0, "factor": 2.5, "original_max_position_embeddings": 24}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 900.0,
    "original_max_position_embeddings": 24,
    "short_factor": [1.0, 1.3, 1.9],
    "long_factor": [1.5, 2.5, 7.0],
}


def rope(**keys):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, **keys}}


def twice(full, local):
    return {"rope_parameters": {"full_attention": full, "sliding_attention": local}}


# Each a name, transformers' type, and keys beside the shape above.
CASES = [
    ("llama", "llama", LLAMA, {}),
    ("llama, one key head, wide heads, tied", "llama", LLAMA, {"num_key_value_heads": 1, "head_dim": 10, "tie_word_embeddings": True}),
    ("llama, every bias", "llama", LLAMA, {"attention_bias": True, "mlp_bias": True}),
    ("llama, linear", "llama", LLAMA, rope(rope_type="linear", factor=3.5)),
    ("llama, dynamic", "llama", LLAMA, rope(rope_type="dynamic", factor=2.0)),
    ("llama, llama3", "llama", LLAMA, {"rope_parameters": LLAMA3}),
    ("llama, yarn", "llama", LLAMA, {"rope_parameters": {**YARN, "beta_fast": 9.0, "beta_slow": 2.0}}),
    ("llama, yarn, mscale, not truncated", "llama", LLAMA, {"rope_parameters": {**YARN, "mscale": 0.8, "mscale_all_dim": 0.6, "truncate": False}}),
    ("llama, longrope", "llama", LLAMA, {"rope_parameters": {**LONG, "factor": 2.0}}),
    ("mistral", "mistral", LLAMA, {"sliding_window": 3, "head_dim": 8}),
    ("mistral, a window of one", "mistral", LLAMA, {"sliding_window": 1, "num_key_value_heads": 4}),
    ("mistral, no window", "mistral", LLAMA, {"sliding_window": None, "tie_word_embeddings": True}),
    ("mistral, a window beyond the text", "mistral", LLAMA, {"sliding_window": 60}),
    ("qwen2", "qwen2", LLAMA, {}),
    ("qwen2, windows", "qwen2", LLAMA, {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "tie_word_embeddings": True}),
    ("qwen3", "qwen3", LLAMA, {"head_dim": 10, "attention_bias": True}),
    ("qwen3, yarn", "qwen3", LLAMA, {"head_dim": 8, "rope_parameters": {**YARN, "attention_factor": 1.3}}),
    ("gemma", "gemma", LLAMA, {"head_dim": 8}),
    ("gemma, untied, one key head, erf said", "gemma", LLAMA, {"head_dim": 6, "num_key_value_heads": 1, "tie_word_embeddings": False}),
    ("gemma2", "gemma2", LLAMA, {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 11, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 4.0}),
    ("gemma3", "gemma3_text", LLAMA, {"head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 7, "layer_types": ["sliding_attention", "full_attention"], **twice({"rope_type": "linear", "rope_theta": 800.0, "factor": 4.0}, {"rope_type": "default", "rope_theta": 70.0})}),
    ("gemma3, capped logits", "gemma3_text", LLAMA, {"head_dim": 6, "sliding_window": 64, "final_logit_softcapping": 3.0, "num_key_value_heads": 1}),
    ("gpt2", "gpt2", GPT2, {}),
    ("gpt2, untied, relu", "gpt2", GPT2, {"tie_word_embeddings": False, "activation_function": "relu", "n_inner": 31}),
    ("gpt_neox", "gpt_neox", NEOX, rope(partial_rotary_factor=0.75)),
    ("gpt_neox, in turn, without biases", "gpt_neox", {**NEOX, "hidden_size": 32}, {"use_parallel_residual": False, "attention_bias": False, **rope(partial_rotary_factor=0.25), "tie_word_embeddings": True}),
    ("gptj", "gptj", GPT2, {"rotary_dim": 4}),
    ("gptj, all turn", "gptj", GPT2, {"rotary_dim": 6, "n_inner": 30}),
    ("phi", "phi", SMALL_PHI, rope(partial_rotary_factor=0.34)),
    ("phi, wide", "phi", {**SMALL_PHI, "hidden_size": 32}, {"num_key_value_heads": 1, **rope(partial_rotary_factor=0.75)}),
    ("phi, norms of heads", "phi", {**SMALL_PHI, "hidden_size": 32}, {"qk_layernorm": True, **rope(partial_rotary_factor=0.75)}),
    ("phi3", "phi3", SMALL_PHI, {"sliding_window": 5}),
    ("phi3, in part, longrope", "phi3", {**SMALL_PHI, "hidden_size": 32}, {"original_max_position_embeddings": 24, "rope_parameters": {**LONG, "partial_rotary_factor": 0.75}}),
    ("smollm3", "smollm3", LLAMA, {"num_hidden_layers": 4}),
    ("smollm3, windows", "smollm3", LLAMA, {"no_rope_layers": [1, 0], "use_sliding_window": True, "sliding_window": 3, "attention_bias": True, "mlp_bias": True}),
    ("olmo2", "olmo2", LLAMA, {"attention_bias": True}),
    ("olmo2, as many keys", "olmo2", LLAMA, {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    ("granite", "granite", LLAMA, {"embedding_multiplier": 3.0, "residual_multiplier": 0.22, "attention_multiplier": 0.4, "logits_scaling": 1.7, "rms_norm_eps": 0.01}),
    ("granite, every bias, tied", "granite", LLAMA, {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "residual_multiplier": 2.0}),
    ("starcoder2", "starcoder2", LLAMA, {"sliding_window": 4, "norm_epsilon": 0.01}),
    ("starcoder2, without biases, untied", "starcoder2", LLAMA, {"use_bias": False, "tie_word_embeddings": False, "num_key_value_heads": 1}),
]

# Prompts, and two answers each, as ids. The last are longer than what LongRoPE calls short here.
ROWS = [
    ([5, 9, 23, 4, 17, 31, 8], [[12, 40, 3, 3, 29, 11, 6], [7, 22]]),
    ([2], [[19, 36], [28, 10, 41, 5, 14]]),
    (list(range(2, 30)), [[33, 12, 8], [30, 39, 16, 25, 9, 4]]),
]


def words(ids):
    return " ".join(f"w{i}" for i in ids)


@unittest.skipIf(MISSING, MISSING)
class Families(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.rows = self.folder / "rows.jsonl"
        rows = [{"prompt": words(p), "chosen": " " + words(a), "rejected": " " + words(b)} for p, (a, b) in ROWS]
        self.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def duel(self, *args):
        done = subprocess.run([DUEL, *map(str, args)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def save(self, model, path):
        """With random weights and a tokenizer of words."""
        torch.manual_seed(7)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                noise = 0.3 * torch.randn(weight.shape)
                # Gains stay around what they are fresh: 1, or 0 where 1 is added to them.
                weight.copy_(weight.round().clamp(0, 1) + noise if weight.dim() == 1 else noise)
        model.save_pretrained(path)
        vocabulary = {"</s>" if i == EOS else f"w{i}": i for i in range(WORDS)}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
        tokenizer.add_special_tokens(["</s>"])
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.save(str(path / "tokenizer.json"))
        (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))

    def logps(self, model, prompt, answer):
        """Of the answer's tokens and the one that ends it."""
        ids = torch.tensor([prompt + answer + [EOS]])
        logits = model(ids).logits[0, :-1].double()
        return logits.log_softmax(-1).gather(1, ids[0, 1:, None])[len(prompt) - 1 :, 0]

    def check(self, model, path):
        """`model` of transformers, in double precision, and its folder under duel."""
        out = path / "eval.jsonl"
        self.duel("eval", "--model", path, "--dataset", self.rows, "--output", out, "--device", "cpu")
        said = [json.loads(line) for line in out.read_text().splitlines()[1:]]
        for (prompt, answers), row in zip(ROWS, said, strict=True):
            for answer, logp in zip(answers, row["logps"], strict=True):
                want = self.logps(model, prompt, answer).sum().item()
                # Roundings of single precision, of duel's and of what transformers has in it whatever the weights are.
                self.assertAlmostEqual(logp, want, delta=1e-5 * (1 + abs(want)))
        run = path / "run"
        self.duel(
            *("train", "--method", "sft", "--model", path, "--dataset", self.rows, "--output-dir", run),
            *("--max-steps", 1, "--learning-rate", 1e-30, "--weight-decay", 0, "--max-grad-norm", 0),
            *("--per-device-train-batch-size", len(ROWS), "--logging-steps", 1, "--save-strategy", "no"),
            *("--device", "cpu"),
        )
        metrics = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
        model.zero_grad()
        loss = -torch.cat([self.logps(model, prompt, chosen) for prompt, (chosen, _) in ROWS]).mean()
        loss.backward()
        norm = sum((w.grad**2).sum().item() for w in model.parameters() if w.grad is not None) ** 0.5
        self.assertAlmostEqual(metrics["loss"], loss.item(), delta=1e-5 * (1 + loss.item()))
        self.assertAlmostEqual(metrics["grad_norm"], norm, delta=3e-5 * norm)
        prompt = ROWS[0][0]
        args = ("generate", "--model", path, "--max-new-tokens", 16, "--device", "cpu")
        text = self.duel(*args, "--prompt", words(prompt))
        drawn = [int(word[1:]) for word in text.split()]
        with torch.no_grad():
            rows = model(torch.tensor([prompt + drawn])).logits[0, len(prompt) - 1 : -1]
        for row, token in zip(rows, drawn, strict=True):
            self.assertLess((row.max() - row[token]).item(), 1e-4)
        return run

    def loads(self, path):
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            path, attn_implementation="eager", output_loading_info=True, dtype=torch.float32
        )
        self.assertFalse(any(info.values()), info)
        return model

    def test_families(self):
        for name, kind, shape, more in CASES:
            with self.subTest(name):
                config = transformers.AutoConfig.for_model(kind, **{**shape, **more})
                model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
                path = self.folder / name.replace(" ", "-")
                self.save(model, path)
                run = self.check(self.loads(path).double(), path)
                again = self.loads(run).state_dict()
                for tensor, values in model.state_dict().items():
                    self.assertTrue(torch.equal(values, again[tensor]), tensor)

    def test_a_text_model_inside_one_that_sees_pictures(self):
        text = {**LLAMA, "head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 7}
        vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = transformers.Gemma3Config(
            text_config=text, vision_config={**vision, "image_size": 8, "patch_size": 4}, eos_token_id=EOS
        )
        model = transformers.Gemma3ForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
        path = self.folder / "whole"
        self.save(model, path)
        run = self.check(model.double(), path)
        again = self.loads(run).double()
        for prompt, answers in ROWS:
            for answer in answers:
                got, want = (self.logps(m, prompt, answer) for m in (again, model))
                self.assertTrue(torch.allclose(got, want, atol=1e-5), (got, want))


if MISSING:
    print(f"SKIPPED: families are not compared with transformers: {MISSING}", file=sys.stderr)

if __name__ == "__main__":
    unittest.main()
