"""Real processes on loopback: starts `hanlin serve`, finds its children, talks to it over gRPC.

Environment (set by ctest): HANLIN_BIN, the folder of the binaries; HANLIN_STUBS, the Python stubs made from protos/;
HANLIN_SOURCE, the repository; HANLIN_DATA, the data directory; HANLIN_GOLDENS_DEFAULT, the unpacked golden data.
"""
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import unittest

import grpc

BIN = pathlib.Path(os.environ["HANLIN_BIN"])
SOURCE = pathlib.Path(os.environ["HANLIN_SOURCE"])
DEFAULT_MODEL = pathlib.Path(os.environ["HANLIN_DATA"]) / "models" / "hanlin-poet"
GOLDENS = pathlib.Path(os.environ.get("HANLIN_GOLDENS", os.environ["HANLIN_GOLDENS_DEFAULT"]))
sys.path.insert(0, os.environ["HANLIN_STUBS"])
# What the tests start is to see a user's environment: a service warns of variables that it does not know.
for name in ("HANLIN_SOURCE", "HANLIN_GOLDENS", "HANLIN_GOLDENS_DEFAULT", "HANLIN_STUBS"):
    os.environ.pop(name, None)

from hanlin.v1 import sampling_pb2, text_generation_pb2, text_generation_pb2_grpc  # noqa: E402
from hanlin.v1 import worker_pb2, worker_pb2_grpc  # noqa: E402

CODE = grpc.StatusCode
# Nothing here takes long on its own; a sanitizer build on two busy cores does.
PATIENCE_S = 60
PROMPT = "《静夜思》李白\n"
REASON = sampling_pb2.FinishReason


def parameters(**fields):
    """GenerationParameters from the fields of all its parts: greedy=True, max_new_tokens=9, stop_strings=[…], …"""
    fields = dict(fields)
    if fields.pop("greedy", False):
        fields["temperature"] = 0
    result = text_generation_pb2.GenerationParameters()
    for name, value in fields.items():
        owner = result
        if name in sampling_pb2.SamplingParameters.DESCRIPTOR.fields_by_name:
            owner = result.sampling
        elif name in sampling_pb2.StoppingParameters.DESCRIPTOR.fields_by_name:
            owner = result.stopping
        if isinstance(value, list):
            getattr(owner, name).extend(value)
        elif isinstance(value, dict):
            getattr(owner, name).update(value)
        else:
            setattr(owner, name, value)
    return result


def prompt_of(prompt):
    if isinstance(prompt, str):
        return text_generation_pb2.Prompt(text=prompt)
    return text_generation_pb2.Prompt(token_ids=text_generation_pb2.TokenIds(ids=prompt))


def stream_request(prompt=PROMPT, **fields):
    return text_generation_pb2.StreamGenerateRequest(prompt=prompt_of(prompt), parameters=parameters(**fields))


def processes():
    """{pid: (parent, command line)} of the living."""
    result = {}
    for folder in pathlib.Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            if stat[0] not in "ZX":
                command = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                result[int(folder.name)] = (int(stat[1]), command)
    return result


def wait_until(condition, what, seconds=PATIENCE_S):
    """Polls until condition() is true and returns it; fails the test by name when it never is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


class Server:
    """A `hanlin serve` with JSON logs on a port of its own."""

    def __init__(self, *options, ready=True):
        self.process = subprocess.Popen(
            [BIN / "hanlin", "serve", "--address", "127.0.0.1:0", "--log-format", "json", *map(str, options)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.address = None
        self.stdout_lines = []
        self.log = []
        self._ready = threading.Event()
        self._threads = [threading.Thread(target=self._read_stdout), threading.Thread(target=self._read_log)]
        for thread in self._threads:
            thread.start()
        self._channel = None
        self._run_directory = None
        if ready:
            self.wait_ready()

    def _read_stdout(self):
        for line in self.process.stdout:
            self.stdout_lines.append(line.rstrip("\n"))
            if line.startswith("ready ") and self.address is None:
                self.address = line.split()[1]
                self._ready.set()
        self._ready.set()

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))

    def wait_ready(self):
        if not self._ready.wait(PATIENCE_S) or self.address is None:
            self.kill()
            raise AssertionError("the server did not become ready:\n" + "\n".join(self.log[-20:]))

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if kind is not None:
            print("last lines of the server:\n" + "\n".join(self.log[-30:]), file=sys.stderr)
        self.stop()

    def stop(self):
        """SIGTERM and the exit code."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, seconds=PATIENCE_S):
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("the server did not end") from None
        for thread in self._threads:
            thread.join()
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    def kill(self):
        self.process.kill()
        self.process.wait()

    # What it consists of.

    def run_directory(self):
        if self._run_directory is None:
            command = next(iter(self.children("hanlin-gateway").values()))
            self._run_directory = pathlib.Path(command[command.index("--tokenizer") + 1].removeprefix("unix:")).parent
        return self._run_directory

    def children(self, name):
        """{pid: command line} of the living children that run the binary `name`."""
        return {pid: command for pid, (parent, command) in processes().items()
                if parent == self.process.pid and command[0].endswith("/" + name)}

    def child(self, name, containing=""):
        pids = [pid for pid, command in self.children(name).items() if containing in " ".join(command)]
        assert len(pids) == 1, f"{len(pids)} children {name} {containing}"
        return pids[0]

    # Talking to it.

    def channel(self):
        if self._channel is None:
            self._channel = grpc.insecure_channel(
                self.address, options=[("grpc.initial_reconnect_backoff_ms", 100),
                                       ("grpc.max_reconnect_backoff_ms", 300)])
        return self._channel

    def api(self):
        return text_generation_pb2_grpc.TextGenerationServiceStub(self.channel())

    def stream(self, prompt=PROMPT, timeout=PATIENCE_S, metadata=None, **fields):
        return self.api().StreamGenerate(stream_request(prompt, **fields), timeout=timeout, metadata=metadata)

    def generate(self, prompts, timeout=PATIENCE_S, model="", **fields):
        prompts = prompts if isinstance(prompts, list) and not isinstance(prompts[0], int) else [prompts]
        request = text_generation_pb2.GenerateRequest(
            model=model, prompts=[prompt_of(p) for p in prompts], parameters=parameters(**fields))
        return self.api().Generate(request, timeout=timeout).choices

    def load(self, group=0):
        """WorkerLoad of a group, asked over its own socket."""
        with grpc.insecure_channel(f"unix:{self.run_directory()}/worker-{group}.sock") as channel:
            stub = worker_pb2_grpc.WorkerServiceStub(channel)
            return stub.GetLoad(worker_pb2.GetLoadRequest(), timeout=PATIENCE_S, wait_for_ready=True).load

    def wait_idle(self, group=0, seconds=PATIENCE_S):
        """Waits until no request is open in the group and its blocks are free."""
        def idle():
            load = self.load(group)
            return load.queued_requests == load.running_requests == load.used_kv_blocks == 0
        wait_until(idle, f"group {group} idle", seconds)


class Process:
    """One service binary with JSON logs, started alone: for what `hanlin serve` does not set up."""

    def __init__(self, name, *options, ready=True):
        self.process = subprocess.Popen([BIN / name, "--log-format", "json", *map(str, options)],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.name = name
        self.log = []
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()
        self.address = None
        if ready:
            self.wait_ready()

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))

    def wait_ready(self):
        """Blocks until "ready ADDRESS" is printed or the process ends."""
        line = self.process.stdout.readline()
        if not line.startswith("ready "):
            self.process.kill()
            raise AssertionError(f"{self.name} did not become ready:\n" + "\n".join(self.log[-10:]))
        self.address = line.split()[1]

    def logged(self, text):
        return any(text in line for line in self.log)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if kind is not None:
            print(f"last lines of {self.name}:\n" + "\n".join(self.log[-15:]), file=sys.stderr)
        self.stop()

    def stop(self, sign=signal.SIGTERM):
        """The signal, unless it has ended, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(sign)
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"{self.name} did not end") from None
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        return code


def run_binary(name, *options, timeout=PATIENCE_S):
    """Runs a service binary that is to end by itself: exit code, stdout, stderr."""
    result = subprocess.run([BIN / name, *map(str, options)], capture_output=True, text=True, timeout=timeout)
    return result.returncode, result.stdout, result.stderr


def collect(stream):
    """Text, ids and last piece of a stream; checks what holds for every stream."""
    text, ids, last = "", [], None
    for number, piece in enumerate(stream):
        assert piece.sequence_number == number, (piece.sequence_number, number)
        assert last is None or not last.finish_reason, "a piece after the last"
        text += piece.text_delta
        ids += piece.ids
        last = piece
    assert last is not None and last.finish_reason, "the stream ended without a finish reason"
    assert last.usage.completion_tokens == len(ids)
    return text, ids, last


class Case(unittest.TestCase):
    """With an assertion on gRPC errors."""

    def assert_code(self, code, call, pattern="."):
        """The error of `call` (a function that makes the call and reads it to its end)."""
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertRegex(caught.exception.details(), pattern)
        return caught.exception


def run_cli(*arguments, stdin=None, timeout=PATIENCE_S):
    """Runs `hanlin …`: exit code, stdout, stderr."""
    result = subprocess.run([BIN / "hanlin", *map(str, arguments)], input=stdin, capture_output=True,
                            text=True, timeout=timeout)
    return result.returncode, result.stdout, result.stderr


def greedy_cases():
    """Prompts and greedy continuations of the default model, made by another implementation in fp32."""
    return json.loads((GOLDENS / "refmodel" / "greedy_shared.json").read_text())


def has_retry_info(error):
    """google.rpc.RetryInfo among the details that came with an error."""
    return any(key == "grpc-status-details-bin" and b"google.rpc.RetryInfo" in value
               for key, value in error.trailing_metadata())


def metric(text, name):
    """Sum over the samples of one metric in Prometheus text."""
    return sum(float(m[1]) for m in re.finditer(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))
