"""Promises S1 and S2 by the commands: hostile checkpoints, exports and settings are refused in one line, run nothing, take little memory."""

import json
import pickle
import shutil
import struct

import pytest
import torch

import wavespark as ws
from engine.small import WORDS, make_store, small_settings
from peak import no_more_memory_than
from wavespark.checkpoints.format import manifest
from wavespark.cli.main import run as command_line
from wavespark.engine import export_checkpoint, pretrain
from wavespark.errors import WavesparkError

TINY = ("data.crop=[16, 16, 16]", "run.steps=2", "run.held_out_crops=1", "run.checkpoint_every=1")
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
EXPORT = ("model.safetensors", "config.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store, a run of two steps, and its encoder as one file."""
    root = tmp_path_factory.mktemp("hostile")
    store = make_store(root, ("MR", "CT"))
    pretrain(small_settings(*TINY), store, root / "run")
    export_checkpoint(root / "run", root / "encoder.safetensors", "safetensors")
    return root


@pytest.fixture
def call(capfd):
    """A command in this process: its exit code and what it said as an error."""

    def of(*words):
        code = 0
        try:
            command_line([str(w) for w in words])
        except SystemExit as end:
            code = end.code or 0
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return of


class Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return open, (self.target, "w")


def header(document, data=b""):
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return struct.pack("<Q", len(text)) + text + data


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
TENSORS = {
    "a pickle": lambda here: pickle.dumps(Runs(here / "was-run")),
    "overlapping offsets": lambda here: header({"a": ENTRY, "b": ENTRY}, b"1234"),
    "a header of 2^62 bytes": lambda here: struct.pack("<Q", 2**62) + b"{}",
    "a tensor of 4 TB": lambda here: header(
        {"a": ENTRY | {"shape": [10**12], "data_offsets": [0, 4 * 10**12]}}, b"1234"
    ),
    "a deep header": lambda here: header(b'{"a":' * 100_000),
    "names with ..": lambda here: header({"../../was-run": ENTRY}, b"1234"),
    "nothing": lambda here: b"",
}
DOCUMENTS = {
    "a pickle": lambda here: pickle.dumps(Runs(here / "was-run")),
    "deep JSON": lambda here: b"[" * 200_000,
    "a list": lambda here: b"[1, 2]",
    "no numbers": lambda here: b'{"step": NaN, "model": {"settings": {"widths": [1e999]}}}',
    "numbers of a million digits": lambda here: b'{"step": ' + b"9" * 10**6 + b"}",
}


def variants(files):
    """Each content in each file, behind a manifest that vouches for it: whoever makes the file makes the manifest."""
    for name in files:
        for what, content in (TENSORS if name.endswith("safetensors") else DOCUMENTS).items():
            yield name, what, content


def spoil(folder, files, name, content):
    contents = {n: (folder / n).read_bytes() for n in files} | {name: content}
    (folder / name).write_bytes(content)
    (folder / "manifest.json").write_bytes(manifest(contents))


def refused(code, out, err, where, codes=(1, 2), named=""):
    last = (err.strip().splitlines() or ["nothing was said"])[-1]
    assert code in codes and last.startswith("error: ") and str(named) in last, (where, code, out, err)
    assert "a bug of wavespark" not in last, (where, err)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["pretrain", "export", "report", "inspect"])
def test_hostile_checkpoints_are_refused_by_every_command_that_takes_a_run(made, call, tmp_path, command):
    with no_more_memory_than(2 << 30):
        for name, what, content in variants(FILES):
            run = tmp_path / "run"
            shutil.copytree(made / "run", run)
            for folder in (run / "checkpoints").iterdir():
                spoil(folder, FILES, name, content(tmp_path))
            code, out, err = call(
                *{
                    "pretrain": ("pretrain", "tiny-cpu", "--store", made / "store", "--output", run, *WORDS, *TINY),
                    "export": ("export", run, "--output", tmp_path / "out"),
                    "report": ("report", run),
                    "inspect": ("inspect", run),
                }[command]
            )
            if command != "pretrain" and code == 0:
                # What a command does not need of a checkpoint, as the optimiser's tensors for an export, changes nothing.
                assert "was-run" not in out and (command != "export" or (name, what) == (FILES[1], "names with .."))
            else:
                refused(code, out, err, (name, what))
            assert not (tmp_path / "was-run").exists(), (name, what)
            shutil.rmtree(run)


def of_encoder(made, encoder, out):
    """The commands that take an encoder."""
    labels = made / "labels.csv"
    labels.write_text("id,sick\n" + "\n".join(f"{v.id},{i % 2}" for i, v in enumerate(ws.open_store(made / "store"))))
    yield "inspect", ("inspect", encoder)
    yield "probe", ("probe", encoder, "--labels", labels, "--store", made / "store")
    yield "finetune", ("finetune", "classify", encoder, "--labels", labels, "--store", made / "store", "--output", out)
    yield (
        "init",
        ("pretrain", "tiny-cpu", "--store", made / "store", "--output", out, *WORDS, *TINY, f"model.init={encoder}"),
    )


@pytest.mark.slow
def test_hostile_exports_are_refused_by_every_command_that_takes_an_encoder(made, call, tmp_path):
    with no_more_memory_than(2 << 30):
        for name, what, content in variants(EXPORT):
            encoder = tmp_path / "encoder"
            shutil.copytree(made / "run/exports/encoder", encoder)
            spoil(encoder, EXPORT, name, content(tmp_path))
            with pytest.raises(WavesparkError):
                ws.load_encoder(encoder)
            for command, words in of_encoder(made, encoder, tmp_path / "out"):
                code, out, err = call(*words)
                # inspect describes and loads no weights; init takes weights by their names and no description.
                if code or not (command == "inspect" or (command == "init" and name == "config.json")):
                    refused(code, out, err, (command, name, what), named=encoder)
            assert not (tmp_path / "was-run").exists(), (name, what)
            shutil.rmtree(encoder)


def test_a_single_file_is_an_encoder_too_and_a_hostile_one_is_refused(made, tmp_path):
    one, whole = ws.load_encoder(made / "encoder.safetensors"), ws.load_encoder(made / "run")
    weights = whole.state_dict()
    assert one.state_dict().keys() == weights.keys()
    assert all(torch.equal(t, weights[k]) for k, t in one.state_dict().items())
    assert one.preparation == whole.preparation
    file = tmp_path / "e.safetensors"
    described = json.dumps({"wavespark": "[" * 100_000})
    others = {"another program's": lambda here: header({"a": ENTRY}, b"1234")}
    others["deep JSON inside"] = lambda here: header({"__metadata__": json.loads(described), "a": ENTRY}, b"1234")
    for what, content in (TENSORS | others).items():
        file.write_bytes(content(tmp_path))
        with pytest.raises(WavesparkError, match=r"e\.safetensors"):
            ws.load_encoder(file)
        assert not (tmp_path / "was-run").exists(), what


SETTINGS = {
    "deep TOML": "x = " + "[" * 100_000,
    "bytes": "\x00\x01",
    "a number of a million digits": "[run]\nsteps = " + "9" * 10**6,
    "a crop larger than any memory": "[data]\ncrop = [1000000000, 1000000000, 1000000000]\n",
    "a batch larger than any memory": f"[data]\nbatch = {10**15}\n",
    "a model of 10^9 channels": "[model]\nname = 'waveformer_tiny'\n[model.settings]\nchannels = [1000000000]\n",
    "a decoder of 10^9 channels": "[decoder]\nwidths = [1000000000, 1000000000]\n",
    "a model of another file": "[model]\nname = '../../etc/passwd'\n",
    "unknown keys": "[run]\n__class__ = 1\n",
    "a key of control characters": '"\\u001b[2J" = 1\n',
}


def test_hostile_settings_are_refused_in_one_line_before_anything_is_written(made, call, tmp_path):
    with no_more_memory_than(3 << 29):
        for what, text in SETTINGS.items():
            file = tmp_path / "recipe.toml"
            file.write_text(text)
            code, out, err = call(
                "pretrain", file, "--store", made / "store", "--output", tmp_path / "run", "run.threads=1"
            )
            refused(code, out, err, what, (1, 2, 5))
            assert "\x1b" not in err and not (tmp_path / "run/checkpoints").exists(), what
