"""What dies, and what the rest does about it: two worker groups under the supervisor."""
import os
import signal
import threading
import time

from harness import (CODE, PATIENCE_S, PROMPT, Case, Server, collect, grpc, text_generation_pb2, unittest,
                     wait_until)

LONG = dict(max_new_tokens=490, ignore_eos=True)


class Streams:
    """Streams in threads: how each ended and when."""

    def __init__(self, server, count, **fields):
        self.ends = []
        self.started = threading.Semaphore(0)
        self.threads = [threading.Thread(target=self._run, args=(server, i, fields)) for i in range(count)]
        for thread in self.threads:
            thread.start()
        for _ in range(count):
            assert self.started.acquire(timeout=PATIENCE_S), "a stream did not start"

    def _run(self, server, index, fields):
        code = CODE.OK
        started = False
        try:
            for _ in server.stream(PROMPT, seed=index, **fields):
                if not started:
                    started = True
                    self.started.release()
        except grpc.RpcError as error:
            code = error.code()
        if not started:
            self.started.release()
        self.ends.append((code, time.monotonic()))

    def join(self):
        for thread in self.threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a stream hangs"
        return self.ends


class FailureTest(Case):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--groups", "2", "--threads", "1")

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0, "the service did not drain"

    def setUp(self):
        self.wait_ready_groups(2)

    def wait_ready_groups(self, count):
        def ready():
            try:
                request = text_generation_pb2.GetModelInfoRequest()
                return self.server.api().GetModelInfo(request, timeout=5).ready_groups == count
            except grpc.RpcError:
                return False
        wait_until(ready, f"{count} groups are ready")

    def worker(self, group):
        return self.server.child("hanlin-worker", f"worker-{group}.sock")

    def test_a_killed_worker_ends_its_streams_at_once_and_comes_back(self):
        streams = Streams(self.server, 8, **LONG)
        victim = self.worker(0)
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        ends = streams.join()
        lost = [end for code, end in ends if code == CODE.UNAVAILABLE]
        kept = [end for code, end in ends if code == CODE.OK]
        self.assertEqual(len(lost) + len(kept), 8, ends)
        self.assertTrue(lost, "the group had no streams")
        self.assertTrue(kept, "the other group had no streams")
        self.assertLess(max(lost) - killed, 2)
        self.wait_ready_groups(2)
        self.assertNotEqual(self.worker(0), victim)

    def test_a_stopped_worker_leaves_rotation_and_is_replaced(self):
        streams = Streams(self.server, 8, **LONG)
        victim = self.worker(1)
        os.kill(victim, signal.SIGSTOP)
        stopped = time.monotonic()
        ends = streams.join()
        lost = [end for code, end in ends if code == CODE.UNAVAILABLE]
        self.assertTrue(lost, ends)
        self.assertLess(max(lost) - stopped, 3)
        self.assertIn(CODE.OK, [code for code, _ in ends], "the other group serves")
        wait_until(lambda: victim not in self.server.children("hanlin-worker"), "the silent worker is replaced")
        self.wait_ready_groups(2)

    def test_a_request_that_had_produced_nothing_is_sent_elsewhere(self):
        # Neither group can be asked for anything: what arrives now waits, then goes to the one that lives.
        victims = [self.worker(0), self.worker(1)]
        for pid in victims:
            os.kill(pid, signal.SIGSTOP)
        streams = [self.server.stream(PROMPT, seed=i, max_new_tokens=4) for i in range(4)]
        time.sleep(0.3)
        os.kill(victims[1], signal.SIGCONT)
        os.kill(victims[0], signal.SIGKILL)
        for stream in streams:
            collect(stream)

    def test_a_killed_gateway_returns_on_the_same_address(self):
        victim = self.server.child("hanlin-gateway")
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: self.server.children("hanlin-gateway")
                   and self.server.child("hanlin-gateway") != victim, "a new gateway")
        self.wait_ready_groups(2)
        collect(self.server.stream(max_new_tokens=2))
        self.assertEqual([line for line in self.server.stdout_lines if line.startswith("ready")],
                         [f"ready {self.server.address}"])

    def test_a_killed_tokenizer_leaves_running_streams_alone_and_returns(self):
        streams = Streams(self.server, 2, **LONG)
        victim = self.server.child("hanlin-tokenizer")
        os.kill(victim, signal.SIGKILL)
        self.assertEqual([code for code, _ in streams.join()], [CODE.OK, CODE.OK])

        def serves():
            try:
                return self.server.generate(PROMPT, max_new_tokens=1)
            except grpc.RpcError as error:
                self.assertEqual(error.code(), CODE.UNAVAILABLE)
                return False
        wait_until(serves, "texts are tokenized again")
        self.assertNotEqual(self.server.child("hanlin-tokenizer"), victim)


if __name__ == "__main__":
    unittest.main(verbosity=2)
