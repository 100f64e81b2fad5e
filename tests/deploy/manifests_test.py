"""What deploy/kubernetes renders: every overlay renders, every object is valid and has no unknown key, and the manifests
keep the promises of the operator guide (names match, grace periods add up, nothing runs as root, flags exist).

Wants kubectl, and node with npm for the schemas; says so and skips what it cannot check.
"""
import copy
import json
import os
import pathlib
import re
import shutil
import subprocess
import unittest

import yaml

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = pathlib.Path(os.environ["HANLIN_SOURCE"])
BIN = pathlib.Path(os.environ["HANLIN_BIN"])
KUBERNETES = SOURCE / "deploy" / "kubernetes"
OVERLAYS = sorted(p.name for p in (KUBERNETES / "overlays").iterdir())
# Environment names that are no flags: where the data lies.
NOT_FLAGS = {"HANLIN_DATA"}


def render(overlay):
    text = subprocess.run(["kubectl", "kustomize", KUBERNETES / "overlays" / overlay], check=True, capture_output=True,
                          text=True).stdout
    return list(yaml.safe_load_all(text))


def modules():
    """node_modules with the schemas, installed once into the build folder; None when that is not possible."""
    folder = BIN.parent / "deploy-schemas"
    done = folder / "node_modules" / ".done"
    if not done.exists():
        if not shutil.which("npm"):
            return None
        folder.mkdir(exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder / name)
        if subprocess.run(["npm", "ci", "--silent", "--ignore-scripts"], cwd=folder, capture_output=True).returncode:
            return None
        done.touch()
    return folder / "node_modules"


def validate(node_modules, objects):
    result = subprocess.run(["node", HERE / "validate.mjs", node_modules], input=json.dumps(objects), text=True,
                            capture_output=True)
    assert not result.stderr, result.stderr
    return result.stdout.splitlines()


def pod_templates(objects):
    """(owner, pod template) of everything that makes pods."""
    for o in objects:
        if o["kind"] == "Deployment":
            yield o, o["spec"]["template"]
        if o["kind"] == "LeaderWorkerSet":
            group = o["spec"]["leaderWorkerTemplate"]
            # The controller adds these labels.
            for key, index in (("leaderTemplate", "0"), ("workerTemplate", "1")):
                template = copy.deepcopy(group[key])
                template["metadata"]["labels"] |= {
                    "leaderworkerset.sigs.k8s.io/name": o["metadata"]["name"],
                    "leaderworkerset.sigs.k8s.io/worker-index": index}
                yield o, template


def environment(template, objects):
    container = template["spec"]["containers"][0]
    maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
    result = {}
    for source in container.get("envFrom", []):
        result |= maps[source["configMapRef"]["name"]]
    return result | {e["name"]: e["value"] for e in container["env"]}


def matches(selector, labels):
    return all(labels.get(k) == v for k, v in selector.items())


@unittest.skipUnless(shutil.which("kubectl"), "kubectl is not installed")
class ManifestsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.overlays = {name: render(name) for name in OVERLAYS}

    def each_template(self):
        for objects in self.overlays.values():
            for owner, template in pod_templates(objects):
                yield objects, owner, template

    def test_the_overlays_that_the_guide_names_exist(self):
        self.assertEqual(OVERLAYS, ["cpu-demo", "gpu", "gpu-tp"])

    def test_every_object_is_valid_and_mistakes_are_found(self):
        node_modules = modules()
        if node_modules is None:
            self.skipTest("the schemas cannot be installed (npm)")
        objects = [o for objects in self.overlays.values() for o in objects]
        self.assertEqual(validate(node_modules, objects), [])
        mistakes = []
        for kind, path, value in (
                ("Deployment", ["spec", "template", "spec", "containers", 0, "livenesProbe"], {}),
                ("Deployment", ["spec", "template", "spec", "containers", 0, "livenessProbe", "grpc", "port"], "x"),
                ("Deployment", ["spec", "template", "spec", "securityContext", "runAsNonRoot"], "yes"),
                ("LeaderWorkerSet", ["spec", "leaderWorkerTemplate", "restartPolicy"], "Always"),
                ("LeaderWorkerSet", ["spec", "leaderWorkerTemplate", "workerTemplate", "spec", "shm"], 1),
                ("ScaledObject", ["spec", "triggers", 0, "metdata"], {}),
                ("PodMonitor", ["spec", "podMetricsEndpoints", 0, "prot"], "metrics"),
                ("NetworkPolicy", ["spec", "podSelector", "labels"], {}),
                ("PodDisruptionBudget", ["spec", "minReplicas"], 1)):
            mistake = copy.deepcopy(next(o for o in objects if o["kind"] == kind))
            owner = mistake
            for key in path[:-1]:
                owner = owner[key]
            owner[path[-1]] = value
            mistake["metadata"]["name"] = f"mistake-{len(mistakes)}-in-{path[-1]}"
            mistakes.append(mistake)
        errors = validate(node_modules, mistakes)
        for mistake in mistakes:
            name = mistake["metadata"]["name"]
            wanted = rf"/{name}/.*{name.rpartition('-')[2]}"
            self.assertTrue(any(re.search(wanted, error) for error in errors), (name, errors))

    def test_grace_is_longer_than_the_sleep_and_the_drain(self):
        for objects, _, template in self.each_template():
            values = environment(template, objects)
            drain = float(values.get("HANLIN_DRAIN_TIMEOUT", 0))
            container = template["spec"]["containers"][0]
            sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            self.assertGreater(template["spec"]["terminationGracePeriodSeconds"], sleep + drain)

    def test_pods_are_confined(self):
        for _, _, template in self.each_template():
            spec = template["spec"]
            self.assertFalse(spec["automountServiceAccountToken"])
            self.assertFalse(spec["enableServiceLinks"])
            self.assertTrue(spec["securityContext"]["runAsNonRoot"])
            self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            for container in spec["containers"]:
                self.assertEqual(container["securityContext"], {
                    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}})
                self.assertIn("memory", container["resources"]["limits"])
            self.assertFalse(any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")))

    def test_leaders_have_three_probes_and_liveness_asks_about_the_process_alone(self):
        for _, _, template in self.each_template():
            container = template["spec"]["containers"][0]
            if template["metadata"]["labels"].get("leaderworkerset.sigs.k8s.io/worker-index", "0") != "0":
                self.assertIn("livenessProbe", container)
                continue
            self.assertEqual(container["livenessProbe"]["grpc"]["service"], "liveness")
            self.assertEqual(container["startupProbe"]["grpc"]["service"], "liveness")
            self.assertNotIn("service", container["readinessProbe"]["grpc"])
            port = next(p["containerPort"] for p in container["ports"] if p["name"] == "grpc")
            for probe in ("livenessProbe", "startupProbe", "readinessProbe"):
                self.assertEqual(container[probe]["grpc"]["port"], port)

    def test_every_environment_name_is_a_flag_of_its_program(self):
        shared = {}
        for objects, owner, template in self.each_template():
            container = template["spec"]["containers"][0]
            program = BIN / pathlib.Path(container["command"][0]).name
            text = subprocess.run([program, "--help"], check=True, capture_output=True, text=True).stdout
            flags = {"HANLIN_" + f.upper().replace("-", "_") for f in re.findall(r"--([a-z][a-z-]+)", text)}
            own = {e["name"] for e in container["env"]}
            self.assertLessEqual(own - NOT_FLAGS, flags)
            # Shared ones must be a flag of one program at least.
            for name in set(environment(template, objects)) - own:
                shared[name] = shared.get(name, False) or name in flags
        self.assertTrue(all(shared.values()), shared)

    def test_selectors_find_their_pods(self):
        for overlay, objects in self.overlays.items():
            labels = [t["metadata"]["labels"] for _, t in pod_templates(objects)]
            for o in objects:
                selector = {"Service": lambda s: s["selector"],
                            "PodDisruptionBudget": lambda s: s["selector"]["matchLabels"],
                            "PodMonitor": lambda s: s["selector"]["matchLabels"]}.get(o["kind"])
                if selector:
                    found = [x for x in labels if matches(selector(o["spec"]), x)]
                    self.assertTrue(found, (overlay, o["kind"], o["metadata"]["name"]))
                if o["kind"] == "Service" and o["metadata"]["name"] == "hanlin-workers":
                    # Discovery: leaders alone, ready ones alone.
                    self.assertEqual(len(found), 1, overlay)
                    self.assertEqual(o["spec"]["clusterIP"], "None")
                    self.assertFalse(o["spec"].get("publishNotReadyAddresses", False))

    def test_gateways_look_for_services_that_exist(self):
        for objects, owner, template in self.each_template():
            services = {(o["metadata"]["name"], p["port"]) for o in objects if o["kind"] == "Service"
                        for p in o["spec"]["ports"]}
            values = environment(template, objects)
            for name in {"HANLIN_WORKERS", "HANLIN_TOKENIZER"} & set(values):
                host, port = values[name].removeprefix("dns:///").split(":")
                self.assertIn((host, int(port)), services)

    def test_a_group_has_as_many_ranks_as_its_pods_hold(self):
        for o in self.overlays["gpu-tp"]:
            if o["kind"] != "LeaderWorkerSet":
                continue
            group = o["spec"]["leaderWorkerTemplate"]
            for key in ("leaderTemplate", "workerTemplate"):
                values = {e["name"]: e["value"] for e in group[key]["spec"]["containers"][0]["env"]}
                self.assertEqual(int(values["HANLIN_TP"]), group["size"] * int(values["HANLIN_HOST_RANKS"]))
                gpus = group[key]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
                self.assertEqual(gpus, values["HANLIN_HOST_RANKS"])
                self.assertEqual(values["HANLIN_RANK"], "$(LWS_WORKER_INDEX)")

    def test_everything_is_denied_that_no_policy_allows(self):
        for overlay, objects in self.overlays.items():
            policies = {o["metadata"]["name"]: o["spec"] for o in objects if o["kind"] == "NetworkPolicy"}
            self.assertEqual(policies["default-deny"], {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
            self.assertEqual("rank-to-rank" in policies, overlay == "gpu-tp")

    def test_the_operators_rules_are_those_that_promtool_tests(self):
        rules = yaml.safe_load((SOURCE / "deploy/prometheus/hanlin.rules.yml").read_text())
        for overlay in ("gpu", "gpu-tp"):
            rule = next(o for o in self.overlays[overlay] if o["kind"] == "PrometheusRule")
            self.assertEqual(rule["spec"], rules, "copy the groups of deploy/prometheus/hanlin.rules.yml")


if __name__ == "__main__":
    unittest.main(verbosity=2)
