"""Prints the JobSet of launch/gke.sh as JSON, which kubectl reads as it does YAML. Standard library alone.

python3 launch/jobset.py NAME WORD...      with what the launcher knows in the environment
"""

import json
import os
import sys

# Errors of the user's (README, "What a run promises"): nothing is gained by a new start.
NOT_WORTH_ANOTHER_START = [64, 65, 70, 74, 78]


def container(words: list[str]) -> dict:
    """Returns the container that runs the words on every host."""
    found = {
        "name": "embed",
        "image": os.environ["IMAGE"],
        "workingDir": "/embed",
        "command": ["launch/host.sh", *words, "--distributed"],
        "env": [{"name": "EXTRAS", "value": "tpu,quickstart,gcs"}],
        # Of libtpu, between the hosts of a slice and between slices.
        "ports": [{"containerPort": 8471}, {"containerPort": 8080}],
        "resources": {"limits": {"google.com/tpu": int(os.environ["CHIPS_A_HOST"])}},
    }
    if os.environ.get("SECRET"):
        found["envFrom"] = [{"secretRef": {"name": os.environ["SECRET"]}}]
    if os.environ.get("VOLUME"):
        found["volumeMounts"] = [{"name": "shared", "mountPath": "/shared"}]
    return found


def pod(words: list[str]) -> dict:
    """Returns the pod of a host."""
    nodes = {
        "cloud.google.com/gke-tpu-accelerator": os.environ["TPU_LABEL"],
        "cloud.google.com/gke-tpu-topology": os.environ["TPU_SHAPE"],
    }
    if os.environ.get("SPOT"):
        nodes["cloud.google.com/gke-spot"] = "true"
    found = {
        "restartPolicy": "Never",
        # To save at a preemption.
        "terminationGracePeriodSeconds": 120,
        "nodeSelector": nodes,
        "containers": [container(words)],
    }
    if os.environ.get("SERVICE_ACCOUNT"):
        found["serviceAccountName"] = os.environ["SERVICE_ACCOUNT"]
    if os.environ.get("VOLUME"):
        found["volumes"] = [{"name": "shared", "persistentVolumeClaim": {"claimName": os.environ["VOLUME"]}}]
    return found


def job_set(name: str, words: list[str]) -> dict:
    """Returns the JobSet: a job a slice, a pod a host. All start again when one is lost, unless the error is the user's."""
    hosts = int(os.environ["HOSTS"])
    codes = {"containerName": "embed", "operator": "In", "values": NOT_WORTH_ANOTHER_START}
    job = {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": codes}]},
        "template": {"spec": pod(words)},
    }
    metadata = {
        "name": name,
        "namespace": os.environ["NAMESPACE"],
        "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
    }
    if os.environ.get("QUEUE"):
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": os.environ["QUEUE"]}
    ends = {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    slices = {"name": "slice", "replicas": int(os.environ["SLICES"]), "template": {"spec": job}}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "failurePolicy": {"maxRestarts": int(os.environ["RETRIES"]), "rules": [ends]},
            "replicatedJobs": [slices],
        },
    }


if __name__ == "__main__":
    print(json.dumps(job_set(sys.argv[1], sys.argv[2:]), indent=2))
