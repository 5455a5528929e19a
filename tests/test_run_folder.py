import pytest

from manypaths.run_folder import (
    check_output_dir,
    data_fingerprint,
    nothing_left_on_failure,
    record_run,
)

RUN = {"stage": "sft", "objective": "sed", "objective_kwargs": {"top_k": 10}, "learning_rate": 2e-5}


def test_a_fresh_folder_is_free_and_stays_untouched(tmp_path):
    folder = tmp_path / "run"
    assert check_output_dir(folder, RUN) is None
    assert not folder.exists()


def test_the_same_run_may_come_back_and_finds_its_newest_checkpoint(tmp_path):
    record_run(tmp_path, RUN)
    assert check_output_dir(tmp_path, dict(reversed(RUN.items()))) is None
    for step in (9, 10, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert check_output_dir(tmp_path, RUN) == tmp_path / "checkpoint-100"


def test_another_run_is_named_by_what_differs(tmp_path):
    record_run(tmp_path, RUN)
    with pytest.raises(ValueError, match="another run") as caught:
        check_output_dir(tmp_path, {**RUN, "objective": "gem"})
    message = str(caught.value)
    assert "objective: there 'sed', now 'gem'" in message
    assert "learning_rate" not in message and "--output_dir" in message and "\n" not in message


def test_weights_without_a_record_and_a_damaged_record_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert check_output_dir(tmp_path, RUN) is None
    (tmp_path / "model.safetensors").write_text("x")
    with pytest.raises(ValueError, match=r"already holds model\.safetensors"):
        check_output_dir(tmp_path, RUN)
    (tmp_path / "manypaths_run.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        check_output_dir(tmp_path, RUN)


def test_a_file_is_no_output_folder(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        check_output_dir(tmp_path / "run", RUN)


def test_data_is_known_by_content_not_by_place(tmp_path):
    for name, text in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.jsonl").write_text(text)
    same, moved, other = (data_fingerprint(tmp_path / name / "data.jsonl") for name in "abc")
    assert same == moved != other
    assert data_fingerprint("org/name") == "org/name"


def test_a_failure_takes_back_the_folders_it_made_and_no_others(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(RuntimeError), nothing_left_on_failure(tmp_path / "mine" / "deep" / "run"):
        (tmp_path / "mine" / "deep" / "run").mkdir(parents=True)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"] and not list((tmp_path / "mine").iterdir())
    with pytest.raises(RuntimeError), nothing_left_on_failure(tmp_path / "run"):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "kept").write_text("x")
        raise RuntimeError
    assert (tmp_path / "run" / "kept").exists()
