#!/usr/bin/env python3
"""Tells wandb or trackio what a run of duel logs, while it goes on or after it.

    python3 track.py RUN --to wandb --project NAME      (WANDB_MODE=offline keeps it on this machine)
    python3 track.py RUN --to trackio --project NAME

RUN is the run's output folder: records of metrics.jsonl are sent as they come, under the names that TRL's trainers give
them (train/loss, eval/loss), with the settings of duel.toml. It ends when the run has, or with --once when all that is
there is sent. A run that goes on after it was stopped makes some steps again: those that were sent are not sent twice.
"""

import argparse
import importlib
import json
import pathlib
import time
import tomllib

DONE = "all_results.json"


def records(path):
    """The whole lines of metrics.jsonl; a run may be writing the last."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return
    for line in text.split("\n")[:-1]:
        yield json.loads(line)


def renamed(record):
    """The numbers of a record as TRL's trainers log them. The epoch is told by steps."""
    evaluation = "learning_rate" not in record
    numbers = {}
    for name, value in record.items():
        if name == "step" or value is None or (evaluation and name == "epoch"):
            continue
        numbers[f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}"] = value
    return evaluation, numbers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path, help="output folder of the run")
    parser.add_argument("--to", choices=["wandb", "trackio"], required=True)
    parser.add_argument("--project", default="duel")
    parser.add_argument("--name", help="name of the run there; the folder's, if it is not given")
    parser.add_argument("--once", action="store_true", help="send what is there, and end")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between looks")
    said = parser.parse_args()

    config = said.run / "duel.toml"
    while not config.exists():
        if said.once:
            parser.error(f"{said.run} holds no run: there is no duel.toml")
        time.sleep(said.every)
    settings = tomllib.loads(config.read_text())
    tracker = importlib.import_module(said.to)
    tracker.init(project=said.project, name=said.name or said.run.resolve().name, config=settings)
    sent = set()
    begun = time.time()
    try:
        while True:
            # Asked before the last look, so that what was written until then is seen by it.
            done = (said.run / DONE).exists() and (said.run / DONE).stat().st_mtime >= config.stat().st_mtime
            for record in records(said.run / "metrics.jsonl"):
                evaluation, numbers = renamed(record)
                if (record["step"], evaluation) not in sent:
                    sent.add((record["step"], evaluation))
                    tracker.log(numbers, step=record["step"])
            if done or said.once:
                break
            time.sleep(said.every)
    except KeyboardInterrupt:
        pass
    tracker.finish()
    print(f"{len(sent)} records were sent in {time.time() - begun:.0f} s")


if __name__ == "__main__":
    main()
