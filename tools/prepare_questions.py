#!/usr/bin/env python3
"""Makes the data of trainer/recipes/question_generation.yaml from reading-comprehension files in SQuAD's form, the form
of DuReader_robust, CMRC 2018 and DRCD.

    tools/prepare_questions.py data/questions.valid.csv cmrc2018_trial.json
    tools/prepare_questions.py --simplify data/questions.train.csv DRCD_dev.json

Writes a CSV with a question a row: text1 = answer [SEP] passage, text2 = the question. Of a question's answers the
first one counts; questions without an answer, which some collections have, are left out. --simplify turns traditional
characters into simplified ones (needs the command `opencc`, Debian: opencc).
"""
import argparse
import csv
import io
import json
import pathlib
import subprocess


def read_questions(path):
    """Every (source, question) of a file."""
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for entry in paragraph["qas"]:
                answers = [answer["text"].strip() for answer in entry.get("answers", []) if answer["text"].strip()]
                if answers:
                    passage = paragraph["context"].strip()
                    yield f"{answers[0]}[SEP]{passage}", entry["question"].strip()


def simplify(text):
    return subprocess.run(["opencc", "-c", "t2s"], input=text, capture_output=True, text=True, encoding="utf-8",
                          check=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path, help="CSV, its folder is made if need be")
    parser.add_argument("files", type=pathlib.Path, nargs="+", metavar="file", help="JSON in SQuAD's form")
    parser.add_argument("--simplify", action="store_true", help="traditional characters to simplified ones")
    arguments = parser.parse_args()
    rows = []
    for path in arguments.files:
        try:
            rows += read_questions(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            parser.error(f"{path}: not a reading-comprehension file in SQuAD's form ({error!r})")
    if not rows:
        parser.error("no questions with answers in these files")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["text1", "text2"])
    writer.writerows(rows)
    text = table.getvalue()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(simplify(text) if arguments.simplify else text, encoding="utf-8")
    print(f"{arguments.output}: {len(rows)} questions")


if __name__ == "__main__":
    main()
