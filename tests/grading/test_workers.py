import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from hostile_answers import HOSTILE
from manypaths import grading
from manypaths.grading import grade, grade_many, same_answers, workers


@pytest.mark.slow
def test_hostile_answers_return_within_the_deadline_and_the_pool_is_alive_afterwards():
    assert len(HOSTILE) == 20
    grade(r"\boxed{b+\sin a}", r"\sin a+b")  # starts a worker
    verdicts = grade_many([rf"\boxed{{{answer}}}" for answer in HOSTILE], ["\\sqrt{2}"] * 20, deadline=0.3)
    assert not any(verdict.correct for verdict in verdicts)
    assert {verdict.status for verdict in verdicts} <= {"wrong", "unparsed", "timeout"}
    assert sum(verdict.status == "timeout" for verdict in verdicts) >= 3
    assert grade(r"\boxed{y+\sin x}", r"\sin x+y").reason == "symbolically equal"


def test_a_time_out_is_no_cached_verdict():
    slow = r"\boxed{9^{9^{9^{8}}}}"
    assert grade_many([slow], ["\\pi"], deadline=0.2)[0].reason == "time-out"
    assert not any("9^{8}" in answer for _, answer in grading.cache)


@pytest.mark.slow
def test_every_thread_may_grade():
    verdicts = {}

    def work(number):
        verdicts[number] = grade_many(
            [rf"\boxed{{\sin z+{number}}}"] * 3, [rf"{number}+\sin z", rf"{number + 1}+\sin z", "7"]
        )

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(verdicts) == 6
    assert all([verdict.correct for verdict in found] == [True, False, False] for found in verdicts.values())
    assert len(workers.pool.idle) <= workers.pool.size


def test_a_worker_killed_between_requests_is_replaced():
    grade(r"\boxed{q+\sin p}", r"\sin p+q")
    for worker in workers.pool.idle:
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
    assert grade(r"\boxed{q+2\sin p}", r"2\sin p+q").correct


@pytest.mark.slow
def test_a_request_whose_worker_is_killed_is_asked_once_more():
    grade(r"\boxed{s+\sin r}", r"\sin r+s")
    victims = [worker.process for worker in workers.pool.idle]

    def kill_soon():
        time.sleep(0.2)
        for victim in victims:
            victim.kill()

    killer = threading.Thread(target=kill_soon)
    killer.start()
    start = time.monotonic()
    verdicts = grade_many(
        [r"\boxed{9^{9^{9^{7}}}}", r"\boxed{s+3\sin r}"], ["\\sqrt{3}", r"3\sin r+s"], workers=1, deadline=1.5
    )
    killer.join()
    assert all(victim.poll() is not None for victim in victims)
    assert verdicts[0].reason == "time-out" and time.monotonic() - start > 1.6  # the second attempt had its full time
    assert verdicts[1].correct


@pytest.mark.parametrize(
    ("last_words", "reason"),
    [("", "worker died"), ("print(json.dumps({'same': False, 'reason': 'out of memory'}))", "out of memory")],
)
def test_workers_that_die_cost_no_batch(monkeypatch, last_words, reason):
    mortal = f"import json, sys; print(json.dumps('ready'), flush=True); sys.stdin.readline(); {last_words}"
    monkeypatch.setattr(workers, "CODE", mortal)
    monkeypatch.setattr(workers, "pool", workers.Pool())
    verdicts = grade_many([r"\boxed{g+\sin f}", r"\boxed{7}", r"\boxed{g+3\sin f}"], [r"\sin f+g", "7", r"\sin f+3g"])
    assert [verdict.reason for verdict in verdicts] == [reason, "same text", reason]
    assert {verdict.status for verdict in verdicts} == {"timeout", "correct"}
    assert not workers.pool.idle


def test_no_signal_handler_or_alarm_of_the_caller_is_touched():
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 60)
        assert grade(r"\boxed{v+\sin u}", r"\sin u+v").correct
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60
        assert signal.getsignal(signal.SIGALRM).__name__ == "<lambda>" and not rang
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_exact_verdicts_start_no_worker(monkeypatch):
    monkeypatch.setattr(workers, "pool", None)
    texts = [r"\boxed{72}", r"\boxed{73}", r"\boxed{1, 2}", r"\boxed{B}", r"\boxed{}", "no", r"\boxed{\frac{2}{4}}"]
    golds = ["72", "72", "2, 1", "B", "5", "5", "0.5"]
    assert [verdict.correct for verdict in grade_many(texts, golds)] == [True, False, True, True, False, False, True]


def test_a_worker_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setattr(workers, "CODE", "raise SystemExit('no algebra here')")
    monkeypatch.setattr(workers, "STARTS", 1)
    monkeypatch.setattr(workers, "pool", workers.Pool())
    with pytest.raises(RuntimeError, match="The grading worker does not start: no algebra here"):
        grade(r"\boxed{k+\sin j}", r"\sin j+k")


@pytest.mark.parametrize(
    ("code", "executable", "message"),
    [
        ("print('welcome')", sys.executable, "does a sitecustomize.py print"),
        ("print(7)", sys.executable, "does a sitecustomize.py print"),
        ("", None, "sys.executable is not set"),
        ("", "/no/such/python", "No such file"),
    ],
)
def test_a_python_that_cannot_run_workers_is_told(monkeypatch, code, executable, message):
    monkeypatch.setattr(workers, "CODE", code)
    monkeypatch.setattr(workers, "STARTS", 1)
    monkeypatch.setattr(workers, "pool", workers.Pool())
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(RuntimeError, match=f"The grading worker does not start: .*{message}"):
        grade(r"\boxed{k+\sin i_1}", r"\sin i_1+k")


def test_a_worker_that_is_silent_at_its_start_is_waited_for_once(monkeypatch, tmp_path):
    starts = tmp_path / "starts"
    monkeypatch.setattr(workers, "CODE", f"open({str(starts)!r}, 'a').write('x'); import time; time.sleep(60)")
    monkeypatch.setattr(workers, "SECONDS_TO_START", 0.5)
    monkeypatch.setattr(workers, "pool", workers.Pool())
    with pytest.raises(RuntimeError, match="no sign of life within"):
        grade_many([rf"\boxed{{h+{number}\sin g}}" for number in range(9)], ["\\sin g+h"] * 9)
    assert len(starts.read_text()) <= workers.pool.size  # once in every thread


def test_a_child_forked_while_the_cache_is_locked_can_grade():
    with grading.cache_lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends a child that hangs
            os._exit(0 if grade(r"\boxed{31}", "31").correct else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_passing_failure_of_a_worker_is_no_cached_verdict(monkeypatch):
    short_of_memory = (
        "import sys; from manypaths.grading import symbolic, worker\n"
        "def decide(gold, answer): raise OSError('too many open files')\n"
        "symbolic.decide = decide; worker.WARM_UP = (); worker.main()"
    )
    monkeypatch.setattr(workers, "CODE", f"import sys; sys.path[0] = {str(workers.SOURCE_FOLDER)!r}; {short_of_memory}")
    monkeypatch.setattr(workers, "pool", workers.Pool())
    verdict = grade(r"\boxed{e_1+\sin d_1}", r"\sin d_1+e_1")
    assert (verdict.reason, verdict.status) == ("out of memory", "timeout")
    assert not any("d_1" in gold for gold, _ in grading.cache)


def test_a_forked_child_uses_workers_of_its_own():
    grade(r"\boxed{m+\sin l}", r"\sin l+m")
    parent = workers.pool
    child = os.fork()
    if child == 0:
        os._exit(0 if workers.pool is not parent and not workers.pool.idle else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert grade(r"\boxed{2m+\sin l}", r"\sin l+2m").correct


def test_workers_see_neither_torch_nor_the_caller_s_main_module(tmp_path):
    (tmp_path / "sympy.py").write_text("raise RuntimeError('the wrong sympy')")  # a file of the user's, in the way
    program = tmp_path / "program.py"
    program.write_text(
        "from manypaths.grading import grade\n"
        "import sys\n"
        "assert 'torch' not in sys.modules and 'sympy' not in sys.modules\n"
        "assert grade(r'\\boxed{b+\\sin a}', r'\\sin a+b').correct\n"
        "assert 'sympy' not in sys.modules\n"
        "print('once')\n"
    )
    done = subprocess.run([sys.executable, program.name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "once\n"
    modules = subprocess.run(
        [sys.executable, "-c", "import sys, manypaths.grading.worker\nprint('torch' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert modules.stdout.strip() == "False"


def test_same_answers_is_symmetric_and_uses_the_same_cache():
    pairs = [
        ("x+1", "1+x"),
        ("1+x", "x+1"),
        ("2", "3"),
        ("5", "5"),
        ("", ""),
        ("1, 2", "2, 1"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
    ]
    assert same_answers(pairs) == [True, True, False, True, True, True, True]
    assert ("1+x", "x+1") in grading.cache


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"golds": ["1", "2"]}, "one gold per answer; got 1 answers and 2 golds"),
        ({"mode": "loose"}, "Unknown grading mode 'loose'"),
        ({"deadline": 0}, "deadline must be positive seconds, got 0"),
        ({"deadline": float("nan")}, "deadline must be positive seconds, got nan"),
        ({"workers": 0}, "at least one worker, got 0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        grade_many(**{"answer_texts": [r"\boxed{1}"], "golds": ["1"], **arguments})
