#!/usr/bin/env python3
"""Tokens per second of training on the CPU: `hanlin train` against PyTorch on the same shape, batch and recipe.

usage: tools/train_bench.py HANLIN [--poems] [--cpu-seconds] [--threads 2] [--rounds 3] [--steps 6]

HANLIN is the hanlin binary.

The poetry recipe on the shape of models/hanlin-poet: 16 samples of 128 tokens, dropout 0.1, AdamW, loss on every token.
With --poems the samples are as long as classical poems, 25 to 65 tokens: PyTorch then pads them to 128, as ModelScope's
recipe does, Hanlin to the longest of a batch, and what counts is a sample's own tokens.
PyTorch (Debian: apt-get install python3-torch libopenblas0-pthread) runs the same model written with its own
operators, in fp32 and under bf16 autocast; Hanlin runs compute.dtype float32 and bfloat16. The four take turns, each in
a process of its own, so that other load on the machine meets all alike. A figure is the median of a process's steps
after two to warm up; a ratio is within one round, against the faster of PyTorch's two. --cpu-seconds counts those of
one thread in place of time: waiting for other load, which costs PyTorch's threads more than Hanlin's, stays out.
"""
import argparse
import json
import pathlib
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "hanlin-poet"
BATCH, LENGTH, WARMUP = 16, 128, 2
POEMS = (24, 32, 48, 64)  # characters: four or eight lines of five or seven, with their marks


def torch_steps(dtype, threads, steps, clock):
    """Seconds of each step of PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    shape = json.loads((MODEL / "config.json").read_text())
    width, heads, vocabulary = shape["n_embd"], shape["n_head"], shape["vocab_size"]
    hidden_mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            parts = self.qkv(self.norm1(x)).view(BATCH, LENGTH, 3, heads, width // heads)
            q, k, v = parts.permute(2, 0, 3, 1, 4)
            scores = (q @ k.transpose(-1, -2)) * (width // heads) ** -0.5
            weights = F.dropout(scores.masked_fill(hidden_mask, float("-inf")).softmax(-1), 0.1)
            x = x + F.dropout(self.out((weights @ v).transpose(1, 2).reshape(BATCH, LENGTH, width)), 0.1)
            return x + F.dropout(self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh")), 0.1)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(vocabulary, width)
            self.positions = nn.Embedding(shape["n_positions"], width)
            self.layers = nn.Sequential(*(Layer() for _ in range(shape["n_layer"])))
            self.norm = nn.LayerNorm(width)
            nn.init.normal_(self.tokens.weight, std=0.02)

        def forward(self, ids):
            x = F.dropout(self.tokens(ids) + self.positions(torch.arange(LENGTH)), 0.1)
            return F.linear(self.norm(self.layers(x)), self.tokens.weight)

    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5, weight_decay=0.01)
    seconds = []
    for _ in range(WARMUP + steps):
        begin = clock()
        ids = torch.randint(vocabulary, (BATCH, LENGTH + 1))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = model(ids[:, :-1])
            loss = F.cross_entropy(logits.view(-1, vocabulary).float(), ids[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(clock() - begin)
    return seconds[WARMUP:]


def run_torch(dtype, arguments):
    command = ["/usr/bin/python3", __file__, "--torch", dtype, "--threads", str(arguments.threads), "--steps",
               str(arguments.steps), "-"] + ["--cpu-seconds"] * arguments.cpu_seconds
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return BATCH * mean_length(arguments) / statistics.median(json.loads(done.stdout))


def mean_length(arguments):
    return 1 + statistics.mean(POEMS) if arguments.poems else LENGTH


def hanlin_steps(dtype, arguments, steps):
    """Seconds of each step after the first, and CPU seconds of the whole run."""
    with tempfile.TemporaryDirectory() as folder:
        # Without --poems, text longer than a sample, so that nothing is padded and every position counts.
        letters = "春江潮水连海平月共生滟随波千万里何处无明流宛转绕芳甸照花林皆似霰空上白沙看不见天一色纤尘皎中孤轮"
        samples = BATCH * steps
        lengths = [random.choice(POEMS) if arguments.poems else 2 * LENGTH for _ in range(samples)]
        lines = ["".join(random.choices(letters, k=length)) for length in lengths]
        (pathlib.Path(folder) / "train.csv").write_text("\n".join(["text1", *lines]))
        settings = {"model": MODEL, "init": "random", "output": f"{folder}/run", "data.train": f"[{folder}/train.csv]",
                    "data.valid": "[]", "data.cache": "", "evaluation.samples": "[]",
                    "data.sequence_length": LENGTH + 1, "run.max_steps": steps, "log.every": 1,
                    "log.tensorboard": "false", "compute.threads": arguments.threads, "compute.dtype": dtype}
        command = [arguments.hanlin, "train", "--config", str(ROOT / "trainer" / "recipes" / "poetry.yaml")]
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr)
        log = map(json.loads, (pathlib.Path(folder) / "run" / "log.jsonl").read_text().splitlines())
        times = [entry["time"] for entry in log if entry["kind"] == "step"]
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return [end - begin for begin, end in zip(times, times[1:])], cpu


def run_hanlin(dtype, arguments):
    intervals, cpu = hanlin_steps(dtype, arguments, WARMUP + arguments.steps)
    seconds = statistics.median(intervals[WARMUP - 1:])
    if arguments.cpu_seconds:
        seconds = (cpu - hanlin_steps(dtype, arguments, WARMUP)[1]) / arguments.steps
    return BATCH * mean_length(arguments) / seconds


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n")[2].removeprefix("usage: "))
    parser.add_argument("hanlin")
    parser.add_argument("--poems", action="store_true")
    parser.add_argument("--cpu-seconds", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--torch", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cpu_seconds:
        arguments.threads = 1  # others would burn some in waiting
    if arguments.torch:
        clock = time.process_time if arguments.cpu_seconds else time.monotonic
        print(json.dumps(torch_steps(arguments.torch, arguments.threads, arguments.steps, clock)))
        return
    runs = {f"{name} {dtype}": lambda run=run, dtype=dtype: run(dtype, arguments)
            for dtype in ("float32", "bfloat16") for name, run in (("PyTorch", run_torch), ("Hanlin", run_hanlin))}
    rates = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            rates[name].append(run())
        print("  ".join(f"{name} {values[-1]:.0f}" for name, values in rates.items()), "tokens/s", flush=True)
    best = [max(pair) for pair in zip(rates["PyTorch float32"], rates["PyTorch bfloat16"])]
    for dtype in ("float32", "bfloat16"):
        ratios = [ours / theirs for ours, theirs in zip(rates[f"Hanlin {dtype}"], best)]
        print(f"Hanlin {dtype}: {statistics.median(ratios):.2f} of the faster PyTorch "
              f"({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
