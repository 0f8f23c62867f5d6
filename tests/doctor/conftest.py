"""Broken environments, made of files: fake distributions and modules on the path of this process and of its children."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Installs a distribution whose module does what `code` says, before all real ones."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))

    def install(
        name: str = "",
        version: str = "",
        *,
        module: str = "",
        code: str = "",
        needs: str = "",
        built: str = "",
        so: bool = False,
    ) -> Path:
        if code:
            (site / (module or name)).mkdir()
            (site / (module or name) / "__init__.py").write_text(code)
        if so:  # a record of a file that is not there counts for nothing where another package has replaced the finder of distributions
            (site / (module or name)).mkdir(exist_ok=True)
            (site / (module or name) / "_C.so").touch()
        if version:
            info = site / f"{name.replace('-', '_')}-{version}.dist-info"
            info.mkdir()
            requirement = f"Requires-Dist: {needs}\n" if needs else ""
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requirement}")
            (info / "RECORD").write_text(f"{module or name}/_C.so,,\n" if so else "")
            if built:
                (info / "built-with-torch.txt").write_text(built + "\n")
        return site

    return install
