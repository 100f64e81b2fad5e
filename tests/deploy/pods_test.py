"""Proof that the cpu-demo overlay runs as pods: they stream; a killed group costs only its own streams and comes back; a
rolling replacement and a gateway's restart under load lose nothing; a gateway short of descriptors still answers; wrong
settings end a pod with one clear line. Prints image sizes, start time and memory at rest. See pods.py for how.

Left out here, because podman has no controllers: the order in which a cluster replaces pods, preStop and network policies
are taken at their word; manifests_test.py checks how they are written.
"""
import json
import os
import pathlib
import socket
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import pods  # noqa: E402

pods.enter_namespace()
sys.path.insert(0, str(pods.SOURCE / "tests" / "e2e"))
import grpc  # noqa: E402
from harness import CODE, collect, stream_request, text_generation_pb2_grpc  # noqa: E402

BUILD = pathlib.Path(os.environ["HANLIN_BIN"]).parent
GRACE_S = 50
PATIENCE_S = 300
SANITIZED = bool(os.environ.get("HANLIN_SANITIZE"))  # an order of magnitude slower
LONG = {"greedy": True, "max_new_tokens": 120 if SANITIZED else 480, "ignore_eos": True}
SHORT = {"greedy": True, "max_new_tokens": 60, "ignore_eos": True}


def probe(pod, port, service="", timeout=5):
    """What a kubelet's gRPC probe sees, over a fresh connection: "SERVING", "NOT_SERVING" or a status code's name."""
    request = b"\n" + bytes([len(service)]) + service.encode() if service else b""
    with grpc.insecure_channel(f"{pod.address}:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=bytes,
                                    response_deserializer=bytes)
        try:
            return {b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING"}.get(check(request, timeout=timeout), "UNKNOWN")
        except grpc.RpcError as error:
            return error.code().name


class Stream(threading.Thread):
    """One streamed request in a thread of its own."""

    def __init__(self, channel, prompt="《静夜思》李白\n", **fields):
        super().__init__()
        self.code = None
        self.tokens = 0
        self.first = threading.Event()
        self._call = text_generation_pb2_grpc.TextGenerationServiceStub(channel).StreamGenerate(
            stream_request(prompt, **fields), timeout=PATIENCE_S)
        self.start()

    def _note(self):
        for piece in self._call:
            self.tokens += len(piece.ids)
            if piece.ids:
                self.first.set()
            yield piece

    def run(self):
        try:
            collect(self._note())
            self.code = CODE.OK
        except grpc.RpcError as error:
            self.code = error.code()
        self.first.set()


class Load:
    """Clients that stream without a pause until stopped; each keeps to one gateway while that takes calls."""

    def __init__(self, channels, clients=6):
        self.channels = channels
        self.codes = []
        self.moves = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(i,)) for i in range(clients)]
        for thread in self._threads:
            thread.start()

    def _client(self, number):
        turn = number
        while not self._stop.is_set():
            stream = Stream(self.channels[turn % len(self.channels)], prompt=f"{number}号\n", **SHORT)
            stream.join()
            if stream.code == CODE.UNAVAILABLE and stream.tokens == 0 and len(self.channels) > 1:
                turn += 1  # as a load balancer or a client's retry policy does
                self.moves += 1
                continue
            self.codes.append(stream.code)

    def finish(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.codes


class PodsTest(unittest.TestCase):
    """The steps build on each other, as an operator's day does; unittest runs them by name."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = pods.Cluster()
        cls.addClassCleanup(cls.cluster.__exit__, None, None, None)
        cls.cluster.create_network()
        cls.figures = cls.cluster.build_images(BUILD)
        cls.cluster.render("cpu-demo")
        start = time.monotonic()
        cls.cluster.play("hanlin-tokenizer", "tokenizer")
        for group in "ab"[:cls.cluster.replicas("hanlin-worker")]:
            cls.cluster.play("hanlin-worker", f"worker-{group}")
        cls.gateway = cls.cluster.play("hanlin-gateway", "gateway")
        cls.channel = cls.connect(cls.gateway)
        first = pods.wait_until(lambda: (s := Stream(cls.channel, max_new_tokens=1)).join() or s.code == CODE.OK and s,
                                "a first token")
        assert first.tokens == 1
        cls.figures["start_to_first_token_s"] = round(time.monotonic() - start, 1)
        cls.image = next(image for image in cls.figures if "poet" in image)

    @staticmethod
    def connect(gateway):
        return grpc.insecure_channel(f"{gateway.address}:8080", options=[
            ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 300)])

    def ready_groups(self):
        return self.gateway.metric("hanlin_gateway_ready_groups")

    def wait_groups(self, count):
        pods.wait_until(lambda: self.ready_groups() == count, f"{count} groups in rotation")

    def worker(self, name):
        return self.cluster.pods[name]

    def test_1_pods_serve_and_tell_probes_the_truth(self):
        self.wait_groups(2)
        for name, port in (("tokenizer", 7001), ("worker-a", 7002), ("worker-b", 7002), ("gateway", 8080)):
            pod = self.cluster.pods[name]
            self.assertEqual((probe(pod, port), probe(pod, port, "liveness")), ("SERVING", "SERVING"), name)
            state = pod.inspect()
            self.assertEqual(state["Config"]["User"], "65532:65532")
            self.assertTrue(state["HostConfig"]["ReadonlyRootfs"])
            self.figures[f"{name}_rss_mib"] = round(pod.metric("process_resident_memory_bytes") / 2**20, 1)
        for name in ("vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"):
            self.assertEqual(self.worker("worker-a").metric(name), 0)
        self.assertEqual(self.worker("worker-a").metric("vllm:cache_config_info"), 1)
        print(json.dumps(self.figures, indent=1), flush=True)

    def test_2_a_killed_group_costs_its_own_streams_and_comes_back(self):
        streams = [Stream(self.channel, prompt=f"{i}号\n", **LONG) for i in range(50)]
        for stream in streams:
            self.assertTrue(stream.first.wait(PATIENCE_S))
        victim, other = self.worker("worker-a"), self.worker("worker-b")
        victim.kill()
        after = [Stream(self.channel, **SHORT) for _ in range(5)]
        for stream in [*streams, *after]:
            stream.join()
        codes = [s.code for s in streams]
        failed = [s for s in streams if s.code != CODE.OK]
        self.assertEqual({s.code for s in failed}, {CODE.UNAVAILABLE}, codes)
        # The two groups shared the streams; those of the other one ended well, all of them.
        self.assertGreater(len(failed), 10)
        self.assertLess(len(failed), 40)
        self.assertEqual([s.code for s in after], [CODE.OK] * 5)
        ended_well = other.metric(r'hanlin_worker_requests_total\{code="OK"\}')
        self.assertGreaterEqual(ended_well, len(streams) - len(failed))
        self.assertEqual(other.metric("hanlin_worker_requests_total"), ended_well)
        self.wait_groups(2)
        victim.refresh()
        self.assertGreaterEqual(victim.restarts(), 1)
        for stream in (streams := [Stream(self.channel, **SHORT) for _ in range(20)]):
            stream.join()
        self.assertEqual({s.code for s in streams}, {CODE.OK})
        self.assertGreater(victim.metric("hanlin_worker_generated_tokens_total"), 0)

    def test_3_a_rolling_replacement_under_load_loses_nothing(self):
        load = Load([self.channel])
        for group in "ab":
            new = self.cluster.play("hanlin-worker", f"worker-{group}2")
            pods.wait_until(lambda pod=new: probe(pod, 7002) == "SERVING", "the new group ready")
            self.wait_groups(3)
            old = self.worker(f"worker-{group}")
            self.assertEqual(old.stop(GRACE_S).wait(), 0)
            self.assertEqual(old.inspect()["State"]["ExitCode"], 0, old.logs())
            self.cluster.remove(f"worker-{group}")
            self.wait_groups(2)
        codes = load.finish()
        self.assertEqual({code: codes.count(code) for code in set(codes)}, {CODE.OK: len(codes)})
        self.assertGreater(len(codes), 10)

    def test_4_a_gateway_that_is_restarted_finishes_its_streams(self):
        second = self.cluster.play("hanlin-gateway", "gateway-2")
        pods.wait_until(lambda: probe(second, 8080) == "SERVING", "the second gateway ready")
        channel = self.connect(second)
        running = [Stream(channel, prompt=f"{i}号\n", **LONG) for i in range(10)]
        for stream in running:
            self.assertTrue(stream.first.wait(PATIENCE_S))
        load = Load([channel, self.channel])
        stopping = second.stop(GRACE_S)
        for stream in running:
            stream.join()
        self.assertEqual([s.code for s in running], [CODE.OK] * 10)
        self.assertEqual(stopping.wait(), 0)
        self.assertEqual(second.inspect()["State"]["ExitCode"], 0, second.logs())
        codes = load.finish()
        self.assertEqual(set(codes), {CODE.OK})
        self.assertGreater(load.moves, 0)
        self.cluster.remove("gateway-2")

    def test_5_a_gateway_short_of_descriptors_answers_and_its_probe_tells_the_truth(self):
        environment = {"HANLIN_ADDRESS": "0.0.0.0:8080", "HANLIN_WORKERS": "dns:///hanlin-workers:7002",
                       "HANLIN_TOKENIZER": "dns:///hanlin-tokenizers:7001", "ASAN_OPTIONS": "detect_leaks=0"}
        small = self.cluster.run("small", self.image, "/usr/bin/hanlin-gateway", environment=environment,
                                 options=["--ulimit", "nofile=64:64", "--ulimit", "nproc=512:512"])
        pods.wait_until(lambda: probe(small, 8080) == "SERVING", "the small gateway ready")
        for number in range(200):
            connection = socket.create_connection((small.address, 8080), timeout=20)
            self.addCleanup(connection.close)
            if number % 2:  # these begin to talk HTTP/2, the others say nothing at all
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        for _ in range(3):
            self.assertEqual(probe(small, 8080, "liveness"), "SERVING")
            stream = Stream(self.connect(small), **SHORT)
            stream.join()
            self.assertEqual(stream.code, CODE.OK, small.logs())
        os.kill(small.pid(), 19)  # SIGSTOP: the process lives and does nothing
        self.assertEqual(probe(small, 8080, "liveness", timeout=2), "DEADLINE_EXCEEDED")
        os.kill(small.pid(), 18)
        self.assertEqual(probe(small, 8080, "liveness", timeout=20), "SERVING")
        self.cluster.podman("rm", "--force", "--time", "0", "small")

    def test_6_a_gateway_without_groups_lives_but_is_not_ready(self):
        def lost(_, container):
            container["env"] += [{"name": "HANLIN_WORKERS", "value": "dns:///nobody:7002"}]
        pod = self.cluster.play("hanlin-gateway", "lost", lost)
        pods.wait_until(lambda: probe(pod, 8080, "liveness") == "SERVING", "the process")
        self.assertEqual(probe(pod, 8080), "NOT_SERVING")
        pods.wait_until(lambda: "no worker group is ready" in pod.logs(), "the reason in the log")
        self.cluster.remove("lost")

    def test_7_wrong_settings_end_a_pod_with_one_clear_line(self):
        cases = {
            "missing volume": ({"HANLIN_MODEL": "/models/missing"}, "/models/missing"),
            "group size": ({"HANLIN_TP": "2", "LWS_GROUP_SIZE": "4", "HANLIN_LEADER": "127.0.0.1:7100"},
                           "LWS_GROUP_SIZE"),
            "value": ({"HANLIN_MAX_RUNNING": "many"}, "--max-running"),
        }
        for number, (case, (environment, wanted)) in enumerate(cases.items()):
            with self.subTest(case):
                def change(template, container, environment=environment):
                    template["restartPolicy"] = "Never"
                    container.pop("envFrom")  # podman 4.3 lets it win over env
                    container["env"] += [{"name": k, "value": v} for k, v in environment.items()]
                pod = self.cluster.play("hanlin-worker", f"wrong-{number}", change)
                pods.wait_until(lambda pod=pod: not pod.running(), "the end of the container")
                self.assertEqual(pod.inspect()["State"]["ExitCode"], 2)
                lines = [line for line in pod.logs().splitlines() if not line.startswith("{")]
                self.assertEqual(len(lines), 1, lines)
                self.assertIn(wanted, lines[0])
                self.cluster.remove(f"wrong-{number}")

    def test_8_a_pod_of_two_ranks_is_a_group_and_one_life(self):
        def two_ranks(template, container):
            container["env"] += [{"name": name, "value": value} for name, value in {
                "HANLIN_TP": "2", "HANLIN_HOST_RANKS": "2", "HANLIN_RANK": "0", "HANLIN_LEADER": "127.0.0.1:7100",
                "LWS_GROUP_SIZE": "1", "LWS_WORKER_INDEX": "0"}.items()]
            # podman's volumes belong to root, a cluster's emptyDir to everyone; podman's own /dev/shm will do.
            template.pop("volumes")
            container.pop("volumeMounts")
        self.wait_groups(2)
        pod = self.cluster.play("hanlin-worker", "pair", two_ranks)
        self.wait_groups(3)
        for stream in (streams := [Stream(self.channel, **SHORT) for _ in range(12)]):
            stream.join()
        self.assertEqual({s.code for s in streams}, {CODE.OK})
        self.assertGreater(pod.metric("hanlin_worker_generated_tokens_total"), 0)
        leader = pod.pid()
        follower = int(pathlib.Path(f"/proc/{leader}/task/{leader}/children").read_text())
        os.kill(follower, 9)
        pods.wait_until(lambda: pod.restarts() == 1 and pod.running(), "the pod started again")
        self.wait_groups(3)
        self.cluster.remove("pair")


if __name__ == "__main__":
    unittest.main(verbosity=2)
