"""Training as processes: launch, signals, lost ranks, resuming, and serving what was written."""
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import tempfile
import time
import unittest

BIN = pathlib.Path(os.environ["HANLIN_BIN"])
DEFAULT_MODEL = pathlib.Path(os.environ["HANLIN_DATA"]) / "models" / "hanlin-poet"
PATIENCE_S = 120
LINES = ["床前明月光，疑是地上霜。", "举头望明月，低头思故乡。", "白日依山尽，黄河入海流。", "欲穷千里目，更上一层楼。"]
CONFIG = {"model_type": "gpt2", "vocab_size": 8192, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64,
          "eos_token_id": 1}


class TrainTest(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.temporary.name)
        model = self.root / "model"
        model.mkdir()
        (model / "config.json").write_text(json.dumps(CONFIG))
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (model / name).write_bytes((DEFAULT_MODEL / name).read_bytes())
        rows = [json.dumps({"src_txt": f"第{i}首\n", "tgt_txt": LINES[i % 4]}) for i in range(32)]
        (self.root / "train.jsonl").write_text("\n".join(rows))
        self.recipe = self.root / "recipe.yaml"
        self.recipe.write_text(f"""
model: {model}
init: random
output: {self.root}/run
data: {{train: [{self.root}/train.jsonl], valid: [{self.root}/train.jsonl], sequence_length: 24}}
batch: {{size: 8}}
schedule: {{type: constant, warmup: 1}}
optimizer: {{lr: 3e-3}}
run: {{epochs: 3}}
log: {{every: 1}}
parallel: {{timeout: 60}}
""")

    def tearDown(self):
        self.temporary.cleanup()

    def command(self, *overrides, ranks=1):
        launch = ["launch", "--nproc-per-node", str(ranks), "hanlin"] if ranks > 1 else []
        sets = [word for override in overrides for word in ("--set", override)]
        return [str(BIN / "hanlin"), *launch, "train", "--config", str(self.recipe), *sets]

    def run_train(self, *overrides, ranks=1):
        done = subprocess.run(self.command(*overrides, ranks=ranks), capture_output=True, text=True,
                              timeout=PATIENCE_S)
        return done.returncode, done.stdout, done.stderr

    def log(self, kind, run="run"):
        lines = (self.root / run / "log.jsonl").read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if entry["kind"] == kind]

    def start(self, *overrides, ranks=1):
        process = subprocess.Popen(self.command(*overrides, ranks=ranks), stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (process.poll() is None and process.kill(), process.communicate()))
        return process

    def wait_for_step(self, step):
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                if len(self.log("step")) >= step:
                    return
            except (FileNotFoundError, json.JSONDecodeError):
                pass  # not there yet, or half a line
            time.sleep(0.05)
        self.fail(f"step {step} did not come")

    def test_ranks_agree_with_one_process_and_the_result_is_served(self):
        self.assertEqual(self.run_train("output=" + str(self.root / "one"))[0], 0)
        code, stdout, stderr = self.run_train("parallel.tensor=2", ranks=4)
        self.assertEqual(code, 0, stderr)
        self.assertRegex(stdout, r"^finished after step 12, .*best ppl")
        self.assertIn("tok/s", stderr)
        one, four = self.log("step", "one"), self.log("step")
        self.assertEqual(len(four), 12)
        for a, b in zip(one, four):
            self.assertAlmostEqual(a["loss"], b["loss"], delta=1e-4 * a["loss"])
        evaluation = self.log("evaluation")[-1]
        sample = json.loads((self.root / "train.jsonl").read_text().splitlines()[0])
        done = subprocess.run([BIN / "hanlin", "score", "--model", self.root / "run" / "best", "--json", "--text",
                               sample["src_txt"] + sample["tgt_txt"]], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertLess(json.loads(done.stdout)["ppl"], 8192)
        self.assertLess(evaluation["ppl"], self.log("evaluation")[0]["ppl"])

    def test_samples_and_scores_are_in_the_log_and_the_written_model_says_the_same(self):
        code, _, stderr = self.run_train('evaluation.samples=["第0首\\n"]', "evaluation.sample_tokens=20",
                                         "evaluation.generate=4", "evaluation.metric=bleu-4", "run.epochs=20",
                                         "evaluation.every=40", "parallel.tensor=2", ranks=4)
        self.assertEqual(code, 0, stderr)
        samples = self.log("sample")
        self.assertEqual([sample["step"] for sample in samples], [40, 80])
        self.assertIn("sample 1: 第0首", stderr)
        for evaluation in self.log("evaluation"):
            self.assertTrue(0 <= evaluation["bleu-4"] <= evaluation["bleu-1"] <= 1, evaluation)
        done = subprocess.run([BIN / "hanlin", "generate", "--model", self.root / "run" / "latest", "--greedy", "--json",
                               "--max-tokens", "20", "--prompt", "第0首\n"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(samples[-1]["text"], json.loads(done.stdout)["text"])
        self.assertGreater(len(samples[-1]["text"]), 3)
        step = self.log("step")[-1]
        self.assertGreaterEqual(step["peak_memory_bytes"], step["memory_bytes"])
        self.assertGreaterEqual(step["data_wait_seconds"], 0)
        self.assertTrue(any("memory in MiB" in message["text"] for message in self.log("message")))

    def test_sigterm_saves_and_the_same_command_goes_on(self):
        whole = self.run_train("output=" + str(self.root / "whole"), "run.epochs=200", "run.max_steps=40")
        self.assertEqual(whole[0], 0, whole[2])
        arguments = ("run.epochs=200", "run.max_steps=40", "checkpoint.every=1000", "evaluation.every=1000")
        process = self.start(*arguments, ranks=2)
        self.wait_for_step(3)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
        self.assertEqual(process.returncode, 0, stderr)
        if "stopped by a signal" in stdout:  # else it was quicker than the signal
            code, stdout, stderr = self.run_train(*arguments, ranks=2)
            self.assertEqual(code, 0, stderr)
            self.assertIn("going on from", stderr)
        self.assertIn("finished after step 40", stdout)
        losses = {entry["step"]: entry["loss"] for entry in self.log("step")}
        for entry in self.log("step", "whole"):
            self.assertAlmostEqual(losses[entry["step"]], entry["loss"], delta=1e-3)

    def test_a_killed_rank_ends_both_groups_of_every_other_rank(self):
        process = self.start("run.epochs=100000", "evaluation.every=1000000", "parallel.tensor=2", ranks=4)
        self.wait_for_step(6)
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[3]), signal.SIGKILL)
        began = time.monotonic()
        _, stderr = process.communicate(timeout=PATIENCE_S)
        self.assertLess(time.monotonic() - began, 15)
        self.assertEqual(process.returncode, 1)
        self.assertIn("rank 3 of 4 ended with signal 9", stderr)
        # Whichever of its groups a rank hears it from, the way leads back to one that rank 3 was in.
        lines = [line for line in stderr.splitlines() if line.startswith("hanlin train: ")]
        self.assertEqual(len(lines), 3, stderr)
        for line in lines:
            self.assertRegex(line, "group of ranks [12], 3: .*rank 1 of 2 is gone")

    def test_a_killed_rank_ends_the_job_with_its_name_and_nothing_saved_is_lost(self):
        arguments = ("run.epochs=100000", "checkpoint.every=2", "evaluation.every=1000000")
        process = self.start(*arguments, ranks=2)
        self.wait_for_step(6)
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[1]), signal.SIGKILL)
        began = time.monotonic()
        _, stderr = process.communicate(timeout=PATIENCE_S)
        self.assertLess(time.monotonic() - began, 15)
        self.assertEqual(process.returncode, 1)
        self.assertIn("rank 1 of 2 ended with signal 9", stderr)
        self.assertRegex(stderr, r"group of ranks 0, 1.*rank 1 of 2 is gone")
        saved = max(int(path.name[5:]) for path in (self.root / "run").glob("step-*"))
        self.assertGreaterEqual(saved, 4)
        code, stdout, stderr = self.run_train(f"run.max_steps={saved + 2}", ranks=2)
        self.assertEqual(code, 0, stderr)
        self.assertIn(f"step {saved}, epoch", stderr)
        self.assertIn(f"finished after step {saved + 2}", stdout)

    def test_kill_nine_at_any_moment_leaves_complete_checkpoints(self):
        for delay in (0.02, 0.11, 0.23):
            process = self.start("run.epochs=100000", "checkpoint.every=1", "evaluation.every=1000000")
            self.wait_for_step(2)
            time.sleep(delay)
            process.kill()
            process.communicate()
            for folder in (self.root / "run").glob("step-*"):
                self.assertTrue((folder / "trainer" / "state.json").exists())
                json.loads((folder / "trainer" / "state.json").read_text())
        saved = max(int(path.name[5:]) for path in (self.root / "run").glob("step-*"))
        code, stdout, stderr = self.run_train(f"run.max_steps={saved + 1}")
        self.assertEqual(code, 0, stderr)
        self.assertIn(f"finished after step {saved + 1}", stdout)

    def test_mistakes_exit_with_two_and_name_what_is_wrong(self):
        for overrides, ranks, message in (
                (("optimiser.lr=1",), 1, "there is no key 'optimiser.lr', do you mean 'optimizer.lr'?"),
                (("data.train=[/no/such.jsonl]",), 1, "/no/such.jsonl"),
                (("parallel.tensor=3",), 2, "a divisor of the 2 ranks"),
                (("resume=/no/such",), 1, "/no/such"),
                (("init=checkpoint",), 1, "has no weights"),
                (("data.source_column=text1",), 1, "train.jsonl:1: the row has no column 'text1'")):
            with self.subTest(overrides=overrides):
                code, stdout, stderr = self.run_train(*overrides, ranks=ranks)
                self.assertEqual(code, 2, stderr)
                self.assertEqual(stdout, "")
                self.assertIn(message, stderr)
        heads = json.loads((self.root / "model" / "config.json").read_text()) | {"n_head": 1}
        (self.root / "model" / "config.json").write_text(json.dumps(heads))
        code, _, stderr = self.run_train("parallel.tensor=2", ranks=2)
        self.assertEqual(code, 2)
        self.assertTrue(re.search("heads|n_head", stderr), stderr)

    def test_an_environment_that_no_launcher_sets_is_named(self):
        for variables, message in (
                ({"RANK": "0"}, "RANK is set and WORLD_SIZE is not"),
                ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
                ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is '2', want an integer in [0, 1]"),
                ({"RANK": "0", "WORLD_SIZE": "2"}, "want MASTER_ADDR and MASTER_PORT as well"),
                ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"},
                 "MASTER_PORT is '0'")):
            with self.subTest(variables=variables):
                done = subprocess.run(self.command(), capture_output=True, text=True, timeout=PATIENCE_S,
                                      env=os.environ | variables)
                self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
                self.assertIn(message, done.stderr)

    def test_a_full_disk_ends_every_rank_and_keeps_the_checkpoint_before(self):
        code, _, stderr = self.run_train("run.max_steps=2", ranks=2)
        self.assertEqual(code, 0, stderr)

        def small_files():  # a write fails, as on a full disk: that of the optimizer's state, not of shared memory
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1500 << 10, resource.RLIM_INFINITY))
        done = subprocess.run(self.command("run.max_steps=4", "checkpoint.every=1", ranks=2), capture_output=True,
                              text=True, timeout=PATIENCE_S, preexec_fn=small_files, restore_signals=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, "checkpoint step-0000000[34].*cannot write")
        self.assertEqual([path.name for path in (self.root / "run").glob("step-*")], ["step-00000002"])
        code, stdout, stderr = self.run_train("run.max_steps=4", ranks=2)
        self.assertEqual(code, 0, stderr)
        self.assertIn("step 2, epoch", stderr)
        self.assertIn("finished after step 4", stdout)

    def test_launch_needs_a_command_that_starts(self):
        for arguments, expected in ((["--nproc-per-node", "2"], 2), (["--nproc-per-node", "2", "/no/such"], 127),
                                    (["--nproc-per-node", "0", "true"], 2), (["--nproc-per-node", "3", "true"], 0)):
            done = subprocess.run([BIN / "hanlin", "launch", *arguments], capture_output=True, text=True)
            self.assertEqual(done.returncode, expected, done.stderr)

    def test_launch_gives_each_rank_its_variables_and_passes_on_codes_and_signals(self):
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
                 "TORCHELASTIC_USE_AGENT_STORE")
        script = "echo " + " ".join(f"${{{name}-unset}}" for name in names) + "; exit $((RANK * 7))"
        done = subprocess.run([BIN / "hanlin", "launch", "--nproc-per-node", "2", "--master-port", "7123", "sh", "-c", script],
                              capture_output=True, text=True, timeout=PATIENCE_S,
                              env=os.environ | {"TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": "9"})
        self.assertEqual(sorted(done.stdout.splitlines()), [f"{rank} {rank} 2 2 127.0.0.1 7123 unset" for rank in (0, 1)])
        self.assertEqual(done.returncode, 7)
        self.assertEqual(done.stderr, "hanlin launch: rank 1 of 2 ended with exit code 7\n")

        process = subprocess.Popen([BIN / "hanlin", "launch", "--nproc-per-node", "2", "sh", "-c",
                                    "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual([process.stdout.readline() for _ in range(2)], ["up\n"] * 2)
        process.terminate()
        _, stderr = process.communicate(timeout=PATIENCE_S)
        self.assertEqual((process.returncode, stderr), (0, ""))


if __name__ == "__main__":
    unittest.main(verbosity=2)
