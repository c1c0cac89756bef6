"""What can be tested of the races without TRL: `python3 -m unittest discover benches/peers`."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import contest
import generate
import ready

RACES = {
    "race.py": ["--model", "no-model", "--rows", "no-rows.json", "--lora"],
    "generate.py": ["--model", "no-model", "--rows", "no-rows.json", "--gguf", "no.gguf"],
    "rows.py": ["--model", "no-model", "--rows", "no-rows.json"],
    "../gpu/steps.py": ["--work", "no-work"],
}
ROW = {"prompt": "p", "chosen": "c", "rejected": "r"}


class Ready(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def file(self, name, text=""):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def program(self, name, script):
        path = self.file(name, f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def wrong(self, problems, *parts):
        (problem,) = problems
        for part in map(str, parts):
            self.assertIn(part, problem)

    def test_the_binary_answers(self):
        self.assertEqual(ready.binary(self.program("duel", "echo duel 0.1.0")), [])
        self.wrong(ready.binary(self.folder / "none"), self.folder / "none", "cargo build --release", "--duel")
        self.wrong(ready.binary(self.file("data")), "may not be executed")
        self.wrong(ready.binary(self.program("broken", "echo no CUDA >&2; exit 3")), "ended with 3", "no CUDA")
        self.wrong(ready.binary(self.program("other", "echo other 1.0")), "'other 1.0'", "duel's binary")
        foreign = self.file("foreign", "\0no program")
        foreign.chmod(0o755)
        self.wrong(ready.binary(foreign), "cannot be run", "build it again")

    def test_every_package_that_is_missing_is_named(self):
        self.assertEqual(ready.packages(["import json", "from os import path"]), [])
        none, name = ready.packages(["import no_such_package", "import json", "from json import no_such_name"])
        self.wrong([none], sys.executable, "import no_such_package: ModuleNotFoundError", "install it")
        self.wrong([name], "from json import no_such_name: ImportError")

    def test_a_model_has_a_config_and_weights(self):
        self.wrong(ready.model(self.folder / "none"), "no such folder")
        self.file("model/tokenizer.json")
        model = self.folder / "model"
        self.wrong(ready.model(model), "no config.json and no weights")
        self.file("model/config.json")
        self.wrong(ready.model(model), "no weights")
        self.file("model/model.safetensors")
        self.assertEqual(ready.model(model), [])

    def test_rows_are_read_and_counted(self):
        path = self.file("rows.jsonl", (json.dumps(ROW) + "\n") * 3)
        self.assertEqual(ready.rows(path, 3), [])
        self.wrong(ready.rows(path, 4), path, "3 rows and 4 are asked for", "--count")
        self.wrong(ready.rows(self.folder / "none.json", 1), "none.json", "No such file")
        self.wrong(ready.rows(self.file("text.jsonl", "prompt\n"), 1), "text.jsonl", "JSONDecodeError")
        self.wrong(ready.rows(self.file("half.jsonl", '{"prompt": "p"}\n'), 1), "half.jsonl", "'chosen'")
        self.wrong(ready.rows(self.file("list.json", "[1, 2]"), 1), "list.json", "TypeError")

    def test_results_can_be_written(self):
        self.assertEqual(ready.target("--json", self.folder / "new/deep/race.json"), [])
        self.assertEqual(ready.target("--json", self.file("old.json")), [])
        self.assertFalse((self.folder / "new").exists(), "a check leaves nothing behind")
        self.wrong(ready.target("--json", self.folder), self.folder, "is a folder")
        self.wrong(ready.target("--json", self.folder / "old.json/race.json"), "old.json is a file")

    def test_a_file_is_there(self):
        self.assertEqual(ready.file("--gguf", self.file("a.gguf")), [])
        self.wrong(ready.file("--gguf", self.folder / "none"), "no such file", "--gguf")

    def test_a_folder_for_the_work_is_there(self):
        self.assertEqual(ready.folder("--work", self.folder), [])
        self.wrong(ready.folder("--work", self.folder / "none"), "no such folder", "--work")

    @unittest.skipIf(os.geteuid() == 0, "root may write anywhere")
    def test_what_is_read_only_is_named(self):
        self.folder.chmod(0o555)
        self.addCleanup(self.folder.chmod, 0o755)
        self.wrong(ready.target("--json", self.folder / "race.json"), "is read-only", "--json")
        self.wrong(ready.folder("--work", self.folder), "is read-only", "--work")


class Races(unittest.TestCase):
    def test_all_that_is_missing_is_said_at_once_and_before_any_work(self):
        for race, rest in RACES.items():
            with self.subTest(race), tempfile.TemporaryDirectory() as folder:
                blocked = Path(folder) / "file"
                blocked.touch()
                command = [sys.executable, str(HERE / race), "--duel", "no-duel", "--json", str(blocked / "x.json")]
                done = subprocess.run(command + rest, cwd=folder, capture_output=True, text=True)
                self.assertEqual((done.returncode, done.stdout), (1, ""))
                first, *problems = done.stderr.splitlines()
                self.assertEqual(first, "error: the race cannot start:")
                for name in ["no-duel: ", f"{blocked} is a file", *(p + ": " for p in rest if p.startswith("no-"))]:
                    self.assertEqual(sum(name in problem for problem in problems), 1, done.stderr)
                self.assertEqual(os.listdir(folder), ["file"])


class Contest(unittest.TestCase):
    def test_the_instruction_set_holds_what_is_started(self):
        with unittest.mock.patch.dict(os.environ):
            contest.hold_to(None)
            self.assertEqual(os.environ.get("ATEN_CPU_CAPABILITY"), None)
            contest.hold_to("avx2")
            self.assertEqual([os.environ[name] for name in ("DUEL_ISA", "ATEN_CPU_CAPABILITY")], ["avx2", "avx2"])
        self.assertEqual(contest.duel_isa("plan 5 steps; CPU, 2 thread(s), AVX-512, F32"), "AVX-512")
        self.assertEqual(contest.duel_isa("plan CPU, AVX-512 and AMX, Bf16"), "AVX-512 and AMX")
        self.assertEqual(contest.duel_isa(""), None)

    def test_names_of_maps(self):
        self.assertEqual(contest.lora_targets("all-linear"), "all-linear")
        self.assertEqual(contest.lora_targets("q_proj, v_proj"), ["q_proj", "v_proj"])

    def test_rates_and_what_is_alike(self):
        self.assertEqual(generate.rate({"case": "16", "seconds": 2}), 4 * 4 * 64 / 2)
        self.assertEqual(generate.rate({"case": "prefill", "seconds": 2}), 64 * 512 / 2)
        ours, theirs = ({"completions": c} for c in ([[1, 2, 3], [1, 2, 3]], [[1, 2, 3], [1, 5, 3]]))
        self.assertEqual(generate.alike(ours, theirs), [3, 1])


if __name__ == "__main__":
    unittest.main()
