"""Backends and connections that come and go while streams run: DNS names through a name server on the loopback, and
the maximal connection age. Nothing of it may cost a request."""
import contextlib
import socket
import struct
import threading
import time

from harness import (PROMPT, Case, Process, collect, grpc, prompt_of, run_cli, json, parameters, stream_request,
                     text_generation_pb2, text_generation_pb2_grpc, unittest, wait_until, worker_pb2,
                     worker_pb2_grpc)

TYPE_A = 1
# A step of the null device; its streams then last long enough for things to happen meanwhile.
STEP_US = 5000


class NameServer:
    """Answers questions for A records from `records`; a name that is not there does not exist."""

    def __init__(self):
        self.records = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            question, peer = self._socket.recvfrom(512)
            self._socket.sendto(self._answer(question), peer)

    def _answer(self, question):
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1:at + 1 + question[at]].decode())
            at += 1 + question[at]
        end = at + 5
        kind, = struct.unpack(">H", question[at + 1:at + 3])
        addresses = self.records.get(".".join(labels))
        found = addresses if addresses and kind == TYPE_A else []
        header = question[:2] + struct.pack(">HHHHH", 0x8180 if addresses else 0x8183, 1, len(found), 0, 0)
        answers = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", TYPE_A, 1, 0, 4) + socket.inet_aton(address)
                           for address in found)
        return header + question[12:end] + answers


class CountingProxy:
    """Passes TCP connections on to `target`, each after `delay` seconds, and counts them."""

    def __init__(self, target, delay=0):
        self._delay = delay
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            client, _ = self._listener.accept()
            self.connections += 1
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client):
        time.sleep(self._delay)
        with client, socket.create_connection(self._target) as upstream:
            for end in (client, upstream):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._pump, args=(upstream, client), daemon=True)
            back.start()
            self._pump(client, upstream)
            back.join()

    @staticmethod
    def _pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


class Load:
    """Streams that follow one another in threads over one channel: how many ended well, and what went wrong."""

    def __init__(self, address, threads, tokens):
        self._channel = grpc.insecure_channel(address)
        self._stub = text_generation_pb2_grpc.TextGenerationServiceStub(self._channel)
        self._tokens = tokens
        self._stop = threading.Event()
        self.done = 0
        self.errors = []
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self):
        while not self._stop.is_set():
            try:
                request = stream_request(PROMPT, max_new_tokens=self._tokens, ignore_eos=True)
                _, ids, _ = collect(self._stub.StreamGenerate(request, timeout=60))
                if len(ids) != self._tokens:
                    self.errors.append(f"{len(ids)} ids")
                self.done += 1
            except (grpc.RpcError, AssertionError) as error:
                self.errors.append(repr(error))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._channel.close()


def common_port(hosts):
    """A port that is free on all of them."""
    for _ in range(100):
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind((hosts[0], 0))
            port = first.getsockname()[1]
            with contextlib.suppress(OSError):
                for host in hosts[1:]:
                    stack.enter_context(socket.socket()).bind((host, port))
                return port
    raise AssertionError("no port is free on all of " + ", ".join(hosts))


def null_worker(address):
    return Process("hanlin-worker", "--device", "null", "--null-step-us", STEP_US, "--address", address)


def running(address):
    """Requests that run in a worker."""
    with grpc.insecure_channel(address) as channel:
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        return stub.GetLoad(worker_pb2.GetLoadRequest(), timeout=10, wait_for_ready=True).load.running_requests


def ready_groups(gateway):
    with grpc.insecure_channel(gateway.address) as channel:
        stub = text_generation_pb2_grpc.TextGenerationServiceStub(channel)
        return stub.GetModelInfo(text_generation_pb2.GetModelInfoRequest(), timeout=10).ready_groups


class DiscoveryTest(Case):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.names = NameServer()
        self.hosts = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
        self.port = common_port(self.hosts)
        self.name = f"dns://{self.names.address}/backends.hanlin:{self.port}"
        self.at = [f"{host}:{self.port}" for host in self.hosts]

    def start(self, process):
        return self.stack.enter_context(process)

    def start_gateway(self, workers, tokenizer, *more):
        return self.start(Process("hanlin-gateway", "--address", "127.0.0.1:0", "--workers", workers, "--tokenizer",
                                  tokenizer, *more))

    def test_worker_groups_come_and_go_with_their_name(self):
        tokenizer = self.start(Process("hanlin-tokenizer", "--address", "127.0.0.1:0"))
        self.names.records["backends.hanlin"] = self.hosts[:2]
        self.start(null_worker(self.at[0]))
        leaving = self.start(null_worker(self.at[1]))
        gateway = self.start_gateway(self.name, tokenizer.address)
        wait_until(lambda: ready_groups(gateway) == 2, "both groups are found")
        with Load(gateway.address, threads=6, tokens=200) as load:
            wait_until(lambda: running(self.at[0]) > 0 and running(self.at[1]) > 0, "streams go to both groups")
            # One group comes, another leaves: it finishes what it has and gets nothing new.
            self.start(null_worker(self.at[2]))
            self.names.records["backends.hanlin"] = [self.hosts[0], self.hosts[2]]
            wait_until(lambda: running(self.at[2]) > 0, "streams go to the new group")
            wait_until(lambda: running(self.at[1]) == 0, "the group that left is empty")
            self.assertEqual(leaving.stop(), 0)
            # The name is lost: what is known stays.
            del self.names.records["backends.hanlin"]
            wait_until(lambda: gateway.logged("name look-up failed"), "the look-up fails")
            before = load.done
            wait_until(lambda: load.done >= before + 12, "streams go on")
            self.assertEqual(ready_groups(gateway), 2)
        self.assertEqual(load.errors, [])
        self.assertGreater(load.done, 20)

    def test_tokenizer_replicas_come_and_go_with_their_name(self):
        worker = self.start(Process("hanlin-worker", "--device", "null", "--address", "127.0.0.1:0"))
        replicas = {i: self.start(Process("hanlin-tokenizer", "--address", self.at[i])) for i in (0, 1)}
        self.names.records["backends.hanlin"] = self.hosts[:2]
        gateway = self.start_gateway(worker.address, self.name)
        with Load(gateway.address, threads=2, tokens=5) as load:
            self.start(Process("hanlin-tokenizer", "--address", self.at[2]))
            self.names.records["backends.hanlin"] = self.hosts[1:]
            time.sleep(4)  # longer than the look-up interval
            self.assertEqual(replicas[0].stop(), 0)
            before = load.done
            wait_until(lambda: load.done >= before + 50, "texts are tokenized by the others")
            # One dies without a word: its turn goes to the other one.
            replicas[1].process.kill()
            before = load.done
            wait_until(lambda: load.done >= before + 50, "texts are tokenized by the last one")
        self.assertEqual(load.errors, [])

    def test_backends_that_take_long_to_connect_are_reached(self):
        tokenizer = self.start(Process("hanlin-tokenizer", "--address", "127.0.0.1:0"))
        worker = self.start(null_worker("127.0.0.1:0"))
        gateway = self.start_gateway(CountingProxy(worker.address, delay=1.5).address,
                                     CountingProxy(tokenizer.address, delay=1.5).address)
        with Load(gateway.address, threads=1, tokens=5) as load:
            wait_until(lambda: load.done > 3, "streams run")
        self.assertEqual(load.errors, [])

    def test_a_name_server_that_is_silent_does_not_block_the_end(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            name = f"dns://127.0.0.1:{silent.getsockname()[1]}/backends.hanlin:1"
            gateway = Process("hanlin-gateway", "--address", "127.0.0.1:0", "--workers", name, "--tokenizer", name,
                              ready=False)
            wait_until(lambda: gateway.logged("name look-up failed"), "the look-up fails")
            started = time.monotonic()
            self.assertEqual(gateway.stop(), 0)
            self.assertLess(time.monotonic() - started, 10)


class ConnectionAgeTest(Case):
    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        tokenizer = cls.stack.enter_context(Process("hanlin-tokenizer", "--address", "127.0.0.1:0"))
        worker = cls.stack.enter_context(null_worker("127.0.0.1:0"))
        cls.gateway = cls.stack.enter_context(
            Process("hanlin-gateway", "--address", "127.0.0.1:0", "--workers", worker.address, "--tokenizer",
                    tokenizer.address, "--max-connection-age", "1"))

    @classmethod
    def tearDownClass(cls):
        cls.stack.close()

    def test_a_client_moves_to_new_connections_without_losing_a_request(self):
        proxy = CountingProxy(self.gateway.address)
        with Load(proxy.address, threads=4, tokens=5) as load:
            wait_until(lambda: proxy.connections >= 4, "old connections are replaced")
        self.assertEqual(load.errors, [])
        self.assertGreater(load.done, 20)

    def test_a_stream_outlives_its_connections_age(self):
        proxy = CountingProxy(self.gateway.address)
        with grpc.insecure_channel(proxy.address) as channel:
            stub = text_generation_pb2_grpc.TextGenerationServiceStub(channel)
            started = time.monotonic()
            stream = stub.StreamGenerate(stream_request(PROMPT, max_new_tokens=490, ignore_eos=True), timeout=60)
            next(stream)
            # Meanwhile the channel has gone on to another connection.
            while proxy.connections < 2:
                stub.Generate(text_generation_pb2.GenerateRequest(
                    prompts=[prompt_of(PROMPT)], parameters=parameters(max_new_tokens=1)), timeout=60)
            self.assertEqual(sum(len(piece.ids) for piece in stream), 489)
            self.assertGreater(time.monotonic() - started, 2)

    def test_the_load_client_moves_too(self):
        proxy = CountingProxy(self.gateway.address)
        code, stdout, stderr = run_cli("bench", "load", "--target", proxy.address, "--streams", "4", "--requests",
                                       "100", "--max-tokens", "20", "--json")
        self.assertEqual(code, 0, stderr)
        self.assertEqual(json.loads(stdout)["errors"], {})
        self.assertGreater(proxy.connections, 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
