import sys

import pytest

from manypaths.cli import launch


@pytest.fixture(autouse=True)
def outside_a_launch(monkeypatch):
    for name in (launch.MARK, "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)


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


def test_the_command_keeps_the_verb_s_own_options():
    argv = ["--config", "a.yaml", "--num_processes", "2"]
    command = launch.command("sft", argv, launch.LaunchConfig(num_processes=2, accelerate_config="fsdp2"))
    assert command[0] == sys.executable and command[-6:] == ["manypaths", "sft", *argv]
    assert command[command.index("--num_processes") + 1] == "2"
    assert command[command.index("--config_file") + 1].endswith("fsdp2.yaml")
    with pytest.raises(ValueError, match="nowhere"):
        launch.command("sft", [], launch.LaunchConfig(accelerate_config="nowhere"))


def test_processes_on_cpus_are_torchrun_s(monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    command = launch.command("grpo", ["--x", "1"], launch.LaunchConfig(num_processes=3))
    expected = "-m torch.distributed.run --nproc_per_node 3 -m manypaths grpo --x 1"
    assert " ".join(command[1:]) == expected


def test_the_exit_code_is_the_launched_one(monkeypatch):
    seen = {}

    class Done:
        returncode = 7

    def run(command, env):
        seen.update(env)
        return Done

    monkeypatch.setattr("subprocess.run", run)
    with pytest.raises(SystemExit) as ended:
        launch.start("sft", [], launch.LaunchConfig(num_processes=2))
    assert ended.value.code == 7 and seen[launch.MARK] == "1"
