#!/usr/bin/env python3
"""duel against `datasets` and TRL at reading and tokenising preference rows, on the CPU, in turn, in one run.

Run it with a Python that has TRL (tried with datasets 5.2, trl 1.16, tokenizers 0.23):

    cargo build --release
    PYTHON benches/peers/rows.py --model SmolLM2-135M-Instruct --rows pairs.jsonl --count 100000

The rows are written as JSON lines and as Parquet. Of each file both contestants make the tokens of a DPO run, from an
empty cache and then from what they left: duel is `duel train` of a single step of one pair, from its start to the first
step's end; TRL is `load_dataset` and the making of a `DPOTrainer`, without the import of its libraries and without the
model's loading: as it comes ("default": one process), and with as many processes as there are cores ("tuned"). With
`--form chat` prompts and responses are lists of messages, which the tokenizer's chat template renders. The model is a
tiny one that this script makes, with the tokenizer of `--model`. Every round is kept in the JSON file; ratios are of the
best one.
"""

import argparse
import datetime
import functools
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import ready
from contest import machine, offline, read_rows, timed, versions, write_rows

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("jsonl", "parquet")
TRL = {"TRL default": None, "TRL tuned": os.cpu_count()}


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, help="Hugging Face folder, of which the tokenizer is taken")
    p.add_argument("--rows", required=True, help=".json or .jsonl file of preference rows")
    p.add_argument("--count", type=int, default=100000, help="rows taken from its start (default: %(default)s)")
    p.add_argument("--form", choices=("text", "chat"), default="text", help="of the rows (default: %(default)s)")
    p.add_argument("--max-length", type=int, default=1024, help="tokens of a sequence (default: %(default)s)")
    p.add_argument("--rounds", type=int, default=2, help="runs of each contestant (default: %(default)s)")
    p.add_argument("--peers", choices=("yes", "no"), default="yes", help="no: duel alone (default: %(default)s)")
    p.add_argument("--duel", default=ROOT / "target/release/duel", help="binary (default: %(default)s)")
    p.add_argument("--json", help="where the results go, for example benches/results/rows-NAME.json")
    p.add_argument("--trl-worker", help=argparse.SUPPRESS)
    p.add_argument("--processes", type=int, help=argparse.SUPPRESS)
    p.add_argument("--prepare", help=argparse.SUPPRESS)
    return p.parse_args()


def chat(row):
    """The row as conversations."""
    said = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return {name: [{"role": role, "content": row[name]}] for name, role in said.items()}


FORMS = {"text": lambda row: row, "chat": chat}


def prepare(a):
    """A tiny model with the tokenizer of `--model`, and the rows as Parquet."""
    offline()
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=4096, tie_word_embeddings=True, **sizes)
    work = Path(a.prepare)
    LlamaForCausalLM(config).save_pretrained(work / "model")
    tokenizer.save_pretrained(work / "model")
    Dataset.from_list(read_rows(a.rows, None)).to_parquet(work / "rows.parquet")


def trl_worker(a):
    """The seconds from a file to a trainer that has its tokens."""
    offline()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    config = DPOConfig(
        output_dir=a.trl_worker + ".out",
        max_length=a.max_length,
        dataset_num_proc=a.processes,
        report_to=[],
        use_cpu=True,
    )
    start = time.perf_counter()
    kind = "parquet" if a.rows.endswith(".parquet") else "json"
    rows = load_dataset(kind, data_files=a.rows, split="train")
    trainer = DPOTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
    seconds = time.perf_counter() - start
    Path(a.trl_worker).write_text(json.dumps({"seconds": seconds, "rows": len(trainer.train_dataset)}))


def run_trl(processes, a, work, file, cache):
    out = work / "trl.json"
    os.environ["HF_DATASETS_CACHE"] = str(cache)
    command = [sys.executable, __file__, "--trl-worker", str(out), "--model", str(work / "model"), "--rows", str(file)]
    command += ["--max-length", str(a.max_length)] + (["--processes", str(processes)] if processes else [])
    peak = timed(command, work / "trl.log")
    return {"peak_bytes": peak, **json.loads(out.read_text())}


def run_duel(a, work, file, cache):
    command = [str(a.duel), "train", "--model", str(work / "model"), "--dataset", str(file), "--device", "cpu"]
    command += ["--output-dir", str(work / "out"), "--overwrite-output-dir", "--cache-dir", str(cache)]
    command += ["--max-length", str(a.max_length), "--max-steps", "1", "--per-device-train-batch-size", "1"]
    command += ["--save-strategy", "no", "--logging-steps", "1"]
    start = time.perf_counter()
    peak = timed(command, work / "duel.log")
    return {"peak_bytes": peak, "seconds": time.perf_counter() - start, "rows": a.count}


def race(a, work, number):
    who = {"duel": run_duel}
    if a.peers == "yes":
        who |= {name: functools.partial(run_trl, processes) for name, processes in TRL.items()}
    for kind in KINDS:
        file = work / f"rows.{kind}"
        for name, run in who.items():
            cache = work / f"cache-{number}-{kind}-{name.replace(' ', '-')}"
            cache.mkdir()
            for start in ("first", "second"):
                r = run(a, work, file, cache)
                print(
                    f"round {number}: {name:13}{kind:8} {start:7}{r['seconds']:9.2f} s{a.count / r['seconds']:11.0f} "
                    f"rows/s{r['peak_bytes'] / 1e9:7.2f} GB",
                    flush=True,
                )
                yield {"round": number, "who": name, "file": kind, "start": start, **r}


def ratios(results):
    """How many times as fast duel is, of the best rounds."""
    best = {}
    for r in results:
        key = (r["file"], r["start"], r["who"])
        best[key] = min(best.get(key, r["seconds"]), r["seconds"])
    keys = sorted({key[:2] for key in best})
    return [
        {"file": file, "start": start, "to": peer, "ratio": best[file, start, peer] / best[file, start, "duel"]}
        for file, start in keys
        for peer in TRL
        if (file, start, peer) in best
    ]


def main():
    a = options()
    if a.trl_worker:
        return trl_worker(a)
    if a.prepare:
        return prepare(a)
    ready.require(
        ready.binary(a.duel),
        ready.model(a.model),
        ready.rows(a.rows, a.count),
        ready.target("--json", a.json) if a.json else [],
        ready.packages(),
    )
    with tempfile.TemporaryDirectory(prefix="duel-rows-") as folder:
        work = Path(folder)
        rows = [FORMS[a.form](row) for row in read_rows(a.rows, a.count)]
        write_rows(work / "rows.jsonl", rows)
        del rows
        command = [sys.executable, __file__, "--prepare", folder, "--model", a.model, "--rows", str(work / "rows.jsonl")]
        timed(command, work / "prepare.log")
        results = []
        for number in range(1, a.rounds + 1):
            results.extend(race(a, work, number))
        sizes = {kind: (work / f"rows.{kind}").stat().st_size for kind in KINDS}
    for r in ratios(results):
        print(f"{r['file']}, {r['start']} start: duel is {r['ratio']:.1f} times as fast as {r['to']}")
    if a.json:
        report = {
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "versions": versions("torch", "transformers", "trl", "datasets", "tokenizers"),
            "tokenizer": Path(a.model).name,
            "rows": Path(a.rows).name,
            "count": a.count,
            "form": a.form,
            "file_bytes": sizes,
            "max_length": a.max_length,
            "ratios": ratios(results),
            "runs": results,
        }
        Path(a.json).parent.mkdir(parents=True, exist_ok=True)
        Path(a.json).write_text(json.dumps(report, indent=1) + "\n")
        print(f"\nwritten to {a.json}")


if __name__ == "__main__":
    main()
