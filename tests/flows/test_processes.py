"""Children and grandchildren must not outlive the flow that started them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.runtime.processes import ChildFailed, Command, stream, stream_together

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="process trees are followed through /proc")


def python(code: str, *args: str) -> list[str]:
    return [sys.executable, "-c", code, *args]


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# As torchrun's ranks: a grandchild in a session of its own that ignores SIGTERM.
STUBBORN_TREE = """
import signal, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
grandchild = subprocess.Popen([sys.executable, "-c", child], start_new_session=True, stdout=subprocess.PIPE)
grandchild.stdout.readline()
print(grandchild.pid, flush=True)
time.sleep(60)
"""


def test_lines_of_both_streams_are_passed_on_as_they_come():
    lines: list[str] = []
    stream(python("import sys; print('out'); print('err', file=sys.stderr)"), lines.append)
    assert sorted(lines) == ["err", "out"]


def test_a_failure_carries_the_exit_status_and_the_last_words():
    with pytest.raises(ChildFailed, match=r"exit status 3\nlast words"):
        stream(python("print('last words'); raise SystemExit(3)"), lambda _: None)


def test_a_killed_child_is_told_from_a_failed_one():
    with pytest.raises(ChildFailed, match="ended by SIGKILL; if nobody did that, the machine ran out of memory"):
        stream(python("import os; os.kill(os.getpid(), 9)"), lambda _: None)


def test_a_silent_child_is_ended():
    with pytest.raises(ChildFailed, match=r"printed nothing for 0.4 s and was ended\nhello"):
        stream(python("import time; print('hello', flush=True); time.sleep(60)"), lambda _: None, stall_s=0.4)


def test_an_exception_while_reading_ends_the_whole_tree():
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream(python(STUBBORN_TREE), interrupt, grace_s=0.2)
    assert wait_until(lambda: not is_alive(pids[0]))


def test_the_child_ends_when_the_parent_is_killed(tmp_path):
    code = (
        "import sys; from flows.runtime.processes import stream; "
        "stream([sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'], "
        "lambda line: print(line, flush=True))"
    )
    parent = subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not is_alive(child))


def test_threads_of_a_finished_call_are_gone():
    before = threading.active_count()
    stream(python("print(1)"), lambda _: None, stall_s=60)
    assert threading.active_count() == before


def test_children_side_by_side_are_told_apart_and_one_failure_does_not_disturb_the_others():
    said: dict[int, list[str]] = {0: [], 1: [], 2: []}
    codes = ["print(1)", "print(2); raise SystemExit(5)", "import time; time.sleep(0.5); print(3)"]
    failures = stream_together([Command(python(code)) for code in codes], lambda number, line: said[number].append(line))
    assert said == {0: ["1"], 1: ["2"], 2: ["3"]}
    assert [failure and failure.reason for failure in failures] == [None, "it ended with exit status 5", None]


def test_children_side_by_side_get_their_own_environment():
    said: list[str] = []
    code = "import os; print(os.environ['LOCAL_RANK'])"
    stream_together([Command(python(code), {"LOCAL_RANK": str(i)}) for i in range(2)], lambda _, line: said.append(line))
    assert sorted(said) == ["0", "1"]


def test_only_the_silent_one_of_several_children_is_ended():
    codes = ["import time; time.sleep(60)", "import time\nfor i in range(8):\n    print(i, flush=True); time.sleep(0.2)"]
    failures = stream_together([Command(python(code)) for code in codes], lambda *_: None, stall_s=1, grace_s=0.2)
    assert failures[0] is not None
    assert "printed nothing for 1 s" in failures[0].reason
    assert failures[1] is None


def test_an_exception_ends_all_children():
    pids: list[int] = []

    def interrupt(number: int, line: str) -> None:
        pids.append(int(line))
        if len(pids) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream_together([Command(python(STUBBORN_TREE))] * 2, interrupt, grace_s=0.2)
    assert wait_until(lambda: not any(map(is_alive, pids)))
