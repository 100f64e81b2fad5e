"""Mixed load on a service of two worker groups: streams, unary calls, random cancels and deadlines, malformed
requests, and now and then the death of a worker. Asserts that nothing hangs, that every greedy answer that survives
is that of its solo run, and that blocks, descriptors, threads and memory come back to where they were.

    chaos.py [--seconds 120] [--seed 1] [--clients 12]
"""
import argparse
import os
import pathlib
import random
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from harness import CODE, Server, collect, grpc, stream_request, text_generation_pb2, wait_until  # noqa: E402

PROMPTS = [f"《{title}》{author}\n" for title in ("春望", "秋兴", "登高", "送别", "江雪", "夜雨") for author in ("杜甫", "王维")]
TOKENS = 60
# What a call may end with while workers die and queues fill.
EXPECTED = {CODE.UNAVAILABLE, CODE.CANCELLED, CODE.DEADLINE_EXCEEDED, CODE.RESOURCE_EXHAUSTED}
CALL_TIMEOUT_S = 60
# Memory that allocators and caches may keep beside what they had after the warm-up.
MEMORY_SLACK_KIB = 64 << 10


def greedy(server, prompt):
    return server.stream(prompt, timeout=CALL_TIMEOUT_S, greedy=True, max_new_tokens=TOKENS, ignore_eos=True)


class Chaos:
    def __init__(self, server, options):
        self.server = server
        self.options = options
        self.solo = {}
        self.counts = {}
        self.failures = []
        self.lock = threading.Lock()
        self.deadline = 0

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def fail(self, message):
        with self.lock:
            self.failures.append(message)

    # What a client does, by chance.

    def whole(self, rng):
        prompt = rng.choice(PROMPTS)
        text, ids, _ = collect(greedy(self.server, prompt))
        if (text, ids) != self.solo[prompt]:
            self.fail(f"{prompt!r} differs from its solo run: {text!r}")

    def unary(self, rng):
        prompts = rng.sample(PROMPTS, 3)
        choices = self.server.generate(prompts, timeout=CALL_TIMEOUT_S, greedy=True, max_new_tokens=TOKENS,
                                       ignore_eos=True)
        for prompt, choice in zip(prompts, choices):
            if (choice.text, list(choice.ids)) != self.solo[prompt]:
                self.fail(f"{prompt!r} differs from its solo run: {choice.text!r}")

    def cancelled(self, rng):
        stream = self.server.stream(rng.choice(PROMPTS), timeout=CALL_TIMEOUT_S, max_new_tokens=400, ignore_eos=True)
        for _ in range(rng.randrange(30)):
            next(stream)
        if rng.random() < 0.3:
            time.sleep(rng.random() * 0.2)  # a reader that lags
        stream.cancel()

    def too_late(self, rng):
        collect(self.server.stream(rng.choice(PROMPTS), timeout=rng.random() * 0.3, max_new_tokens=400,
                                   ignore_eos=True))

    def malformed(self, rng):
        request = rng.choice([
            stream_request(""), stream_request([99999]), stream_request([1] * 600), stream_request(top_p=7.0),
            stream_request(temperature=-1.0), stream_request(max_new_tokens=100000), stream_request("a\0"),
            text_generation_pb2.StreamGenerateRequest(), stream_request(stop_strings=[""])])
        try:
            list(self.server.api().StreamGenerate(request, timeout=CALL_TIMEOUT_S))
            self.fail(f"a malformed request was taken: {request}")
        except grpc.RpcError as error:
            if error.code() not in EXPECTED | {CODE.INVALID_ARGUMENT}:
                self.fail(f"a malformed request ended with {error.code()}: {error.details()}")

    def garbage(self, rng):
        call = self.server.channel().unary_stream("/hanlin.v1.TextGenerationService/StreamGenerate")
        try:
            list(call(rng.randbytes(rng.randrange(1, 200)), timeout=1))
        except grpc.RpcError as error:
            if error.code() not in EXPECTED | {CODE.INVALID_ARGUMENT, CODE.INTERNAL, CODE.NOT_FOUND,
                                               CODE.UNIMPLEMENTED}:
                self.fail(f"garbage ended with {error.code()}: {error.details()}")

    def client(self, number):
        rng = random.Random(f"{self.options.seed}/{number}")
        actions = [self.whole] * 6 + [self.unary] * 2 + [self.cancelled] * 4 + [self.too_late] * 2 + \
                  [self.malformed] * 2 + [self.garbage]
        while time.monotonic() < self.deadline:
            action = rng.choice(actions)
            try:
                action(rng)
                self.count(f"{action.__name__} ok")
            except grpc.RpcError as error:
                self.count(f"{action.__name__} {error.code().name}")
                if error.code() not in EXPECTED:
                    self.fail(f"{action.__name__} ended with {error.code()}: {error.details()}")
                elif error.code() in (CODE.UNAVAILABLE, CODE.RESOURCE_EXHAUSTED):
                    time.sleep(0.05)
            except Exception as error:  # what collect() asserts
                self.fail(f"{action.__name__}: {error!r}")

    def killer(self):
        """Kills a worker every few seconds, and leaves the last third of the time to those that live."""
        rng = random.Random(f"{self.options.seed}/killer")
        quiet = self.deadline - self.options.seconds / 3
        while time.monotonic() < quiet:
            time.sleep(min(3 + rng.random() * 5, self.options.seconds / 4))
            workers = list(self.server.children("hanlin-worker"))
            if workers:
                os.kill(rng.choice(workers), signal.SIGKILL)
                self.count("worker killed")

    # Before and after.

    def ready(self, groups=2):
        def check():
            try:
                info = self.server.api().GetModelInfo(text_generation_pb2.GetModelInfoRequest(), timeout=5)
                return info.ready_groups == groups
            except grpc.RpcError:
                return False
        wait_until(check, f"{groups} groups are ready")
        for group in range(groups):
            self.server.wait_idle(group)

    def usage(self):
        """{binary: (descriptors, threads, resident KiB)}, the largest of each binary's processes."""
        result = {}
        for binary in ("hanlin-gateway", "hanlin-tokenizer", "hanlin-worker"):
            for pid in self.server.children(binary):
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
                field = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if ":" in line
                         and len(line.split()) > 1}
                values = (len(os.listdir(f"/proc/{pid}/fd")), int(field["Threads"]), int(field["VmRSS"]))
                result[binary] = tuple(map(max, values, result.get(binary, (0, 0, 0))))
        return result

    def run_clients(self, seconds, with_killer):
        self.deadline = time.monotonic() + seconds
        threads = [threading.Thread(target=self.client, args=(i,), daemon=True) for i in range(self.options.clients)]
        if with_killer:
            threads.append(threading.Thread(target=self.killer, daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + CALL_TIMEOUT_S + 30)
            if thread.is_alive():
                self.fail("a client hangs")

    def run(self):
        for prompt in PROMPTS:
            text, ids, _ = collect(greedy(self.server, prompt))
            self.solo[prompt] = (text, ids)
        # The baseline is a service that has been busy: pools and caches are filled.
        self.run_clients(self.options.seconds / 4, with_killer=False)
        self.ready()
        before = self.usage()
        self.run_clients(self.options.seconds, with_killer=True)
        self.ready()
        # Idle threads and connections of clients that are gone end after a moment.
        after = self.usage()
        for _ in range(20):
            after = self.usage()
            if not self.leaks(before, after):
                break
            time.sleep(0.5)
        for leak in self.leaks(before, after):
            self.fail(leak)
        print("calls:", dict(sorted(self.counts.items())))
        print("before:", before)
        print("after: ", after)
        if not self.counts.get("whole ok"):
            self.fail("no greedy answer survived")
        return self.failures

    @staticmethod
    def leaks(before, after):
        found = []
        for binary, (fds, threads, memory) in before.items():
            now_fds, now_threads, now_memory = after[binary]
            if now_fds > fds + 8:
                found.append(f"{binary} has {now_fds} descriptors, had {fds}")
            if now_threads > threads + 8:
                found.append(f"{binary} has {now_threads} threads, had {threads}")
            if now_memory > memory * 1.25 + MEMORY_SLACK_KIB:
                found.append(f"{binary} holds {now_memory} KiB, had {memory}")
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=12)
    options = parser.parse_args()
    with Server("--groups", "2", "--threads", "1", "--dtype", "fp32", "--log-level", "warning") as server:
        failures = Chaos(server, options).run()
    for failure in failures[:20]:
        print("FAILED:", failure, file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
