"""Adapters between duel and PEFT, on tiny random models that are made here: what duel trains and saves is loaded in PEFT,
what PEFT saves in duel, beside the model and merged with it.

    DUEL=target/release/duel python3 -m unittest discover -s tests/transformers

Skipped, and said so, where transformers, PEFT or the binary is not.
"""

import sys
import unittest

from tiny import GPT2, LLAMA, MISSING, ROWS, Compared, made, seeing

try:
    import peft
except ImportError as e:
    MISSING = MISSING or f"{e}; pip install peft"

if not MISSING:
    import torch

NEOX = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
TURNED = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}

# Each a name, transformers' type, and its shape: maps that are apart in files, in one matrix, head by head, on their
# side, and turned.
CASES = [
    ("llama", "llama", LLAMA),
    ("gemma2", "gemma2", {**LLAMA, "head_dim": 8}),
    ("gpt2", "gpt2", GPT2),
    ("gpt_neox", "gpt_neox", {**NEOX, "hidden_size": 32, "rope_parameters": TURNED}),
    ("gptj", "gptj", {**GPT2, "rotary_dim": 4}),
    ("phi3", "phi3", {**LLAMA, "embd_pdrop": 0.0, "resid_pdrop": 0.0}),
]
SETTINGS = [
    ("all", ["--lora-r", 3, "--lora-alpha", 5, "--lora-target-modules", "all-linear"]),
    ("rank-stabilised", ["--lora-r", 2, "--lora-alpha", 7, "--use-rslora", "--lora-target-modules", "all-linear"]),
]


@unittest.skipIf(MISSING, MISSING)
class Adapters(Compared):
    def check(self, model, path, name, settings):
        """An adapter of duel for the folder at `path`, which is that of `model` in double precision."""
        out, merged = path / name, path / f"{name}-merged"
        self.duel(
            *("train", "--method", "sft", "--model", path, "--dataset", self.rows, "--output-dir", out, *settings),
            *("--max-steps", 3, "--learning-rate", 0.03, "--lr-scheduler-type", "constant"),
            *("--per-device-train-batch-size", len(ROWS), "--save-strategy", "no", "--device", "cpu"),
        )
        before = self.all_logps(model)
        adapted = peft.PeftModel.from_pretrained(model, out).double().eval()
        self.assertGreater((self.all_logps(adapted) - before).abs().max().item(), 0.1, "nothing was trained")
        self.check_logps(adapted, out)
        self.duel("merge", "--model", out, "--output-dir", merged)
        alone = self.loads(merged).double()
        # The sums of the merged matrices are rounded to single precision once more.
        self.assertTrue(torch.allclose(self.all_logps(alone), self.all_logps(adapted), atol=1e-4))
        again = adapted.merge_and_unload()
        self.check_logps(again, merged)

    def all_logps(self, model):
        with torch.no_grad():
            return torch.cat([self.logps(model, prompt, answer) for prompt, answers in ROWS for answer in answers])

    def test_adapters_of_duel_in_peft(self):
        for name, kind, shape in CASES:
            for way, settings in SETTINGS:
                with self.subTest(f"{name}, {way}"):
                    path = self.folder / name
                    self.save(made(kind, shape), path)
                    self.check(self.loads(path).double(), path, way, settings)

    def test_an_adapter_of_a_text_model_inside_one_that_sees_pictures(self):
        path = self.folder / "whole"
        self.save(seeing(), path)
        way, settings = SETTINGS[0]
        self.check(self.loads(path).double(), path, way, settings)

    def test_adapters_of_peft_in_duel(self):
        for name, kind, shape in [*CASES, ("whole", None, None)]:
            with self.subTest(name):
                path, out = self.folder / name, self.folder / f"{name}-adapter"
                self.save(made(kind, shape) if kind else seeing(), path)
                model = self.loads(path)
                targets = r".*language_model.*\.(q_proj|down_proj)" if kind is None else "all-linear"
                config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=targets, task_type="CAUSAL_LM")
                adapted = peft.get_peft_model(model, config)
                adapted.base_model.model.name_or_path = str(path)
                torch.manual_seed(3)
                with torch.no_grad():
                    for tensor, weight in adapted.named_parameters():
                        if "lora_B" in tensor:
                            weight.copy_(0.3 * torch.randn(weight.shape))
                adapted.peft_config["default"].base_model_name_or_path = str(path)
                adapted.save_pretrained(out)
                self.check_logps(adapted.double().eval(), out)


if MISSING:
    print(f"SKIPPED: adapters are not compared with PEFT: {MISSING}", file=sys.stderr)

if __name__ == "__main__":
    unittest.main()
