"""The cpu-demo overlay as pods on this machine: what a cluster does with it, done with podman.

`kubectl kustomize` renders the overlay; each replica of a Deployment becomes a pod by `podman kube play`, in a bridge
network with DNS whose aliases stand for the Services. podman knows nothing of gRPC probes, preStop sleeps and rolling
updates; what a kubelet and a controller would do, the test does. Everything lives in a network namespace and a storage
folder of its own and is removed at the end; HANLIN_PODS_FOLDER names a folder that stays, with the images in it.
"""
import contextlib
import copy
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

SKIPPED = 77  # ctest's SKIP_RETURN_CODE
SOURCE = pathlib.Path(os.environ["HANLIN_SOURCE"])
TOOLS = ["podman", "buildah", "runc", "kubectl", "unshare", "ip", "iptables"]
NETWORK = "hanlin"
CONTAINERS_CONF = """
[containers]
default_ulimits=["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime="runc"
cgroup_manager="cgroupfs"
events_logger="file"
[network]
network_backend="netavark"
"""


def skip(reason):
    print(f"SKIPPED: {reason}")
    sys.exit(SKIPPED)


def enter_namespace():
    """Runs this program again in a network namespace without a way out, unless it is in one; skips when it cannot."""
    if os.environ.get("HANLIN_IN_NAMESPACE"):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        skip(f"not installed: {', '.join(missing)}")
    for helper in ("netavark", "aardvark-dns"):
        if not pathlib.Path("/usr/lib/podman", helper).exists():
            skip(f"not installed: {helper}")
    if os.geteuid() != 0:
        skip("podman needs root here")
    if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        skip("this machine makes no network namespaces")
    environment = os.environ | {"HANLIN_IN_NAMESPACE": "1"}
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        environment.pop(proxy, None)
    os.execvpe("unshare", ["unshare", "--net", sys.executable, "-B", *sys.argv], environment)


def wait_until(condition, what, seconds=300):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


class Pod:
    """One container in one pod (or, for plain runs, alone)."""

    def __init__(self, cluster, container):
        self.cluster = cluster
        self.container = container
        self.address = ""
        self.refresh()

    def refresh(self):
        state = self.inspect()
        networks = state["NetworkSettings"]["Networks"] or {}
        self.address = next((n["IPAddress"] for n in networks.values() if n["IPAddress"]), "")
        if not self.address and state["Pod"]:
            infra = json.loads(self.cluster.podman("pod", "inspect", state["Pod"]))["InfraContainerID"]
            networks = json.loads(self.cluster.podman("inspect", infra))[0]["NetworkSettings"]["Networks"]
            self.address = next(n["IPAddress"] for n in networks.values())

    def inspect(self):
        return json.loads(self.cluster.podman("inspect", self.container))[0]

    def pid(self):
        return self.inspect()["State"]["Pid"]

    def running(self):
        return self.inspect()["State"]["Running"]

    def restarts(self):
        return self.inspect()["RestartCount"]

    def logs(self):
        result = subprocess.run([*self.cluster.command, "logs", self.container], capture_output=True, text=True)
        return result.stdout + result.stderr

    def kill(self):
        """As the kernel's out-of-memory killer would: the runtime sees an exit that nobody asked for."""
        os.kill(self.pid(), signal.SIGKILL)

    def stop(self, grace_s):
        """What a kubelet does at the end of a pod, after preStop: SIGTERM, and SIGKILL after the grace period."""
        return subprocess.Popen([*self.cluster.command, "stop", "--time", str(grace_s), self.container],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def metric(self, name):
        from harness import metric
        with urllib.request.urlopen(f"http://{self.address}:9090/metrics", timeout=20) as response:
            return metric(response.read().decode(), name)


class Cluster:
    def __init__(self):
        self.kept = os.environ.get("HANLIN_PODS_FOLDER")
        self.folder = pathlib.Path(self.kept or tempfile.mkdtemp(prefix="hanlin-pods-"))
        storage = ["--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run"]
        self.command = ["podman", *storage, "--log-level", "error"]
        (self.folder / "containers.conf").write_text(CONTAINERS_CONF + self._network_folder())
        os.environ["CONTAINERS_CONF"] = str(self.folder / "containers.conf")
        os.environ["BUILDAH"] = " ".join(["buildah", *storage])
        self.pods = {}

    def _network_folder(self):
        return f'network_config_dir="{self.folder}/networks"\n'

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if kind is not None:
            for name, pod in self.pods.items():
                with contextlib.suppress(Exception):
                    print(f"--- last lines of {name}:\n" + "\n".join(pod.logs().splitlines()[-12:]), file=sys.stderr)
        for arguments in (["pod", "rm", "--all", "--force", "--time", "0"], ["rm", "--all", "--force", "--time", "0"],
                          ["network", "rm", "--force", NETWORK], ["volume", "rm", "--all", "--force"]):
            subprocess.run([*self.command, *arguments], capture_output=True)
        if not self.kept:
            subprocess.run([*self.command, "rmi", "--all", "--force"], capture_output=True)
            shutil.rmtree(self.folder, ignore_errors=True)

    def podman(self, *arguments):
        result = subprocess.run([*self.command, *arguments], capture_output=True, text=True)
        if result.returncode:
            raise AssertionError(f"podman {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def create_network(self):
        usable = subprocess.run([*self.command, "info"], capture_output=True, text=True)
        if usable.returncode:
            skip(f"podman does not run here: {usable.stderr.strip()}")
        result = subprocess.run([*self.command, "network", "create", "--internal", NETWORK], capture_output=True,
                                text=True)
        if result.returncode:
            skip(f"podman makes no network: {result.stderr.strip()}")

    def build_images(self, build):
        """{image: size} as build.sh prints them."""
        printed = self.folder / "images"
        if printed.exists():
            return json.loads(printed.read_text())
        result = subprocess.run([SOURCE / "deploy/images/build.sh"], capture_output=True, text=True,
                                env=os.environ | {"HANLIN_BUILD": str(build)})
        if result.returncode:
            raise AssertionError(f"build.sh: {result.stderr}")
        sizes = dict(line.split(" ", 1) for line in result.stdout.splitlines())
        printed.write_text(json.dumps(sizes))
        return sizes

    def render(self, overlay):
        import yaml
        text = subprocess.run(["kubectl", "kustomize", SOURCE / "deploy/kubernetes/overlays" / overlay], check=True,
                              capture_output=True, text=True).stdout
        documents = list(yaml.safe_load_all(text))
        self.config = [d for d in documents if d["kind"] == "ConfigMap"]
        self.deployments = {d["metadata"]["name"]: d for d in documents if d["kind"] == "Deployment"}
        # Of each Deployment the headless Service that selects it; the gateways' Service for them.
        self.services = {}
        for service in (d for d in documents if d["kind"] == "Service"):
            self.services[service["spec"]["selector"]["app.kubernetes.io/name"]] = service["metadata"]["name"]

    def replicas(self, deployment):
        return self.deployments[deployment]["spec"]["replicas"]

    def play(self, deployment, name, change=None):
        """One replica as a pod named after `name`."""
        import yaml
        document = copy.deepcopy(self.deployments[deployment])
        document["metadata"]["name"] = name
        document["spec"]["replicas"] = 1
        template = document["spec"]["template"]["spec"]
        container = template["containers"][0]
        container.pop("ports", None)  # podman would publish them on the host
        for volume in template.get("volumes", []):
            self._rename(container, volume, f"{name}-{volume['name']}")  # podman's are per machine, not per pod
        if change:
            change(template, container)
        if os.environ.get("HANLIN_SANITIZE"):  # needs more memory than the overlay grants, and may not trace itself
            container["resources"]["limits"]["memory"] = "3Gi"
            container["env"].append({"name": "ASAN_OPTIONS", "value": "detect_leaks=0:quarantine_size_mb=8"})
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump_all([*self.config, document]))
        self.podman("kube", "play", "--network", f"{NETWORK}:alias={self.services[deployment]}", str(path))
        self.pods[name] = Pod(self, f"{name}-pod-0-{container['name']}")
        return self.pods[name]

    @staticmethod
    def _rename(container, volume, name):
        for mount in container.get("volumeMounts", []):
            if mount["name"] == volume["name"]:
                mount["name"] = name
        volume["name"] = name

    def remove(self, name):
        self.podman("pod", "rm", "--force", "--time", "0", f"{name}-pod-0")
        self.pods.pop(name, None)

    def run(self, name, image, *command, environment=None, options=()):
        """A container without a pod, for what a manifest does not say."""
        for key, value in (environment or {}).items():
            options = [*options, "--env", f"{key}={value}"]
        self.podman("run", "--detach", "--name", name, "--network", NETWORK, "--read-only", *options, image, *command)
        self.pods[name] = Pod(self, name)
        return self.pods[name]
