"""Alert rules fire when they should (promtool's rule tests), Prometheus takes the configuration, the dashboard asks for
metrics that the services export, and systemd takes the units and rates them as confined.

Skips what it has no tool for (promtool, systemd-analyze), and says so.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["HANLIN_SOURCE"])
BIN = pathlib.Path(os.environ["HANLIN_BIN"])
PROMETHEUS = SOURCE / "deploy" / "prometheus"
# Worst grade that systemd-analyze security may give, in tenths.
EXPOSURE = {"hanlin-gateway": 20, "hanlin-tokenizer": 20, "hanlin-worker@0": 25}


def exported():
    """Names of the metrics that the sources register; a histogram's series with their suffixes."""
    text = "\n".join(path.read_text() for folder in ("gateway", "tokenizer_svc", "worker", "common/obs")
                     for path in (SOURCE / folder).rglob("*.cc"))
    names = set(re.findall(r'"((?:hanlin|process|vllm)[_:][a-z_:]+)"', text))
    return names | {name + suffix for name in names for suffix in ("_bucket", "_count", "_sum")}


def asked(text):
    return set(re.findall(r"\b(?:hanlin_(?:gateway|worker|tokenizer)|process)_[a-z_]+\b", text))


class RulesTest(unittest.TestCase):
    @unittest.skipUnless(shutil.which("promtool"), "promtool is not installed")
    def test_promtool_takes_rules_and_configuration_and_the_rule_tests_pass(self):
        for arguments in (["check", "rules", "hanlin.rules.yml"], ["check", "config", "prometheus.yml"],
                          ["test", "rules", "hanlin.rules_test.yml"]):
            result = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_every_alert_has_a_test_that_it_fires(self):
        alerts = set(re.findall(r"alert: (\w+)", (PROMETHEUS / "hanlin.rules.yml").read_text()))
        tests = (PROMETHEUS / "hanlin.rules_test.yml").read_text()
        fired = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n\s+- exp_labels", tests))
        self.assertEqual(alerts, fired)

    def test_rules_and_dashboard_ask_for_metrics_that_exist(self):
        names = exported()
        for path in (PROMETHEUS / "hanlin.rules.yml", SOURCE / "deploy/grafana/hanlin.json",
                     SOURCE / "deploy/kubernetes/components/autoscaling/workers.yaml"):
            self.assertLessEqual(asked(path.read_text()), names, path)

    def test_the_dashboard_shows_what_operators_look_for(self):
        board = json.loads((SOURCE / "deploy/grafana/hanlin.json").read_text())
        titles = {panel["title"] for panel in board["panels"]}
        self.assertLessEqual({"Queue", "Time to first token", "Time per output token", "Throughput", "KV cache",
                              "Errors", "Step time"}, titles)
        self.assertEqual(len({panel["id"] for panel in board["panels"]}), len(board["panels"]))
        for panel in board["panels"]:
            for target in panel["targets"]:
                self.assertEqual(target["expr"].count("("), target["expr"].count(")"), panel["title"])


@unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
class UnitsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        for path in (SOURCE / "deploy/systemd").glob("hanlin-*"):
            # The programs are not installed here.
            text = path.read_text().replace("/usr/bin/", f"{BIN}/")
            (cls.folder / path.name.replace("@.", "@0.")).write_text(text)

    def test_units_are_well_formed(self):
        units = sorted(path.name for path in self.folder.iterdir())
        self.assertEqual(units, ["hanlin-gateway.service", "hanlin-tokenizer.service", "hanlin-worker.target",
                                 "hanlin-worker@0.service"])
        result = subprocess.run(["systemd-analyze", "verify", *units], cwd=self.folder, capture_output=True, text=True)
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_units_are_confined(self):
        for unit, worst in EXPOSURE.items():
            result = subprocess.run(
                ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={worst}",
                 f"{unit}.service"], cwd=self.folder, capture_output=True, text=True)
            self.assertEqual(result.returncode, 0, result.stdout[-300:] + result.stderr)

    def test_examples_name_flags_of_their_programs(self):
        for service, files in (("gateway", ["gateway.env"]), ("tokenizer", ["tokenizer.env"]),
                               ("worker", ["worker.env", "worker@0.env"])):
            text = subprocess.run([BIN / f"hanlin-{service}", "--help"], capture_output=True, text=True).stdout
            flags = {"HANLIN_" + f.upper().replace("-", "_") for f in re.findall(r"--([a-z][a-z-]+)", text)}
            for name in files:
                names = set(re.findall(r"^(HANLIN_\w+)=", (SOURCE / "deploy/systemd" / name).read_text(), re.M))
                self.assertTrue(names)
                self.assertLessEqual(names, flags, name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
