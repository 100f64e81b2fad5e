#!/usr/bin/env python3
"""Writes a model folder of a preset's shape with random bf16 weights, to measure loading from files.

usage: tools/random_checkpoint.py HANLIN PRESET FOLDER    HANLIN: the hanlin binary, which knows the shapes

The folder has a config.json, a model.safetensors under GPT-2's names, and the tokenizer of the model that ships with
Hanlin. One layer's numbers serve all layers: what they are does not matter, that every byte is read does.
"""
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys

POET = pathlib.Path(__file__).resolve().parent.parent / "models" / "hanlin-poet"


def shape_of(hanlin, preset):
    text = subprocess.run([hanlin, "inspect", "--preset", preset], check=True, capture_output=True, text=True).stdout
    numbers = re.search(r"layers (\d+), hidden (\d+), heads (\d+) .*vocabulary (\d+), context (\d+)", text)
    return map(int, numbers.groups())


def main():
    hanlin, preset, folder = sys.argv[1:]
    folder = pathlib.Path(folder)
    layers, hidden, heads, vocabulary, context = shape_of(hanlin, preset)
    tensors = {"wte.weight": [vocabulary, hidden], "wpe.weight": [context, hidden]}
    for layer in range(layers):
        for name, inputs, outputs in (("attn.c_attn", hidden, 3 * hidden), ("attn.c_proj", hidden, hidden),
                                      ("mlp.c_fc", hidden, 4 * hidden), ("mlp.c_proj", 4 * hidden, hidden)):
            tensors[f"h.{layer}.{name}.weight"] = [inputs, outputs]
            tensors[f"h.{layer}.{name}.bias"] = [outputs]
        for name in ("ln_1", "ln_2"):
            tensors |= {f"h.{layer}.{name}.{part}": [hidden] for part in ("weight", "bias")}
    tensors |= {f"ln_f.{part}": [hidden] for part in ("weight", "bias")}

    folder.mkdir(parents=True, exist_ok=True)
    for path in POET.iterdir():
        if "token" in path.name or path.name == "vocab.txt":
            shutil.copy(path, folder)
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_layer": layers, "n_embd": hidden, "n_head": heads,
        "n_positions": context, "vocab_size": vocabulary, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
        "eos_token_id": 1, "tie_word_embeddings": True, "dtype": "bfloat16"}))

    header, offset = {}, 0
    for name, shape in tensors.items():
        size = 2
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # Magnitudes of 2^-7 to 2^-6 with random signs: finite whatever is summed.
    chunk = bytes(value for byte in os.urandom(1 << 19) for value in (byte, 0x3C | byte & 0x80))
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for begin in range(0, offset, len(chunk)):
            file.write(chunk[:offset - begin])


if __name__ == "__main__":
    main()
