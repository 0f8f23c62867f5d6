import html
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from wavespark.errors import InputError, WavesparkError
from wavespark.pages import page as page_module
from wavespark.pages.markup import tag
from wavespark.report import read_run, render, write_report

HEADINGS = [
    "Reconstructions",
    "Curves",
    "What was refused",
    "Data",
    "Settings and environment",
    "How the numbers are defined",
    "What this does not show",
]
FILES = ["config.toml", "environment.json", "metrics.jsonl", "validation.jsonl", "data.json", "summary.json"]
HOSTILE = (
    "\"'></span></style></title><script>alert(1)</script><img src=http://x.example/a.png onerror=alert(2)>\x1b[2J\u202e"
)


class Reader(HTMLParser):
    """What a page is made of, as the standard library reads it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self.unbalanced: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)
        if tag in {"h1", "h2", "h3"}:
            self.headings.append("")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if {"h1", "h2", "h3"} & set(self.open):
            self.headings[-1] += data

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def test_the_first_screen_answers_whether_it_learned_with_the_numbers(run):
    path = write_report(run)
    assert path == run / "report.html"
    page = read(path)
    header = html.unescape(page.text.split("Reconstructions")[0])
    assert page.headings[0] == "Yes, it learned."
    for told in (
        "1.04 → 0.618",
        "0.840",
        "0.710",
        "26 % below",
        "1 refused",
        "0.43 s",
        "40 % of the cells",
        "1.23 million",
    ):
        assert told in header
    assert [h for h in page.headings if h in HEADINGS] == HEADINGS
    assert not page.unbalanced and not page.open


def test_the_page_asks_for_nothing_outside_itself_and_runs_nothing_but_its_viewer(run):
    page = read(write_report(run))
    assert page.of("script") == [{}]
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {name for name, _ in page.elements}
    addresses = [
        a[key] for _, a in page.elements for key in ("src", "href", "action", "srcset", "poster", "data") if key in a
    ]
    assert addresses and all(a.startswith(("data:image/png;base64,", "#")) for a in addresses)
    assert not [key for _, a in page.elements for key in a if key.startswith("on")]
    css = (Path(page_module.__file__).parent / "page.css").read_text()
    assert "url(" not in css and "@import" not in css and "</" not in css
    policies = [m["content"] for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'")


def test_every_picture_has_words_and_every_table_has_heads(run):
    page = read(write_report(run))
    pictures = page.of("img")
    assert len(pictures) == 3 + 2 * 3 * 7
    assert all(p["alt"] for p in pictures) and len({p["alt"] for p in pictures}) == len(pictures)
    assert all(t.get("scope") in {"row", "col"} for t in page.of("th"))
    charts = [d for d in page.of("div") if d.get("role") == "img"]
    assert len(charts) == 7 and all("at step" in c["aria-label"] for c in charts)
    assert [a["lang"] for a in page.of("html")] == ["en"]


def replaced(value, by):
    """The document with every leaf replaced, its keys and its numbers' places kept."""
    if isinstance(value, dict):
        return {key: replaced(v, by) for key, v in value.items()}
    if isinstance(value, list):
        return [replaced(v, by) for v in value]
    return by(value)


def hostile(value):
    if isinstance(value, dict):
        return {(HOSTILE + k if k in {"MR", "CT", "T1", "torch"} else k): hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(v) for v in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_words_in_any_file_stay_words(run, make_case, save_examples):
    clean = read(write_report(run))
    for name in ("environment.json", "data.json", "summary.json"):
        (run / name).write_text(json.dumps(hostile(json.loads((run / name).read_text()))))
    lines = [json.dumps(hostile(json.loads(line))) for line in (run / "validation.jsonl").read_text().splitlines()]
    (run / "validation.jsonl").write_text("\n".join(lines) + "\n")
    word = json.dumps(HOSTILE)
    settings = (run / "config.toml").read_text().replace('"waveformer_tiny"', word)
    (run / "config.toml").write_text(settings.replace("seed = 1", f"{word} = 1"))
    original = np.random.default_rng(0).normal(size=(1, 32, 32, 32)).astype(np.float32)
    told = dict.fromkeys(("volume", "modality", "contrast"), HOSTILE)
    for step in (0, 300):
        cases = [make_case(original, 0.5, seed=k, **told) for k in range(2)]
        save_examples(run / "examples" / f"step_{step:08d}.safetensors", cases)
    named = shutil.move(run, run.with_name("run<script>alert(3)<"))
    path = write_report(Path(named))
    page = read(path)

    def shape(p):
        return [
            (name, {k: v for k, v in a.items() if k not in {"src", "d", "style", "alt", "aria-label", "data-volume"}})
            for name, a in p.elements
        ]

    assert "alert(1)" in page.text and "alert(3)" in page.text
    raw = path.read_text(encoding="utf-8")
    assert raw.count("<script") == 1 and "\x1b" not in raw and "\u202e" not in raw
    # What is said of a known kind of held-out data falls away: one note and one limit; all else is the same.
    missing = [e for e in shape(clean) if e not in shape(page)]
    assert not missing
    assert len(shape(clean)) - len(shape(page)) == 2
    assert not page.unbalanced


def test_an_attribute_cannot_be_left():
    element = tag("img", alt=HOSTILE, title='" onload="x')
    assert list(Reader(element).elements[0][1]) == ["alt", "title"] and len(Reader(element).elements) == 1


def test_a_path_of_the_machine_is_not_passed_on(run):
    assert "/home/jane" in (run / "config.toml").read_text()
    assert "jane" not in write_report(run).read_text()


@pytest.mark.parametrize("absent", [*FILES, "examples"])
def test_a_run_without_one_of_its_files_still_gets_a_page_that_says_so(run, absent):
    shutil.rmtree(run / absent) if absent == "examples" else (run / absent).unlink()
    page = read(write_report(run))
    assert absent in page.text.split("Curves")[0]
    assert [h for h in page.headings if h in HEADINGS] == HEADINGS


@pytest.mark.parametrize("present", [*FILES, "examples"])
def test_a_run_with_only_one_of_its_files_gets_a_page(run, present):
    for name in FILES:
        if name != present:
            (run / name).unlink()
    if present != "examples":
        shutil.rmtree(run / "examples")
    page = read(write_report(run))
    assert [h for h in page.headings if h in HEADINGS] == HEADINGS
    assert "Not in this report" in page.headings


@pytest.mark.parametrize("damage", ["half", "noise", "empty", "deep", "list"])
def test_damaged_files_are_named_and_left_out(run, damage):
    for path in [*(run / name for name in FILES), *(run / "examples").iterdir()]:
        whole = path.read_bytes()
        content = {
            "half": whole[: len(whole) // 2 - 3],
            "noise": np.random.default_rng(1).bytes(len(whole)),
            "empty": b"",
            "deep": b"[" * 100_000,
            "list": b"[1, 2, 3]\n",
        }[damage]
        path.write_bytes(content)
    page = read(write_report(run))
    for name in ("environment.json", "data.json", "summary.json", "step_00000300.safetensors"):
        assert name in page.text
    assert [h for h in page.headings if h in HEADINGS] == HEADINGS


@pytest.mark.parametrize(
    "value", ["text", None, True, [], {}, -1, 0, 1e308, 10**400, float("nan"), float("inf"), ["a", {"b": None}]]
)
def test_values_of_any_kind_and_size_still_make_a_page(run, value):
    for name in ("environment.json", "data.json", "summary.json"):
        (run / name).write_text(json.dumps(replaced(json.loads((run / name).read_text()), lambda _: value)))
    for name in ("metrics.jsonl", "validation.jsonl"):
        rows = [json.loads(line) for line in (run / name).read_text().splitlines()]
        rows = [{"step": row.pop("step")} | replaced(row, lambda _: value) for row in rows]
        (run / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = read(write_report(run))
    assert [h for h in page.headings if h in HEADINGS] == HEADINGS
    assert "nan" not in re.sub("[a-z]*finance", "", page.text.lower()).split()


def test_a_row_that_a_kill_cut_off_is_ignored_and_no_other_is(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 301, "normalised_lo')
    record = read_run(run)
    assert len(record.metrics) == 300 and not record.missing
    (run / "metrics.jsonl").write_text("not json\n" + (run / "metrics.jsonl").read_text())
    assert "1 line(s)" in " ".join(read_run(run).missing)


def test_a_step_written_twice_counts_once_with_its_newest_values(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 302}\n{"step": 7, "normalised_loss": 9.5}\n{"step": 301}\n')
    record = read_run(run)
    assert list(record.metrics.steps) == list(range(1, 303))
    assert record.metrics["normalised_loss"][6] == 9.5


def test_a_damaged_newest_example_is_named_and_the_one_before_is_shown(run):
    newest = run / "examples" / "step_00000300.safetensors"
    newest.write_bytes(newest.read_bytes()[:5000])
    record = read_run(run)
    assert record.examples.step == 0
    assert "step_00000300.safetensors" in " ".join(record.missing)


def test_before_and_after_are_shown_only_for_the_same_crop_behind_the_same_mask(run, make_case, save_examples):
    assert "Before training" in read(write_report(run)).text
    original = np.random.default_rng(0).normal(size=(1, 32, 32, 32)).astype(np.float32)
    examples = run / "examples"
    save_examples(examples / "step_00000300.safetensors", [make_case(original, 0.9, seed=k) for k in range(2)])
    save_examples(examples / "step_00000000.safetensors", [make_case(original, 0.0, seed=k) for k in (5, 6)])
    page = read(write_report(run))
    assert "Before training" not in page.text
    assert len(page.of("img")) == 3 + 2 * 3 * 6
    save_examples(examples / "step_00000000.safetensors", [make_case(original, 0.0, seed=0, volume="another")])
    assert "Before training" not in read(write_report(run)).text
    save_examples(examples / "step_00000000.safetensors", [make_case(original, 0.0, seed=0)])
    assert len(read(write_report(run)).of("img")) == 3 + 3 * 6 + 3 * 7


def test_something_else_than_a_run_is_refused_with_its_reason(tmp_path):
    with pytest.raises(InputError) as absent:
        write_report(tmp_path / "nowhere")
    assert absent.value.reason == "not_found"
    with pytest.raises(InputError) as empty:
        write_report(tmp_path)
    assert empty.value.reason == "not_a_run"
    assert list(tmp_path.iterdir()) == []


def test_the_page_is_published_whole_or_not_at_all(run, monkeypatch):
    path = write_report(run)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "disk is full on device")

    monkeypatch.setattr(os, "fsync", full)
    (run / "summary.json").unlink()
    with pytest.raises(WavesparkError, match="disk is full"):
        write_report(run)
    assert path.read_bytes() == before
    assert [p.name for p in run.iterdir() if "report" in p.name] == ["report.html"]


def test_the_page_has_the_permissions_that_the_umask_asks_for(run):
    old = os.umask(0o027)
    try:
        path = write_report(run)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_same_files_give_the_same_page(run):
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_the_page_stays_below_4_MB_and_says_how_many_cases_it_shows(run, make_case, save_examples):
    noise = np.random.default_rng(0).normal(size=(1, 256, 256, 3)).astype(np.float32)
    for step in (0, 300):
        cases = [make_case(noise, 0.0, seed=k) for k in range(7)]
        save_examples(run / "examples" / f"step_{step:08d}.safetensors", cases)
    path = write_report(run)
    assert path.stat().st_size < 4e6
    assert 1 <= int(re.search(r"(\d) of 7 cases shown", read(path).text)[1]) < 6


def test_twenty_thousand_steps_make_a_page_of_the_usual_size(run, save_lines):
    usual = write_report(run).stat().st_size
    with (run / "metrics.jsonl").open("w") as file:
        for s in range(1, 20_001):
            file.write(f'{{"step": {s}, "normalised_loss": {1 + (s % 7) / 10}, "seconds": {0.1 + (s % 5) / 50}}}\n')
    assert write_report(run).stat().st_size < usual + 100_000


def test_ten_thousand_refusals_are_counted_by_reason_and_not_all_listed(run):
    data = json.loads((run / "data.json").read_text())
    data["refused"] = [
        {"source_id": f"s{k}", "reason": ("truncated", "corrupt")[k % 5 == 0], "sentence": "x"} for k in range(10_000)
    ]
    (run / "data.json").write_text(json.dumps(data))
    page = read(write_report(run))
    assert "8,000" in page.text and "2,000" in page.text and "10,000 refused" in page.text
    assert "s299truncated" in page.text and "s300corrupt" not in page.text


def test_the_page_needs_neither_torch_nor_matplotlib(run):
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from pathlib import Path; from wavespark.report import write_report\n"
        f"write_report(Path({str(run)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert (run / "report.html").exists()


def test_rendering_does_not_need_the_folder_any_more(run):
    record = read_run(run)
    shutil.rmtree(run)
    assert "Yes, it learned." in render(record)
