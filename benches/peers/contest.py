"""The contestants of the races: duel's binary and TRL's DPOTrainer, told to do the same work.

`race.py` runs them on the CPU, `../gpu/steps.py` on a GPU. Heavy libraries are imported where they are used, because
the races themselves must stay small.
"""

import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

# Instruction sets that all contestants can be held to, and the variables that do so: duel's, then those of PyTorch and
# of the two libraries that make its products. llama.cpp is told when it is built.
ISAS = {
    "avx2": {
        "DUEL_ISA": "avx2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
    "avx512": {
        "DUEL_ISA": "avx512",
        "ATEN_CPU_CAPABILITY": "avx512",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
    },
}

METRICS = ("loss", "grad_norm", "logps/chosen", "logps/rejected")


def read_rows(path, count):
    """The first `count` preference rows of a .json or .jsonl file, as TRL takes them; all of them without a count."""
    text = Path(path).read_text(encoding="utf-8")
    lines = (line for line in text.split("\n") if line.strip())
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in lines]
    return [pair(row) for row in rows[:count]]


def pair(row):
    """A row as TRL takes it."""
    if "conversations" not in row:
        return {key: row[key] for key in ("prompt", "chosen", "rejected")}
    roles = {"human": "user", "gpt": "assistant", "system": "system"}

    def message(m):
        return {"role": roles[m["from"]], "content": m["value"]}

    return {
        "prompt": [message(m) for m in row["conversations"]],
        "chosen": [message(row["chosen"])],
        "rejected": [message(row["rejected"])],
    }


def write_rows(path, rows):
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def timed(command, log):
    """Runs a process to its end. Its peak memory is read from the kernel, which counts what this process has at the
    time as well: so the heavy libraries are imported in processes of their own."""
    with open(log, "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"error: {command[0]} failed; the end of its output:\n" + Path(log).read_text()[-4000:])
    return usage.ru_maxrss * 1024


def steps(records):
    """What both contestants say about each step, from their logged records."""
    return [{key: record[key] for key in METRICS} for record in records if "loss" in record]


def ending(code, seconds, output):
    """How a process failed, its last line first; without a code it was stopped after so many seconds."""
    why = f"stopped after {seconds:.0f} s" if code is None else f"ended with {code}"
    lines = [line for line in output.splitlines() if line.strip()]
    return f"{why}: {lines[-1] if lines else 'it said nothing'}\nThe end of its output:\n{output[-1500:]}"


def duel_command(binary, model, rows, out, cache, settings, *options):
    """duel's command line; `settings` holds batch_size, max_length, learning_rate and, for preferences, beta."""
    command = [str(binary), "train", "--model", str(model), "--dataset", str(rows), "--output-dir", str(out)]
    command += ["--overwrite-output-dir", "--cache-dir", str(cache), "--shuffle", "false", "--num-train-epochs", "1"]
    command += ["--per-device-train-batch-size", str(settings["batch_size"])]
    command += ["--max-length", str(settings["max_length"])]
    command += ["--beta", str(settings["beta"])] if "beta" in settings else []
    command += ["--learning-rate", str(settings["learning_rate"]), "--lr-scheduler-type", "constant"]
    command += ["--max-grad-norm", "1", "--logging-steps", "1", "--save-strategy", "no"]
    return command + list(options)


def duel_results(out):
    """What duel wrote about its speed, and its logged records."""
    records = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    end = json.loads((Path(out) / "train_results.json").read_text(encoding="utf-8"))
    return end, records


def lora_targets(text):
    """What PEFT calls target_modules: one word that means many, or names with commas."""
    return text if text == "all-linear" else [name.strip() for name in text.split(",")]


def train_with_trl(model, tokenizer, rows, out, settings, tuned, adapter=None, **options):
    """Trains once with TRL, one epoch of the rows in their order; seconds and metrics of each step.

    Default is TRL as it comes: gradient checkpointing, and the reference's forward pass inside the step. Tuned is
    without checkpointing and with the reference's log-probabilities computed before. The clock covers the training
    steps alone. With `adapter`, PEFT's folder of a fresh one, that is trained. `options` are further ones of DPOConfig,
    such as the device.
    """
    import torch
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    times, peft = [], {}
    if adapter:
        from peft import LoraConfig

        peft["peft_config"] = LoraConfig.from_pretrained(adapter)
        # PEFT saves every adapter as one that is not trained, whatever the call says.
        peft["peft_config"].inference_mode = False

    def now():
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.start = now()

        def on_step_end(self, *_, **__):
            times.append(now() - self.start)

    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    config = DPOConfig(
        output_dir=str(out),
        per_device_train_batch_size=settings["batch_size"],
        max_length=settings["max_length"],
        learning_rate=settings["learning_rate"],
        beta=settings["beta"],
        num_train_epochs=1,
        logging_steps=1,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        gradient_checkpointing=not tuned,
        precompute_ref_log_probs=tuned,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=0,
        **options,
    )
    trainer = DPOTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Clock()],
        **peft,
    )
    if adapter:
        from peft import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(trainer.model, load_peft_weights(str(adapter), device="cpu"))
    trainer._get_train_sampler = lambda *_, **__: SequentialSampler(trainer.train_dataset)
    trainer.train()
    return {
        "step_seconds": times,
        "pairs": len(trainer.train_dataset),
        "steps": steps(trainer.state.log_history),
    }


def hold_to(isa):
    """Holds every process that is started from here on to one of ISAS; None leaves all as they are."""
    os.environ.update(ISAS[isa] if isa else {})


def duel_isa(output):
    """The instruction set that duel said it ran on."""
    said = re.search(r"AVX-512 and AMX|AVX-512|AVX2|baseline", output)
    return said.group() if said else None


def versions(*packages):
    """Of packages that are installed, and of Python."""
    from importlib.metadata import version

    return {name: version(name) for name in packages} | {"python": platform.python_version()}


def machine():
    """The CPU's name and its cores."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.split(':')[1].strip()}, {os.cpu_count()} cores"
    return platform.processor()


def offline():
    """No contestant may ask the network for anything; call it before importing transformers."""
    os.environ["HF_HUB_OFFLINE"] = "1"
