"""How right and how fast answers are graded, on golds of your own.

    python benchmarks/grading.py --data_dir folder_with_jsonl_files

Every line of the JSONL files has `id` and `answer`. Measured are (1) every gold against itself in a box, (2) wrong and
equivalent variants of the golds made mechanically (answer_changes.py), (3) grades per CPU second, worker processes
included, against math-verify alone on the same answers in alternating slices, (4) twenty hostile answers.
Writes benchmarks/results/grading_cpu_<date>.{json,md}.
"""

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections import Counter
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from answer_changes import bare, equivalent_answers, is_value, wrong_answers

from manypaths import grading
from manypaths.grading import grade, grade_many, unreliable_reference, workers

RESULTS = Path(__file__).parent / "results"
sys.path.append(str(Path(__file__).parents[1] / "tests"))
from hostile_answers import HOSTILE  # noqa: E402

DEADLINE = 20.0  # generous: this measures verdicts, not a busy machine


def read_golds(folder):
    """{file: [(id, gold)]} of all JSONL files whose rows have an id and an answer."""
    golds = {}
    for path in sorted(Path(folder).glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if rows and {"id", "answer"} <= set(rows[0]):
            golds[path.stem] = [(row["id"], str(row["answer"])) for row in rows]
    if not golds:
        raise SystemExit(f"{folder} has no JSONL file with id and answer.")
    return golds


def boxed(answer):
    return f"Therefore the result is $\\boxed{{{answer}}}$."


def against_itself(golds):
    """Golds that do not equal themselves, and how many are weakly gradable, by file and reason."""
    failures, weak = [], {}
    for name, rows in golds.items():
        verdicts = grade_many([boxed(bare(gold)) for _, gold in rows], [gold for _, gold in rows], deadline=DEADLINE)
        for (row, gold), verdict in zip(rows, verdicts, strict=True):
            if not verdict.correct:
                failures.append({"id": row, "gold": gold, "reason": verdict.reason})
        weak[name] = dict(Counter(reason for _, gold in rows if (reason := unreliable_reference(gold))))
    return failures, weak


def variants(golds, changed, expected):
    """Grade the variants of every gold: {kind: [number, wrongly graded, time-outs]} and the wrongly graded ones."""
    counts, wrongly = {}, []
    for rows in golds.values():
        items = []
        for place, (row, gold) in enumerate(rows):
            other = rows[(place + 1) % len(rows)][1]
            items += [(row, gold, *change) for change in changed(gold, other)]
        verdicts = grade_many([boxed(item[3]) for item in items], [item[1] for item in items], deadline=DEADLINE)
        for (row, gold, kind, answer), verdict in zip(items, verdicts, strict=True):
            count = counts.setdefault(kind, [0, 0, 0])
            count[0] += 1
            count[2] += verdict.status == "timeout"
            if verdict.correct is not expected:
                count[1] += 1
                wrongly.append({"id": row, "kind": kind, "gold": gold, "answer": answer, "reason": verdict.reason})
    return counts, wrongly


def cpu_seconds():
    """CPU time of this process and of the idle worker processes."""
    total = time.process_time()
    for worker in workers.pool.idle:
        fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def ours(items):
    grading.cache.clear()
    grade_many([text for _, text in items], [gold for gold, _ in items], mode="strict")


def math_verify_alone(items):
    from math_verify import parse, verify

    for gold, text in items:
        verify(parse(f"${bare(gold)}$"), parse(text))


def throughput(items, slices):
    """Grades per CPU second of both, each slice of fresh items graded by the one and then by the other."""
    seconds = {ours: 0.0, math_verify_alone: 0.0}
    for number in range(slices):
        for grader in seconds if number % 2 else reversed(seconds):
            start = cpu_seconds()
            grader(items[number::slices])
            seconds[grader] += cpu_seconds() - start
    return {"ours": len(items) / seconds[ours], "math_verify": len(items) / seconds[math_verify_alone], "n": len(items)}


def speed(golds, number, slices):
    everything = [gold for rows in golds.values() for _, gold in rows]
    integers = [gold for gold in everything if bare(gold).isdigit()]
    symbolic = [gold for gold in everything if is_value(gold) and not bare(gold).replace(".", "").isdigit()]
    step = max(1, len(symbolic) // (number // 3))
    integer_items, symbolic_items = [], []
    for gold in islice(integers, number // 2):
        integer_items += [(gold, boxed(bare(gold))), (gold, boxed(int(bare(gold)) + 1))]
    for gold in symbolic[::step]:
        text = bare(gold)
        symbolic_items += [(gold, boxed(answer)) for answer in (text, f"\\frac{{2({text})}}{{2}}", f"{text}+1")]
    grade(boxed("b+a"), "a+b")  # both start warm
    math_verify_alone([("a+b", boxed("b+a"))])
    return {"integer golds": throughput(integer_items, slices), "symbolic golds": throughput(symbolic_items, slices)}


def hostile(deadline):
    """The twenty hostile answers, one by one, and whether the pool works afterwards."""
    rows = []
    for answer in HOSTILE:
        start = time.monotonic()
        verdict = grade_many([boxed(answer)], ["\\sqrt{2}"], deadline=deadline)[0]
        shown = answer if len(answer) < 60 else answer[:40] + f"... ({len(answer)} characters)"
        rows.append({"answer": shown, "status": verdict.status, "reason": verdict.reason})
        rows[-1]["seconds"] = time.monotonic() - start
    return {"deadline": deadline, "rows": rows, "alive": grade(boxed("d+c"), "c+d").correct}


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]) + "\n"


def code(text):
    return "`" + " ".join(str(text).split()).replace("|", "\\|")[:160] + "`"


def markdown(found):
    """The results as Markdown tables."""
    rows = sum(found["rows"].values())
    parts = [f"# Grading, {found['date']}\n", found["machine"] + "\n", f"## {rows} golds against themselves in a box\n"]
    parts.append(f"{len(found['itself'])} fail.\n")
    parts.append(table(("id", "gold", "reason"), [(x["id"], code(x["gold"]), x["reason"]) for x in found["itself"]]))
    weak = [(name, found["rows"][name], sum(kinds.values()), kinds or "") for name, kinds in found["weak"].items()]
    parts += ["## Weakly gradable golds\n", table(("file", "rows", "weak", "reasons"), weak)]
    parts.append("Variants below are made mechanically: the rates hold for them, not for what models answer.\n")
    for title, key, verb in (("Wrong answers", "wrong", "accepted"), ("Equivalent answers", "equivalent", "refused")):
        counts, wrongly = found[key]
        total, bad = sum(c[0] for c in counts.values()), sum(c[1] for c in counts.values())
        parts.append(f"## {title}: {bad} of {total} {verb} ({100 * bad / total:.2f} %)\n")
        parts.append(table(("kind", "answers", verb, "time-outs"), [(kind, *c) for kind, c in counts.items()]))
        rows = [(x["id"], x["kind"], code(x["gold"]), code(x["answer"]), x["reason"]) for x in wrongly]
        parts.append(table(("id", "kind", "gold", "answer", "reason"), rows))
    parts.append("## Grades per CPU second of one core\n")
    parts.append(
        table(
            ("golds", "answers", "manypaths", "math-verify alone", "ratio"),
            [
                (name, x["n"], f"{x['ours']:.0f}", f"{x['math_verify']:.0f}", f"{x['ours'] / x['math_verify']:.1f}")
                for name, x in found["speed"].items()
            ],
        )
    )
    attack = found["hostile"]
    parts.append(f"## Hostile answers, deadline {attack['deadline']} s\n")
    rows = [(code(x["answer"]), x["status"], x["reason"], f"{x['seconds']:.2f}") for x in attack["rows"]]
    parts.append(table(("answer", "status", "reason", "wall s, a worker's restart included"), rows))
    parts.append(f"The pool grades afterwards: {'yes' if attack['alive'] else 'no'}.\n")
    return "\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="folder of JSONL files with id and answer")
    parser.add_argument("--number", type=int, default=600, help="answers in each measurement of speed")
    parser.add_argument("--slices", type=int, default=6)
    parser.add_argument("--deadline", type=float, default=2.0, help="seconds, for the hostile answers")
    args = parser.parse_args()
    golds = read_golds(args.data_dir)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("math-verify", "latex2sympy2_extended", "sympy"))
    found = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, python {platform.python_version()}, {libraries}, "
        f"grader version {grading.GRADER_VERSION}",
        "rows": {name: len(rows) for name, rows in golds.items()},
        "speed": speed(golds, args.number, args.slices),
        "hostile": hostile(args.deadline),
    }
    found["itself"], found["weak"] = against_itself(golds)
    found["wrong"] = variants(golds, lambda gold, other: wrong_answers(gold, [other]), expected=False)
    found["equivalent"] = variants(golds, lambda gold, other: equivalent_answers(gold), expected=True)
    path = RESULTS / f"grading_cpu_{found['date']}"
    path.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(found))
    print(markdown(found))


if __name__ == "__main__":
    main()
