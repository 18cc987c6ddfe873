"""Sweeps in other processes: on this machine, and as SLURM jobs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

import nextlat_viz as nlv
from nextlat_viz.cli import main
from nextlat_viz.errors import TrainingError, UnknownNameError
from nextlat_viz.models import NextLat
from nextlat_viz.training import launch, launchers, sweeps
from nextlat_viz.training.launch import Resources
from nextlat_viz.training.resume import load_state
from nextlat_viz.training.sweeps import TABLE, sweep

QUICK = {"steps": 4, "layers": 1, "dim": 16, "heads": 2, "mlp_dim": 16, "psi_width": 16, "batch_size": 8}
QUICK |= {"validate_every": 2, "validation_episodes": 16, "save_every": 1, "decay_steps": 2, "warmup_steps": 1}


@pytest.fixture
def handlers():
    """Signal handlers and threads as before: `train_run` sets those of its process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    threads = torch.get_num_threads()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    torch.set_num_threads(threads)


@pytest.fixture
def here(monkeypatch, handlers):
    """A launcher that runs its processes as calls in this one, and records the names of the runs."""

    class Here:
        workers, pause = 1, 0.0

        def __init__(self):
            self.started, self.killed = [], set()

        def attach(self, run):
            return None

        def start(self, run):
            self.started.append(run.name)
            call = launchers.call_for(run, threads=1, parent=None)
            if run.name not in self.killed:
                with contextlib.suppress(Exception):
                    launchers.train_run(call)
            return run.name

        def alive(self, ids):
            return set()

        def reason(self, job):
            return f"TrainingError: {job} was killed"

        def leave(self, ids):
            return "the same call continues."

    result = Here()
    monkeypatch.setattr(sweeps, "choose_launcher", lambda *arguments: result)
    return result


@pytest.mark.slow
def test_processes_of_this_machine_give_the_same_result(tmp_path, capsys):
    options = {"seeds": [0], "grid": {"learning_rate": [1e-3, 1e30]}, "progress": False, **QUICK}
    table = sweep("rrxor", ["next_token"], out=tmp_path / "two", launcher="local", workers=2, **options)
    assert table["error"].str[:13].tolist() == ["", "TrainingError"]
    assert "is not a finite number" in table["error"][1]
    assert table["log"][0] == ""
    log = Path(table["log"][1]).read_text(encoding="utf-8")
    assert "Traceback" in log
    assert "is not a finite number" in log
    kept = pd.read_csv(tmp_path / "two" / TABLE).fillna({"error": "", "log": ""})
    pd.testing.assert_frame_equal(kept, table, check_dtype=False)
    alone = nlv.train("rrxor", "next_token", out=tmp_path / "alone", progress=False, learning_rate=1e-3, **QUICK)
    assert nlv.load(table["folder"][0]).weights_sha256 == alone.weights_sha256


def test_a_sweep_continues(tmp_path, here):
    here.killed = {"nextlat/seed1"}
    first = sweep("rrxor", ["nextlat"], [0, 1], out=tmp_path, progress=False, **QUICK)
    assert first["error"].tolist() == ["", "TrainingError: nextlat/seed1 was killed"]
    assert here.started == ["nextlat/seed0", "nextlat/seed1"]
    here.killed = set()
    again = sweep("rrxor", ["nextlat"], [0, 1], out=tmp_path, progress=False, **QUICK)
    # The finished run is not run again.
    assert here.started[2:] == ["nextlat/seed1"]
    assert again["error"].tolist() == ["", ""]
    assert again["loss"][0] == first["loss"][0]


def test_the_table_fills_as_runs_end(tmp_path, here, capsys):
    seen = []
    start = here.start

    def started(run):
        seen.append(len(pd.read_csv(tmp_path / TABLE)) if (tmp_path / TABLE).exists() else 0)
        return start(run)

    here.start = started
    sweep("rrxor", ["next_token", "nextlat"], [0], out=tmp_path, progress=True, **QUICK)
    assert seen == [0, 1]
    captured = capsys.readouterr()
    assert "nextlat/seed0: finished" in captured.out
    assert "2/2" in captured.err


def test_ctrl_c_says_how_to_continue(tmp_path, here, monkeypatch):
    def interrupted(ids):
        raise KeyboardInterrupt

    here.alive = interrupted
    with pytest.raises(KeyboardInterrupt, match=r"interrupted with 0 of 1 runs ended. the same call continues."):
        sweep("rrxor", ["nextlat"], [0], out=tmp_path, progress=False, **QUICK)


def test_a_folder_of_another_configuration_is_one_row(tmp_path, here):
    sweep("rrxor", ["nextlat"], [0], out=tmp_path, progress=False, **QUICK)
    other = sweep("rrxor", ["nextlat"], [0, 1], out=tmp_path, progress=False, **QUICK | {"batch_size": 4})
    assert "holds another run: batch_size 8 there, 4 asked for" in other["error"][0]
    assert other["error"][1] == ""
    assert here.started == ["nextlat/seed0", "nextlat/seed1"]


def test_a_killed_run_continues_from_its_saved_state(tmp_path, here, monkeypatch):
    """A killed process leaves its state, and the next one takes only the remaining steps."""
    whole = sweep("rrxor", ["nextlat"], [0], out=tmp_path / "whole", progress=False, **QUICK)
    forward, calls = NextLat.forward, []

    def counted(self, batch):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("killed")
        return forward(self, batch)

    monkeypatch.setattr(NextLat, "forward", counted)
    cut = sweep("rrxor", ["nextlat"], [0], out=tmp_path / "cut", progress=False, **QUICK)
    assert cut["error"].tolist() == ["RuntimeError: killed"]
    resumed = sweep("rrxor", ["nextlat"], [0], out=tmp_path / "cut", progress=False, **QUICK)
    assert resumed["loss"].tolist() == whole["loss"].tolist()
    assert nlv.load(resumed["folder"][0]).weights_sha256 == nlv.load(whole["folder"][0]).weights_sha256


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Stand-ins for SLURM's programs, each a line of shell: jobs are lines of the file `queue`, and nothing runs."""
    programs = tmp_path / "programs"
    programs.mkdir()
    queue, refuse = tmp_path / "queue", tmp_path / "refuse"
    queue.touch()
    lines = {
        "sbatch": f"""
if [ -e {refuse} ]; then echo 'sbatch: error: invalid partition specified: {refuse.name}' >&2; exit 1; fi
number=$(( $(cat {tmp_path}/number 2>/dev/null || echo 6) + 1 )); echo $number > {tmp_path}/number
echo "$number|$(sed -n 's/^#SBATCH --job-name=//p' $1)" >> {queue}; echo "Submitted batch job $number" """,
        "srun": "",
        "squeue": f"cat {queue}",
        "scontrol": "echo 'JobId=7 JobState=CANCELLED Reason=None'",
    }
    for name, line in lines.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setattr(launchers.Slurm, "pause", 0.0)
    return queue


RESOURCES = {"partition": "gpu", "time": "1:30:00", "gpus": 2, "cpus": 3, "memory": "16GB"}


def test_a_slurm_job_asks_for_its_resources(tmp_path, cluster):
    """No job ends here, so the sweep is interrupted, and a second call finds its jobs."""

    def interrupt(seconds):
        raise KeyboardInterrupt

    resources = RESOURCES | {"sbatch": ["account=mine", "exclusive"]}
    call = {"out": tmp_path / "sweep", "launcher": "slurm", "resources": resources, "progress": False, **QUICK}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(launch.time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt, match=r"SLURM keeps 2 jobs .*the same call comes back.*`scancel 7 8`"):
            sweep("rrxor", ["nextlat"], [0, 1], **call)
        # Called again it submits nothing.
        with pytest.raises(KeyboardInterrupt, match="`scancel 7 8`"):
            sweep("rrxor", ["nextlat"], [0, 1], **call)
        # With fewer at a time only one is submitted.
        with pytest.raises(KeyboardInterrupt, match=r"SLURM keeps 1 job running .*`scancel 9`"):
            sweep("rrxor", ["nextlat"], [2, 3], workers=1, **call)
    (script,) = (tmp_path / "sweep" / "jobs" / "nextlat" / "seed0").glob("7_submission.sh")
    lines = {line.removeprefix("#SBATCH --") for line in script.read_text().splitlines() if line.startswith("#SBATCH")}
    assert lines > {"partition=gpu", "time=90", "gpus-per-node=2", "cpus-per-task=3", "mem=16GB", "ntasks-per-node=1"}
    assert lines > {"account=mine", "exclusive"}
    assert "nextlat-seed0." in cluster.read_text()


def test_a_job_ended_by_slurm_is_one_failed_row(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(launchers.Slurm, "alive", lambda self, ids: set())
    table = sweep("rrxor", ["nextlat"], [0], out=tmp_path / "sweep", launcher="slurm", progress=False, **QUICK)
    assert table["error"].tolist() == ["TrainingError: SLURM's job 7 ended without a result: CANCELLED"]
    assert table["log"][0].endswith("seed0/7_0_log.out")


def test_a_job_with_other_settings_is_not_submitted_twice(tmp_path, cluster, monkeypatch):
    call = {"out": tmp_path / "sweep", "launcher": "slurm", "progress": False}

    def interrupt(seconds):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(launch.time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sweep("rrxor", ["nextlat"], [0], **call, **QUICK)
    table = sweep("rrxor", ["nextlat"], [0], **call, **QUICK | {"batch_size": 4})
    assert "SLURM's job 7 trains in" in table["error"][0]
    assert "with other settings: cancel it with `scancel 7`" in table["error"][0]


def test_errors_of_slurm_are_reported(tmp_path, cluster):
    (tmp_path / "refuse").touch()
    with pytest.raises(TrainingError, match=r"SLURM did not take the job of nextlat/seed0: sbatch: error: inv"):
        sweep("rrxor", ["nextlat"], [0], out=tmp_path / "sweep", launcher="slurm", progress=False, **QUICK)


def test_no_job_is_lost_if_slurm_does_not_answer(tmp_path, cluster):
    cluster.write_text("7|a\n8|b\n")
    slurm = launchers.Slurm(None, Resources(), "auto", 1)
    (cluster.parent / "programs" / "squeue").write_text("#!/bin/sh\necho 'Unable to contact' >&2; exit 1\n")
    assert slurm.alive(["7", "9"]) == {"7"}
    with pytest.raises(TrainingError, match="SLURM does not answer: Unable to contact"):
        launchers.Slurm(None, Resources(), "auto", 1)


@pytest.mark.parametrize(
    ("time", "minutes"), [(None, 1440), ("90", 90), ("2:30", 3), ("2:30:00", 150), ("1-12", 2160), ("1-0:30", 1470)]
)
def test_times_are_converted_for_sbatch(time, minutes):
    assert Resources(time=time).minutes == minutes


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"launcher": "slrum"}, UnknownNameError, "unknown launcher 'slrum'. Did you mean 'slurm'"),
        ({"launcher": "local", "workers": 0}, ValueError, "workers=0 must be at least 1"),
        ({"workers": 2}, ValueError, "workers and resources are for runs in other processes: give launcher="),
        ({"launcher": "local", "resources": {"gpus": 1}}, ValueError, "gpus cannot be given with launcher='local'"),
        (
            {"launcher": "local", "resources": Resources(partition=None, sbatch=("account=mine",))},
            ValueError,
            "sbatch cannot be given with launcher='local'",
        ),
        ({"launcher": "local", "devices": 2}, ValueError, "trains each run on one device, got devices=2"),
        ({"launcher": "slurm", "resources": {"gpu": 1}}, UnknownNameError, "unknown resource 'gpu'. Did you mean"),
        ({"launcher": "slurm", "resources": {"gpus": -1}}, ValueError, "gpus=-1: input should be greater than or eq"),
        ({"launcher": "slurm", "resources": {"time": "soon"}}, ValueError, "time='soon' must be minutes, hours:minu"),
    ],
)
def test_mistakes_are_named_before_anything_starts(tmp_path, cluster, arguments, kind, message):
    with pytest.raises(kind, match=message):
        sweep("rrxor", out=tmp_path / "runs", **arguments)
    assert not (tmp_path / "runs").exists()


def test_without_slurm_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"sbatch is not on the path.*slurm-client.*or use launcher='local'"):
        sweep("rrxor", out=tmp_path / "runs", launcher="slurm")


def test_without_submitit_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'needs the package submitit: pip install "nextlat-viz\[cluster\]"'):
        sweep("rrxor", out=tmp_path / "runs", launcher="local")


def test_a_world_registered_only_in_this_session_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "everywhere", lambda name: False)
    with pytest.raises(ValueError, match="world 'rrxor' is defined in this session, and launcher='local'"):
        sweep("rrxor", out=tmp_path, launcher="local")


def test_the_exit_status_says_that_a_run_failed(tmp_path, here, capsys):
    here.killed = {"nextlat/seed1"}
    size = [part for name, value in QUICK.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", "rrxor", "--objectives", "nextlat", "--seeds", "0", "1", "--out", str(tmp_path), *size])
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert "1 of 2 runs failed; the first error: TrainingError: nextlat/seed1 was killed" in captured.err
    assert "nextlat/seed0" in captured.out


@pytest.mark.soak
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_launcher_ends_its_processes_after_they_save(tmp_path, how, soak):
    """Shortened: one run, which is not continued."""
    seeds = [0, 1] if soak else [0]
    # The first validation shows that training has begun.
    options = QUICK | {"steps": 1000, "save_every": 1000, "validate_every": 100}
    size = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "nextlat_viz.cli", "sweep", "rrxor", "--objectives", "nextlat"]
    command += ["--seeds", *map(str, seeds), "--launcher", "local", "--workers", "2", "--out", str(tmp_path), *size]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    boards = [tmp_path / "nextlat" / f"seed{seed}" / "tensorboard" for seed in seeds]
    while not all(map(Path.exists, boards)):
        time.sleep(0.05)
        assert process.poll() is None
    # To every process of the group, as a terminal does.
    os.killpg(process.pid, how) if how == signal.SIGINT else process.kill()
    # Wait for its processes too, which hold the other end of the pipe.
    error = process.communicate(timeout=120)[1]
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "saved their state and ended: the same call continues." in error
    for board in boards:
        assert 100 <= load_state(board.parent).progress.step < 1000
    if not soak:
        return
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    alone = nlv.train("rrxor", "nextlat", out=tmp_path / "alone", progress=False, **options)
    assert nlv.load(tmp_path / "nextlat" / "seed0").weights_sha256 == alone.weights_sha256


def test_a_process_can_be_stopped_before_its_imports(tmp_path, monkeypatch, handlers):
    """submitit ignores SIGTERM, so the handler is set first."""
    run = launch.Run("nextlat/seed0", tmp_path, tmp_path / "logs", {}, {"world": {"name": "none"}})
    call, order = launchers.call_for(run, threads=1, parent=None), []
    monkeypatch.setattr(launchers, "_end_with", lambda parent: order.append("handler"))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: order.append("torch"))
    with pytest.raises(UnknownNameError):
        launchers.train_run(call)
    assert order == ["handler", "torch"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="without /proc they look like running processes")
def test_a_zombie_process_counts_as_ended():
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert launchers.is_gone(process.pid)
    process.wait()
    assert launchers.is_gone(process.pid)
    assert not launchers.is_gone(os.getpid())


def test_a_run_is_passed_to_its_process_as_text(tmp_path):
    run = launch.Run("nextlat/seed0", tmp_path, tmp_path / "logs", {}, {"seed": 0})
    assert json.loads(launchers.call_for(run, threads=1, parent=5))["parent"] == 5
