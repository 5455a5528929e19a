"""The process that does computer algebra for the grader: one request a line on stdin, one reply a line on stdout."""

import json
import os
import signal
import sys

MEMORY_BYTES = 4 * 2**30
WARM_UP = (
    r"\frac{\sqrt{2}}{2}-3^{x}\cdot y_1",
    r"e^{2x}\sin(\pi x)+\ln|x|-\log_2 x",
    r"(x+1)(x-2)=x!",
    r"-\infty<x\le 2",
)
GRACE_SECONDS = 2  # after the deadline; the parent has killed this process by then, unless it is gone itself


def main() -> None:
    """Answer requests until stdin closes.

    A request is {"gold": str, "answer": str, "deadline": seconds}; a reply is {"same": bool, "reason": str}.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not a reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    limit_memory()
    import math_verify  # noqa: F401  slow, so before the first deadline runs

    from .comparison import compare
    from .symbolic import decide

    for text in WARM_UP:  # the parser builds its tables as it goes
        compare(text, text + "+x", decide)
    print(json.dumps("ready"), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["deadline"] + GRACE_SECONDS)  # its default action ends the process
        try:
            same, reason = compare(request["gold"], request["answer"], decide)
        except (MemoryError, OSError):  # passes: the parent starts a new worker
            same, reason = False, "out of memory"
        except Exception:  # a parser or solver that chokes has not understood the answer
            same, reason = False, "not understood"
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps({"same": bool(same), "reason": reason}), file=replies, flush=True)


def limit_memory() -> None:
    try:
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MEMORY_BYTES, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    except (ImportError, ValueError, OSError):  # not every system can limit it
        pass


if __name__ == "__main__":
    main()
