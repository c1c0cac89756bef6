"""What can be tested of the GPU benchmarks without a GPU: `python3 -m unittest discover benches/gpu`."""

import json
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "peers")]

import contest
import run
import steps
import work


class Work(unittest.TestCase):
    def test_shapes_of_attention(self):
        self.assertEqual(work.attention_shape("hd64 2048"), (64, 0, 1, 2048))
        self.assertEqual(work.attention_shape("hd128 512+2x256"), (128, 512, 2, 256))

    def test_visible_pairs_counted_one_by_one(self):
        for prompt, count, length in ((0, 1, 5), (4, 2, 3), (3, 3, 1)):
            rows = [("prompt", i) for i in range(prompt)]
            rows += [(response, prompt + i) for response in range(count) for i in range(length)]

            def sees(query, key):
                return key[1] <= query[1] and key[0] in ("prompt", query[0])

            counted = sum(sees(query, key) for query in rows for key in rows)
            self.assertEqual(work.visible_pairs(prompt, count, length), counted)

    def test_work(self):
        pairs = 8 * (2048 * 2049 // 2)
        self.assertEqual(work.work("attention", "hd64 2048"), ("flop", 4 * pairs * 2048))
        self.assertEqual(work.work("attention_bw", "hd128 2048"), ("flop", 10 * pairs * 2048))
        self.assertEqual(work.work("gemm_dw", "2x3x4"), ("flop", 48))
        self.assertEqual(work.work("head", "2x3x4"), ("flop", 144))
        self.assertEqual(work.work("rmsnorm", "2x3"), ("bytes", 24))
        self.assertEqual(work.work("adamw", "10"), ("bytes", 280))


class Results(unittest.TestCase):
    def test_closing_line_of_the_tests(self):
        output = "test a ... ok\ntest b ... FAILED\n\ntest result: FAILED. 30 passed; 1 failed; 0 ignored; 0 measured; "
        output += "0 filtered out; finished in 12.50s\n"
        self.assertEqual(run.conformance_results(output), {"passed": 30, "failed": 1, "seconds": 12.5})
        cut = run.conformance_results("test a ... ok\ntest c ... ok\ntest b ... FAILED\ntest d ")
        self.assertEqual(cut, {"passed": 2, "failed": 1, "seconds": None})

    def test_summaries_of_compute_sanitizer(self):
        self.assertEqual(run.sanitizer_errors("========= ERROR SUMMARY: 3 errors\n"), 3)
        race = "========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)\n"
        self.assertEqual(run.sanitizer_errors(race), 1)
        self.assertIsNone(run.sanitizer_errors("========= Error: Device not supported\n"))

    def test_criterion_files(self):
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home) / "attention" / "attention" / "hd64 512" / "new"
            folder.mkdir(parents=True)
            benchmark = {"group_id": "attention", "function_id": "attention", "value_str": "hd64 512"}
            benchmark["throughput"] = {"Elements": 4000}
            bounds = {"confidence_level": 0.95, "lower_bound": 1e9, "upper_bound": 3e9}
            median = {"point_estimate": 2e9, "confidence_interval": bounds}
            (folder / "benchmark.json").write_text(json.dumps(benchmark))
            (folder / "estimates.json").write_text(json.dumps({"median": median}))
            (row,) = run.criterion_results(home, {"matmul_flop_per_second": 8000.0})
            self.assertEqual((row["kernel"], row["shape"], row["flop"]), ("attention", "hd64 512", 4000))
            self.assertAlmostEqual(row["seconds"], 2.0)
            self.assertAlmostEqual(row["share"], 0.25)
            (row,) = run.criterion_results(home, {})
            self.assertNotIn("share", row)

    def test_table_joins_the_fastest_peer(self):
        ours = [{"kernel": "gemm", "shape": "1x2x3", "seconds": 1e-3, "flop": 1, "per_second": 2e12, "share": 0.5}]
        peers = [
            {"kernel": "gemm", "shape": "1x2x3", "who": "slow", "seconds": 3e-3},
            {"kernel": "gemm", "shape": "1x2x3", "who": "fast", "seconds": 2e-3},
            {"kernel": "gemm", "shape": "9x9x9", "who": "other", "seconds": 1e-3},
        ]
        (line,) = run.kernel_lines(ours, peers)
        self.assertIn("2.00 x fast", line)
        self.assertIn("50.0%", line)

    def test_table_counts_the_reference_against_trl_as_it_comes(self):
        row = {"model": "m", "pairs_per_second": 8.0}
        results = [
            {**row, "who": "duel", "seconds": 1.0, "reference_seconds_per_step": 0.5},
            {**row, "who": "TRL tuned", "seconds": 3.0, "comparable": True},
            {**row, "who": "TRL default", "seconds": 3.0, "comparable": False},
        ]
        _, tuned, default = run.step_lines(results)
        self.assertTrue(tuned.endswith("3.00 x"))
        self.assertTrue(default.endswith("2.00 x  NOT COMPARABLE"))


class Steps(unittest.TestCase):
    def test_rows_have_exactly_the_tokens(self):
        (row,) = steps.pairs(1, 100)
        counts = [len(row[key].split()) for key in ("prompt", "chosen", "rejected")]
        # The trainers end each response with one more.
        self.assertEqual(counts, [steps.PROMPT, steps.CHOSEN - 1, steps.REJECTED - 1])
        self.assertLessEqual(steps.PROMPT + steps.CHOSEN, steps.SETTINGS["max_length"])
        vocab = steps.tokenizer_json(100)["model"]["vocab"]
        self.assertEqual(sorted(vocab.values()), list(range(100)))
        self.assertTrue(all(word in vocab for key in row for word in row[key].split()))

    def test_the_first_step_warms_up(self):
        result = {"step_seconds": [9.0, 1.0, 3.0, 2.0], "reference_seconds": 4.0, "pairs": 32, "steps": []}
        row = steps.summary("m", "duel", {**result, "peak_bytes": None})
        self.assertEqual((row["seconds"], row["pairs_per_second"]), (2.0, 4.0))
        self.assertEqual(row["reference_seconds_per_step"], 1.0)
        self.assertNotIn("peak_bytes", row)

    def test_a_difference_of_a_token_is_no_rounding(self):
        step = {"loss": 0.6931, "grad_norm": 40.0, "logps/chosen": -6020.0, "logps/rejected": -4515.0}
        ours = {"pairs": 32, "steps": [step]}
        close = {**step, "grad_norm": 40.5, "logps/chosen": -6021.0}
        self.assertEqual(steps.differences(ours, {"pairs": 32, "steps": [close]}), [])
        token = {**step, "logps/chosen": -6031.76}
        self.assertEqual(len(steps.differences(ours, {"pairs": 32, "steps": [token]})), 1)
        self.assertEqual(len(steps.differences(ours, {"pairs": 24, "steps": [step]})), 1)
        lost = {**step, "grad_norm": float("nan")}
        self.assertEqual(len(steps.differences(ours, {"pairs": 32, "steps": [lost]})), 1)


class Contest(unittest.TestCase):
    def test_only_preferences_have_a_beta(self):
        settings = {"batch_size": 8, "max_length": 1024, "learning_rate": 1e-6}
        self.assertNotIn("--beta", contest.duel_command("duel", "m", "r", "o", "c", settings, "--method", "sft"))
        self.assertIn("--beta", contest.duel_command("duel", "m", "r", "o", "c", {**settings, "beta": 0.1}))

    def test_an_ending_says_the_last_line_first(self):
        self.assertTrue(contest.ending(1, 9, "a\nerror: b\n").startswith("ended with 1: error: b\n"))
        self.assertTrue(contest.ending(None, 9, "").startswith("stopped after 9 s: it said nothing\n"))

    def test_rows_of_all_kinds_become_pairs(self):
        row = {"prompt": "p", "chosen": "c", "rejected": "r", "more": 1}
        self.assertEqual(contest.pair(row), {"prompt": "p", "chosen": "c", "rejected": "r"})
        said = {"conversations": [{"from": "human", "value": "p"}], "chosen": {"from": "gpt", "value": "c"}}
        pair = contest.pair({**said, "rejected": {"from": "gpt", "value": "r"}})
        self.assertEqual(pair["prompt"], [{"role": "user", "content": "p"}])
        self.assertEqual(pair["rejected"], [{"role": "assistant", "content": "r"}])


if __name__ == "__main__":
    unittest.main()
