"""The launchers, with stand-ins for gcloud, kubectl, uvx, sbatch and embed that note their words and fail on demand."""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

import pytest

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch"
# Notes its words, then says and returns what the next line of replies/NAME holds: "CODE TEXT"; without one, 0.
STAND_IN = """#!/usr/bin/env bash
name="${0##*/}"
{ printf '%q ' "$name" "$@"; echo; } >>"$STAND_INS/calls"
[ -t 0 ] || [ "$name" = embed ] || cat >>"$STAND_INS/input.$name"
replies="$STAND_INS/replies.$name"
case "$name $*" in *' describe '*) replies="$STAND_INS/replies.state" ;; *'log.exit'*) replies="$STAND_INS/replies.exit" ;; esac
[ -s "$replies" ] || exit 0
read -r code text <"$replies"
sed -i 1d "$replies"
[ -z "$text" ] || echo "$text"
exit "$code"
"""
TRAIN = ["train", "--gin_file=a b.gin", "--run_dir=/shared/run"]
TPU = {"PROJECT": "my-project", "ZONE": "us-west4-a", "TOPOLOGY": "v5e:4x4", "POLL": "0"}
GKE = {"IMAGE": "eu.example/embed:1", "TOPOLOGY": "v5e:16x16"}


@pytest.fixture
def launch(tmp_path):
    """Runs a launcher with stand-ins on PATH; `replies` are lines of "CODE TEXT" by the stand-in's name."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("gcloud", "kubectl", "uvx", "sbatch", "srun", "scontrol", "embed"):
        (tools / name).write_text(STAND_IN)
        (tools / name).chmod(0o755)
    fixed = {"STAND_INS": str(tmp_path), "EMBED": str(tools / "embed"), "PAUSE": "0", "OUTPUT": str(tmp_path)}
    path = f"{tools}:{pathlib.Path(sys.executable).parent}:/usr/bin:/bin"
    fixed |= {"PATH": path, "HOME": str(tmp_path)}

    def run(script, *given, replies=None, stdin=subprocess.DEVNULL, **environment):
        for name, lines in (replies or {}).items():
            (tmp_path / f"replies.{name}").write_text("".join(f"{line}\n" for line in lines))
        environment = {**fixed, **environment}
        command = ["bash", str(LAUNCH / script), *given]
        return subprocess.run(command, env=environment, capture_output=True, text=True, stdin=stdin, timeout=1500)

    def calls(name=None):
        noted = tmp_path / "calls"
        found = [shlex.split(x) for x in noted.read_text().splitlines()] if noted.exists() else []
        return [c for c in found if name in (None, c[0])]

    run.calls, run.folder, run.environment = calls, tmp_path, fixed
    return run


def test_scripts_are_clean():
    shellcheck = pathlib.Path(sys.executable).parent / "shellcheck"
    if not shellcheck.exists():
        pytest.skip("shellcheck is not in this environment")
    done = subprocess.run(
        [shellcheck, "-x", *sorted(LAUNCH.glob("*.sh"))], cwd=LAUNCH.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("script", "given", "environment", "shown"),
    [
        ("gpu.sh", TRAIN, {}, "launch/host.sh train --gin_file=a\\ b.gin"),
        ("tpu_vm.sh", ["train", "pod", *TRAIN], TPU, "--worker=all --command=cd\\ embed"),
        ("gke.sh", ["run", "pod", *TRAIN], GKE, "+ kubectl apply --namespace=default -f -"),
        ("gke.sh", ["run", "pod", *TRAIN], {**GKE, "XPK": "cluster"}, "+ uvx xpk workload create --cluster=cluster"),
        ("slurm.sh", ["pod", *TRAIN], {"NODES": "2"}, "+ sbatch --job-name=pod --nodes=2"),
    ],
)
def test_a_dry_run_shows_everything_and_runs_nothing(launch, script, given, environment, shown):
    done = launch(script, *given, DRY_RUN="1", **environment)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert launch.calls() == []


@pytest.mark.parametrize(
    ("script", "given", "environment", "message"),
    [
        ("tpu_vm.sh", ["train", "Pod;rm", *TRAIN], TPU, "NAME=Pod;rm is not a name of small letters"),
        (
            "tpu_vm.sh",
            ["train", "pod", *TRAIN],
            {**TPU, "PROJECT": ""},
            "set PROJECT: the name of a Google Cloud project",
        ),
        ("tpu_vm.sh", ["train", "pod", *TRAIN], {**TPU, "ZONE": "us-west4"}, "ZONE=us-west4 is not a zone"),
        ("tpu_vm.sh", ["train", "pod", *TRAIN], {**TPU, "TOPOLOGY": "v5p:4x4"}, "TOPOLOGY=v5p:4x4 is not a TPU"),
        ("tpu_vm.sh", ["train", "pod", *TRAIN], {**TPU, "RETRIES": "many"}, "RETRIES=many is not a number of starts"),
        ("tpu_vm.sh", ["train", "pod"], TPU, "train NAME needs a command of embed"),
        ("tpu_vm.sh", ["trian", "pod"], TPU, "no action trian; known: train, create"),
        ("gke.sh", ["run", "pod", *TRAIN], {**GKE, "IMAGE": ""}, "set IMAGE: a container image"),
        ("gke.sh", ["run", "pod", *TRAIN], {**GKE, "TOPOLOGY": ""}, "set TOPOLOGY: a TPU and its shape"),
        ("gke.sh", ["run", "pod", *TRAIN], {**GKE, "SECRET": "a b"}, "SECRET=a b is not a name of the cluster"),
        ("gke.sh", ["run", "pod"], GKE, "run NAME needs a command of embed"),
        ("slurm.sh", ["pod", *TRAIN], {"TIME": "soon"}, "TIME=soon is not a time"),
        ("slurm.sh", ["pod", *TRAIN], {"PARTITION": "a;b"}, "PARTITION=a;b is not a name"),
        ("gpu.sh", TRAIN, {"PROCESSES": "0"}, "PROCESSES=0 is not a number of processes"),
        ("gpu.sh", TRAIN, {"DEVICES": "all"}, "DEVICES=all is not numbers of GPUs"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_anything_runs(launch, script, given, environment, message):
    done = launch(script, *given, **environment)
    assert done.returncode == 64
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert launch.calls() == []


SECRETS = ["hf_abcdefgh", "sk-abcdefgh", "--key=AIzaSyAbc", "--api_key=x", "https://u?token=x"]


@pytest.mark.parametrize(
    ("script", "first", "environment", "secret"),
    [
        *(("gpu.sh", [], {}, secret) for secret in SECRETS),
        ("slurm.sh", ["pod"], {}, SECRETS[0]),
        ("tpu_vm.sh", ["train", "pod"], TPU, SECRETS[1]),
        ("gke.sh", ["run", "pod"], GKE, SECRETS[4]),
    ],
)
def test_a_secret_on_the_command_line_is_refused_and_not_shown(launch, script, first, environment, secret):
    done = launch(script, *first, *TRAIN, secret, **environment)
    assert done.returncode == 64 and "looks like a secret" in done.stderr
    assert secret not in done.stderr + done.stdout
    assert launch.calls() == []


@pytest.mark.parametrize("script", ["gpu.sh", "host.sh", "slurm.sh", "tpu_vm.sh", "gke.sh"])
def test_without_words_a_launcher_shows_how_it_is_called(launch, script):
    done = launch(script)
    assert done.returncode == 64 and f"launch/{script}" in done.stderr
    assert "set -euo" not in done.stderr


# --- one host ---


def test_a_host_runs_the_command_as_given_with_its_secrets_in_the_environment(launch):
    secrets = launch.folder / "secrets"
    secrets.write_text("EMBED_API_KEY=abc=$(touch run)\n")
    secrets.chmod(0o644)
    done = launch("host.sh", *TRAIN, SECRETS=str(secrets))
    assert done.returncode == 78 and "chmod 600" in done.stderr and launch.calls() == []
    secrets.chmod(0o600)
    embed = launch.folder / "bin" / "embed"
    embed.write_text('#!/bin/sh\nprintf %s "$EMBED_API_KEY"\nexit 75\n')
    done = launch("host.sh", *TRAIN, SECRETS=str(secrets))
    assert done.returncode == 75 and done.stdout == "abc=$(touch run)"
    secrets.write_text("echo hello\n")
    done = launch("host.sh", *TRAIN, SECRETS=str(secrets))
    assert done.returncode == 78 and "not NAME=VALUE" in done.stderr and "hello" not in done.stderr


def test_a_host_in_the_background_leaves_its_log_and_exit_code(launch):
    log = launch.folder / "run.log"
    done = launch("host.sh", *TRAIN, LOG=str(log), replies={"embed": ["75 step 3"]})
    assert done.returncode == 0 and str(log) in done.stdout
    code = pathlib.Path(f"{log}.exit")
    for _ in range(200):
        if code.exists() and code.read_text():
            break
        subprocess.run(["sleep", "0.05"], check=True)
    assert code.read_text() == "75\n" and "step 3" in log.read_text()
    assert launch.calls("embed") == [["embed", *TRAIN]]


# --- GPUs of one machine ---


def test_a_preempted_run_starts_again_until_it_is_done(launch):
    done = launch("gpu.sh", *TRAIN, replies={"embed": ["75", "75", "0 done"]})
    assert done.returncode == 0 and "done" in done.stdout
    assert launch.calls() == [["embed", *TRAIN]] * 3


@pytest.mark.parametrize("code", [64, 65, 70, 74, 78, 1, 137])
def test_other_errors_are_not_tried_again(launch, code):
    assert launch("gpu.sh", *TRAIN, replies={"embed": [str(code)] * 3}).returncode == code
    assert len(launch.calls("embed")) == 1


def test_one_that_is_stopped_does_not_start_again(launch):
    """By a signal to the launcher while a process runs, and between two starts."""
    ran = launch.folder / "ran"
    (launch.folder / "bin" / "embed").write_text(
        f'#!/usr/bin/env bash\necho >>{ran}\ntrap "exit 75" TERM\n'
        '[ -z "$WAITS" ] || for i in $(seq 600); do sleep 0.1; done\nexit 75\n'
    )
    for waits in ("yes", ""):
        ran.unlink(missing_ok=True)
        environment = {**launch.environment, "WAITS": waits, "PAUSE": "1"}
        process = subprocess.Popen(["bash", str(LAUNCH / "gpu.sh"), *TRAIN], env=environment, stderr=subprocess.PIPE)
        for _ in range(200):
            if ran.exists():
                break
            time.sleep(0.05)
        time.sleep(0.3)
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == 75 and len(ran.read_text()) == 1


def test_starts_are_bounded(launch):
    done = launch("gpu.sh", *TRAIN, RETRIES="2", replies={"embed": ["75"] * 9})
    assert done.returncode == 75 and "given up after 3 starts" in done.stderr
    assert len(launch.calls("embed")) == 3


@pytest.mark.parametrize("code", ["kill -KILL $$", "kill -ABRT $$", "exit 75"])
def test_all_processes_start_again_when_one_is_lost(launch, code):
    """The second of two processes ends at its first start, while the first would wait for ever."""
    (launch.folder / "bin" / "embed").write_text(
        "#!/usr/bin/env bash\n"
        'echo "$JAX_PROCESS_ID $JAX_NUM_PROCESSES $JAX_COORDINATOR_ADDRESS" >>"$STAND_INS/starts"\n'
        'mkdir "$STAND_INS/first-$JAX_PROCESS_ID" 2>/dev/null || exit 0\n'
        'until [ -d "$STAND_INS/first-0" ]; do sleep 0.05; done\n'
        f'[ "$JAX_PROCESS_ID" = 0 ] || {{ {code}; }}\n'
        "trap 'exit 75' TERM\nfor i in $(seq 600); do sleep 0.1; done\n"
    )
    done = launch("gpu.sh", *TRAIN, PROCESSES="2")
    assert done.returncode == 0, done.stderr
    starts = [line.split() for line in (launch.folder / "starts").read_text().splitlines()]
    assert sorted(s[0] for s in starts) == ["0", "0", "1", "1"] and {s[1] for s in starts} == {"2"}
    assert len({s[2] for s in starts[:2]}) == 1 and starts[0][2].startswith("127.0.0.1:")


def test_a_process_that_does_not_end_is_ended(launch):
    (launch.folder / "bin" / "embed").write_text(
        "#!/usr/bin/env bash\n"
        '[ "$JAX_PROCESS_ID" = 0 ] || { until [ -e "$STAND_INS/waits" ]; do sleep 0.05; done; exit 65; }\n'
        'trap "" TERM\ntouch "$STAND_INS/waits"\nfor i in $(seq 600); do sleep 0.1; done\n'
    )
    done = launch("gpu.sh", *TRAIN, PROCESSES="2", GRACE="1")
    assert done.returncode == 65


# --- a TPU slice ---


def test_a_slice_is_made_set_up_followed_and_told_of(launch):
    states = ["1 NOT_FOUND", "0 WAITING_FOR_RESOURCES", "0 PROVISIONING", *["0 ACTIVE"] * 3]
    large = {**TPU, "TOPOLOGY": "v5e:16x16"}
    done = launch(
        "tpu_vm.sh", "train", "pod", *TRAIN, SPOT="1", **large, replies={"state": states, "exit": ["0 -", "0 0"]}
    )
    assert done.returncode == 0, done.stderr
    calls = [c for c in launch.calls("gcloud") if "describe" not in c]
    (made,) = [c for c in calls if "create" in c]
    assert made[1:6] == ["compute", "tpus", "queued-resources", "create", "pod"]
    assert {"--node-id=pod", "--type=v5litepod", "--topology=16x16", "--spot"} <= set(made)
    assert {"--project=my-project", "--zone=us-west4-a"} <= set(made)
    (copied,) = [c for c in calls if "scp" in c and "--worker=all" in c]
    assert copied[5].endswith("embed.tar.gz") and copied[6] == "pod:embed.tar.gz"
    remote = [w.removeprefix("--command=") for c in calls for w in c if w.startswith("--command=")]
    start = next(r for r in remote if "train" in r)
    assert shlex.split(start)[-len(TRAIN) - 1 :] == [*TRAIN, "--distributed"]  # the words arrive as they were given
    assert len([c for c in calls if "scp" in c and c[5] == "pod:embed.log"]) == 64  # hosts of 4 chips
    assert "pod stays, and costs" in done.stdout and not any("delete" in c for c in calls)


def test_a_slice_that_was_taken_away_is_made_anew_and_the_run_goes_on(launch):
    states = ["0 ACTIVE", "0 SUSPENDED", "0 SUSPENDED", "0 SUSPENDED", "1 NOT_FOUND", *["0 ACTIVE"] * 2]
    done = launch("tpu_vm.sh", "train", "pod", *TRAIN, DELETE="1", **TPU, replies={"state": states, "exit": ["0 0"]})
    assert done.returncode == 0, done.stderr
    did = [c[4] for c in launch.calls("gcloud") if c[3] == "queued-resources" and "describe" not in c]
    assert did == ["delete", "create", "delete"]
    starts = [c for c in launch.calls("gcloud") if any("LOG=../embed.log" in w for w in c)]
    assert len(starts) == 2 and "is gone" in done.stderr


def test_a_slice_that_cannot_be_asked_for_is_not_taken_for_lost(launch):
    states = ["0 ACTIVE", "1 no network", "1 no network", "0 ACTIVE"]
    done = launch("tpu_vm.sh", "train", "pod", *TRAIN, **TPU, replies={"state": states, "exit": ["0 0"]})
    assert done.returncode == 0, done.stderr
    assert len([c for c in launch.calls("gcloud") if any("LOG=../embed.log" in w for w in c)]) == 1
    assert not any("create" in c or "delete" in c for c in launch.calls("gcloud"))


def test_a_slice_that_is_never_given_is_not_asked_for_for_ever(launch):
    states = ["1 NOT_FOUND", "0 FAILED"] * 9
    done = launch("tpu_vm.sh", "train", "pod", *TRAIN, RETRIES="2", **TPU, replies={"state": states})
    assert done.returncode == 75 and "asked for 3 times" in done.stderr
    assert len([c for c in launch.calls("gcloud") if "create" in c]) == 3


def test_a_preempted_host_has_all_hosts_start_again_but_an_error_of_the_users_ends_it(launch):
    done = launch(
        "tpu_vm.sh", "train", "pod", *TRAIN, **TPU, replies={"state": ["0 ACTIVE"] * 9, "exit": ["0 75", "0 65"]}
    )
    assert done.returncode == 65
    remote = [w for c in launch.calls("gcloud") for w in c if w.startswith("--command=")]
    assert len([r for r in remote if "LOG=../embed.log" in r]) == 2
    assert len([r for r in remote if "pkill -TERM" in r]) == 1


def test_the_error_of_one_host_counts_and_not_that_the_others_lost_it(launch):
    done = launch(
        "tpu_vm.sh", "train", "pod", *TRAIN, **TPU, replies={"state": ["0 ACTIVE"] * 9, "exit": ["0 75 134 - 65 75"]}
    )
    assert done.returncode == 65
    assert len([c for c in launch.calls("gcloud") if any("LOG=../embed.log" in w for w in c)]) == 1


def test_secrets_go_to_a_slice_as_a_file(launch):
    secrets = launch.folder / "secrets"
    secrets.write_text("EMBED_API_KEY=canary\n")
    done = launch(
        "tpu_vm.sh", "train", "pod", *TRAIN, SECRETS=str(secrets), **TPU,
        replies={"state": ["0 ACTIVE"] * 9, "exit": ["0 0"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "canary" not in done.stdout + done.stderr + (launch.folder / "calls").read_text()
    assert any("SECRETS=../embed.secrets" in w for c in launch.calls("gcloud") for w in c)
    calls = [" ".join(c) for c in launch.calls("gcloud")]
    copied, closed, used = (
        next(i for i, c in enumerate(calls) if what in c)
        for what in (":embed.secrets", "--command=chmod 600 embed.secrets", "SECRETS=../embed.secrets")
    )
    assert copied < closed < used


# --- GKE ---


@pytest.mark.parametrize(
    ("topology", "hosts", "chips", "label"),
    [
        ("v5e:16x16", 64, 4, "tpu-v5-lite-podslice"),
        ("v5e:2x4", 1, 8, "tpu-v5-lite-podslice"),
        ("v5e:1x1", 1, 1, "tpu-v5-lite-podslice"),
        ("v5p:4x4x4", 16, 4, "tpu-v5p-slice"),
        ("v6e:8x8", 16, 4, "tpu-v6e-slice"),
    ],
)
def test_the_job_set_asks_for_the_slice_and_runs_the_same_command_everywhere(launch, topology, hosts, chips, label):
    given = {"SECRET": "keys", "VOLUME": "disk", "QUEUE": "team", "SPOT": "1", "SLICES": "2", "RETRIES": "3"}
    done = launch("gke.sh", "run", "pod", *TRAIN, **given, IMAGE="eu.example/embed:1", TOPOLOGY=topology)
    assert done.returncode == 0, done.stderr
    assert launch.calls() == [["kubectl", "apply", "--namespace=default", "-f", "-"]]
    found = json.loads((launch.folder / "input.kubectl").read_text())
    assert found["kind"] == "JobSet" and found["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team"}
    assert found["spec"]["failurePolicy"]["maxRestarts"] == 3
    (job,) = found["spec"]["replicatedJobs"]
    assert job["replicas"] == 2 and job["template"]["spec"]["parallelism"] == hosts
    (rule,) = job["template"]["spec"]["podFailurePolicy"]["rules"]
    assert 75 not in rule["onExitCodes"]["values"] and {64, 65, 78} <= set(rule["onExitCodes"]["values"])
    pod = job["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == label
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == topology.split(":")[1]
    (container,) = pod["containers"]
    assert container["command"] == ["launch/host.sh", *TRAIN, "--distributed"]
    assert container["resources"]["limits"] == {"google.com/tpu": chips}
    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert container["volumeMounts"] == [{"name": "shared", "mountPath": "/shared"}]
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "disk"}


def test_a_plain_job_set_has_nothing_that_was_not_asked_for(launch):
    done = launch("gke.sh", "manifest", "pod", *TRAIN, **GKE)
    found = json.loads(done.stdout)
    pod = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert "labels" not in found["metadata"] and "volumes" not in pod and "serviceAccountName" not in pod
    assert "envFrom" not in pod["containers"][0] and launch.calls() == []


def test_xpk_gets_the_same_command(launch):
    done = launch("gke.sh", "run", "pod", *TRAIN, **{**GKE, "TOPOLOGY": "v5p:4x4x8"}, XPK="cluster")
    assert done.returncode == 0, done.stderr
    (call,) = launch.calls("uvx")
    assert {"--tpu-type=v5p-256", "--docker-image=eu.example/embed:1", "--restart-on-exit-codes=75"} <= set(call)
    command = call[-1].removeprefix("--command=")
    assert shlex.split(command)[-len(TRAIN) - 1 :] == [*TRAIN, "--distributed"]


@pytest.mark.parametrize(("action", "words"), [("logs", "logs"), ("status", "get"), ("delete", "delete")])
def test_other_actions_on_a_job_set(launch, action, words):
    done = launch("gke.sh", action, "pod", replies={"kubectl": ["3 no such thing"]})
    assert done.returncode == 3 and launch.calls()[0][:2] == ["kubectl", words]


# --- Slurm ---


def submitted(launch, **environment) -> pathlib.Path:
    done = launch("slurm.sh", "pod", *TRAIN, OUTPUT=str(launch.folder / "out"), **environment)
    assert done.returncode == 0, done.stderr
    job = launch.folder / "job.sh"
    shutil.copy(launch.folder / "input.sbatch", job)
    return job


def test_a_job_asks_for_what_it_needs(launch):
    job = submitted(launch, NODES="4", GPUS="8", PARTITION="long", ACCOUNT="us")
    (call,) = launch.calls("sbatch")
    assert {"--nodes=4", "--gpus-per-node=8", "--partition=long", "--account=us", "--requeue"} <= set(call)
    assert "--ntasks-per-node=1" in call and "--signal=TERM@120" in call
    assert "EXTRAS=cuda,quickstart" in job.read_text() and "--distributed" in job.read_text()
    assert "--distributed" not in submitted(launch).read_text().replace(job.read_text(), "")


@pytest.mark.parametrize(
    ("code", "nodes", "restarts", "requeued"),
    [(0, 1, 0, False), (65, 2, 0, False), (75, 1, 0, True), (75, 1, 10, False), (134, 2, 3, True), (134, 1, 0, False)],
)
def test_a_job_goes_back_to_the_queue_when_it_was_preempted(launch, tmp_path, code, nodes, restarts, requeued):
    job = submitted(launch, NODES=str(nodes))
    (tmp_path / "calls").unlink()
    (tmp_path / "replies.srun").write_text(f"{code}\n")
    (tmp_path / "bin" / "sleep").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "sleep").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
        "STAND_INS": str(tmp_path),
        "SLURM_JOB_ID": "42",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    done = subprocess.run(["bash", job], env=environment, stdin=subprocess.DEVNULL)
    assert done.returncode == code
    (ran,) = launch.calls("srun")
    assert ran[-len(TRAIN) - (nodes > 1) :][: len(TRAIN)] == TRAIN
    assert launch.calls("scontrol") == ([["scontrol", "requeue", "42"]] if requeued else [])


def test_a_refused_job_is_told(launch):
    done = launch("slurm.sh", "pod", *TRAIN, OUTPUT=str(launch.folder), replies={"sbatch": ["1 no such partition"]})
    assert done.returncode == 1


def test_words_of_a_manifest_are_those_given(launch):
    done = launch("gke.sh", "manifest", "pod", "train", "--gin.PAIRS='a \"b\".jsonl'", **GKE)
    pod = json.loads(done.stdout)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"][2] == "--gin.PAIRS='a \"b\".jsonl'"
