#!/usr/bin/env python3
"""Runs of several processes over NCCL, all on the one GPU: any number has to end in the same bits.

NCCL takes processes for those of different machines where `NCCL_HOSTID` says so, and then lets them have the same GPU;
what they exchange goes through sockets. `run.py` starts it. One run has a process that hangs, and has to end with an
error about that.
"""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

# Beside this folder in the repository and in the bundle alike.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))

import ready
import steps
from contest import duel_command, ending, write_rows

SHARES = 4
PROCESSES = (1, 2, 3, 4)
METHODS = {"dpo": [], "sft": ["--method", "sft"]}
ROUNDS = 4
# Seconds that a process waits for one that hangs, and that its end may then take.
TIMEOUT, ENDING = 8, 10


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Ranks(steps.Stage):
    def __init__(self, a):
        super().__init__(a, "ranks", "ranks")

    def start(self, out, count, *options):
        """Processes of a run into `out`, each with a log of its own."""
        rows, model = self.work / "rows.jsonl", self.work / steps.CURVE
        settings = {**steps.SETTINGS, "learning_rate": 1e-4}
        command = duel_command(self.a.duel, model, rows, out, f"{out}.cache", settings, *options)
        command += ["--device", "cuda", "--bf16", "true", "--gradient-shares", str(SHARES)]
        port = str(free_port())
        processes = []
        for rank in range(count):
            env = steps.environment(self.a) or dict(os.environ)
            if count > 1:
                env |= {"WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
                env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                env |= {"NCCL_HOSTID": f"machine-{rank}", "NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1"}
            with open(f"{out}.{rank}.log", "w") as log:
                processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))
        return processes

    def wait(self, processes, seconds):
        """Their exit codes, None of those that had to be killed."""
        end = min(self.end, time.monotonic() + seconds)
        codes = []
        for process in processes:
            try:
                codes.append(process.wait(timeout=max(1, end - time.monotonic())))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                codes.append(None)
        return codes

    def log(self, out, rank=0):
        return Path(f"{out}.{rank}.log").read_text(errors="replace")

    def same(self, method, options):
        """Runs of a method with each number of processes."""
        expected = None
        for count in PROCESSES:
            out = self.work / f"{method}-{count}"
            begun = time.monotonic()
            codes = self.wait(self.start(out, count, *options), 40)
            if any(codes):
                self.failed(f"{method} of {count} processes: {ending(codes[0], 40, self.log(out))}")
                continue
            got = {name: digest(out / name) for name in ("model.safetensors", "metrics.jsonl")}
            expected = expected or got
            sent = json.loads((out / "train_results.json").read_text()).get("sent_bytes", 0)
            row = {"method": method, "processes": count, "same": got == expected, "sent_bytes": sent}
            self.data["ranks"].append(row | {"seconds": time.monotonic() - begun})
            if got != expected:
                self.failed(f"{method} of {count} processes ends in other bits than of one")
            self.write()

    def hangs(self):
        """A run of which a process stops; the other has to end by itself."""
        out = self.work / "hangs"
        endless = ["--max-steps", "1000000", "--ddp-timeout", str(TIMEOUT)]
        processes = self.start(out, 2, *endless)
        begun = time.monotonic()
        # Until it trains, or has ended.
        while not (out / "metrics.jsonl").is_file() and processes[0].poll() is None and time.monotonic() - begun < 30:
            time.sleep(0.1)
        processes[1].send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        (code,) = self.wait(processes[:1], TIMEOUT + ENDING)
        seconds = time.monotonic() - begun
        processes[1].kill()
        said = self.log(out).strip().splitlines()[-1]
        self.data["hung_rank"] = {"timeout": TIMEOUT, "seconds": seconds, "said": said}
        if code != 1 or not said.startswith("error: "):
            self.failed(f"a process of two hung, and the other ended with {code} after {seconds:.0f} s: {said}")
        self.write()


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main():
    a = steps.parser(__doc__, 60).parse_args()
    # The devices of all processes are the one that there is.
    a.device, a.models = "cuda:0", steps.CURVE
    target = ready.target("--json", a.json)
    ready.require(ready.binary(a.duel, steps.environment(a)), ready.folder("--work", a.work), target)
    ranks = Ranks(a)
    ranks.write()
    steps.models_worker(a)
    write_rows(ranks.work / "rows.jsonl", steps.pairs(steps.PAIRS * ROUNDS, steps.MODELS[steps.CURVE]["vocab_size"]))
    for method, how in METHODS.items():
        ranks.same(method, how)
    ranks.hangs()


if __name__ == "__main__":
    main()
