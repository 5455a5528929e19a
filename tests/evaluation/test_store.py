import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from manypaths.evaluation.store import SampleKey, SampleStore, locked, read_samples
from manypaths.generation.samples import Sample

SOURCE = Path(__file__).parents[2] / "src"
SETTINGS = {"model": "tiny", "sampling": {"temperature": 0.6, "seed": 0}, "limit": None}
WRITES_WITHOUT_END = """
    import sys, time
    from manypaths.generation.samples import Sample
    from manypaths.evaluation.store import SampleKey, SampleStore

    with SampleStore(sys.argv[1], {"model": "tiny"}) as store:
        for index in range(int(sys.argv[2])):
            key = SampleKey("set", "a", 0.6, index)
            if key not in store.samples:
                store.add(key, Sample("text " * index, [1], "eos", index, -0.5))
                time.sleep(float(sys.argv[3]))
"""


def key(index, benchmark="set", temperature=0.6):
    return SampleKey(benchmark, "a", temperature, index)


def one(text="x", stop="eos"):
    return Sample(text, [4, 1], stop, 2, -1.25)


def kept(text="x", stop="eos"):
    return Sample(text, None, stop, 2, -1.25)


def fill(folder, texts=("x", "y")):
    with SampleStore(folder, SETTINGS) as store:
        for index, text in enumerate(texts):
            store.add(key(index), one(text))
    return folder / "samples.jsonl"


def start(program, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_samples_come_back_as_they_were_in_their_order(tmp_path):
    texts = ["two\nlines", "\u2028 \x85 \r\n", "\ud800 half a pair", 'quote " and \\boxed{1}', ""]
    path = fill(tmp_path / "new" / "folder", texts)
    assert list(read_samples(path)) == [key(index) for index in range(5)]
    assert [sample.text for sample in read_samples(path).values()] == texts
    with SampleStore(path.parent, SETTINGS) as store:
        assert store.samples == {key(index): kept(text) for index, text in enumerate(texts)}
        store.add(key(0, temperature=None), Sample("", None, None))
    assert read_samples(path)[key(0, temperature=None)] == Sample("", None, None)
    first = json.loads(path.read_bytes().split(b"\n")[0])
    assert list(first) == ["benchmark", "id", "temperature", "index", "text", "stop", "num_tokens", "logprob"]


def test_a_sample_is_on_disk_as_soon_as_it_is_added(tmp_path):
    with SampleStore(tmp_path, SETTINGS) as store:
        store.add(key(0), one())
        assert read_samples(store.path) == {key(0): kept()} == store.samples


def test_a_torn_last_line_is_cut_and_nothing_else(tmp_path):
    path = fill(tmp_path, ["x" * 70_000, "y"])
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for torn in (last[:1], last[:-1], b'{"text": "' + b"z" * 200_000):
        path.write_bytes(whole + torn)
        assert list(read_samples(path)) == [key(0), key(1)]
        SampleStore(tmp_path, SETTINGS).close()
        assert path.read_bytes() == whole
    path.write_bytes(b'{"benchmark"')
    with SampleStore(tmp_path, SETTINGS) as store:
        assert store.samples == {} and path.read_bytes() == b""
        store.add(key(0), one())
    assert len(read_samples(path)) == 1


def test_a_sample_is_never_there_twice(tmp_path):
    path = fill(tmp_path)
    with SampleStore(tmp_path, SETTINGS) as store, pytest.raises(ValueError, match="already holds sample 1 of set a"):
        store.add(key(1), one("other"))
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ValueError, match=r"samples.jsonl, line 3: sample 0 of set a at temperature 0.6 is there twice"):
        SampleStore(tmp_path, SETTINGS)


@pytest.mark.parametrize(
    "line, message",
    [
        (b"{broken", "broken JSON"),
        (b'"\xff"', "not UTF-8 text"),
        (b"[1]", "a row must be a JSON object, found a list"),
        (b'{"benchmark": "set"}', "no id"),
        (
            b'{"benchmark": "set", "id": "a", "temperature": 1, "index": true, "text": "", "stop": null, '
            b'"num_tokens": null, "logprob": null}',
            "index cannot be True",
        ),
    ],
)
def test_a_damaged_line_is_named_and_frees_the_lock(tmp_path, line, message):
    path = fill(tmp_path)
    first, second, _ = path.read_bytes().split(b"\n")
    path.write_bytes(first + b"\n" + line + b"\n" + second + b"\n")
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"samples.jsonl, line 2: {message}.* Delete the line"):
            SampleStore(tmp_path, SETTINGS)


def test_other_settings_are_refused_and_each_difference_is_named(tmp_path):
    fill(tmp_path)
    other = {"model": "tiny", "sampling": {"temperature": 1.0, "seed": 0}, "top_k": 5}
    with pytest.raises(ValueError, match="with other settings") as caught:
        SampleStore(tmp_path, other)
    text = str(caught.value)
    assert "sampling.temperature: 0.6, now 1.0; limit: None, now absent; top_k: absent, now 5." in text
    assert "model:" not in text and "seed" not in text
    assert "another --output_dir, or delete samples.jsonl" in text
    SampleStore(tmp_path, SETTINGS).close()  # the stored settings are as they were


def test_settings_are_compared_as_json_and_may_change_while_there_is_no_sample(tmp_path):
    SampleStore(tmp_path, {"temperatures": (0.6, 1)}).close()
    with SampleStore(tmp_path, {"temperatures": (0.6, 2)}) as store:
        store.add(key(0), one())
    SampleStore(tmp_path, {"temperatures": [0.6, 2.0]}).close()
    (tmp_path / "samples.meta.json").write_text("{")
    with pytest.raises(ValueError, match=r"samples.meta.json is damaged"):
        SampleStore(tmp_path, {"temperatures": [0.6, 2]})
    (tmp_path / "samples.meta.json").unlink()
    with pytest.raises(ValueError, match=r"has 1 samples but samples.meta.json is missing"):
        SampleStore(tmp_path, {"temperatures": [0.6, 2]})


def test_one_run_at_a_time_and_the_next_when_it_ends(tmp_path):
    with SampleStore(tmp_path, SETTINGS):
        other = start(WRITES_WITHOUT_END, tmp_path, 1, 0)
        _, stderr = other.communicate(timeout=60)
        assert other.returncode != 0
        assert f"Another run is writing to {tmp_path}" in stderr
        with pytest.raises(ValueError, match="Another run"):
            SampleStore(tmp_path, SETTINGS)
    SampleStore(tmp_path, SETTINGS).close()


def test_killed_twice_and_continued_is_as_if_undisturbed(tmp_path):
    number = 40
    for at_least in (3, 9):
        run = start(WRITES_WITHOUT_END, tmp_path / "killed", number, 0.05)
        path = tmp_path / "killed" / "samples.jsonl"
        until = time.monotonic() + 60
        while not path.is_file() or path.read_bytes().count(b"\n") < at_least:
            assert run.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        assert path.read_bytes().count(b"\n") < number
    path.write_bytes(path.read_bytes()[:-4])  # as if the kill had come in the middle of a line
    for folder in ("killed", "undisturbed"):
        run = start(WRITES_WITHOUT_END, tmp_path / folder, number, 0)
        assert run.communicate(timeout=60)[1] == ""
    for name in ("samples.jsonl", "samples.meta.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_a_full_disk_leaves_whole_lines_and_the_run_goes_on_later(tmp_path, monkeypatch):
    write = os.write
    room = [300]

    def full(file, data):
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(file, data[: room[0]])
        room[0] -= written
        return written

    with SampleStore(tmp_path, SETTINGS) as store:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="the 2 samples written so far stay") as caught:
            for index in range(9):
                store.add(key(index), one())
        assert caught.value.errno == errno.ENOSPC
        monkeypatch.undo()
        assert store.path.read_bytes().endswith(b"}\n") and list(read_samples(store.path)) == [key(0), key(1)]
        store.add(key(2), one())  # the store is as good as before
    assert list(read_samples(store.path)) == [key(0), key(1), key(2)]


def test_a_file_size_limit_of_the_system_leaves_whole_lines(tmp_path):
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    run = start(limited + textwrap.dedent(WRITES_WITHOUT_END), tmp_path, 100, 0)
    assert "Free some space and give the same command again" in run.communicate(timeout=60)[1]
    content = (tmp_path / "samples.jsonl").read_bytes()
    assert content.endswith(b"}\n") and 1000 < len(content) <= 2000
    run = start(WRITES_WITHOUT_END, tmp_path, 20, 0)
    assert run.communicate(timeout=60)[1] == ""
    assert [key.index for key in read_samples(tmp_path / "samples.jsonl")] == list(range(20))


def test_other_errors_of_the_system_stay_what_they_are(tmp_path, monkeypatch):
    with SampleStore(tmp_path, SETTINGS) as store:
        monkeypatch.setattr(os, "write", lambda file, data: (_ for _ in ()).throw(OSError(errno.EIO, "bad disk")))
        with pytest.raises(OSError, match="bad disk"):
            store.add(key(0), one())
        monkeypatch.undo()
        assert store.samples == {} and store.path.read_bytes() == b""


def test_further_tasks_and_parts_of_tasks_join_and_changed_ones_are_refused(tmp_path):
    with SampleStore(tmp_path, SETTINGS, {"a": {"seed": 0, "prompts": {"p": "x"}}}) as store:
        store.add(key(0), one())
    SampleStore(tmp_path, SETTINGS, {"b": {"seed": 1}}).close()
    SampleStore(tmp_path, SETTINGS, {"a": {"seed": 0, "prompts": {"q": "y"}}}).close()
    with pytest.raises(ValueError, match=r"tasks.b.seed: 1, now 2"):
        SampleStore(tmp_path, SETTINGS, {"b": {"seed": 2}})
    for name, stored in (("p", "x"), ("q", "y")):
        with pytest.raises(ValueError, match=rf"tasks.a.prompts.{name}: '{stored}', now 'z'"):
            SampleStore(tmp_path, SETTINGS, {"a": {"seed": 0, "prompts": {name: "z"}}})


def test_many_changes_are_counted(tmp_path):
    with SampleStore(tmp_path, SETTINGS, {"a": {str(number): 0 for number in range(40)}}) as store:
        store.add(key(0), one())
    with pytest.raises(ValueError, match=r"tasks.a.4: 0, now 1 and 35 more\. Use"):
        SampleStore(tmp_path, SETTINGS, {"a": {str(number): 1 for number in range(40)}})


def test_the_backends_of_all_runs_are_remembered(tmp_path):
    for name in ("one 1.0", "one 1.0", "two 2.0"):
        with SampleStore(tmp_path, SETTINGS) as store:
            store.note(name)
            if not store.samples:
                store.add(key(0), one())
    with SampleStore(tmp_path, SETTINGS) as store:
        assert store.drawn_with == ["one 1.0", "two 2.0"]


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.warns(UserWarning, match="file system without locks"):
        SampleStore(tmp_path, SETTINGS).close()


def test_a_folder_is_one_runs_at_a_time_and_goes_again_when_it_got_nothing(tmp_path):
    folder = tmp_path / "new"
    with locked(folder), pytest.raises(ValueError, match="Another run is writing to"), locked(folder):
        pass
    assert not folder.exists()
    with locked(folder):
        (folder / "results.json").write_text("{}")
    with locked(folder):
        assert sorted(path.name for path in folder.iterdir()) == [".lock", "results.json"]
