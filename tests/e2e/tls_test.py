"""TLS with real handshakes: certificates are made here, by openssl, for one CA that is trusted and one that is not."""
import pathlib
import subprocess
import tempfile

from harness import (CODE, PROMPT, Case, Process, Server, collect, grpc, run_binary, run_cli, stream_request,
                     text_generation_pb2_grpc, unittest, wait_until)


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    """A CA and the certificates it signs, as PEM files in a folder."""

    def __init__(self, folder, name):
        self.folder = folder
        self.name = name
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 2,
                "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.certificate)

    def sign(self, name, alternative="DNS:localhost,IP:127.0.0.1"):
        """(certificate, key)"""
        key, request, certificate, extensions = (self.folder / f"{self.name}-{name}.{kind}"
                                                 for kind in ("key", "csr", "pem", "ext"))
        extensions.write_text(f"subjectAltName={alternative}\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                "-keyout", key, "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial",
                "-days", 2, "-extfile", extensions, "-out", certificate)
        return certificate, key


class TlsTest(Case):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.authority = Authority(cls.folder, "trusted")
        cls.stranger = Authority(cls.folder, "stranger")
        cls.server_pair = cls.authority.sign("server")

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def generate(self, address, authority, pair=None):
        """A short stream over TLS that trusts `authority`, as the owner of `pair`."""
        certificate, key = (path.read_bytes() for path in pair) if pair else (None, None)
        credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key, certificate)
        with grpc.secure_channel(address, credentials) as channel:
            stub = text_generation_pb2_grpc.TextGenerationServiceStub(channel)
            return collect(stub.StreamGenerate(stream_request(PROMPT, max_new_tokens=3, ignore_eos=True), timeout=20))

    def test_the_public_api_over_tls(self):
        certificate, key = self.server_pair
        with Server("--device", "null", "--tls-cert", certificate, "--tls-key", key) as server:
            _, ids, _ = self.generate(server.address, self.authority)
            self.assertEqual(len(ids), 3)
            with self.subTest("a client that trusts another CA refuses the server"):
                self.assert_code(CODE.UNAVAILABLE, lambda: self.generate(server.address, self.stranger))
            with self.subTest("plaintext is not answered"):
                self.assert_code(CODE.UNAVAILABLE, lambda: collect(server.stream(max_new_tokens=2, timeout=20)))
            with self.subTest("the command line"):
                arguments = ("generate", "--target", server.address, "--prompt", PROMPT, "--max-tokens", "3",
                             "--timeout", "20", "--tls-ca")
                code, stdout, stderr = run_cli(*arguments, self.authority.certificate)
                self.assertEqual(code, 0, stderr)
                self.assertTrue(stdout.strip())
                self.assertEqual(run_cli(*arguments, self.stranger.certificate)[0], 1)
                code, _, stderr = run_cli(*arguments, "/no/such.pem")
                self.assertEqual(code, 2)
                self.assertIn("/no/such.pem", stderr)

    def test_client_certificates_are_demanded(self):
        certificate, key = self.server_pair
        with Server("--device", "null", "--tls-cert", certificate, "--tls-key", key, "--tls-client-ca",
                    self.authority.certificate) as server:
            self.generate(server.address, self.authority, self.authority.sign("client"))
            self.assert_code(CODE.UNAVAILABLE, lambda: self.generate(server.address, self.authority))
            self.assert_code(CODE.UNAVAILABLE, lambda: self.generate(server.address, self.authority,
                                                                     self.stranger.sign("client")))

    def test_the_gateway_reaches_a_tokenizer_over_tls(self):
        certificate, key = self.authority.sign("tokenizer", "DNS:tokenizer.hanlin")
        worker_options = ("--device", "null", "--address", "127.0.0.1:0")
        with Process("hanlin-tokenizer", "--address", "127.0.0.1:0", "--tls-cert", certificate, "--tls-key",
                     key) as tokenizer, Process("hanlin-worker", *worker_options) as worker:
            options = ("--workers", worker.address, "--tokenizer", tokenizer.address, "--address", "127.0.0.1:0")
            with Process("hanlin-gateway", *options, "--tokenizer-ca", self.authority.certificate,
                         "--tokenizer-name", "tokenizer.hanlin") as gateway:
                with grpc.insecure_channel(gateway.address) as channel:
                    stub = text_generation_pb2_grpc.TextGenerationServiceStub(channel)
                    _, ids, _ = collect(stub.StreamGenerate(stream_request(max_new_tokens=3, ignore_eos=True),
                                                            timeout=20))
                    self.assertEqual(len(ids), 3)
            for more in (("--tokenizer-ca", self.stranger.certificate, "--tokenizer-name", "tokenizer.hanlin"),
                         ("--tokenizer-ca", self.authority.certificate), ()):
                with self.subTest(more=more):
                    gateway = Process("hanlin-gateway", *options, *more, ready=False)
                    try:
                        wait_until(lambda: gateway.logged("no tokenizer is reachable"), "the gateway says why")
                        self.assertIsNone(gateway.process.poll())
                    finally:
                        gateway.stop()

    def test_files_that_do_not_fit_are_one_clear_line(self):
        certificate, key = self.server_pair
        other_certificate, other_key = self.authority.sign("other")
        garbage = self.folder / "garbage.pem"
        garbage.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        encrypted = self.folder / "encrypted.key"
        openssl("ec", "-in", key, "-aes128", "-passout", "pass:x", "-out", encrypted)
        table = [
            (("--tls-cert", "/no/such.pem", "--tls-key", key), "/no/such.pem"),
            (("--tls-cert", certificate, "--tls-key", "/no/such.key"), "/no/such.key"),
            (("--tls-cert", self.folder, "--tls-key", key), str(self.folder)),
            (("--tls-cert", certificate), "both a certificate and a private key"),
            (("--tls-key", key), "both a certificate and a private key"),
            (("--tls-client-ca", certificate), "without a certificate"),
            (("--tls-cert", garbage, "--tls-key", key), f"{garbage} holds no certificate"),
            (("--tls-cert", key, "--tls-key", key), f"{key} holds no certificate"),
            (("--tls-cert", certificate, "--tls-key", certificate), f"{certificate} holds no private key"),
            (("--tls-cert", certificate, "--tls-key", other_key), f"{other_key} does not belong to"),
            (("--tls-cert", other_certificate, "--tls-key", key), f"{key} does not belong to"),
            (("--tls-cert", certificate, "--tls-key", encrypted), f"{encrypted} is encrypted"),
            (("--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", garbage), f"{garbage} holds no cert"),
        ]
        for binary, needed in (("hanlin-gateway", ("--workers", "127.0.0.1:1", "--tokenizer", "127.0.0.1:1")),
                               ("hanlin-tokenizer", ())):
            for options, message in table:
                with self.subTest(binary=binary, options=options):
                    code, stdout, stderr = run_binary(binary, *needed, "--address", "127.0.0.1:0", *options)
                    self.assertEqual((code, stdout), (2, ""), stderr)
                    self.assertEqual(len(stderr.strip().split("\n")), 1, stderr)
                    self.assertIn(f"{binary}: ", stderr)
                    self.assertIn(message, stderr)
        code, _, stderr = run_binary("hanlin-gateway", "--workers", "127.0.0.1:1", "--tokenizer", "127.0.0.1:1",
                                     "--tokenizer-ca", garbage)
        self.assertEqual(code, 2, stderr)
        self.assertIn(f"{garbage} holds no certificate", stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
