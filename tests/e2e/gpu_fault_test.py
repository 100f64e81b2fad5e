"""A worker on a GPU that is killed, stopped, or hits a fault in a kernel, while idle, in prefill and in decode: what ran
ends with UNAVAILABLE within two seconds, what had produced nothing may be served later, and the group serves again
without an operator. Needs a GPU; HANLIN_FAULT_DEVICE=cpu runs the same on a CPU, with a smaller model.
"""
import os
import pathlib
import signal
import tempfile
import threading
import time

from harness import CODE, PATIENCE_S, Case, Server, grpc, unittest, wait_until

DEVICE = os.environ.get("HANLIN_FAULT_DEVICE", "cuda")
MODEL, PROMPTS, PROMPT_TOKENS = ("1.3B", 64, 1500) if DEVICE == "cuda" else ("base", 8, 300)
DECODE_TOKENS = 1500
# Until a stream that had tokens ends; and until one without is given up, for which the gateway waits 5 s for a group.
NOTICE_S = 2
RETRY_S = NOTICE_S + 6


class Stream(threading.Thread):
    def __init__(self, server, prompt, **fields):
        super().__init__()
        self.code = CODE.OK
        self.tokens = 0
        self.first = threading.Event()
        self._call = server.stream(prompt, ignore_eos=True, **fields)
        self.start()

    def run(self):
        try:
            for piece in self._call:
                self.tokens += len(piece.ids)
                self.first.set()
        except grpc.RpcError as error:
            self.code = error.code()
        self.ended_at = time.monotonic()
        self.first.set()


class GpuFaultTest(Case):
    @classmethod
    def setUpClass(cls):
        if DEVICE == "cuda" and not pathlib.Path("/dev/nvidiactl").exists():
            raise unittest.SkipTest("no GPU")

    def serve(self):
        return Server("--device", DEVICE, "--model", MODEL, "--random-weights", "--kv-memory", "8GiB")

    def wait_serves(self, server):
        """One token, as soon as the group is back."""
        def serves():
            try:
                return server.generate([5, 6, 7], max_new_tokens=1, timeout=10)
            except grpc.RpcError as error:
                self.assertEqual(error.code(), CODE.UNAVAILABLE)
                return False
        wait_until(serves, "the group serves again", PATIENCE_S)

    def idle(self, server):
        return []

    def prefill(self, server):
        streams = [Stream(server, [5 + i % 90 for i in range(n, n + PROMPT_TOKENS)], max_new_tokens=1)
                   for n in range(PROMPTS)]
        wait_until(lambda: server.load().running_requests > 0, "prompts are worked on")
        return streams

    def decode(self, server):
        streams = [Stream(server, [5 + n, 6, 7], max_new_tokens=DECODE_TOKENS) for n in range(8)]
        for stream in streams:
            self.assertTrue(stream.first.wait(PATIENCE_S))
        return streams

    def check(self, streams, since):
        for stream in streams:
            stream.join(PATIENCE_S)
            self.assertFalse(stream.is_alive(), "a stream hangs")
            self.assertIn(stream.code, (CODE.OK, CODE.UNAVAILABLE))
            if stream.code == CODE.UNAVAILABLE:
                self.assertLess(stream.ended_at - since, NOTICE_S if stream.tokens else RETRY_S)

    def test_a_signal_in_every_phase(self):
        with self.serve() as server:
            self.wait_serves(server)
            for sign in (signal.SIGKILL, signal.SIGSTOP):
                for phase in (self.idle, self.prefill, self.decode):
                    with self.subTest(sign=sign.name, phase=phase.__name__):
                        streams = phase(server)
                        victim = server.child("hanlin-worker")
                        os.kill(victim, sign)
                        since = time.monotonic()
                        self.check(streams, since)
                        if phase == self.decode:
                            self.assertTrue(all(s.code == CODE.UNAVAILABLE for s in streams))
                        wait_until(lambda: victim not in server.children("hanlin-worker"), "the worker is replaced")
                        self.wait_serves(server)
                        print(f"{sign.name} in {phase.__name__}: serves again after {time.monotonic() - since:.1f} s")

    @unittest.skipUnless(DEVICE == "cuda", "a fault in a kernel")
    def test_a_fault_in_a_kernel(self):
        with tempfile.TemporaryDirectory() as folder:
            once = pathlib.Path(folder) / "once"
            once.touch()
            os.environ["HANLIN_FAILPOINT_CUDA_FAULT"] = f"200:{once}"
            try:
                server = self.serve()
            finally:
                del os.environ["HANLIN_FAILPOINT_CUDA_FAULT"]
            with server:
                self.wait_serves(server)
                victim = server.child("hanlin-worker")
                streams = self.decode(server)
                wait_until(lambda: victim not in server.children("hanlin-worker"), "the fault ends the worker")
                since = time.monotonic()
                self.check(streams, since)
                self.assertTrue(all(s.code == CODE.UNAVAILABLE for s in streams))
                self.wait_serves(server)


if __name__ == "__main__":
    unittest.main(verbosity=2)
