#!/usr/bin/env python3
"""Streams a poem from a Hanlin server.

    python3 docs/examples/client.py 127.0.0.1:8080 ['《静夜思》李白']

Needs Debian's python3-grpcio and protobuf-compiler-grpc. The stubs are made from protos/ on the fly; a real client makes
them once, at build time.
"""
import pathlib
import subprocess
import sys
import tempfile

import grpc

PROTOS = pathlib.Path(__file__).resolve().parents[2] / "protos"


def make_stubs():
    """Compiles the API's protos into a temporary folder and puts it on the module path."""
    folder = tempfile.mkdtemp(prefix="hanlin-stubs-")
    subprocess.run(
        ["protoc", f"-I{PROTOS}", "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin",
         f"--python_out={folder}", f"--grpc_out={folder}",
         "hanlin/v1/sampling.proto", "hanlin/v1/text_generation.proto"],
        check=True)
    sys.path.insert(0, folder)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    address = sys.argv[1]
    title = sys.argv[2] if len(sys.argv) == 3 else "《静夜思》李白"

    make_stubs()
    from hanlin.v1 import sampling_pb2, text_generation_pb2, text_generation_pb2_grpc

    channel = grpc.insecure_channel(address)
    service = text_generation_pb2_grpc.TextGenerationServiceStub(channel)
    request = text_generation_pb2.StreamGenerateRequest(
        # The default model was trained on "《title》author", a line break, and the poem.
        prompt=text_generation_pb2.Prompt(text=title + "\n"),
        parameters=text_generation_pb2.GenerationParameters(
            sampling=sampling_pb2.SamplingParameters(temperature=0.8, top_p=0.9),
            stopping=sampling_pb2.StoppingParameters(max_new_tokens=120)))

    print(title)
    try:
        # The deadline covers the whole stream. Leaving the loop early cancels the request on the server.
        for piece in service.StreamGenerate(request, timeout=60):
            print(piece.text_delta, end="", flush=True)
            if piece.finish_reason:
                reason = sampling_pb2.FinishReason.Name(piece.finish_reason)
                print(f"\n({reason}, {piece.usage.completion_tokens} tokens, seed {piece.seed})", file=sys.stderr)
    except grpc.RpcError as error:
        # RESOURCE_EXHAUSTED: try again later. UNAVAILABLE: the server or its worker went away, the request can be
        # sent again. INVALID_ARGUMENT: the message says which field is wrong.
        sys.exit(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    main()
