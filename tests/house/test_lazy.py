"""Packages whose public names are imported when they are first used: the names, and what is not loaded before."""

import ast
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
LAZY = sorted(
    ".".join(path.parent.relative_to(SOURCE).parts)
    for path in SOURCE.rglob("__init__.py")
    if "lazy_exports(__name__)" in path.read_text(encoding="utf-8")
)


def test_the_rooms_that_the_command_line_checks_with_are_lazy() -> None:
    assert {"wavespark.config", "wavespark.models", "wavespark.prepare", "wavespark.volumes"} <= set(LAZY)


@pytest.mark.parametrize("package", LAZY)
def test_every_public_name_of_a_lazy_package_is_there_and_hidden_by_no_submodule(package: str) -> None:
    module = import_module(package)
    submodules = {p.stem for p in Path(module.__file__ or "").parent.iterdir()}
    same = set(module.__all__) & submodules
    assert all(callable(getattr(module, name)) for name in same), f"{same}: hidden by submodules of the same name"
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018


@pytest.mark.parametrize("package", LAZY)
def test_editors_and_type_checkers_see_the_names_of_a_lazy_package(package: str) -> None:
    tree = ast.parse((SOURCE / package.replace(".", "/") / "__init__.py").read_text(encoding="utf-8"))
    blocks = [n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    seen = {
        a.asname or a.name for block in blocks for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names
    }
    own = {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    assert seen == set(import_module(package).__all__) - own


@pytest.mark.parametrize(
    "code",
    [
        "import wavespark.models, wavespark.masking, wavespark.sampling, wavespark.prepare, wavespark.volumes",
        "from wavespark.config import load_pretraining; load_pretraining('tiny-cpu', ['mask.ratio=0.7'])",
        "from wavespark.config.downstream import finetune_settings; finetune_settings(['run.steps=5'])",
        "from wavespark.prepare import open_store, load_recipe; load_recipe('native', ['spacing_mm=2'])",
    ],
)
def test_settings_and_stores_are_checked_without_torch_and_without_readers(code: str) -> None:
    heavy = ("torch", "scipy", "nibabel", "pydicom", "blosc2", "monai")
    shown = f"import sys; {code}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", shown], capture_output=True, text=True, timeout=60, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("order", ["ws.prepare; import wavespark.prepare", "import wavespark.prepare; ws.prepare"])
def test_prepare_is_both_a_package_and_its_function_in_whatever_order_they_are_used(order: str, tmp_path: Path) -> None:
    code = f"import wavespark as ws; {order}; ws.prepare.open_store; ws.prepare(sys.argv[1], sys.argv[2])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}", str(tmp_path / "nothing"), str(tmp_path / "store")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "InputError" in done.stderr


def test_importing_the_package_takes_no_time() -> None:
    heavy = ("numpy", "torch", "pydantic", "typer")
    shown = f"import sys, wavespark; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
