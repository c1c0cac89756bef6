"""What the comparisons with transformers share: tiny random models in folders of their own, texts for them, and duel's
binary."""

import json
import os
import subprocess
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

# Prompts, and two answers each, as ids. The last are longer than what LongRoPE calls short here.
ROWS = [
    ([5, 9, 23, 4, 17, 31, 8], [[12, 40, 3, 3, 29, 11, 6], [7, 22]]),
    ([2], [[19, 36], [28, 10, 41, 5, 14]]),
    (list(range(2, 30)), [[33, 12, 8], [30, 39, 16, 25, 9, 4]]),
]


def words(ids):
    return " ".join(f"w{i}" for i in ids)


def made(kind, shape, **more):
    """A model of a type of transformers."""
    config = transformers.AutoConfig.for_model(kind, **{**shape, **more})
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def seeing():
    """A text model inside one that sees pictures."""
    text = {**LLAMA, "head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 7}
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma3Config(
        text_config=text, vision_config={**vision, "image_size": 8, "patch_size": 4}, eos_token_id=EOS
    )
    return transformers.Gemma3ForConditionalGeneration._from_config(config, attn_implementation="eager").eval()


class Compared(unittest.TestCase):
    """A folder for its models, with `ROWS` in a file."""

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

    def check_logps(self, model, path):
        """`model` of transformers, in double precision, and the folder at `path` under duel."""
        out = path / "eval.jsonl"
        self.duel("eval", "--model", path, "--dataset", self.rows, "--output", out, "--device", "cpu")
        said = [json.loads(line) for line in out.read_text().splitlines()[1:]]
        for (prompt, answers), row in zip(ROWS, said, strict=True):
            for answer, logp in zip(answers, row["logps"], strict=True):
                want = self.logps(model, prompt, answer).sum().item()
                # Roundings of single precision, of duel's and of what transformers has in it whatever the weights are.
                self.assertAlmostEqual(logp, want, delta=1e-5 * (1 + abs(want)))

    def loads(self, path):
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            path, attn_implementation="eager", output_loading_info=True, dtype=torch.float32
        )
        self.assertFalse(any(info.values()), info)
        return model
