"""Start, drain, abort, overload, bad input, tensor parallelism: a service of its own for each."""
import os
import pathlib
import shutil
import signal
import socket
import tempfile
import threading
import time
import urllib.request

from harness import (CODE, DEFAULT_MODEL, PATIENCE_S, PROMPT, REASON, Case, Process, Server, collect, greedy_cases,
                     grpc, has_retry_info, metric, processes, run_cli, stream_request, text_generation_pb2_grpc,
                     unittest, wait_until)

LONG = dict(max_new_tokens=490, ignore_eos=True)
SHORT = dict(max_new_tokens=60, ignore_eos=True)


class LifecycleTest(Case):
    def test_a_drain_finishes_what_runs_and_refuses_what_is_new(self):
        with Server("--threads", "1", "--dtype", "fp32") as server:
            directory = server.run_directory()
            # Short enough for the sanitizers' build to finish well inside the drain's time.
            streams = [server.stream(seed=i, max_new_tokens=120, ignore_eos=True) for i in range(4)]
            ends = []
            for stream in streams:
                next(stream)

            def finish(stream):
                for piece in stream:
                    last = piece
                ends.append(last.finish_reason)
            threads = [threading.Thread(target=finish, args=(stream,)) for stream in streams]
            for thread in threads:
                thread.start()
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: any("stopping" in line for line in server.log), "the drain begins")

            def refused():
                try:
                    with grpc.insecure_channel(server.address) as channel:
                        channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
                    server.generate(PROMPT, max_new_tokens=1, timeout=5)
                    return False
                except grpc.RpcError as error:
                    return error.code() == CODE.UNAVAILABLE
            wait_until(refused, "new calls are refused", 10)
            self.assertEqual(server.wait(), 0)
            for thread in threads:
                thread.join()
            self.assertEqual(ends, [REASON.FINISH_REASON_LENGTH] * 4)
            self.assertFalse(directory.exists())

    def test_a_second_signal_aborts(self):
        with Server("--threads", "1") as server:
            children = [pid for pid, (parent, _) in processes().items() if parent == server.process.pid]
            streams = [server.stream(seed=i, **LONG) for i in range(24)]
            for stream in streams:
                next(stream)
            started = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: any("stopping" in line for line in server.log), "the drain begins")
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.wait(), 1)
            self.assertLess(time.monotonic() - started, 10)
            self.assertFalse(set(children) & set(processes()))
            for stream in streams:
                self.assert_code(CODE.UNAVAILABLE, lambda stream=stream: list(stream))

    def test_no_process_outlives_a_killed_supervisor(self):
        server = Server()
        directory = server.run_directory()
        children = [pid for pid, (parent, _) in processes().items() if parent == server.process.pid]
        self.assertEqual(len(children), 3)
        server.kill()
        wait_until(lambda: not set(children) & set(processes()), "the children end", 10)
        server.wait()
        self.assertTrue(directory.exists())
        with Server() as following:
            self.assertFalse(directory.exists(), "the next start removes what was left")
            self.assertTrue(following.run_directory().exists())

    def test_overload_is_refused_with_a_time_to_come_back(self):
        with Server("--max-queue", "2", "--threads", "1") as server:
            streams = [server.stream(seed=i, **LONG) for i in range(40)]
            refused = 0
            for stream in streams:
                try:
                    next(stream)
                except grpc.RpcError as error:
                    self.assertEqual(error.code(), CODE.RESOURCE_EXHAUSTED, error.details())
                    self.assertTrue(has_retry_info(error), error.details())
                    refused += 1
            self.assertGreater(refused, 0)
            self.assertLess(refused, 40)
            for stream in streams:
                stream.cancel()
            server.wait_idle()
            collect(server.stream(max_new_tokens=2))

    def test_a_request_that_can_never_fit_is_refused_at_once(self):
        with Server("--kv-memory", "2MiB", "--dtype", "fp32") as server:
            error = self.assert_code(CODE.RESOURCE_EXHAUSTED,
                                     lambda: collect(server.stream([7] * 500, max_new_tokens=5)))
            self.assertFalse(has_retry_info(error))

    def test_ranks_share_the_model_and_give_the_same_ids(self):
        cases = greedy_cases()[:3]
        with Server("--tp", "2", "--dtype", "fp32") as server:
            self.assertEqual(len(server.children("hanlin-worker")), 2)
            for case in cases:
                choice = server.generate(case["text"], greedy=True, max_new_tokens=len(case["greedy"]))[0]
                self.assertEqual(list(choice.ids), case["greedy"][:len(choice.ids)])
            # A rank dies: the group ends as one and starts again.
            before = set(server.children("hanlin-worker"))
            stream = server.stream(**LONG)
            next(stream)
            os.kill(server.child("hanlin-worker", "--rank 1"), signal.SIGKILL)
            killed = time.monotonic()
            self.assert_code(CODE.UNAVAILABLE, lambda: list(stream))
            self.assertLess(time.monotonic() - killed, 5)
            wait_until(lambda: len(set(server.children("hanlin-worker")) - before) == 2, "a new group")

            def serves():
                try:
                    return server.generate(cases[0]["text"], greedy=True, max_new_tokens=10)
                except grpc.RpcError:
                    return False
            choice = wait_until(serves, "the new group serves")[0]
            self.assertEqual(list(choice.ids), cases[0]["greedy"][:len(choice.ids)])

    def test_a_signal_to_one_rank_leaves_the_group_at_work_until_its_leader_drains(self):
        with tempfile.TemporaryDirectory() as folder:
            options = ("--tp", "2", "--leader", f"unix:{folder}/group", "--threads", "1")
            follower = Process("hanlin-worker", *options, "--rank", "1", ready=False)
            leader = Process("hanlin-worker", *options, "--rank", "0", "--address", f"unix:{folder}/worker")
            tokenizer = Process("hanlin-tokenizer", "--address", f"unix:{folder}/tokenizer")
            gateway = Process("hanlin-gateway", "--workers", leader.address, "--tokenizer", tokenizer.address,
                              "--address", "127.0.0.1:0")
            try:
                with grpc.insecure_channel(gateway.address) as channel:
                    stub = text_generation_pb2_grpc.TextGenerationServiceStub(channel)
                    stream = stub.StreamGenerate(stream_request(**SHORT), timeout=PATIENCE_S)
                    next(stream)
                    follower.process.send_signal(signal.SIGTERM)
                    self.assertEqual(len(list(stream)), SHORT["max_new_tokens"] - 1)
                    stream = stub.StreamGenerate(stream_request(**SHORT), timeout=PATIENCE_S)
                    next(stream)
                    leader.process.send_signal(signal.SIGTERM)
                    self.assertEqual(len(list(stream)), SHORT["max_new_tokens"] - 1)
                self.assertEqual(leader.process.wait(PATIENCE_S), 0)
                self.assertEqual(follower.process.wait(PATIENCE_S), 0)
            finally:
                for process in (gateway, tokenizer, leader, follower):
                    process.stop(signal.SIGKILL)

    def test_a_signal_ends_a_rank_that_waits_for_the_others(self):
        with tempfile.TemporaryDirectory() as folder:
            for rank in (0, 1):
                with self.subTest(rank=rank):
                    worker = Process("hanlin-worker", "--tp", "2", "--rank", rank, "--leader", f"unix:{folder}/group",
                                     "--address", f"unix:{folder}/worker", ready=False)
                    time.sleep(1)
                    started = time.monotonic()
                    self.assertEqual(worker.stop(), 0)
                    self.assertLess(time.monotonic() - started, 5)

    def test_flags_and_files_are_checked_before_a_process_starts(self):
        for options, message in (
                (("--address", "nonsense"), "--address is \"nonsense\""),
                (("--metrics-address", "9500"), "--metrics-address is \"9500\""),
                (("--kv-memory", "lots"), "--kv-memory is \"lots\""),
                (("--max-queue", "0"), "--max-queue is 0"),
                (("--model", "/no/such/folder"), "/no/such/folder"),
                (("--model", "giant", "--random-weights"), "giant"),
                (("--tp", "3"), "3"),
                (("--tls-cert", "/no/such.pem", "--tls-key", "/no/such.pem"), "/no/such.pem")):
            with self.subTest(options=options):
                code, stdout, stderr = run_cli("serve", *options)
                self.assertEqual((code, stdout), (2, ""), stderr)
                self.assertEqual(len(stderr.strip().split("\n")), 1, stderr)
                self.assertIn(message, stderr)

    def test_bad_input_ends_the_start_with_its_message(self):
        damaged = pathlib.Path(tempfile.mkdtemp())
        try:
            for file in DEFAULT_MODEL.iterdir():
                shutil.copy(file, damaged / file.name)
            weights = damaged / "model-00001-of-00002.safetensors"
            weights.write_bytes(weights.read_bytes()[:1000])
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                taken.listen()
                port = taken.getsockname()[1]
                for options, code, message in (
                        (("--kv-memory", "1"), 2, "one block"),
                        (("--model", damaged), 2, "model-00001-of-00002.safetensors"),
                        (("--address", f"127.0.0.1:{port}"), 2, f"{port}"),
                        (("--metrics-address", f"127.0.0.1:{port}"), 2, f"{port}"),
                        (("--dtype", "int3"), 2, "int3")):
                    with self.subTest(options=options):
                        started = time.monotonic()
                        result, stdout, stderr = run_cli("serve", *options)
                        self.assertEqual(result, code, stderr)
                        last = stderr.strip().split("\n")[-1]
                        self.assertIn("hanlin", last)
                        self.assertIn(message, last)
                        self.assertEqual(stderr.count(last.partition(": ")[2]), 1, "said once")
                        self.assertEqual(stdout, "")
                        self.assertLess(time.monotonic() - started, 30)
        finally:
            shutil.rmtree(damaged)

    def test_metrics_of_every_process_are_served(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with Server("--metrics-address", f"127.0.0.1:{port}") as server:
            collect(server.stream(max_new_tokens=5, ignore_eos=True))
            pages = [urllib.request.urlopen(f"http://127.0.0.1:{port + i}/metrics", timeout=PATIENCE_S).read().decode()
                     for i in range(3)]
            self.assertIn("hanlin_gateway_", pages[0])
            self.assertIn("hanlin_tokenizer_", pages[1])
            self.assertIn("hanlin_worker_", pages[2])
            self.assertEqual(metric(pages[2], "hanlin_worker_generated_tokens_total"), 5)

    def test_several_services_live_side_by_side(self):
        with Server() as one, Server() as two:
            self.assertNotEqual(one.address, two.address)
            self.assertNotEqual(one.run_directory(), two.run_directory())
            self.assertEqual(one.run_directory().stat().st_mode & 0o777, 0o700)
            for server in (one, two):
                collect(server.stream(max_new_tokens=2))

    def test_a_null_device_streams(self):
        with Server("--device", "null") as server:
            _, ids, _ = collect(server.stream(max_new_tokens=50, ignore_eos=True))
            self.assertEqual(len(ids), 50)


if __name__ == "__main__":
    unittest.main(verbosity=2)
