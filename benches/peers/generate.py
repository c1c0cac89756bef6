#!/usr/bin/env python3
"""duel's decoding against transformers' `generate`, and against llama.cpp where it is installed, on the same prompts,
on the CPU, in turn, in one run.

Run it with a Python that has transformers (tried with torch 2.11, transformers 5.23, llama-cpp-python 0.3.36):

    cargo build --release -p duel-benches --bin generate
    PYTHON benches/peers/generate.py --model SmolLM2-135M-Instruct --rows pairs.json --gguf f32.gguf

Cases, all in float32:

    one      a sequence: a prompt of 77 tokens, 64 new ones
    16       4 prompts of 77 tokens, 4 samples of each, 64 new tokens
    64       16 prompts of 77 tokens, 4 samples of each, 64 new tokens
    prefill  64 prompts of 512 tokens, and one new token of each
    greedy   4 prompts of 77 tokens, the 64 likeliest tokens: how long all go on alike

Prompts are runs of the rows' text, all of one length: nobody pads. Tokens are drawn at temperature 1 from the whole
vocabulary, and no token ends a sequence, so that all draw as many. The clock covers prompts and new tokens of a call
after a short one that is not timed; loading is not timed. A rate is new tokens a second, of *prefill* prompts' tokens.
llama.cpp reads a GGUF file of the same weights in float32; it goes through a prompt once for all its samples, as duel
does. `--isa avx2` holds duel and PyTorch to AVX2; llama.cpp, which has one instruction set since it was built, is left
out then. Ratios are of the best round of each; every round is kept in the JSON file.
"""

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import ready
from contest import ISAS, hold_to, machine, offline, read_rows, timed, versions

ROOT = Path(__file__).resolve().parents[2]
# Prompts, samples of each, tokens of a prompt, new tokens, temperature.
CASES = {
    "one": (1, 1, 77, 64, 1.0),
    "16": (4, 4, 77, 64, 1.0),
    "64": (16, 4, 77, 64, 1.0),
    "prefill": (64, 1, 512, 1, 1.0),
    "greedy": (4, 1, 77, 64, 0.0),
}
IMPORTS = ("import torch", "from transformers import AutoModelForCausalLM, AutoTokenizer")


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, help="Hugging Face folder")
    p.add_argument("--rows", required=True, help=".json or .jsonl file of preference rows, whose text the prompts are")
    p.add_argument("--gguf", help="the same weights in float32, for llama.cpp (default: it does not take part)")
    p.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="(default: all)")
    p.add_argument("--rounds", type=int, default=2, help="runs of each contestant (default: %(default)s)")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of everyone (default: %(default)s)")
    p.add_argument("--isa", choices=ISAS, help="the instruction set of all (default: each takes its best)")
    p.add_argument("--duel", default=ROOT / "target/release/generate", help="binary (default: %(default)s)")
    p.add_argument("--json", help="where the results go, for example benches/results/generate-NAME.json")
    p.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    p.add_argument("--work", help=argparse.SUPPRESS)
    p.add_argument("--out", help=argparse.SUPPRESS)
    return p.parse_args()


# ---- workers: a process each, so that nobody pays for the others' libraries ------------------------------------------


def prompts(a):
    """Writes the work of each case into the folder `out`."""
    offline()
    from transformers import AutoTokenizer

    def text(turns):
        return turns if isinstance(turns, str) else "\n".join(turn["content"] for turn in turns)

    rows = read_rows(a.rows, None)
    whole = "\n".join(text(row["prompt"]) + "\n" + text(row["chosen"]) for row in rows)
    tokens = AutoTokenizer.from_pretrained(a.model)(whole, add_special_tokens=False)["input_ids"]
    for name in a.cases:
        count, samples, length, new, temperature = CASES[name]
        if len(tokens) < count * length:
            sys.exit(f"{a.rows}: has {len(tokens)} tokens, {name} needs {count * length}; give --rows a longer file")
        cut = [tokens[i * length : (i + 1) * length] for i in range(count)]
        work = {"prompts": cut, "samples": samples, "new_tokens": new, "temperature": temperature, "seed": 1}
        work["threads"] = a.threads
        (Path(a.out) / f"{name}.json").write_text(json.dumps(work))


def transformers(a):
    offline()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(a.threads)
    work = json.loads(Path(a.work).read_text())
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32).eval()
    # No token ends a sequence; `min_new_tokens` would keep that token from being drawn.
    model.generation_config.eos_token_id = None
    drawn = work["temperature"] > 0
    how = {"do_sample": True, "temperature": work["temperature"], "top_k": 0, "top_p": 1.0} if drawn else {}
    torch.manual_seed(work["seed"])

    def draw(prompts, samples, new):
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                num_return_sequences=samples,
                pad_token_id=0,
                **({"do_sample": False} | how),
            )
        return out[:, ids.shape[1] :].tolist()

    draw(work["prompts"][:1], 1, min(work["new_tokens"], 2))
    begin = time.perf_counter()
    completions = draw(work["prompts"], work["samples"], work["new_tokens"])
    seconds = time.perf_counter() - begin
    isa = torch.backends.cpu.get_cpu_capability()
    Path(a.out).write_text(json.dumps({"isa": isa, "seconds": seconds, "completions": completions}))


def llama_cpp(a):
    import llama_cpp as ll

    work = json.loads(Path(a.work).read_text())
    new, samples = work["new_tokens"], work["samples"]
    longest, sequences = max(map(len, work["prompts"])), len(work["prompts"]) * samples
    ll.llama_backend_init()
    model = ll.llama_model_load_from_file(a.gguf.encode(), ll.llama_model_default_params())
    settings = ll.llama_context_default_params()
    # One cache for all sequences, so that samples share their prompt's keys and values.
    settings.kv_unified = True
    settings.n_ctx = len(work["prompts"]) * longest + sequences * new + 256
    settings.n_seq_max = sequences
    settings.n_batch = settings.n_ubatch = 512
    settings.n_threads = settings.n_threads_batch = a.threads
    settings.type_k = settings.type_v = ll.GGML_TYPE_F32
    context = ll.llama_init_from_model(model, settings)
    vocabulary = ll.llama_model_get_vocab(model)
    batch = ll.llama_batch_init(settings.n_batch, 0, 1)
    memory = ll.llama_get_memory(context)

    def decode(rows):
        """Tokens (token, position, sequence, wanted) through the model."""
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wanted
            batch.seq_id[i][0] = sequence
        batch.n_tokens = len(rows)
        code = ll.llama_decode(context, batch)
        if code != 0:
            sys.exit(f"llama_decode gave {code}")

    def draw(prompts, samples, new):
        ll.llama_memory_clear(memory, True)
        drawn = work["temperature"] > 0
        count = len(prompts) * samples
        samplers = [ll.llama_sampler_init_dist(s) if drawn else ll.llama_sampler_init_greedy() for s in range(count)]
        completions = [[] for _ in range(count)]

        def take(sequence, row):
            completions[sequence].append(ll.llama_sampler_sample(samplers[sequence], context, row))

        # A whole prompt a pass, as many as the batch has room for.
        waiting = list(enumerate(prompts))
        while waiting:
            rows, ends = [], []
            while waiting and len(rows) + len(waiting[0][1]) <= settings.n_batch:
                number, prompt = waiting.pop(0)
                last = len(prompt) - 1
                rows += [(token, at, number * samples, at == last) for at, token in enumerate(prompt)]
                ends.append((number, len(rows) - 1))
            decode(rows)
            for number, row in ends:
                for sample in range(samples):
                    if sample > 0:
                        ll.llama_memory_seq_cp(memory, number * samples, number * samples + sample, -1, -1)
                    take(number * samples + sample, row)
        for step in range(1, new):
            ends = [len(prompts[s // samples]) + step - 1 for s in range(count)]
            decode([(completions[s][-1], ends[s], s, True) for s in range(count)])
            for sequence in range(count):
                take(sequence, sequence)
        for sampler in samplers:
            ll.llama_sampler_free(sampler)
        return completions

    if ll.llama_vocab_n_tokens(vocabulary) <= max(map(max, work["prompts"])):
        sys.exit(f"{a.gguf}: it has fewer tokens than the prompts use; give --gguf the same model")
    draw(work["prompts"][:1], 1, min(new, 2))
    begin = time.perf_counter()
    completions = draw(work["prompts"], samples, new)
    seconds = time.perf_counter() - begin
    isa = ll.llama_print_system_info().decode()
    Path(a.out).write_text(json.dumps({"isa": isa, "seconds": seconds, "completions": completions}))


WORKERS = {"prompts": prompts, "transformers": transformers, "llama.cpp": llama_cpp}

# ---- the race --------------------------------------------------------------------------------------------------------


def worker(a, name, out, work=""):
    command = [sys.executable, __file__, "--worker", name, "--out", str(out), "--work", str(work)]
    command += ["--model", a.model, "--rows", a.rows, "--threads", str(a.threads), "--cases", *a.cases]
    return command + (["--gguf", a.gguf] if a.gguf else [])


def run(a, folder, who, case):
    work, out = folder / f"{case}.json", folder / "result.json"
    duel = [str(a.duel), a.model, str(work), str(out)]
    peak = timed(duel if who == "duel" else worker(a, who, out, work), folder / "log")
    return {"who": who, "case": case, "peak_bytes": peak, **json.loads(out.read_text())}


def rate(result):
    count, samples, length, new, _ = CASES[result["case"]]
    return count * (length if result["case"] == "prefill" else samples * new) / result["seconds"]


def alike(ours, theirs):
    """How many tokens of each greedy completion are the same from its beginning."""
    pairs = zip(ours["completions"], theirs["completions"])
    return [next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), len(a)) for a, b in pairs]


def table(a, results, who):
    weights = sum(file.stat().st_size for file in Path(a.model).glob("*.safetensors"))
    print(f"\n{'case':9}{'':14}{'seconds':>9}{'tokens/s':>10}{'peak GB':>9}  duel is")
    for case in a.cases:
        runs = [r for r in results if r["case"] == case]
        of = {w: min((r for r in runs if r["who"] == w), key=lambda r: r["seconds"]) for w in who}
        for w, r in of.items():
            times = "" if w == "duel" else f"{rate(of['duel']) / rate(r):5.2f} times as fast"
            print(f"{case:9}{w:14}{r['seconds']:9.2f}{rate(r):10.1f}{r['peak_bytes'] / 1e9:9.2f}  {times}")
            row = {"case": case, "who": w, "tokens_per_second": rate(r), "duel_speed_ratio": rate(of["duel"]) / rate(r)}
            if case == "one" and w == "duel":
                drawing = r["seconds"] - r["prefill_seconds"]
                row["weight_bytes_per_second"] = r["new_tokens"] * weights / drawing
                print(f"{'':9}the weights were read at {row['weight_bytes_per_second'] / 1e9:.1f} GB/s")
            if case == "greedy" and w != "duel":
                row["alike"] = alike(of["duel"], r)
                print(f"{'':9}tokens alike from the beginning: {row['alike']} of {CASES[case][3]}")
            yield row


def main():
    a = options()
    if a.worker:
        return WORKERS[a.worker](a)
    llama = a.gguf is not None and a.isa is None
    ready.require(
        ready.program(a.duel, "cargo build --release -p duel-benches --bin generate"),
        ready.model(a.model),
        ready.rows(a.rows, 1),
        ready.target("--json", a.json) if a.json else [],
        ready.file("--gguf", a.gguf) if llama else [],
        ready.packages(IMPORTS + (("import llama_cpp",) if llama else ())),
    )
    hold_to(a.isa)
    who = ["transformers", *(["llama.cpp"] if llama else []), "duel"]
    results, ratios = [], []
    with tempfile.TemporaryDirectory(prefix="duel-generate-") as name:
        folder = Path(name)
        timed(worker(a, "prompts", folder), folder / "log")
        for number in range(a.rounds):
            for case in a.cases:
                for w in who:
                    r = run(a, folder, w, case)
                    results.append({"round": number + 1, **r})
                    print(f"round {number + 1}: {case:8} {w:13} {r['seconds']:8.2f} s", flush=True)
    ratios = list(table(a, results, who))
    if a.json:
        packages = ["torch", "transformers", *(["llama-cpp-python"] if llama else [])]
        report = {
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "versions": versions(*packages),
            "isa": a.isa,
            "cases": {case: CASES[case] for case in a.cases},
            "ratios": ratios,
            "runs": [{key: value for key, value in r.items() if key != "completions"} for r in results],
        }
        Path(a.json).parent.mkdir(parents=True, exist_ok=True)
        Path(a.json).write_text(json.dumps(report, indent=1) + "\n")
        print(f"\nwritten to {a.json}")


if __name__ == "__main__":
    main()
