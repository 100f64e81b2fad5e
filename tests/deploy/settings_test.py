"""Wrong settings of the services, as a pod would get them from its environment: the process ends with code 2 and one clear
line, or, where the fault lies between processes, says what is missing and stays out of rotation. No containers here.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

import grpc

BIN = pathlib.Path(os.environ["HANLIN_BIN"])
MODEL = pathlib.Path(os.environ["HANLIN_DATA"]) / "models" / "hanlin-poet"
SOURCE = pathlib.Path(os.environ["HANLIN_SOURCE"])
PATIENCE_S = 60


def run(service, user=None, **environment):
    """Exit code and stderr lines that are no log lines."""
    result = subprocess.run([BIN / f"hanlin-{service}"], capture_output=True, text=True, timeout=PATIENCE_S, user=user,
                            env=os.environ | {"HANLIN_LOG_FORMAT": "json"} | environment)
    return result.returncode, [line for line in result.stderr.splitlines() if not line.startswith("{")]


class Service:
    """A running service; its address comes from its log, since a gateway that lacks something never says ready."""

    def __init__(self, service, **environment):
        self.log_file = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [BIN / f"hanlin-{service}"], stdout=subprocess.DEVNULL, stderr=self.log_file,
            env=os.environ | {"HANLIN_LOG_FORMAT": "json", "HANLIN_ADDRESS": "127.0.0.1:0"} | environment)
        self.address = json.loads(self.wait_log(r'"event":"(listening|tokenizer serves|serving)".*"address"'))["address"]

    def wait_log(self, pattern):
        """The first log line that matches."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.log_file.seek(0)
            text = self.log_file.read()
            for line in text.splitlines():
                if re.search(pattern, line):
                    return line
            time.sleep(0.05)
        raise AssertionError(f"no log line matches {pattern}:\n{text}")

    def health(self, service=b""):
        with grpc.insecure_channel(self.address) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=bytes,
                                        response_deserializer=bytes)
            answer = check(b"\n" + bytes([len(service)]) + service if service else b"", timeout=PATIENCE_S)
        return {b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING"}[answer]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log_file.close()


class WrongSettingsTest(unittest.TestCase):
    def assert_refused(self, wanted, service, user=None, **environment):
        code, lines = run(service, user, **environment)
        self.assertEqual((code, len(lines)), (2, 1), lines)
        self.assertTrue(lines[0].startswith(f"hanlin-{service}: "), lines)
        self.assertRegex(lines[0], wanted)

    def test_a_missing_model_volume_is_named(self):
        for service in ("worker", "tokenizer"):
            with self.subTest(service):
                self.assert_refused("/models/current", service, HANLIN_MODEL="/models/current")

    def test_an_empty_model_volume_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            for service in ("worker", "tokenizer"):
                with self.subTest(service):
                    self.assert_refused(re.escape(folder), service, HANLIN_MODEL=folder)

    def test_an_unreadable_file_is_named(self):
        nobody = 65534 if os.geteuid() == 0 else None  # root reads everything
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(MODEL, folder, dirs_exist_ok=True)
            pathlib.Path(folder).chmod(0o755)
            (pathlib.Path(folder) / "config.json").chmod(0)
            try:
                self.assert_refused("config.json.*ermission", "worker", user=nobody, HANLIN_MODEL=folder)
            except PermissionError:
                self.skipTest("another user cannot run the programs of this folder")

    def test_a_damaged_model_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            for path in MODEL.iterdir():
                shutil.copy(path, folder)
            weights = pathlib.Path(folder) / "model-00002-of-00002.safetensors"
            weights.write_bytes(weights.read_bytes()[:1000])
            self.assert_refused("model-00002-of-00002.safetensors", "worker", HANLIN_MODEL=folder)

    def test_a_degree_that_does_not_fit_the_group_is_refused(self):
        group = {"HANLIN_LEADER": "127.0.0.1:7100", "LWS_GROUP_SIZE": "4"}
        self.assert_refused("--tp is 2.*4 pods.*want 4", "worker", HANLIN_TP="2", **group)
        self.assert_refused("--tp is 4.*2 ranks.*want 8", "worker", HANLIN_TP="4", HANLIN_HOST_RANKS="2", **group)
        self.assert_refused("--rank is 4, want 0 to 3", "worker", HANLIN_TP="4", HANLIN_RANK="4", **group)

    def test_a_degree_that_does_not_divide_the_heads_is_refused(self):
        self.assert_refused("3", "worker", HANLIN_TP="3", HANLIN_LEADER="127.0.0.1:0", HANLIN_ADDRESS="127.0.0.1:0")

    def test_a_port_in_use_is_named(self):
        with socket.create_server(("127.0.0.1", 0)) as busy:
            address = f"127.0.0.1:{busy.getsockname()[1]}"
            backends = {"HANLIN_WORKERS": "127.0.0.1:1", "HANLIN_TOKENIZER": "127.0.0.1:1"}
            for service, environment in (("gateway", backends), ("tokenizer", {}), ("worker", {})):
                for flag in ("HANLIN_ADDRESS", "HANLIN_METRICS_ADDRESS"):
                    with self.subTest(f"{service} {flag}"):
                        settings = {"HANLIN_ADDRESS": "127.0.0.1:0"} | environment | {flag: address}
                        self.assert_refused(re.escape(address), service, **settings)

    def test_an_unreadable_certificate_is_named(self):
        self.assert_refused("/certificates/tls.crt", "gateway", HANLIN_WORKERS="127.0.0.1:1",
                            HANLIN_TOKENIZER="127.0.0.1:1", HANLIN_ADDRESS="127.0.0.1:0",
                            HANLIN_TLS_CERT="/certificates/tls.crt", HANLIN_TLS_KEY="/certificates/tls.key")

    def test_an_unknown_value_is_named(self):
        self.assert_refused("--max-running", "worker", HANLIN_MAX_RUNNING="many")
        self.assert_refused("tpu", "worker", HANLIN_DEVICE="tpu")
        self.assert_refused("loud", "tokenizer", HANLIN_LOG_LEVEL="loud")
        self.assert_refused("nonsense", "gateway", HANLIN_WORKERS="nonsense", HANLIN_TOKENIZER="127.0.0.1:1")

    def test_an_unknown_flag_is_named(self):
        needed = {"gateway": ["--workers", "127.0.0.1:1", "--tokenizer", "127.0.0.1:1"]}
        for service in ("gateway", "tokenizer", "worker"):
            result = subprocess.run([BIN / f"hanlin-{service}", *needed.get(service, []), "--modle", "x"],
                                    capture_output=True, text=True)
            self.assertEqual(result.returncode, 2)
            self.assertEqual(result.stderr.count("\n"), 1)
            self.assertIn("--modle", result.stderr)


class UnknownVariablesTest(unittest.TestCase):
    """A ConfigMap is shared by programs with different flags, so a variable is unknown when none of them has the flag."""

    def warned(self, service, **environment):
        needed = {"gateway": {"HANLIN_WORKERS": "127.0.0.1:1", "HANLIN_TOKENIZER": "127.0.0.1:1"},
                  "worker": {"HANLIN_DEVICE": "null"}}
        with Service(service, **needed.get(service, {}) | environment) as running:
            running.log_file.seek(0)
            lines = [json.loads(line) for line in running.log_file if line.startswith("{")]
        return {line["name"]: line.get("meant") for line in lines if "no program reads" in line["event"]}

    def test_every_service_names_a_misspelt_variable_and_the_one_that_was_meant(self):
        for service in ("gateway", "tokenizer", "worker"):
            with self.subTest(service):
                warned = self.warned(service, HANLIN_MAX_RUNING="3")
                self.assertEqual(warned.get("HANLIN_MAX_RUNING"), "HANLIN_MAX_RUNNING")

    def test_what_is_known_are_the_flags_of_the_services(self):
        flags = set()
        for service in ("gateway", "tokenizer", "worker"):
            text = subprocess.run([BIN / f"hanlin-{service}", "--help"], check=True, capture_output=True, text=True).stdout
            flags |= set(re.findall(r"^ +(?:-h,)?--([a-z][a-z-]+)", text, re.MULTILINE))
        source = (SOURCE / "common/flags/environment.cc").read_text()
        known = source[source.index("kKnown ="):source.index("// Where binaries")]
        self.assertEqual(set(re.findall('"([a-z-]+)"', known)), flags - {"help", "version"})


class FaultsBetweenProcessesTest(unittest.TestCase):
    """A gateway is right to wait: what it lacks may come. It lives, is not ready, and says why."""

    def gateway(self, worker, tokenizer, **environment):
        return Service("gateway", HANLIN_WORKERS=worker.address, HANLIN_TOKENIZER=tokenizer.address, **environment)

    def assert_waits(self, gateway, reason):
        gateway.wait_log(reason)
        self.assertEqual(gateway.health(), "NOT_SERVING")
        self.assertEqual(gateway.health(b"liveness"), "SERVING")

    def test_a_group_with_another_model_stays_out(self):
        with Service("tokenizer") as tokenizer, Service("worker", HANLIN_DEVICE="null") as worker:
            with self.gateway(worker, tokenizer, HANLIN_MODEL_NAME="other") as gateway:
                self.assert_waits(gateway, 'the worker serves model ."hanlin-poet.", want ."other')
            with self.gateway(worker, tokenizer, HANLIN_MODEL_NAME="hanlin-poet") as gateway:
                gateway.wait_log('"serving"')
                self.assertEqual(gateway.health(), "SERVING")

    def test_a_group_with_another_tokenizer_stays_out(self):
        other = "0" * 64
        with Service("tokenizer") as tokenizer, \
                Service("worker", HANLIN_DEVICE="null", HANLIN_TOKENIZER_FINGERPRINT=other) as worker, \
                self.gateway(worker, tokenizer) as gateway:
            self.assert_waits(gateway, f"the worker's tokenizer has fingerprint {other}")


class HostRanksTest(unittest.TestCase):
    """A pod of several ranks: one command starts them, and they are one life."""

    def test_one_command_starts_a_group_that_ends_with_any_of_its_ranks(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            leader = f"127.0.0.1:{free.getsockname()[1]}"
        settings = {"HANLIN_TP": "2", "HANLIN_HOST_RANKS": "2", "HANLIN_LEADER": leader, "LWS_GROUP_SIZE": "1",
                    "HANLIN_RANK": "0"}
        with Service("worker", **settings) as worker:
            self.assertEqual(worker.health(), "SERVING")
            children = pathlib.Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text()
            follower = int(children)
            os.kill(follower, signal.SIGKILL)
            self.assertEqual(worker.process.wait(PATIENCE_S), 1)
        with Service("worker", **settings) as worker:
            follower = pathlib.Path(
                f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().strip()
            worker.process.kill()
            deadline = time.monotonic() + PATIENCE_S
            while pathlib.Path("/proc", follower).exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertFalse(pathlib.Path("/proc", follower).exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
