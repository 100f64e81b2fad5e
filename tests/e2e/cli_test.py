"""The command-line contract: JSON fields, exit codes, what goes to stdout and what to stderr."""
import json
import math
import pathlib
import signal
import subprocess
import tempfile

from harness import BIN, DEFAULT_MODEL, PROMPT, Case, greedy_cases, run_cli, unittest


class CommandLineTest(Case):
    def json_of(self, *arguments, stdin=None):
        """The JSON objects on stdout of a command that must succeed."""
        code, stdout, stderr = run_cli(*arguments, "--json", stdin=stdin)
        self.assertEqual(code, 0, stderr)
        return [json.loads(line) for line in stdout.splitlines()]

    def test_help_teaches_and_version_is_printed(self):
        code, stdout, _ = run_cli("--help")
        self.assertEqual(code, 0)
        commands = ("serve", "generate", "score", "tokenize", "detokenize", "inspect", "convert", "bench", "train",
                    "launch")
        for command in commands:
            self.assertIn(command, stdout)
            code, text, _ = run_cli(command, "--help")
            self.assertEqual(code, 0)
            self.assertIn("--help", text)
        for command in ("serve", "generate", "score", "tokenize", "inspect", "convert", "train", "launch"):
            self.assertIn("Example", run_cli(command, "--help")[1])
        for command in ("decode", "prefill", "train", "allreduce", "tokenize", "load", "serve", "start"):
            self.assertIn("--json", run_cli("bench", command, "--help")[1])
        code, stdout, _ = run_cli("--version")
        self.assertEqual(code, 0)
        self.assertRegex(stdout, r"\d+\.\d+\.\d+")

    def test_mistakes_exit_with_two_and_one_line(self):
        for arguments in ((), ("nonsense",), ("convert",), ("generate",), ("generate", "--prompt", ""),
                          ("generate", "--prompt", "x", "--top-p", "2"),
                          ("generate", "--prompt", "x", "--max-tokens", "100000"),
                          ("generate", "--prompt", "x", "--model", "/no/such"),
                          ("generate", "--prompt", "x", "--tp", "3"),
                          ("generate", "--ids", "8192"), ("generate", "--ids", "1,,2"),
                          ("generate", "--prompt", "x", "--input", "y"), ("generate", "--input", "/no/such"),
                          ("score",), ("score", "--text", ""), ("score", "--ids", "9999"),
                          ("score", "--text", "x", "--ids", "1"), ("score", "--text", "x", "--tp", "3"),
                          ("inspect", "--preset", "base", "--model", "x"), ("bench", "load", "--step-us", "5"),
                          ("tokenize", "--text", "\udcff"), ("bench", "tokenize", "--input", "/dev/null"),
                          ("score", "--ids", ",".join(["5"] * 513)),
                          ("detokenize",), ("detokenize", "--ids", "a"), ("tokenize", "--model", "/no/such"),
                          ("convert", "--from", "/no/such", "--to", "/tmp/hanlin-never"),
                          ("convert", "--from", DEFAULT_MODEL, "--to", "/"),
                          ("inspect", "--model", "/no/such"), ("inspect", "--preset", "giant"),
                          ("serve", "--random-weights", "--model", "175B", "--groups", "64"), ("serve", "--groups", "0"),
                          ("bench",), ("bench", "decode", "--preset", "giant"),
                          ("bench", "load", "--streams", "0"),
                          ("bench", "serve", "--decode-ms", "1")):
            with self.subTest(arguments=arguments):
                code, stdout, stderr = run_cli(*arguments)
                self.assertEqual(code, 2, stderr)
                self.assertEqual(stdout, "")
                self.assertEqual(len(stderr.strip().split("\n")), 1, stderr)

    def test_mistakes_are_named_with_what_is_wanted(self):
        for arguments, message in (
                (("gnerate",), 'there is no command "gnerate" (do you mean "generate"?)'),
                (("bench", "fly"), 'there is no command "fly", want one of decode'),
                (("generate", "--prompt", "x", "--seed", "-1"), '--seed: is "-1", want a number of at least 0'),
                (("generate", "--prompt", "x", "--timeout", "0"), '--timeout: is "0", want a number above 0'),
                (("generate", "--prompt", "x", "--target", ""), '--target: is "", want HOST:PORT'),
                (("generate", "--prompt", "x", "--target", "127.0.0.1:99999"), '"127.0.0.1:99999", want HOST:PORT'),
                (("bench", "load", "--target", "nonsense"), '--target: is "nonsense", want HOST:PORT'),
                (("bench", "load", "--rate", "-1"), '--rate: is "-1", want a number of at least 0')):
            with self.subTest(arguments=arguments):
                code, stdout, stderr = run_cli(*arguments)
                self.assertEqual((code, stdout), (2, ""), stderr)
                self.assertIn(message, stderr)

    def test_output_that_cannot_be_written_is_a_failure(self):
        for arguments in (("tokenize", "--text", "春"), ("inspect",), ("score", "--text", "春风", "--json"),
                          ("generate", "--prompt", "春", "--max-tokens", "3", "--stream", "--json")):
            with self.subTest(arguments=arguments), open("/dev/full", "w") as full:
                done = subprocess.run([BIN / "hanlin", *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("hanlin: the output could not be written", done.stderr)

    def test_a_server_that_is_not_there_exits_with_one(self):
        code, stdout, stderr = run_cli("generate", "--target", "127.0.0.1:1", "--prompt", "x", "--timeout", "2")
        self.assertEqual(code, 1)
        self.assertIn("hanlin generate: ", stderr)

    def test_generate_equals_the_reference_implementation(self):
        case = greedy_cases()[0]
        result, = self.json_of("generate", "--prompt", case["text"], "--greedy", "--dtype", "fp32",
                                "--max-tokens", len(case["greedy"]))
        self.assertEqual(result["prompt_ids"], case["ids"])
        self.assertEqual(result["ids"], case["greedy"][:len(result["ids"])])
        self.assertEqual(result["usage"]["completion_tokens"], len(result["ids"]))
        self.assertEqual(result["usage"]["prompt_tokens"], len(case["ids"]))
        self.assertIn(result["finish_reason"], ("end_token", "length"))
        by_ids, = self.json_of("generate", "--ids", ",".join(map(str, case["ids"])), "--greedy", "--dtype", "fp32",
                                "--max-tokens", len(case["greedy"]))
        self.assertEqual(by_ids["text"], result["text"])

    def test_streamed_lines_add_up_to_the_whole(self):
        fields = ("generate", "--prompt", PROMPT, "--seed", "4", "--max-tokens", "30", "--stop", "，")
        whole, = self.json_of(*fields)
        lines = self.json_of(*fields, "--stream")
        self.assertEqual("".join(line["text"] for line in lines), whole["text"])
        self.assertEqual(sum((line["ids"] for line in lines), []), whole["ids"])
        self.assertEqual([line for line in lines if "finish_reason" in line], lines[-1:])
        self.assertEqual(lines[-1]["finish_reason"], whole["finish_reason"])
        self.assertEqual(lines[-1]["usage"]["completion_tokens"], whole["usage"]["completion_tokens"])
        code, text, _ = run_cli(*fields)
        self.assertEqual(code, 0)
        self.assertEqual(text, whole["text"] + "\n")

    def test_a_file_of_prompts_keeps_its_order(self):
        prompts = [f"《{title}》李白\n" for title in "春夏秋冬风花雪月山水"]
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "in.jsonl"
            path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
            results = self.json_of("generate", "--input", path, "--greedy", "--max-tokens", "8")
            self.assertEqual(len(results), len(prompts))
            alone, = self.json_of("generate", "--prompt", prompts[3], "--greedy", "--max-tokens", "8")
            self.assertEqual(results[3]["ids"], alone["ids"])
            piped = self.json_of("generate", "--input", "-", "--greedy", "--max-tokens", "8", stdin=path.read_text())
            self.assertEqual([line["ids"] for line in piped], [line["ids"] for line in results])
            path.write_text('{"prompt": "a"}\n{"prompt": ""}\n')
            code, stdout, stderr = run_cli("generate", "--input", path)
            self.assertEqual((code, stdout), (2, ""))
            self.assertIn("prompt 2", stderr)

    def test_ranks_give_the_same_ids(self):
        one, = self.json_of("generate", "--prompt", PROMPT, "--greedy", "--max-tokens", "20", "--dtype", "fp32")
        two, = self.json_of("generate", "--prompt", PROMPT, "--greedy", "--max-tokens", "20", "--dtype", "fp32",
                            "--tp", "2")
        self.assertEqual(one["ids"], two["ids"])

    def test_ctrl_c_ends_generation(self):
        process = subprocess.Popen([BIN / "hanlin", "generate", "--prompt", PROMPT, "--ignore-eos", "--max-tokens",
                                    "490", "--stream", "--json", "--threads", "1"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
        if process.returncode != 0:  # a fast machine may have finished
            self.assertEqual(process.returncode, 1)
            self.assertIn("cancelled", error)

    def test_score_adds_up(self):
        result, = self.json_of("score", "--text", "床前明月光")
        self.assertEqual(len(result["ids"]), len(result["logprobs"]))
        self.assertIsNone(result["logprobs"][0])
        total = sum(result["logprobs"][1:])
        self.assertAlmostEqual(result["nll"], -total, places=6)
        self.assertAlmostEqual(result["ppl"], math.exp(-total / (len(result["ids"]) - 1)), places=4)
        one, = self.json_of("score", "--ids", "5")
        self.assertEqual(one, {"ids": [5], "logprobs": [None], "nll": 0.0, "ppl": None})

    def test_tokenize_and_back(self):
        text = "春风又绿江南岸，明月何时照我还？"
        result, = self.json_of("tokenize", "--text", text)
        self.assertEqual("".join(result["segments"]), text)
        self.assertEqual(len(result["ids"]), len(result["offsets"]))
        self.assertEqual(len(result["fingerprint"]), 64)
        self.assertEqual(result["offsets"][-1][1], len(text.encode()))
        back, = self.json_of("detokenize", "--ids", ",".join(map(str, result["ids"])))
        self.assertEqual(back["text"], text)
        lines = self.json_of("tokenize", stdin=f"{text}\n\n江南\n")
        self.assertEqual(len(lines), 3)
        self.assertEqual(lines[0]["ids"], result["ids"])
        self.assertEqual(lines[1]["ids"], [])
        done = subprocess.run([BIN / "hanlin", "tokenize"], input="好\n".encode() + b"\xff\n", capture_output=True)
        self.assertEqual((done.returncode, done.stdout.count(b"\n")), (2, 1))
        self.assertRegex(done.stderr.decode(), "^hanlin tokenize: line 2: the text is not UTF-8: byte 0 is 0xFF")
        # Ids of a padded vocabulary may be drawn though no token has them.
        padded, = self.json_of("detokenize", "--ids", ",".join(map(str, [*result["ids"], 99999])))
        self.assertEqual(padded["text"], text)

    def test_inspect_tells_sizes(self):
        result, = self.json_of("inspect")
        self.assertIn("12", json.dumps(result))
        code, text, _ = run_cli("inspect")
        self.assertEqual(code, 0)
        self.assertIn("8192", text)
        self.assertEqual(run_cli("inspect", "--preset", "2.7B")[0], 0)

    def test_a_converted_model_says_the_same(self):
        with tempfile.TemporaryDirectory() as folder:
            to = pathlib.Path(folder) / "copy"
            result, = self.json_of("convert", "--from", DEFAULT_MODEL, "--to", to)
            self.assertEqual(result["dtype"], "fp32")
            self.assertEqual(result["parameters"], self.json_of("inspect")[0]["config"]["num_parameters"])
            score = ("score", "--text", "床前明月光，疑是地上霜。")
            self.assertEqual(self.json_of(*score, "--model", to), self.json_of(*score))

    def test_bench_reports_shares(self):
        decode, = self.json_of("bench", "decode", "--model", DEFAULT_MODEL, "--seconds", "0.2", "--context", "32")
        for field in ("gb_per_second", "read_gb_per_second", "share_of_read_rate", "threads", "dtype", "isa"):
            self.assertIn(field, decode)
        prefill, = self.json_of("bench", "prefill", "--model", DEFAULT_MODEL, "--seconds", "0.2", "--context", "64")
        self.assertGreater(prefill["gflop_per_second"], 0)
        tokens, = self.json_of("bench", "tokenize", "--seconds", "0.2")
        self.assertGreater(tokens["mb_per_second"], 0)
        start, = self.json_of("bench", "start", "--repeats", "1")
        self.assertGreater(start["first_token_seconds"], start["ready_seconds"])
        load, = self.json_of("bench", "load", "--null", "--streams", "8", "--requests", "16", "--max-tokens", "50")
        self.assertEqual(load["errors"], {})
        self.assertGreater(load["tokens_per_second"], 0)
        self.assertGreater(load["idle_added_ttft_ms"]["p50"], 0)
        paced, = self.json_of("bench", "load", "--null", "--step-us", "20000", "--streams", "4", "--requests", "4",
                              "--max-tokens", "20")
        self.assertEqual(paced["errors"], {})
        self.assertEqual(paced["ids_per_message"], 1)

    def test_bench_serve_measures_a_steady_state(self):
        figures, = self.json_of("bench", "serve", "--concurrency", "4", "--requests", "12", "--seconds", "0.5",
                                "--prompt-tokens", "32", "--output-tokens", "16", "--decode-ms", "10",
                                "--prefill-ms-per-1k", "100")
        self.assertEqual(figures["errors"], {})
        self.assertGreaterEqual(figures["requests"], 12)
        self.assertGreaterEqual(figures["steady_seconds"], 0.5)
        for latency in ("ttft_ms", "tpot_ms", "itl_ms", "e2el_ms"):
            self.assertGreater(figures[latency]["p99"], 0)
        self.assertGreaterEqual(figures["longest_wait_ms"], figures["ttft_ms"]["max"])
        self.assertAlmostEqual(figures["share"] * figures["raw_tokens_per_second"],
                               figures["output_tokens_per_second"], delta=1e-6 * figures["output_tokens_per_second"])
        code, _, stderr = run_cli("bench", "serve", "--prompt-tokens", "400", "--output-tokens", "200")
        self.assertEqual(code, 2)
        self.assertIn("want at most 512", stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
