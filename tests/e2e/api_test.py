"""The public API of a running service: streams, limits, mistakes, cancellation, health."""
import random
import subprocess
import threading
import time

from harness import (BIN, CODE, PATIENCE_S, PROMPT, REASON, SOURCE, Case, Server, collect, greedy_cases, grpc,
                     prompt_of, run_cli, stream_request, text_generation_pb2, unittest, wait_until)

# Longer than anything here waits for, unless it is cancelled.
LONG = dict(max_new_tokens=480, ignore_eos=True)


class ApiTest(Case):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--dtype", "fp32")

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0, "the service did not drain"

    def tearDown(self):
        self.server.wait_idle()

    def test_a_poem_comes_in_pieces(self):
        text, ids, last = collect(self.server.stream(seed=7, max_new_tokens=60))
        self.assertTrue(text.strip())
        self.assertGreater(len(ids), 5)
        self.assertEqual(last.seed, 7)
        self.assertIn(last.finish_reason, (REASON.FINISH_REASON_END_TOKEN, REASON.FINISH_REASON_LENGTH))
        self.assertGreater(last.timings.total_us, 0)

    def test_greedy_text_equals_the_reference_implementation(self):
        cases = greedy_cases()[:4]
        longest = max(len(c["greedy"]) for c in cases)
        choices = self.server.generate([c["text"] for c in cases], greedy=True, max_new_tokens=longest)
        for case, choice in zip(cases, choices):
            self.assertEqual(list(choice.prompt_ids), case["ids"])
            self.assertEqual(list(choice.ids), case["greedy"][:len(choice.ids)])
            self.assertGreater(len(choice.ids), 8)

    def test_streamed_equals_unary(self):
        rng = random.Random(1)
        full = self.server.generate(PROMPT, seed=3, max_new_tokens=50, ignore_eos=True)[0].text
        for _ in range(6):
            begin = rng.randrange(len(full) - 2)
            fields = dict(seed=3, max_new_tokens=50, ignore_eos=True, echo=rng.random() < 0.5,
                          include_stop=rng.random() < 0.5,
                          stop_strings=[full[begin:begin + rng.randrange(1, 4)], "没有的词"])
            text, ids, last = collect(self.server.stream(**fields))
            choice = self.server.generate(PROMPT, **fields)[0]
            self.assertEqual(text, choice.text)
            self.assertEqual(ids, list(choice.ids))
            self.assertEqual(last.finish_reason, choice.finish_reason)
            self.assertEqual(last.stop_string, choice.stop_string)

    def test_a_stop_string_cuts_the_text_and_not_the_ids(self):
        full = self.server.generate(PROMPT, greedy=True, max_new_tokens=40, ignore_eos=True)[0]
        stop = full.text[6:8]
        choice = self.server.generate(PROMPT, greedy=True, max_new_tokens=40, ignore_eos=True,
                                      stop_strings=[stop])[0]
        self.assertEqual(choice.text, full.text[:full.text.index(stop)])
        self.assertEqual(list(choice.ids), list(full.ids)[:len(choice.ids)])
        self.assertLess(len(choice.ids), len(full.ids))
        self.assertEqual(choice.finish_reason, REASON.FINISH_REASON_STOP)
        self.assertEqual(choice.stop_string, stop)

    def test_a_stop_id_ends_the_text(self):
        full = self.server.generate(PROMPT, greedy=True, max_new_tokens=20, ignore_eos=True)[0]
        stop = full.ids[5]
        choice = self.server.generate(PROMPT, greedy=True, max_new_tokens=20, ignore_eos=True, stop_ids=[stop])[0]
        self.assertEqual(choice.ids[-1], stop)
        self.assertEqual(choice.stop_id, stop)
        self.assertEqual(choice.finish_reason, REASON.FINISH_REASON_STOP)

    def test_ids_and_text_are_the_same_prompt(self):
        by_text = self.server.generate(PROMPT, seed=5, max_new_tokens=20)[0]
        by_ids = self.server.generate(list(by_text.prompt_ids), seed=5, max_new_tokens=20)[0]
        self.assertEqual(by_text.text, by_ids.text)

    def test_the_seed_that_was_drawn_repeats_the_text(self):
        first = self.server.generate(PROMPT, max_new_tokens=40, ignore_eos=True)[0]
        again = self.server.generate(PROMPT, max_new_tokens=40, ignore_eos=True, seed=first.seed)[0]
        other = self.server.generate(PROMPT, max_new_tokens=40, ignore_eos=True)[0]
        self.assertEqual(list(first.ids), list(again.ids))
        self.assertNotEqual(list(first.ids), list(other.ids))

    def test_logprobs_carry_bytes_and_alternatives(self):
        choice = self.server.generate(PROMPT, greedy=True, max_new_tokens=8, logprobs=3)[0]
        self.assertEqual(len(choice.logprobs), len(choice.ids))
        for position in choice.logprobs:
            self.assertLessEqual(position.token.logprob, 0)
            self.assertEqual(len(position.top), 3)
            self.assertEqual(position.top[0].id, position.token.id)
        self.assertIn(choice.logprobs[0].token.bytes, choice.text.encode())

    def test_a_time_limit_returns_what_is_there(self):
        _, ids, last = collect(self.server.stream(time_limit_ms=60, **LONG))
        self.assertEqual(last.finish_reason, REASON.FINISH_REASON_TIME_LIMIT)
        self.assertLess(len(ids), 480)

    def test_mistakes_are_answered_by_name(self):
        no_prompt = text_generation_pb2.StreamGenerateRequest()
        info = self.server.api().GetModelInfo(text_generation_pb2.GetModelInfoRequest())
        vocabulary, context = info.vocabulary_size, info.context_tokens
        bad = CODE.INVALID_ARGUMENT
        table = [
            (bad, stream_request(""), "prompt.text is empty"),
            (bad, no_prompt, "prompt is not set"),
            (bad, stream_request([]), "token_ids is empty"),
            (bad, stream_request("a\0b"), "NUL"),
            (bad, stream_request([-1]), "-1"),
            (bad, stream_request([vocabulary]), f"{vocabulary}"),
            (bad, stream_request([5] * (context + 1)), f"{context + 1}.*{context}"),
            (bad, stream_request([5] * 10, max_new_tokens=context), f"{context}.*{context - 10}"),
            (bad, stream_request(max_new_tokens=0), "max_new_tokens is 0"),
            (bad, stream_request(max_new_tokens=2, min_new_tokens=3), "min_new_tokens is 3"),
            (bad, stream_request(top_p=0.0), "top_p is 0"),
            (bad, stream_request(top_p=1.5), "top_p is 1.5"),
            (bad, stream_request(top_p=float("nan")), "top_p is nan"),
            (bad, stream_request(temperature=-1.0), "temperature is -1"),
            (bad, stream_request(top_k=-1), "top_k is -1"),
            (bad, stream_request(top_k=vocabulary + 1), f"top_k is {vocabulary + 1}"),
            (bad, stream_request(min_p=2.0), "min_p is 2"),
            (bad, stream_request(repetition_penalty=0.0), "repetition_penalty is 0"),
            (bad, stream_request(logit_bias={vocabulary: 1.0}), f"{vocabulary}"),
            (bad, stream_request(stop_strings=[""]), "stop_strings.0. is empty"),
            (bad, stream_request(stop_strings=["x"] * 17), "17"),
            (bad, stream_request(stop_ids=[vocabulary]), f"{vocabulary}"),
            (bad, stream_request(logprobs=21), "logprobs is 21"),
            (bad, stream_request(n=0), "n is 0"),
            (CODE.UNIMPLEMENTED, stream_request(n=2), "n is 2"),
            (CODE.UNIMPLEMENTED, stream_request(prompt_logprobs=1), "prompt_logprobs"),
            (CODE.UNIMPLEMENTED, stream_request(priority=1), "priority is 1"),
        ]
        beam = stream_request()
        beam.parameters.beam_search.beams = 2
        table.append((CODE.UNIMPLEMENTED, beam, "beam_search"))
        beam_and_n = stream_request(n=2)
        beam_and_n.parameters.beam_search.beams = 2
        table.append((bad, beam_and_n, "together with n"))
        unknown = stream_request()
        unknown.model = "other"
        table.append((CODE.NOT_FOUND, unknown, "other.*" + info.model))
        for code, request, pattern in table:
            with self.subTest(pattern=pattern):
                self.assert_code(code, lambda: list(self.server.api().StreamGenerate(request, timeout=PATIENCE_S)),
                                 pattern)

    def test_broken_utf8_is_refused(self):
        # Python's protobuf cannot make such a string, so the bytes are written by hand: prompt.text = "\xff".
        call = self.server.channel().unary_stream("/hanlin.v1.TextGenerationService/StreamGenerate")
        with self.assertRaises(grpc.RpcError) as caught:
            list(call(b"\x12\x03\x0a\x01\xff", timeout=PATIENCE_S))
        self.assertIn(caught.exception.code(), (CODE.INVALID_ARGUMENT, CODE.INTERNAL))

    def test_a_cancelled_request_frees_its_blocks(self):
        stages = {
            "before anything": lambda stream: None,
            "mid-decode": lambda stream: [next(stream) for _ in range(5)],
        }
        for stage, reach in stages.items():
            with self.subTest(stage=stage):
                stream = self.server.stream(**LONG)
                reach(stream)
                stream.cancel()
                self.server.wait_idle(seconds=10)
        with self.subTest(stage="prefill"):
            streams = [self.server.stream([i + 5] * 500, max_new_tokens=10) for i in range(8)]
            wait_until(lambda: self.server.load().running_requests > 0, "a prefill runs", 10)
            for stream in streams:
                stream.cancel()
            self.server.wait_idle(seconds=10)
        with self.subTest(stage="queued"):
            # More than run side by side: the rest waits.
            streams = [self.server.stream(**LONG) for _ in range(300)]
            wait_until(lambda: self.server.load().queued_requests > 0 or self.server.load().running_requests > 200,
                       "requests wait", 30)
            for stream in streams:
                stream.cancel()
            self.server.wait_idle(seconds=20)

    def test_a_deadline_ends_the_call_and_frees_its_blocks(self):
        self.assert_code(CODE.DEADLINE_EXCEEDED, lambda: collect(self.server.stream(timeout=0.1, **LONG)))
        self.server.wait_idle(seconds=10)

    def test_a_client_that_vanishes_frees_its_blocks(self):
        client = subprocess.Popen([BIN / "hanlin", "generate", "--target", self.server.address, "--prompt", PROMPT,
                                   "--max-tokens", "480", "--ignore-eos", "--stream", "--json"],
                                  stdout=subprocess.PIPE, text=True)
        client.stdout.readline()
        client.kill()
        client.wait()
        client.stdout.close()
        self.server.wait_idle(seconds=10)

    def test_neighbours_do_not_change_a_text(self):
        alone = self.server.generate(PROMPT, seed=11, max_new_tokens=40, ignore_eos=True)[0]
        results = []
        threads = [threading.Thread(target=lambda seed=seed: results.append(
            (seed, self.server.generate(PROMPT, seed=seed, max_new_tokens=40, ignore_eos=True)[0])))
                   for seed in (11, 12, 13, 11, 14)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        same = [choice for seed, choice in results if seed == 11]
        self.assertEqual(len(same), 2)
        for choice in same:
            self.assertEqual(list(choice.ids), list(alone.ids))

    def test_a_request_id_is_taken_over_and_returned(self):
        stream = self.server.stream(max_new_tokens=2, metadata=[("x-request-id", "my-request-17")])
        self.assertIn(("x-request-id", "my-request-17"), [tuple(item) for item in stream.initial_metadata()])
        collect(stream)
        wait_until(lambda: any("my-request-17" in line for line in self.server.log), "the id in the log", 10)
        made = self.server.stream(max_new_tokens=2)
        self.assertTrue(dict(made.initial_metadata()).get("x-request-id"))
        collect(made)

    def test_prompts_and_texts_are_not_logged(self):
        text, _, _ = collect(self.server.stream("《独一无二的题目》某某\n", greedy=True, max_new_tokens=20))
        log = "\n".join(self.server.log)
        self.assertNotIn("独一无二", log)
        self.assertNotIn(text[:8], log)

    def test_models_describe_themselves(self):
        models = self.server.api().ListModels(text_generation_pb2.ListModelsRequest()).models
        info = self.server.api().GetModelInfo(text_generation_pb2.GetModelInfoRequest(model=models[0]))
        self.assertEqual(info.vocabulary_size, 8192)
        self.assertEqual(info.context_tokens, 512)
        self.assertEqual(info.dtype, "fp32")
        self.assertEqual(info.ready_groups, 1)
        self.assertEqual(len(info.tokenizer_fingerprint), 64)
        self.assertIn("beam_search", info.not_implemented)

    def test_every_process_answers_health_and_reflection(self):
        directory = self.server.run_directory()
        for address, service in ((self.server.address, b"hanlin.v1.TextGenerationService"),
                                 (f"unix:{directory}/tokenizer.sock", b"hanlin.v1.TokenizerService"),
                                 (f"unix:{directory}/worker-0.sock", b"hanlin.v1.WorkerService")):
            with self.subTest(service=service), grpc.insecure_channel(address) as channel:
                # HealthCheckRequest{} → HealthCheckResponse{status: SERVING}; list_services → names.
                check = channel.unary_unary("/grpc.health.v1.Health/Check")
                self.assertEqual(check(b"", timeout=PATIENCE_S), b"\x08\x01")
                reflect = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
                answer = next(reflect(iter([b"\x3a\x00"]), timeout=PATIENCE_S))
                self.assertIn(service, answer)

    def test_several_prompts_keep_their_order(self):
        prompts = ["《春》李白\n", "《夏》杜甫\n", "《秋》王维\n"]
        together = self.server.generate(prompts, greedy=True, max_new_tokens=12)
        self.assertEqual([c.prompt_index for c in together], [0, 1, 2])
        for prompt, choice in zip(prompts, together):
            self.assertEqual(choice.text, self.server.generate(prompt, greedy=True, max_new_tokens=12)[0].text)

    def test_one_bad_prompt_fails_the_call_by_number(self):
        request = text_generation_pb2.GenerateRequest(prompts=[prompt_of("好"), prompt_of("")])
        self.assert_code(CODE.INVALID_ARGUMENT, lambda: self.server.api().Generate(request, timeout=PATIENCE_S),
                         "prompts.1.")

    def test_the_command_line_gives_the_server_text(self):
        fields = ("--prompt", PROMPT, "--seed", "21", "--max-tokens", "30", "--json")
        code, remote, error = run_cli("generate", "--target", self.server.address, *fields)
        self.assertEqual(code, 0, error)
        code, local, error = run_cli("generate", "--dtype", "fp32", *fields)
        self.assertEqual(code, 0, error)
        drop = ("\"timings\"", "\"cached_prompt_tokens\"")
        self.assertEqual(remote.split(drop[0])[0].split(drop[1])[0], local.split(drop[0])[0].split(drop[1])[0])

    def test_the_example_client_runs(self):
        result = subprocess.run(["/usr/bin/python3", SOURCE / "docs/examples/client.py", self.server.address],
                                capture_output=True, text=True, timeout=PATIENCE_S)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("《静夜思》李白", result.stdout)
        self.assertGreater(len(result.stdout), len("《静夜思》李白") + 5)

    def test_many_connections_do_not_stop_new_ones(self):
        for _ in range(200):
            channel = grpc.insecure_channel(self.server.address)
            grpc.channel_ready_future(channel).result(timeout=PATIENCE_S)
            channel.close()
        started = time.monotonic()
        self.server.generate(PROMPT, max_new_tokens=1)
        self.assertLess(time.monotonic() - started, 10)


if __name__ == "__main__":
    unittest.main(verbosity=2)
