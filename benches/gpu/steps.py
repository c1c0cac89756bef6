#!/usr/bin/env python3
"""Whole DPO steps: duel against TRL as it comes and TRL tuned, on the same rows and the same random weights.

`run.py` starts it; `--device cpu --models tiny` tries it out without a GPU. Each contestant runs in a process of its
own, one after the other, and results are written anew after each. The first step warms up and is not counted. Weights
are made in bf16, so that all begin with the very same; then duel trains with `--bf16`, and TRL, as it does unless told
otherwise, with float32 weights and bf16 autocast.

Tuned is TRL without gradient checkpointing, with the reference's log-probabilities computed before, and with Liger's
kernels.
"""

import argparse
import ctypes
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

# Beside this folder in the repository and in the bundle alike.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))

import ready
from contest import duel_command, duel_results, ending, offline, read_rows, steps, train_with_trl, write_rows

# Shapes of the models as transformers names them; all tie the head to the embedding.
MODELS = {
    "Llama-3.2-1B": {
        "model_type": "llama",
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "intermediate_size": 8192,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
    "GPT-2-124M": {
        "model_type": "gpt2",
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_positions": 1024,
        "vocab_size": 50257,
    },
    "Qwen2.5-0.5B": {
        "model_type": "qwen2",
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    },
    "tiny": {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 512,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
}
RACED = ("Llama-3.2-1B", "GPT-2-124M", "Qwen2.5-0.5B")
PRETRAINED = "GPT-2-124M"
CURVE = "tiny"
# Rounding in float32 moves a loss of ln 2 by 1e-7 a step; a wrong kernel moves it by far more than this.
CURVE_TOLERANCE = 1e-4
PRETRAINING = (16, 1024)

PAIRS = 8
PROMPT, CHOSEN, REJECTED = 512, 512, 384
SETTINGS = {"batch_size": PAIRS, "max_length": 1024, "learning_rate": 1e-6, "beta": 0.1}
END = "</s>"

# How far step 1 of two contestants may be apart in bf16: the loss absolutely, the others relatively. A summed log-prob
# that counts one token more or less is off by more than that.
TOLERANCE = {"loss": 0.02, "grad_norm": 0.05, "logps/chosen": 5e-4, "logps/rejected": 5e-4}


def parser(description, seconds):
    """What every stage of duel's runs is told."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--duel", required=True, help="duel's binary")
    p.add_argument("--json", required=True, help="where the results go")
    p.add_argument("--work", required=True, help="folder for models and outputs")
    p.add_argument("--seconds", type=float, default=seconds, help="time for all of it (default: %(default)s)")
    p.add_argument("--library-path", default="", help="where duel finds CUDA's libraries, besides the loader's path")
    return p


def options():
    p = parser(__doc__, 300)
    p.add_argument("--steps", type=int, default=6, help="steps of each contestant (default: %(default)s)")
    p.add_argument("--models", default=",".join(RACED), help=f"some of {', '.join(MODELS)} (default: %(default)s)")
    p.add_argument("--device", default="cuda:0", help="cuda:0, or cpu in float32 (default: %(default)s)")
    p.add_argument("--worker", choices=("models", "trl"), help=argparse.SUPPRESS)
    p.add_argument("--settings", choices=("default", "tuned"), help=argparse.SUPPRESS)
    p.add_argument("--liger", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--rows", help=argparse.SUPPRESS)
    a = p.parse_args()
    unknown = [name for name in a.models.split(",") if name not in MODELS]
    if unknown:
        p.error(f"there is no model {unknown[0]}; there are {', '.join(MODELS)}")
    return a


# ---- models and rows -------------------------------------------------------------------------------------------------


def tokenizer_json(vocab_size):
    """A token for each word `t1`, `t2`, …, so that token counts are exact."""
    vocab = {END: 0} | {f"t{i}": i for i in range(1, vocab_size)}
    end = {"id": 0, "content": END, "single_word": False, "lstrip": False, "rstrip": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**end, "normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": END},
    }


def words(rng, count, vocab_size):
    return " ".join(f"t{rng.randrange(1, vocab_size)}" for _ in range(count))


def pairs(count, vocab_size):
    """Rows of random words. A response ends with a token that ends it, which the trainers add."""
    rng = random.Random(0)
    return [
        {
            "prompt": words(rng, PROMPT, vocab_size),
            "chosen": " " + words(rng, CHOSEN - 1, vocab_size),
            "rejected": " " + words(rng, REJECTED - 1, vocab_size),
        }
        for _ in range(count)
    ]


def texts(count, vocab_size):
    rng = random.Random(0)
    return [{"text": words(rng, PRETRAINING[1] - 1, vocab_size)} for _ in range(count)]


def models_worker(a):
    """Writes the folders of the models, with random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    for name in a.models.split(","):
        shape = dict(MODELS[name])
        config = AutoConfig.for_model(
            shape.pop("model_type"),
            **shape,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
        with torch.device(a.device):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        folder = Path(a.work) / name
        model.save_pretrained(folder)
        del model
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(config.vocab_size)))
        kind = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END}
        (folder / "tokenizer_config.json").write_text(json.dumps(kind))


# ---- contestants -----------------------------------------------------------------------------------------------------


class DeviceMemory:
    """The most memory that is in use on the GPU while something runs, by anyone, as the driver sees it."""

    class Info(ctypes.Structure):
        _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]

    def __init__(self, device):
        self.index = int(device.partition(":")[2] or 0) if device.startswith("cuda") else None
        self.peak = None

    def used(self, nvml, handle):
        info = self.Info()
        return info.used if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(info)) == 0 else 0

    def watch(self):
        try:
            nvml = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return
        handle = ctypes.c_void_p()
        nvml.nvmlInit_v2()
        if nvml.nvmlDeviceGetHandleByIndex_v2(self.index, ctypes.byref(handle)) != 0:
            return
        before = self.used(nvml, handle)
        self.peak = 0
        while not self.over.wait(0.05):
            self.peak = max(self.peak, self.used(nvml, handle) - before)

    def __enter__(self):
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch) if self.index is not None else None
        if self.thread:
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        if self.thread:
            self.thread.join()


class Failed(Exception):
    pass


def environment(a):
    """duel's environment, with CUDA's libraries on the loader's path where that is asked for."""
    return {**os.environ, "LD_LIBRARY_PATH": a.library_path} if a.library_path else None


class Stage:
    """What a stage has found, written anew after each result, and until when it may go on."""

    def __init__(self, a, name, *found):
        self.a, self.name = a, name
        self.work = Path(a.work)
        self.end = time.monotonic() + a.seconds
        self.data = {key: [] for key in (*found, "failures")}

    def write(self):
        Path(self.a.json).write_text(json.dumps(self.data))

    def failed(self, what):
        print(what, flush=True)
        self.data["failures"].append({"stage": self.name, "what": what})
        self.write()


class Race(Stage):
    def __init__(self, a):
        super().__init__(a, "steps", "steps", "peers")

    def run(self, command, env=None):
        """Runs a process to its end; the peak of the device's memory, where there is one."""
        left = self.end - time.monotonic()
        if left < 5:
            raise Failed("no time was left")
        # One that hangs must not take the time of all others.
        limit = min(left, max(left / 2, 40))
        log = self.work / "log"
        with open(log, "w") as out, DeviceMemory(self.a.device) as memory:
            try:
                code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=env, timeout=limit).returncode
            except subprocess.TimeoutExpired:
                code = None
        if code != 0:
            raise Failed(ending(code, limit, log.read_text(errors="replace")))
        return memory.peak

    def worker(self, kind, *rest):
        command = [sys.executable, __file__, "--worker", kind, "--duel", self.a.duel, "--work", self.a.work]
        return command + ["--device", self.a.device, *rest]

    def device_options(self):
        return ["--device", self.a.device] + (["--bf16", "true"] if self.a.device != "cpu" else [])

    def train_with_duel(self, name, rows, settings, *options, device=None):
        """duel's own results with the GPU's peak and the model's digest, and its records."""
        out, cache = self.work / "duel-output", self.work / "duel-cache"
        command = duel_command(self.a.duel, self.work / name, rows, out, cache, settings, *options)
        device_bytes = self.run(command + (device or self.device_options()), environment(self.a))
        end, records = duel_results(out)
        with open(out / "model.safetensors", "rb") as file:
            end["model"] = hashlib.file_digest(file, "sha256").hexdigest()
        shutil.rmtree(out)
        if len(end.get("step_seconds", ())) < 2:
            raise Failed("train_results.json has no step_seconds of two steps or more")
        return {**end, "device_bytes": device_bytes}, records

    def duel(self, name, rows):
        # What an earlier run computed with the reference would not be timed.
        shutil.rmtree(self.work / "duel-cache", ignore_errors=True)
        end, records = self.train_with_duel(name, rows, SETTINGS)
        return {
            "step_seconds": end["step_seconds"],
            "reference_seconds": end["reference_runtime"],
            "pairs": end["train_samples"],
            "peak_bytes": end.get("peak_device_bytes"),
            "device_bytes": end["device_bytes"],
            "steps": steps(records),
        }

    def trl(self, name, rows, kind, *rest):
        out = self.work / "trl.json"
        command = self.worker("trl", "--models", name, "--rows", str(rows), "--settings", kind, "--json", str(out))
        device_bytes = self.run(command + list(rest))
        return {**json.loads(out.read_text()), "device_bytes": device_bytes}

    def trl_tuned(self, name, rows):
        # Liger has no kernels for GPT-2 and would only say so.
        if self.a.device == "cpu" or MODELS[name]["model_type"] == "gpt2":
            return {**self.trl(name, rows, "tuned"), "liger": False}
        try:
            return {**self.trl(name, rows, "tuned", "--liger"), "liger": True}
        except Failed as error:
            self.failed(f"{name}: TRL tuned with Liger: {error}")
            return {**self.trl(name, rows, "tuned"), "liger": False}

    def model(self, name):
        rows = self.work / "rows.jsonl"
        write_rows(rows, pairs(PAIRS * self.a.steps, MODELS[name]["vocab_size"]))
        contestants = {
            "duel": lambda: self.duel(name, rows),
            "TRL tuned": lambda: self.trl_tuned(name, rows),
            "TRL default": lambda: self.trl(name, rows, "default"),
        }
        ours = None
        for who, run in contestants.items():
            try:
                result = run()
            except Failed as error:
                self.failed(f"{name}: {who}: {error}")
                continue
            row = summary(name, who, result)
            self.data["steps"].append(row)
            ours = row if who == "duel" else ours
            if ours and who != "duel":
                apart = differences(ours, row)
                row["comparable"] = not apart
                if apart:
                    self.failed(f"{name}: {who} NOT COMPARABLE with duel at step 1: {'; '.join(apart)}")
            self.write()
            print(f"{name:14} {who:12} {row['seconds']:8.3f} s a step", flush=True)

    def curve(self):
        """Runs of a small model: on the GPU in float32 as on the CPU, and in bf16 twice the same to the bit."""
        rows = self.work / "rows.jsonl"
        write_rows(rows, pairs(PAIRS * self.a.steps, MODELS[CURVE]["vocab_size"]))
        gpu = ["--device", self.a.device, "--bf16"]
        runs = {"CPU": ["--device", "cpu"], "GPU": [*gpu, "false"], "bf16": [*gpu, "true"], "bf16 again": [*gpu, "true"]}
        try:
            done = {who: self.train_with_duel(CURVE, rows, SETTINGS, device=device) for who, device in runs.items()}
        except Failed as error:
            return self.failed(f"the curve of a small model: {error}")
        losses = {who: [row["loss"] for row in steps(records)] for who, (_, records) in done.items()}
        apart = max(abs(a - b) for a, b in zip(losses["CPU"], losses["GPU"], strict=True))
        same = done["bf16"][0]["model"] == done["bf16 again"][0]["model"]
        self.data["curve"] = {"losses": losses, "float32_apart": apart, "bf16_runs_are_the_same": same}
        if not apart <= CURVE_TOLERANCE:
            self.failed(f"losses in float32 on the GPU are up to {apart:.3g} from those on the CPU")
        if not same:
            self.failed("two runs in bf16 gave two models")
        self.write()

    def pretraining(self):
        """duel's step on plain text; `peers.py` has PyTorch's."""
        rows = self.work / "rows.jsonl"
        sequences, tokens = PRETRAINING
        write_rows(rows, texts(sequences * self.a.steps, MODELS[PRETRAINED]["vocab_size"]))
        settings = {"batch_size": sequences, "max_length": tokens, "learning_rate": SETTINGS["learning_rate"]}
        try:
            end, _ = self.train_with_duel(PRETRAINED, rows, settings, "--method", "sft")
        except Failed as error:
            return self.failed(f"{PRETRAINED}: duel's step of pretraining: {error}")
        seconds = statistics.median(end["step_seconds"][1:])
        row = {"kernel": "gpt2 step", "shape": f"{sequences}x{tokens}", "who": "duel", "seconds": seconds}
        count = sequences * tokens
        self.data["peers"].append({**row, "tokens": count, "per_second": count / seconds})
        self.write()


def summary(model, who, result):
    """A row of the results; the first step warms up."""
    seconds = statistics.median(result["step_seconds"][1:])
    row = {"model": model, "who": who, "seconds": seconds, "pairs_per_second": PAIRS / seconds}
    if "reference_seconds" in result:
        row["reference_seconds_per_step"] = result["reference_seconds"] * PAIRS / result["pairs"]
    kept = ("peak_bytes", "reserved_bytes", "device_bytes", "liger", "step_seconds", "pairs", "steps")
    return row | {key: result[key] for key in kept if result.get(key) is not None}


def differences(ours, theirs):
    """How step 1 of two contestants, or the number of trained pairs, differ by more than rounding."""
    apart = []
    if ours["pairs"] != theirs["pairs"]:
        apart.append(f"{ours['pairs']} and {theirs['pairs']} pairs")
    for key, tolerance in TOLERANCE.items():
        a, b = ours["steps"][0][key], theirs["steps"][0][key]
        scale = 1.0 if key == "loss" else abs(b)
        if not abs(a - b) <= tolerance * scale:
            apart.append(f"{key} {a:.6g} and {b:.6g}")
    return apart


def trl_worker(a):
    offline()
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    folder = Path(a.work) / a.models
    on_gpu = a.device != "cpu"
    result = train_with_trl(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa"),
        PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token=END, pad_token=END),
        read_rows(a.rows, None),
        Path(a.work) / "trl-output",
        SETTINGS,
        tuned=a.settings == "tuned",
        bf16=on_gpu,
        use_cpu=not on_gpu,
        use_liger_kernel=a.liger,
        optim="adamw_torch_fused",
    )
    if on_gpu:
        result["peak_bytes"] = torch.cuda.max_memory_allocated()
        result["reserved_bytes"] = torch.cuda.max_memory_reserved()
    Path(a.json).write_text(json.dumps(result))


def main():
    a = options()
    if a.worker:
        return {"models": models_worker, "trl": trl_worker}[a.worker](a)
    # Not the packages: making the models shows within seconds whether PyTorch is there, and duel runs without TRL.
    ready.require(ready.binary(a.duel, environment(a)), ready.folder("--work", a.work), ready.target("--json", a.json))
    race = Race(a)
    race.write()
    names = a.models.split(",")
    try:
        made = names if a.device == "cpu" else [*names, CURVE]
        race.run(race.worker("models", "--models", ",".join(made), "--json", a.json))
    except Failed as error:
        return race.failed(f"making the models: {error}")
    if a.device != "cpu":
        race.curve()
    for name in names:
        race.model(name)
    if PRETRAINED in names:
        race.pretraining()


if __name__ == "__main__":
    main()
