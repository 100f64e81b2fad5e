"""prepare_questions.py on small files, with a stand-in for opencc."""
import csv
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

TOOL = pathlib.Path(__file__).parent / "prepare_questions.py"
OPENCC = """#!/usr/bin/env python3
import sys
assert sys.argv[1:] == ["-c", "t2s"], sys.argv
sys.stdout.write(sys.stdin.read().replace("語", "语"))
"""


def article(passage, *questions):
    return {"data": [{"paragraphs": [{"context": passage, "qas": [
        {"question": question, "answers": [{"text": answer} for answer in answers]} for question, *answers in questions]}]}]}


class PrepareQuestionsTest(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.temporary.name)
        (self.root / "opencc").write_text(OPENCC)
        (self.root / "opencc").chmod(0o755)
        self.output = self.root / "data" / "questions.csv"

    def tearDown(self):
        self.temporary.cleanup()

    def prepare(self, *arguments):
        environment = os.environ | {"PATH": f"{self.root}:{os.environ['PATH']}"}
        return subprocess.run([sys.executable, TOOL, self.output, *arguments], capture_output=True, text=True,
                              env=environment)

    def write(self, name, content):
        (self.root / name).write_text(json.dumps(content, ensure_ascii=False))
        return self.root / name

    def rows(self):
        with self.output.open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))

    def test_a_question_a_row_with_its_first_answer(self):
        first = self.write("a.json", article("梵語,\n很古老。 ", ("何語？", "梵語", "語"), ("無答？",), ("空答？", " ")))
        second = self.write("b.json", article("春天。", (" 何时？ ", "春天")))
        done = self.prepare(first, second)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("2 questions", done.stdout)
        self.assertEqual(self.rows(), [["text1", "text2"], ["梵語[SEP]梵語,\n很古老。", "何語？"],
                                       ["春天[SEP]春天。", "何时？"]])

    def test_simplified_characters_when_asked(self):
        done = self.prepare("--simplify", self.write("a.json", article("梵語。", ("何語？", "梵語"))))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.rows()[1], ["梵语[SEP]梵语。", "何语？"])

    def test_a_file_of_another_form_is_named(self):
        for content in ([], {"data": [{"title": "?"}]}):
            done = self.prepare(self.write("other.json", content))
            self.assertEqual(done.returncode, 2)
            self.assertIn("other.json: not a reading-comprehension file", done.stderr)
        self.assertFalse(self.output.exists())

    def test_no_question_with_an_answer_is_an_error(self):
        done = self.prepare(self.write("a.json", article("春天。", ("何时？",))))
        self.assertEqual(done.returncode, 2)
        self.assertIn("no questions with answers", done.stderr)


if __name__ == "__main__":
    unittest.main()
