#!/usr/bin/env python3
"""Makes the data of trainer/recipes/hanlin_poet.yaml and poetry.yaml from the poems of the npm package chinese-poetry.

    npm pack chinese-poetry@2.0.1 && tar xzf chinese-poetry-2.0.1.tgz
    tools/prepare_poetry.py package/dist data          needs the command `opencc` (Debian: opencc)

Writes data/poems.train.jsonl and data/poems.valid.jsonl, a poem a line: {"src_txt": "《title》author\\n", "tgt_txt": the
text}; and data/poetry.train.csv and data/poetry.valid.csv, the texts alone in one column text1, the form of ModelScope's
chinese-poetry-collection. The text is in simplified characters, without notes in brackets; poems of 12 to 400 characters stay, each text
once. About one in a hundred, chosen by the text's SHA-1, is for validation: of version 2.0.1 3,220 of 335,658.
"""
import argparse
import csv
import hashlib
import io
import json
import pathlib
import re
import subprocess

NOTE = re.compile(r"[（(].*?[)）]")
NOTE_IN_TEXT = re.compile(NOTE.pattern + r"|\[.*?\]|【.*?】")
UNUSABLE = re.compile(r"[□{}A-Za-z0-9]")  # characters that were lost, leftovers of editing
MAX_TITLE, MAX_AUTHOR, TEXT_LENGTH = 30, 10, range(12, 401)

# Collections in reading order; where a text occurs twice, the first one stays. (files, title's key, author's key or
# name, text's key, what ends a line)
COLLECTIONS = (
    ("quantangshi/poet.*.json", "title", "author", "paragraphs", ""),
    ("songci/ci.song*.json", "rhythmic", "author", "paragraphs", ""),
    ("songci/宋词*.json", "rhythmic", "author", "paragraphs", ""),
    ("yuanqu/*.json", "title", "author", "paragraphs", ""),
    ("nalanxingde/*.json", "title", "author", "para", "。"),
    ("wudaishici/*/*.json", "title", "author", "paragraphs", ""),
    ("shijing/*.json", "title", "=诗经", "content", ""),
    ("caocaoshiji/*.json", "title", "=曹操", "paragraphs", ""),
)


def clean(title, author, lines):
    """The poem as (title, author, text), or None where the text is no use."""
    text = NOTE_IN_TEXT.sub("", "".join(lines).strip()).replace("·", "")
    if len(text) not in TEXT_LENGTH or UNUSABLE.search(text):
        return None
    return NOTE.sub("", title or "").strip()[:MAX_TITLE], (author or "").strip()[:MAX_AUTHOR], text


def read_poems(dist):
    for pattern, title_key, author_key, text_key, line_end in COLLECTIONS:
        for path in sorted(dist.glob(pattern)):
            for entry in json.loads(path.read_text(encoding="utf-8")):
                # Lists of authors lie among the poems in places.
                if not isinstance(entry, dict) or not entry.get(text_key):
                    continue
                author = author_key[1:] if author_key.startswith("=") else entry.get(author_key)
                poem = clean(entry.get(title_key), author, [line + line_end for line in entry[text_key]])
                if poem:
                    yield tuple(field.replace("\n", "") for field in poem)


def simplify(poems):
    """All poems through one run of opencc, tabs between the fields."""
    text = "\n".join("\t".join(poem) for poem in poems)
    done = subprocess.run(["opencc", "-c", "t2s"], input=text, capture_output=True, text=True, encoding="utf-8",
                          check=True)
    rows = (line.split("\t") for line in done.stdout.split("\n"))
    return [row for row in rows if len(row) == 3]


def split(poems):
    """{"train": poems, "valid": poems}, each text once."""
    seen = set()
    parts = {"train": [], "valid": []}
    for title, author, text in poems:
        digest = hashlib.sha1(text.encode()).hexdigest()
        if digest in seen:
            continue
        seen.add(digest)
        part = "valid" if int(digest[:4], 16) % 100 == 0 else "train"
        parts[part].append((title, author, text))
    return parts


def as_json(title, author, text):
    source = f"《{title}》{author}\n" if title else "\n"
    return json.dumps({"src_txt": source, "tgt_txt": text}, ensure_ascii=False) + "\n"


def write(path, lines):
    path.write_text("".join(lines), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dist", type=pathlib.Path, help="the package's folder dist")
    parser.add_argument("output", type=pathlib.Path, help="folder, made if need be")
    arguments = parser.parse_args()
    poems = list(read_poems(arguments.dist))
    if not poems:
        parser.error(f"no poems in {arguments.dist}, want the folder dist of chinese-poetry")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for part, rows in split(simplify(poems)).items():
        write(arguments.output / f"poems.{part}.jsonl", [as_json(*row) for row in rows])
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([["text1"]] + [[text] for _, _, text in rows])
        write(arguments.output / f"poetry.{part}.csv", [table.getvalue()])
        print(f"{part}: {len(rows)} poems")


if __name__ == "__main__":
    main()
