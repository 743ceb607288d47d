"""The page of `tfmlm report`, in a real browser."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.finished import Finished
from tfmlm.cli.main import main
from tfmlm.config.load import dump_config, load_config
from tfmlm.report_page.runs import read_runs
from tfmlm.run_folder import RunFolder

TEXT = "Return the <b>[MASK]</b> & the [MASK]."
"""As a page must not take it over."""

STRANGE = "<i>strange</i>"


@dataclass
class Runs:
    first: Path
    second: Path
    cut: Path
    begun: Path

    @property
    def all(self) -> list[str]:
        return [str(path) for path in (self.first, self.second, self.cut, self.begun)]


def change(folder: Path, name: str, learning_rate: float) -> None:
    config = load_config(folder / "config.yaml")
    changed = replace(
        config,
        run=replace(config.run, name=name),
        optimizer=replace(config.optimizer, learning_rate=learning_rate),
    )
    (folder / "config.yaml").write_text(dump_config(changed))


def put_text(folder: Path) -> None:
    """In place of a sample of the run: what is in `TEXT` no tokenizer need know."""
    (old,) = (text for text in load_config(folder / "config.yaml").run.sample_texts if text.count("[") == 2)
    for name in ("config.yaml", "result.json", "logs/samples_before.json"):
        file = folder / name
        file.write_text(file.read_text().replace(json.dumps(old)[1:-1], TEXT))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, word_run: Finished) -> Runs:
    """A real run, a copy with other settings, one as a killed process leaves it, and one without a step."""
    folder = tmp_path_factory.mktemp("runs")
    made = Runs(folder / "first", folder / "second", folder / "cut", folder / "begun")
    shutil.copytree(word_run.run_dir, made.first)
    put_text(made.first)
    change(made.first, "first", 5e-5)
    shutil.copytree(made.first, made.second)
    change(made.second, STRANGE, 0.25)
    shutil.copytree(made.first, made.cut)
    change(made.cut, "cut", 5e-5)
    (made.cut / "result.json").unlink()
    metrics = made.cut / "logs" / "metrics.csv"
    metrics.write_text("\n".join(metrics.read_text().splitlines()[:6])[:-20])
    made.begun.mkdir()
    shutil.copy(made.first / "config.yaml", made.begun)
    change(made.begun, "begun", 5e-5)
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not on PATH")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


def open_page(browser: Browser, path: Path, width: int, scheme: str = "light") -> Page:
    """Opens the file; it may log nothing and ask for nothing else."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.on("console", lambda message: pytest.fail(message.text))
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    return page


def test_runs_stand_side_by_side(
    runs: Runs, browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "page.html"
    assert main(["report", *runs.all, "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    page = open_page(browser, output, 1200)
    assert page.title() == f"first, {STRANGE}, cut, begun · tfmlm report"
    heads = page.locator("table").first.locator("thead th").all_inner_texts()
    assert heads == ["result", "first", STRANGE, "cut", "begun"]
    states = page.locator("tr", has_text="state").first.locator("td").all_inner_texts()
    assert states == ["finished", "finished", "unfinished, step 3", "unfinished, step 0"]

    charts = page.locator(".chart svg")
    assert charts.count() == 2
    for chart in charts.all():
        for number in range(3):
            assert chart.locator(f'path[style*="var(--run-{number})"]').count() >= 2
        assert chart.locator('path[style*="var(--run-3)"]').count() == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids))

    marked = page.locator("tr.differs")
    assert marked.locator("th").all_inner_texts() == ["≠ optimizer.learning_rate"]
    assert marked.locator("td").all_inner_texts() == ["5e-05", "0.25", "5e-05", "5e-05"]

    sample = page.locator(".sample", has=page.get_by_role("heading", name=TEXT, exact=True))
    result = json.loads((runs.first / "result.json").read_text())
    for column, kind in enumerate(("samples_before", "samples_after")):
        shown = sample.locator(".filled").first.locator("> div").nth(column)
        words = [candidate["token_str"] for mask in result[kind][TEXT] for candidate in mask]
        assert len(words) == 10
        assert shown.locator("li > span:nth-child(2)").all_inner_texts() == words
    assert sample.locator(".filled", has_text="cut").inner_text().count("not finished") == 1

    assert page.locator("a").first.get_attribute("href") is not None
    target = page.evaluate("document.querySelector('a').href")
    assert Path(target.removeprefix("file://")).resolve() == (runs.first / "model").resolve()
    assert page.locator("b, i, script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(
    runs: Runs, browser: Browser, tmp_path: Path, scheme: str
) -> None:
    main(["report", *runs.all, "--output", str(tmp_path / "page.html")])
    page = open_page(browser, tmp_path / "page.html", 320, scheme)
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[scheme]
    text = page.locator(".chart text").first.evaluate("element => getComputedStyle(element).fill")
    assert text == page.evaluate("getComputedStyle(document.body).color")


def test_one_run_shows_what_is_not_the_default(runs: Runs, browser: Browser, tmp_path: Path) -> None:
    main(["report", str(runs.first), "--output", str(tmp_path / "page.html")])
    page = open_page(browser, tmp_path / "page.html", 1200)
    assert page.locator("h1").inner_text() == "Run"
    marked = page.locator("tr.differs th").all_inner_texts()
    assert "≠ train.max_steps" in marked
    assert "≠ optimizer.learning_rate" not in marked


def test_points_are_those_of_the_run(runs: Runs) -> None:
    first, cut = read_runs([runs.first, runs.cut, runs.first])
    assert first.result
    assert len(first.training) == 8
    assert first.training[-1].tokens == pytest.approx(first.result.tokens)
    assert first.training[-1].seconds == pytest.approx(first.result.train_seconds)
    assert first.held_out[0].perplexity == pytest.approx(first.result.initial_perplexity)
    assert first.held_out[-1].perplexity == pytest.approx(first.result.perplexity)
    # The row that was cut short is left out.
    assert cut.training == first.training[: len(cut.training)]
    assert cut.samples_before == first.samples_before


def test_it_is_quick_to_start(runs: Runs, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom tfmlm.cli.main import main\n"
        f"assert main(['report', {str(runs.first)!r}, '--output', {str(tmp_path / 'page.html')!r}]) == 0\n"
        "print(sorted({'tensorflow', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_wrong_paths_are_refused(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (
        ([str(runs.first), "nowhere"], "'nowhere' is no run folder: it has no config.yaml"),
        ([str(runs.first), "--output", str(tmp_path)], "is a folder; give a file"),
        (
            [str(runs.first), "--output", str(tmp_path / "no" / "page.html")],
            "cannot be written: No such file",
        ),
    ):
        assert main(["report", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert expected in line
    assert list(tmp_path.iterdir()) == []


def test_a_result_of_an_older_version_loads(runs: Runs, tmp_path: Path) -> None:
    old = json.loads((runs.first / "result.json").read_text())
    del old["samples_before"], old["samples_after"]
    (tmp_path / "result.json").write_text(json.dumps(old))
    result = RunFolder(tmp_path).read_result()
    assert result
    assert result.samples_before == result.samples_after == {}
