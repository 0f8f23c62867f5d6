"""Nothing that another library writes reaches the terminal: warnings, log records, native output, child processes."""

import logging
import subprocess
import sys
import threading
import warnings

import pytest

from wavespark.quiet import quiet

LOUD = """
import logging, os, subprocess, sys, threading, warnings
from contextlib import nullcontext
from wavespark.quiet import quiet_process

class Ends:
    def __del__(self):
        raise ValueError("Doe^Jane in a destructor")

def shout():
    warnings.warn("Doe^Jane in a warning")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("Doe^Jane behind reset filters")
    library = logging.getLogger("library")
    library.addHandler(logging.StreamHandler())
    library.error("Doe^Jane in a log with its own handler")
    logging.getLogger("pydicom").warning("Doe^Jane in a log of last resort")
    for descriptor in (1, 2):
        os.write(descriptor, b"Doe^Jane from native code")
    subprocess.run([sys.executable, "-c", "import sys; sys.stderr.write('Doe^Jane from a child')"])
    thread = threading.Thread(target=lambda: int("Doe^Jane in a thread"))
    thread.start(); thread.join()
    Ends()

with (quiet_process() if sys.argv[1] == "quiet" else nullcontext()):
    print("own words"); print("own notes", file=sys.stderr)
    shout()
    print("more words"); print("more notes", file=sys.stderr)
print("after"); os.write(2, b"native after")
"""


def test_only_what_the_command_itself_writes_is_shown() -> None:
    done = subprocess.run([sys.executable, "-c", LOUD, "quiet"], capture_output=True, text=True, check=True)
    assert done.stdout == "own words\nmore words\nafter\n"
    assert done.stderr == "own notes\nmore notes\nnative after"


def test_the_same_words_are_shown_without_it() -> None:
    done = subprocess.run([sys.executable, "-c", LOUD, "loud"], capture_output=True, text=True, check=True)
    assert done.stderr.count("Doe^Jane") >= 8 and "from native code" in done.stdout


def test_blocks_in_several_threads_leave_logging_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.root.manager.disable
    inside, go = threading.Event(), threading.Event()

    def other() -> None:
        with quiet():
            inside.set()
            go.wait(10)

    thread = threading.Thread(target=other)
    with quiet():
        thread.start()
        inside.wait(10)
    assert logging.root.manager.disable == logging.CRITICAL, "the other thread is still inside"
    go.set()
    thread.join()
    assert logging.root.manager.disable == before
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", UserWarning, stacklevel=1)


VERB = """
import logging, os, sys, warnings
from wavespark.cli import main

def verb(args, **settings):
    warnings.warn("Doe^Jane in a warning")
    logging.getLogger("highdicom").error("Doe^Jane in a log")
    os.write(2, b"Doe^Jane from native code")
    print("own words")

main.app = verb
main.run(sys.argv[1:])
"""


@pytest.mark.parametrize("words", [["predict"], ["prepare"], ["export"], ["predict", "--debug"]])
def test_every_verb_of_the_command_line_runs_in_silence_unless_it_is_debugged(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", VERB, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "own words\n")
    assert done.stderr.count("Doe^Jane") == (3 if "--debug" in words else 0)
