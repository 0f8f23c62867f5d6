"""The house stays as it is drawn: floors, style, types, what is public, what is documented, what is never done."""

import ast
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False, env={**os.environ, **environment}
    )


def test_rooms_import_only_from_lower_floors() -> None:
    done = _run(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")
    assert done.returncode == 0, done.stdout


def test_the_code_keeps_the_style() -> None:
    done = _run(sys.executable, "-m", "ruff", "check", "--no-cache", ".")
    assert done.returncode == 0, done.stdout


def test_the_types_fit() -> None:
    done = _run(sys.executable, "-m", "mypy")
    assert done.returncode == 0, done.stdout


def test_what_is_public_is_what_the_contract_names() -> None:
    import wavespark

    assert set(wavespark.__all__) == {
        "VisibleCells",
        "WavesparkError",
        "__version__",
        "create_model",
        "list_models",
        "load_config",
        "load_encoder",
        "open_store",
        "prepare",
        "pretrain",
        "read_volumes",
    }
    for name in wavespark.__all__:
        assert getattr(wavespark, name) is not None
    with pytest.raises(AttributeError):
        wavespark.no_such_name  # noqa: B018


def test_the_verbs_are_those_that_are_built() -> None:
    from wavespark.cli.main import VERBS

    files = {p.stem.removesuffix("_") for p in (ROOT / "src/wavespark/cli").glob("*.py")} - {
        "__init_",
        "main",
        "console",
        "signals",
        "figures",
        "budget",
        "checks",
        "help",
        "inspect_run",
    }
    assert set(VERBS) == files


def test_help_is_fast_and_imports_neither_torch_nor_numpy(tmp_path: Path) -> None:
    code = "import sys; from wavespark.cli.main import app; print([m for m in ('torch', 'numpy', 'scipy', 'nibabel') if m in sys.modules])"
    assert _run(sys.executable, "-c", code).stdout.strip() == "[]"

    # From the second time on, Python finds the modules compiled.
    compiled = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}

    def seconds(*words: str) -> float:
        """Of a processor: other work beside it does not count."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert _run(sys.executable, *words, **compiled).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds("-m", "wavespark", "--help") - seconds("-c", "pass") for _ in range(5)) < 0.3


def test_the_readme_commands_are_those_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [line for line in readme.splitlines() if "pip install -c constraints.txt" in line]
    assert len(commands) == 2
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "readme_command 1" in script
    assert "readme_command 2" in script


def _calls(tree: ast.AST) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


_WRITES_FOR_PEERS = Path("src/wavespark/checkpoints/pickled.py")
_READS_FOREIGN_WEIGHTS = Path("src/wavespark/checkpoints/foreign.py")
"""In a process of its own with little memory, and tensors only."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_source_never_runs_what_it_reads(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & {"pickle", "dill", "cloudpickle", "shelve", "marshal", "__future__", "torchvision", "timm"}
    calls = _calls(tree)
    if path.relative_to(ROOT) == _READS_FOREIGN_WEIGHTS:
        calls.discard("torch.load")
        (load,) = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "torch.load"]
        assert "weights_only=True" in [ast.unparse(k) for k in load.keywords]
    if path.relative_to(ROOT) == _WRITES_FOR_PEERS:
        calls.discard("torch.save")
    assert not calls & {
        "eval",
        "exec",
        "os.system",
        "torch.load",
        "torch.save",
        "np.load",
        "numpy.load",
        "pickle.loads",
    }
    assert not any(call.endswith(".extractall") for call in calls)
    shells = [k for node in ast.walk(tree) if isinstance(node, ast.Call) for k in node.keywords if k.arg == "shell"]
    assert not shells


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_source_raises_instead_of_asserting(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def test_no_file_names_the_machine_that_made_it() -> None:
    pattern = re.compile(rb"(^|[^a-z.])/(" + b"|".join([b"wo" + b"rk", b"ro" + b"ot"]) + rb")/")
    tracked = _run("git", "ls-files", "-z").stdout.split("\0")
    if tracked == [""]:
        pytest.skip("not a git checkout")
    guilty = [
        name for name in tracked if name and (ROOT / name).is_file() and pattern.search((ROOT / name).read_bytes())
    ]
    assert not guilty
