"""Flags of the service binaries: mistakes are one line that names them, exit code 2 and nothing on stdout; each flag is
also an environment variable."""
import os
import socket
import subprocess
import time

from harness import BIN, Case, Process, run_binary, unittest

NEEDED = {"hanlin-gateway": ("--workers", "127.0.0.1:1", "--tokenizer", "127.0.0.1:1"), "hanlin-tokenizer": (),
          "hanlin-worker": ()}
# Flags, and what the message must name.
BAD = {
    "hanlin-gateway": [
        (("--workers", "nonsense"), "nonsense"),
        (("--workers", "dns:///name"), "dns:///name"),
        (("--workers", "dns://no-port/name:1"), "dns://no-port/name:1"),
        (("--workers", ","), "--workers"),
        (("--tokenizer", "host:99999"), "host:99999"),
        (("--address", "nonsense"), "nonsense"),
        (("--metrics-address", "nonsense"), "nonsense"),
        (("--max-queue", "0"), "--max-queue"),
        (("--max-queue", "many"), "many"),
        (("--max-queue-tokens", "-1"), "--max-queue-tokens"),
        (("--drain-timeout", "-1"), "--drain-timeout"),
        (("--drain-timeout", "soon"), "soon"),
        (("--max-connection-age", "-3"), "--max-connection-age"),
        (("--stall-timeout", "0"), "--stall-timeout"),
        (("--tokenizer-name", "x"), "--tokenizer-ca"),
        (("--log-level", "loud"), "loud"),
        (("--log-format", "xml"), "xml"),
    ],
    "hanlin-tokenizer": [
        (("--model", "/no/such/folder"), "/no/such/folder"),
        (("--model", "/"), "/"),
        (("--address", "nonsense"), "nonsense"),
        (("--address", "unix:"), "unix:"),
        (("--metrics-address", "host"), "host"),
        (("--drain-timeout", "-1"), "--drain-timeout"),
        (("--log-level", "loud"), "loud"),
    ],
    "hanlin-worker": [
        (("--model", "/no/such/folder"), "/no/such/folder"),
        (("--random-weights", "giant"), "giant"),
        (("--random-weights", "base", "--model", "x"), "random weights"),
        (("--device", "tpu"), "tpu"),
        (("--dtype", "int3"), "int3"),
        (("--rank", "1"), "--rank is 1"),
        (("--rank", "-1"), "--rank is -1"),
        (("--tp", "0"), "--tp is 0"),
        (("--tp", "2"), "--leader"),
        (("--tp", "2", "--device", "null", "--leader", "unix:/x"), "--device null"),
        (("--tp", "x"), "x"),
        (("--tp", "2", "--leader", "nonsense"), "--leader is \"nonsense\""),
        (("--max-queue", "0"), "--max-queue is 0"),
        (("--max-queue-tokens", "-1"), "--max-queue-tokens is -1"),
        (("--max-running", "0"), "--max-running is 0"),
        (("--max-batch-tokens", "-1"), "--max-batch-tokens is -1"),
        (("--tokenizer-fingerprint", "f00d"), "want 64 hexadecimal digits"),
        (("--kv-memory", "lots"), "--kv-memory is \"lots\""),
        (("--kv-memory", "1"), "one block"),
        (("--kv-memory", "900TiB"), "not enough memory"),
        (("--threads", "-1"), "--threads is -1"),
        (("--drain-timeout", "-1"), "--drain-timeout is -1"),
        (("--stall-timeout", "0"), "--stall-timeout is 0"),
        (("--null-step-us", "-1"), "--null-step-us is -1"),
        (("--address", "nonsense"), "nonsense"),
        (("--metrics-address", "nonsense"), "nonsense"),
        (("--log-format", "xml"), "xml"),
    ],
}


class FlagsTest(Case):
    def assert_refused(self, binary, options, message):
        code, stdout, stderr = run_binary(binary, *options)
        self.assertEqual((code, stdout), (2, ""), stderr)
        lines = [line for line in stderr.strip().split("\n") if line.startswith(f"{binary}: ")]
        self.assertEqual(len(lines), 1, stderr)
        self.assertIn(message, lines[0])
        return stderr

    def test_bad_values_are_named(self):
        for binary, table in BAD.items():
            for options, message in table:
                with self.subTest(binary=binary, options=options):
                    needed = list(NEEDED[binary])
                    if options[0] in needed:
                        at = needed.index(options[0])
                        del needed[at:at + 2]
                    if "--address" not in options:
                        needed += ["--address", "127.0.0.1:0"]
                    self.assert_refused(binary, [*needed, *options], message)

    def test_an_unknown_flag_is_named(self):
        for binary in BAD:
            with self.subTest(binary=binary):
                self.assert_refused(binary, [*NEEDED[binary], "--no-such-flag"], "--no-such-flag")
                self.assert_refused(binary, [*NEEDED[binary], "stray"], "stray")

    def test_what_is_required_is_said(self):
        self.assert_refused("hanlin-gateway", ["--tokenizer", "a:1"], "--workers")
        self.assert_refused("hanlin-gateway", ["--workers", "a:1"], "--tokenizer")

    def test_help_and_version(self):
        for binary in BAD:
            with self.subTest(binary=binary):
                code, stdout, stderr = run_binary(binary, "--help")
                self.assertEqual((code, stderr), (0, ""))
                for flag in ("--address", "--metrics-address", "--drain-timeout", "--log-level"):
                    self.assertIn(flag, stdout)
                code, stdout, _ = run_binary(binary, "--version")
                self.assertEqual(code, 0)
                self.assertRegex(stdout, rf"^{binary} \d+\.\d+\.\d+$")

    def test_the_environment_sets_flags(self):
        for binary in BAD:
            with self.subTest(binary=binary):
                result = subprocess.run([BIN / binary, *NEEDED[binary]], capture_output=True, text=True, timeout=60,
                                        env={**os.environ, "HANLIN_METRICS_ADDRESS": "from-the-environment"})
                self.assertEqual(result.returncode, 2)
                self.assertIn("from-the-environment", result.stderr)

    def test_a_port_in_use_is_found_before_anything_is_loaded(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            for binary in BAD:
                for flag in ("--address", "--metrics-address"):
                    with self.subTest(binary=binary, flag=flag):
                        # A model whose weights would take minutes.
                        more = ("--random-weights", "2.7B") if binary == "hanlin-worker" else ()
                        started = time.monotonic()
                        stderr = self.assert_refused(binary, [*NEEDED[binary], *more, flag, address], address)
                        self.assertNotIn("loading", stderr)
                        self.assertLess(time.monotonic() - started, 20)

    def test_an_address_that_is_not_of_this_machine_is_named(self):
        for binary in BAD:
            with self.subTest(binary=binary):
                self.assert_refused(binary, [*NEEDED[binary], "--address", "192.0.2.1:7000"], "192.0.2.1:7000")

    def test_a_stale_socket_file_is_replaced(self):
        address = f"unix:/tmp/hanlin-flags-test-{os.getpid()}.sock"
        self.addCleanup(lambda: os.path.exists(address[5:]) and os.unlink(address[5:]))
        first = Process("hanlin-tokenizer", "--address", address)
        first.process.kill()
        first.stop()
        self.assertTrue(os.path.exists(address[5:]))
        with Process("hanlin-tokenizer", "--address", address) as second:
            self.assertEqual(second.address, address)


if __name__ == "__main__":
    unittest.main(verbosity=2)
