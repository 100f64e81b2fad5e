// Validates Kubernetes objects: node validate.mjs NODE_MODULES < JSON array. Prints one line an error; exit code 1 when
// there is one.
//
// Types, enumerations and required fields come from the validators of kubernetes-models. Those let unknown keys pass, so
// the objects are wrapped in proxies that note which keys a validator reads: one that it never reads is unknown to it.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const modules = path.resolve(process.argv[2]);
const GROUPS = {
  "": ["kubernetes-models", "IoK8sApiCore"],
  apps: ["kubernetes-models", "IoK8sApiApps"],
  autoscaling: ["kubernetes-models", "IoK8sApiAutoscaling"],
  "networking.k8s.io": ["kubernetes-models", "IoK8sApiNetworking"],
  policy: ["kubernetes-models", "IoK8sApiPolicy"],
  "keda.sh": ["@kubernetes-models/keda", "ComGithubKedacoreKedaV2ApisKeda"],
  "monitoring.coreos.com": [
    "@kubernetes-models/prometheus-operator",
    "ComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoring",
  ],
};

async function load(folder, name) {
  for (const extension of ["mjs", "js"]) {
    const file = path.join(modules, folder, "_schemas", `${name}.${extension}`);
    if (fs.existsSync(file)) return (await import(pathToFileURL(file))).validate;
  }
  throw new Error(`no schema ${name} in ${folder}`);
}

// A view of `value` that adds the path of every key read to `seen`.
function watch(value, at, seen) {
  if (value === null || typeof value !== "object") return value;
  return new Proxy(value, {
    get(target, key) {
      if (typeof key === "symbol" || !Object.hasOwn(target, key)) return target[key];
      seen.add(`${at}/${key}`);
      return watch(target[key], `${at}/${key}`, seen);
    },
  });
}

function* unseen(value, at, seen) {
  if (value === null || typeof value !== "object") return;
  for (const key of Object.keys(value)) {
    if (seen.has(`${at}/${key}`)) yield* unseen(value[key], `${at}/${key}`, seen);
    else yield `${at}/${key}: unknown key`;
  }
}

function check(validate, value) {
  const seen = new Set();
  const valid = validate(watch(value, "", seen));
  const errors = valid ? [] : validate.errors.map((e) => `${e.instancePath}: ${e.message ?? e.keyword}`);
  return [...errors, ...unseen(value, "", seen)];
}

async function validateObject(object) {
  const [version, group = ""] = object.apiVersion.split("/").reverse();
  if (group === "leaderworkerset.x-k8s.io") return validateLeaderWorkerSet(object);
  if (!(group in GROUPS)) return [`apiVersion "${object.apiVersion}" is not known here`];
  const [folder, prefix] = GROUPS[group];
  const name = `${prefix}${version[0].toUpperCase()}${version.slice(1)}${object.kind}`;
  return check(await load(folder, name), object);
}

async function validateLeaderWorkerSet(object) {
  const { default: Ajv } = await import(pathToFileURL(path.join(modules, "ajv", "dist", "ajv.js")));
  const schema = JSON.parse(fs.readFileSync(new URL("schemas/leader_worker_set.json", import.meta.url)));
  const ajv = new (Ajv.default ?? Ajv)({ allErrors: true, allowUnionTypes: true });
  const errors = ajv.validate(schema, object)
    ? []
    : ajv.errors.map((e) => `${e.instancePath}: ${e.message} ${JSON.stringify(e.params)}`);
  const pod = await load("kubernetes-models", "IoK8sApiCoreV1PodTemplateSpec");
  for (const key of ["leaderTemplate", "workerTemplate"]) {
    const template = object.spec?.leaderWorkerTemplate?.[key];
    if (template) errors.push(...check(pod, template).map((e) => `/spec/leaderWorkerTemplate/${key}${e}`));
  }
  return errors;
}

let failed = false;
for (const object of JSON.parse(fs.readFileSync(0, "utf8"))) {
  for (const error of await validateObject(object)) {
    console.log(`${object.kind}/${object.metadata?.name}${error}`);
    failed = true;
  }
}
process.exit(failed ? 1 : 0);
