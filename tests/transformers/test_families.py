"""Every family against transformers, on tiny random models that are made here: log-probabilities, the gradient's norm,
continuations over the cache, and the folder that a run leaves, loaded again.

    DUEL=target/release/duel python3 -m unittest discover -s tests/transformers

Skipped, and said so, where transformers or the binary is not.
"""

import json
import sys
import unittest

from tiny import EOS, GPT2, LLAMA, MISSING, ROWS, Compared, made, seeing, words

if not MISSING:
    import torch

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


@unittest.skipIf(MISSING, MISSING)
class Families(Compared):
    def check(self, model, path):
        """`model` of transformers, in double precision, and its folder under duel."""
        self.check_logps(model, path)
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

    def test_families(self):
        for name, kind, shape, more in CASES:
            with self.subTest(name):
                model = made(kind, shape, **more)
                path = self.folder / name.replace(" ", "-")
                self.save(model, path)
                run = self.check(self.loads(path).double(), path)
                again = self.loads(run).state_dict()
                for tensor, values in model.state_dict().items():
                    self.assertTrue(torch.equal(values, again[tensor]), tensor)

    def test_a_text_model_inside_one_that_sees_pictures(self):
        model = seeing()
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
