import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manypaths.cli import launch


@pytest.fixture(autouse=True)
def outside_a_launch(monkeypatch):
    for name in (launch.MARK, "LOCAL_RANK"):
        monkeypatch.setenv(name, "")  # so that what a test sets goes again
        monkeypatch.delenv(name)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)


@pytest.fixture
def started(monkeypatch):
    """What the launchers of accelerate and torch are given; `ends` is how they end."""
    seen = []

    def launcher(arguments):
        seen.append(arguments)
        assert os.environ[launch.MARK] == "1"

    monkeypatch.setattr("accelerate.commands.launch.launch_command", launcher)
    monkeypatch.setattr("torch.distributed.run.run", launcher)
    return seen


def test_several_processes_when_asked_for_or_when_several_gpus_are_visible(monkeypatch):
    assert not launch.needed(launch.LaunchConfig())
    assert launch.needed(launch.LaunchConfig(num_processes=2))
    assert launch.needed(launch.LaunchConfig(accelerate_config="fsdp2"))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert launch.needed(launch.LaunchConfig())


@pytest.mark.parametrize("name", [launch.MARK, "LOCAL_RANK"])
def test_never_inside_a_launched_process(monkeypatch, name):
    monkeypatch.setenv(name, "0")
    assert not launch.needed(launch.LaunchConfig(num_processes=2))


def test_the_subcommand_keeps_its_own_options(started):
    argv = ["--config", "a.yaml", "--num_processes", "2"]
    launch.start("sft", argv, launch.LaunchConfig(num_processes=2, accelerate_config="fsdp2"))
    (given,) = started
    assert given.module and (given.training_script, given.training_script_args) == ("manypaths", ["sft", *argv])
    assert given.num_processes == 2 and given.config_file.endswith("fsdp2.yaml")
    with pytest.raises(ValueError, match="nowhere"):
        launch.start("sft", [], launch.LaunchConfig(accelerate_config="nowhere"))


def test_processes_on_cpus_are_torchrun_s(started, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    launch.start("grpo", ["--x", "1"], launch.LaunchConfig(num_processes=3))
    (given,) = started
    assert given.nproc_per_node == "3" and [given.training_script, *given.training_script_args] == [
        "manypaths", "grpo", "--x", "1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("codes", "ended"),
    [({0: 2}, 2), ({0: 2, 1: -15}, 2), ({0: 143, 1: 143}, 143), ({0: -15, 1: -9}, "process 1 was killed by signal 9"),
     ({3: -11}, "process 3 was killed by signal 11")],
)  # fmt: skip
def test_the_exit_code_is_that_of_the_process_that_ended_the_others(codes, ended):
    with pytest.raises((SystemExit, ChildProcessError)) as caught:
        launch.end_like(codes)
    if isinstance(ended, int):
        assert caught.value.code == ended
    else:
        assert ended in str(caught.value) and caught.value.exit_code == 128 - min(codes.values(), key=lambda c: c == -15)


def wait_until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def gone(process: int) -> bool:
    """Whether it has ended; one that nobody has asked for its exit code still has a number."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


RANK = "from manypaths.cli import launch; import os, time; launch.watch_parent(); print(os.getpid(), flush=True); time.sleep(60)"
LAUNCHER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes by /proc")
def test_a_launched_process_ends_with_its_launcher():
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, RANK], stdout=subprocess.PIPE, text=True)
    rank = int(launcher.stdout.readline())
    assert not gone(rank)
    launcher.kill()
    launcher.wait()
    wait_until(lambda: gone(rank))


START = """
import os, sys
from manypaths.cli import launch, main
main.SUBCOMMANDS["sft"] = main.Subcommand(lambda argv: launch.start("sft", argv, launch.LaunchConfig(num_processes=2)), "")
os.chdir(sys.argv[1])  # whose `manypaths` is not ours
sys.exit(main.main(["sft"]))
"""
KILLED = """
import os, pathlib, time
pathlib.Path(os.environ["RANK"]).write_text(str(os.getpid()))
while not (pathlib.Path("0").exists() and pathlib.Path("1").exists()):
    time.sleep(0.05)
if os.environ["RANK"] == "1":
    os.kill(os.getpid(), 9)
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes by /proc")
def test_a_killed_process_ends_the_others_and_is_told_in_one_line(tmp_path):
    place = tmp_path / "place"
    (place / "manypaths").mkdir(parents=True)
    (place / "manypaths" / "__init__.py").touch()
    (place / "manypaths" / "__main__.py").write_text(KILLED)
    (tmp_path / "start.py").write_text(START)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(tmp_path / "start.py"), str(place)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert ended.returncode == 128 + signal.SIGKILL
    lines = [line for line in ended.stderr.splitlines() if "arning" not in line]
    assert len(lines) == 1 and lines[0].startswith("manypaths sft: process 1 was killed by signal 9"), ended.stderr
    assert all(gone(int((place / rank).read_text())) for rank in "01")
