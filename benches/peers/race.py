#!/usr/bin/env python3
"""duel against TRL's DPOTrainer on the same rows, on the CPU, in turn, in one run.

Run it with a Python that has TRL (tried with torch 2.11, transformers 5.23, trl 1.16):

    cargo build --release
    PYTHON benches/peers/race.py --model SmolLM2-135M-Instruct --rows pairs.json --count 12 --batch-size 2

Each round runs the contestants one after the other, each in a process of its own:

    default  TRL as it comes: gradient checkpointing, reference forward inside the step.
             duel's time includes its reference pass.
    tuned    TRL without checkpointing, reference log-probabilities precomputed before the clock starts.
             duel reads its reference log-probabilities from its cache.

Both train the same tokens: the model folder is first written out again by transformers, because transformers 5
replaces the pre-tokenizer of some folders by its own, and duel follows tokenizer.json. Rows are prompt/chosen/rejected
objects, as text or messages, or ShareGPT conversations. TRL's seconds are those of its steps alone, duel's those of its
whole training loop. Ratios are of the best round of each; every round is kept in the JSON file.

`--isa avx2` holds both to AVX2 on a machine that has more; the JSON file says what each then ran on. With `--bf16` both
multiply in bfloat16 and keep weights to be updated in float32: TRL under autocast, as its `bf16` says.

With `--lora` both train adapters (TRL by PEFT, tried with peft 0.21) of the same rank on the same maps, from the same
random numbers: PEFT draws them, and duel is given PEFT's folder.
"""

import argparse
import datetime
import json
import os
import sys
import tempfile
from pathlib import Path

import ready
from contest import (
    ISAS,
    duel_command,
    duel_isa,
    duel_results,
    hold_to,
    lora_targets,
    machine,
    offline,
    read_rows,
    steps,
    timed,
    train_with_trl,
    versions,
    write_rows,
)

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("default", "tuned")


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, help="Hugging Face folder")
    p.add_argument("--rows", required=True, help=".json or .jsonl file of preference rows")
    p.add_argument("--count", type=int, default=12, help="rows taken from its start (default: %(default)s)")
    p.add_argument("--batch-size", type=int, default=2, help="pairs a step (default: %(default)s)")
    p.add_argument("--max-length", type=int, default=512, help="tokens of a sequence (default: %(default)s)")
    p.add_argument("--learning-rate", type=float, default=5e-7, help="(default: %(default)s)")
    p.add_argument("--beta", type=float, default=0.1, help="(default: %(default)s)")
    p.add_argument("--settings", choices=[*KINDS, "both"], default="both", help="which race (default: %(default)s)")
    p.add_argument("--rounds", type=int, default=2, help="runs of each contestant (default: %(default)s)")
    p.add_argument("--isa", choices=ISAS, help="the instruction set of both (default: each takes its best)")
    p.add_argument("--bf16", action="store_true", help="both in bfloat16, with masters in float32")
    p.add_argument("--lora", action="store_true", help="both train LoRA adapters")
    p.add_argument("--lora-r", type=int, default=16, help="their rank (default: %(default)s)")
    p.add_argument("--lora-alpha", type=float, default=32, help="(default: %(default)s)")
    p.add_argument("--lora-targets", default="all-linear", help="names with commas (default: %(default)s)")
    p.add_argument("--duel", default=ROOT / "target/release/duel", help="binary (default: %(default)s)")
    p.add_argument("--json", help="where the results go, for example benches/results/race-NAME.json")
    p.add_argument("--trl-worker", help=argparse.SUPPRESS)
    p.add_argument("--export", help=argparse.SUPPRESS)
    return p.parse_args()


def settings(a):
    return {key: getattr(a, key) for key in ("batch_size", "max_length", "learning_rate", "beta")}


def bf16(a):
    return ["--bf16"] if a.bf16 else []


def lora(a):
    """What the workers are told of adapters."""
    said = ["--lora-r", str(a.lora_r), "--lora-alpha", str(a.lora_alpha), "--lora-targets", a.lora_targets]
    return ["--lora", *said] if a.lora else []


def adapter(model):
    """Where the adapter lies that both begin with."""
    return Path(model).parent / "adapter"


def run_trl(a, work, model, rows, kind):
    out = work / f"trl-{kind}.json"
    command = [sys.executable, __file__, "--trl-worker", str(out), "--model", str(model), "--rows", str(rows)]
    command += ["--settings", kind, "--batch-size", str(a.batch_size), "--max-length", str(a.max_length)]
    command += ["--learning-rate", str(a.learning_rate), "--beta", str(a.beta), *bf16(a), *lora(a)]
    peak = timed(command, work / f"trl-{kind}.log")
    return {"who": f"TRL {kind}", "peak_bytes": peak, **json.loads(out.read_text())}


def run_duel(a, work, model, rows, kind):
    out, cache = work / "duel-output", work / "duel-cache"
    if kind == "default":
        for file in cache.glob("*"):
            file.unlink()
    log = work / f"duel-{kind}.log"
    model = adapter(model) if a.lora else model
    peak = timed(duel_command(a.duel, model, rows, out, cache, settings(a), *bf16(a)), log)
    end, records = duel_results(out)
    if kind == "tuned" and end["reference_runtime"] > 0:
        sys.exit("error: the tuned race found no cached reference log-probabilities")
    return {
        "who": f"duel {kind}",
        "isa": duel_isa(log.read_text()),
        "peak_bytes": peak,
        "seconds": end["train_runtime"] + end["reference_runtime"],
        "reference_seconds": end["reference_runtime"],
        "pairs": end["train_samples"],
        "steps": steps(records),
    }


def trl_worker(a):
    offline()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = train_with_trl(
        AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32),
        AutoTokenizer.from_pretrained(a.model),
        read_rows(a.rows, None),
        a.trl_worker + ".out",
        settings(a),
        tuned=a.settings == "tuned",
        adapter=adapter(a.model) if a.lora else None,
        bf16=a.bf16,
        use_cpu=True,
    )
    result["seconds"] = sum(result.pop("step_seconds"))
    result["isa"] = torch.backends.cpu.get_cpu_capability()
    Path(a.trl_worker).write_text(json.dumps(result))


def table(results, kinds):
    for kind in kinds:
        best = {}
        for r in results:
            if r["who"].endswith(kind) and (r["who"] not in best or r["seconds"] < best[r["who"]]["seconds"]):
                best[r["who"]] = r
        duel, trl = best[f"duel {kind}"], best[f"TRL {kind}"]
        print(f"\n{'':14}{'seconds':>10}{'pairs/s':>10}{'peak GB':>10}")
        for r in (trl, duel):
            print(f"{r['who']:14}{r['seconds']:10.2f}{r['pairs'] / r['seconds']:10.3f}{r['peak_bytes'] / 1e9:10.2f}")
        speed, memory = trl["seconds"] / duel["seconds"], duel["peak_bytes"] / trl["peak_bytes"]
        print(f"duel is {speed:.2f} times as fast in {memory:.2f} of the memory")
        if (trl["pairs"], len(trl["steps"])) != (duel["pairs"], len(duel["steps"])):
            print(f"NOT COMPARABLE: TRL trained {trl['pairs']} pairs, duel {duel['pairs']}")
        print(f"{'step':>4}{'loss':>22}{'grad_norm':>22}{'logps/chosen':>24}   (TRL, duel)")
        for i, (t, d) in enumerate(zip(trl["steps"], duel["steps"])):
            print(
                f"{i + 1:4}{t['loss']:11.5f}{d['loss']:11.5f}{t['grad_norm']:11.3f}{d['grad_norm']:11.3f}"
                f"{t['logps/chosen']:12.3f}{d['logps/chosen']:12.3f}"
            )
        yield {"settings": kind, "speed_ratio": speed, "memory_ratio": memory}


def export(a):
    """Writes the model folder again, as transformers reads it, and with `--lora` a fresh adapter for it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(a.model).save_pretrained(a.export)
    AutoTokenizer.from_pretrained(a.model).save_pretrained(a.export)
    if a.lora:
        import torch
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(0)
        targets = lora_targets(a.lora_targets)
        config = LoraConfig(r=a.lora_r, lora_alpha=a.lora_alpha, target_modules=targets, task_type="CAUSAL_LM")
        model = AutoModelForCausalLM.from_pretrained(a.export, dtype=torch.float32)
        get_peft_model(model, config).save_pretrained(adapter(a.export))


def write(a, results, ratios):
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions("torch", "transformers", "trl", *(["peft"] if a.lora else [])),
        "isa": a.isa,
        "bf16": a.bf16,
        "lora": {"r": a.lora_r, "alpha": a.lora_alpha, "targets": a.lora_targets} if a.lora else None,
        "rows": Path(a.rows).name,
        "settings": {"count": a.count, **settings(a)},
        "ratios": ratios,
        "runs": results,
    }
    Path(a.json).parent.mkdir(parents=True, exist_ok=True)
    Path(a.json).write_text(json.dumps(report, indent=1) + "\n")


def main():
    a = options()
    if a.trl_worker:
        return trl_worker(a)
    if a.export:
        return export(a)
    ready.require(
        ready.binary(a.duel),
        ready.model(a.model),
        ready.rows(a.rows, a.count),
        ready.target("--json", a.json) if a.json else [],
        ready.packages([*ready.IMPORTS, *(["import peft"] if a.lora else [])]),
    )
    hold_to(a.isa)
    kinds = KINDS if a.settings == "both" else (a.settings,)
    with tempfile.TemporaryDirectory(prefix="duel-race-") as folder:
        work = Path(folder)
        model, rows = work / "model", work / "rows.jsonl"
        command = [sys.executable, __file__, "--export", str(model), "--model", a.model, "--rows", a.rows]
        command += lora(a)
        timed(command, work / "export.log")
        write_rows(rows, read_rows(a.rows, a.count))
        results = []
        if "default" not in kinds:
            run_duel(a, work, model, rows, "default")  # fills the cache, untimed
        for number in range(a.rounds):
            for kind in kinds:
                for run in (run_trl, run_duel):
                    r = run(a, work, model, rows, kind)
                    results.append({"round": number + 1, **r})
                    print(f"round {number + 1}: {r['who']:13} {r['seconds']:8.2f} s", flush=True)
            if a.json:
                write(a, results, [])
        ratios = list(table(results, kinds))
    if a.json:
        write(a, results, ratios)
        print(f"\nwritten to {a.json}")


if __name__ == "__main__":
    main()
