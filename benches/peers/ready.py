"""What a race needs, checked before it starts: nobody trains for minutes to learn that a file is missing.

A check returns what is wrong, a line each. Heavy libraries are imported elsewhere, because the races themselves must
stay small.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from contest import read_rows

# Whatever else the peers import comes with these.
IMPORTS = (
    "import torch",
    "from datasets import Dataset",
    "from transformers import AutoModelForCausalLM, AutoTokenizer",
    "from trl import DPOConfig, DPOTrainer",
)

TRY_IMPORTS = """
import json, sys
failed = []
for statement in json.loads(sys.argv[1]):
    try:
        exec(statement)
    except Exception as error:
        failed.append(f"{statement}: {type(error).__name__}: {error}".splitlines()[0])
print(json.dumps(failed))
"""


def program(path, build="cargo build --release"):
    """A file of duel's that can be started; `build` makes it."""
    path = Path(path)
    if not path.is_file():
        return [f"{path}: there is no such file; run `{build}`, or give --duel"]
    if not os.access(path, os.X_OK):
        return [f"{path}: may not be executed; give --duel the binary that `{build}` makes"]
    return []


def binary(path, env=None):
    """duel's binary starts."""
    path = Path(path)
    missing = program(path)
    if missing:
        return missing
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, env=env)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"{path}: --version cannot be run ({error}); build it again for this machine"]
    if done.returncode != 0 or not done.stdout.startswith("duel "):
        said = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
        return [f"{path}: --version ended with {done.returncode} and said {said[-1]!r}; give --duel duel's binary"]
    return []


def packages(imports=IMPORTS):
    """This Python has what the peers import; asked of a process of its own."""
    command = [sys.executable, "-c", TRY_IMPORTS, json.dumps(imports)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        return [f"{sys.executable}: ended with {done.returncode} while importing ({said[-1]}); mend its packages"]
    # The last line: packages may print something of their own.
    failed = json.loads(done.stdout.splitlines()[-1])
    return [f"{sys.executable}: {what}; install it there, or run this with another Python" for what in failed]


def model(folder):
    """A Hugging Face folder with weights."""
    folder = Path(folder)
    if not folder.is_dir():
        return [f"{folder}: there is no such folder; give --model a Hugging Face folder"]
    lacking = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        lacking.append("weights")
    return [f"{folder}: it has no {' and no '.join(lacking)}; give --model a Hugging Face folder"] if lacking else []


def rows(path, count):
    """A file with so many preference rows."""
    try:
        found = len(read_rows(path, count))
    except OSError as error:
        return [f"{path}: cannot be read ({error.strerror}); give --rows a .json or .jsonl file"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{path}: its first {count} rows are no preference rows ({type(error).__name__}: {error}); mend them"]
    if found < count:
        return [f"{path}: it has {found} rows and {count} are asked for; lower --count, or give --rows another file"]
    return []


def file(option, path):
    """A file that can be read."""
    return [] if Path(path).is_file() else [f"{path}: there is no such file; give {option} another"]


def folder(option, path):
    """A folder that can be written to."""
    path = Path(path)
    if not path.is_dir():
        return [f"{path}: there is no such folder; make it, or give {option} another"]
    if not os.access(path, os.W_OK):
        return [f"{path}: is read-only; give {option} another folder"]
    return []


def target(option, path):
    """A file that can be written, together with the folders on its way."""
    path = Path(path).absolute()
    if path.is_dir():
        return [f"{path}: is a folder; give {option} a file"]
    there = next(p for p in (path, *path.parents) if p.exists())
    if there != path and not there.is_dir():
        return [f"{path}: cannot be written, {there} is a file; give {option} another file"]
    if not os.access(there, os.W_OK):
        return [f"{path}: cannot be written, {there} is read-only; give {option} another file"]
    return []


def require(*problems):
    """Ends the process with all that is wrong, in one message, where anything is."""
    found = [problem for several in problems for problem in several]
    if found:
        sys.exit("error: the race cannot start:\n" + "\n".join(f"  {problem}" for problem in found))
