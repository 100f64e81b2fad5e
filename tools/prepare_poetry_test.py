"""prepare_poetry.py on a small package, with a stand-in for opencc."""
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

TOOL = pathlib.Path(__file__).parent / "prepare_poetry.py"
# Simplifies two characters and checks the arguments.
OPENCC = """#!/usr/bin/env python3
import sys
assert sys.argv[1:] == ["-c", "t2s"], sys.argv
sys.stdout.write(sys.stdin.read().replace("詩", "诗").replace("頭", "头"))
"""
SONG = "床前明月光，疑是地上霜。"


class PreparePoetryTest(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.temporary.name)
        (self.root / "bin").mkdir()
        opencc = self.root / "bin" / "opencc"
        opencc.write_text(OPENCC)
        opencc.chmod(0o755)

    def tearDown(self):
        self.temporary.cleanup()

    def write(self, path, poems):
        file = self.root / "dist" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(poems, ensure_ascii=False))

    def prepare(self):
        environment = os.environ | {"PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        done = subprocess.run([sys.executable, TOOL, self.root / "dist", self.root / "out"], capture_output=True,
                              text=True, env=environment)
        rows = {}
        for part in ("train", "valid"):
            file = self.root / "out" / f"poems.{part}.jsonl"
            rows[part] = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return done, rows

    def test_poems_are_cleaned_simplified_and_kept_once(self):
        self.write("quantangshi/poet.tang.0.json", [
            {"title": "靜夜（一作夜靜）詩", "author": "李白", "paragraphs": ["床前明月光，", "疑是地上霜。[注]"]},
            {"title": "短", "author": "某", "paragraphs": ["太短。"]},
            {"title": "缺", "author": "某", "paragraphs": ["白日依山尽，黄河□海流。"]},
            {"title": "长", "author": "某", "paragraphs": ["春" * 401]}])
        self.write("songci/ci.song.0.json", [
            {"rhythmic": "又", "author": "某", "paragraphs": [SONG]},  # the same text again
            {"rhythmic": "如·梦", "author": "", "paragraphs": ["举頭望明月，低·頭思故乡。"]}])
        self.write("songci/author.song.json", [{"name": "某", "description": SONG}])
        self.write("nalanxingde/nalan.json", [{"title": None, "author": "纳兰", "para": ["人生若只如初见", "何事"]}])
        self.write("wudaishici/nantang/authors.json", {"a": 1})
        self.write("shijing/shijing.json", [{"title": "关雎", "content": ["关关雎鸠，在河之洲。窈窕淑女。"]}])
        done, rows = self.prepare()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(rows["train"] + rows["valid"], [
            {"src_txt": "《靜夜诗》李白\n", "tgt_txt": SONG},
            {"src_txt": "《如·梦》\n", "tgt_txt": "举头望明月，低头思故乡。"},
            {"src_txt": "《关雎》诗经\n", "tgt_txt": "关关雎鸠，在河之洲。窈窕淑女。"}])
        tables = [(self.root / "out" / f"poetry.{part}.csv").read_text().splitlines() for part in ("train", "valid")]
        self.assertEqual([table[0] for table in tables], ["text1", "text1"])
        self.assertEqual(tables[0][1:] + tables[1][1:], [row["tgt_txt"] for row in rows["train"] + rows["valid"]])

    def test_the_hash_of_a_text_decides_its_part(self):
        texts = [f"{'春夏秋冬' * 3}{chr(0x4e00 + i)}" for i in range(400)]
        self.write("yuanqu/yuanqu.json", [{"title": "题", "author": "某", "paragraphs": [text]} for text in texts])
        _, rows = self.prepare()
        held_back = [text for text in texts if int(hashlib.sha1(text.encode()).hexdigest()[:4], 16) % 100 == 0]
        self.assertGreater(len(held_back), 0)
        self.assertEqual([row["tgt_txt"] for row in rows["valid"]], held_back)
        self.assertEqual(len(rows["train"]), 400 - len(held_back))

    def test_a_folder_without_poems_is_named(self):
        (self.root / "dist").mkdir()
        done, _ = self.prepare()
        self.assertEqual(done.returncode, 2)
        self.assertIn("no poems in", done.stderr)


if __name__ == "__main__":
    unittest.main()
