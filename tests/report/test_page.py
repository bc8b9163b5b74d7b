"""The page as a file and in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from apps.report import conversation, page
from apps.report.rounds import played

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


def test_the_page_needs_nothing_outside_of_itself(made):
    text = (made[0] / "report.html").read_text()
    assert "://" not in text and "<script" not in text and "@import" not in text
    assert not re.search(r"(src|href)=\"(?!#)", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 20
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', text)) <= set(ids)


def test_what_the_user_wrote_is_text_and_no_markup(made):
    text = (made[0] / "report.html").read_text()
    assert "scripted &lt;team&gt;" in text and "<team>" not in text


def test_the_sections_stand_in_order(made):
    text = (made[0] / "report.html").read_text()
    assert re.findall(r'<section id="(\w+)"', text) == [
        "run", "accuracy", "roles", "learning", "credit", "traces", "health", "time", "reproduce"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["convergence", "error correction", "collaboration efficiency", "unparsed", "pass@2"])
def test_every_share_of_the_team_is_shown_with_its_interval(made, name):
    metrics = made[2]["metrics"]["sampled"]["after"]
    shown = metrics["pass_at"]["2"] if name == "pass@2" else metrics[name.replace(" ", "_")]
    row = re.search(rf"<tr><td>{name}</td>.*</tr>", (made[0] / "report.html").read_text())[0]
    assert row.endswith(f"<td>{page.percent(shown['value'])} <small>{page.interval(shown)}</small></td></tr>")


def test_every_figure_is_drawn_the_same_way_again(made):
    _, inputs, summary = made
    first, again = page.drawings(summary, inputs), page.drawings(summary, inputs)
    assert set(first) == {"accuracy", "roles", "validation", "reward", "loss", "credit", "credit_rounds", "seconds"}
    assert first == again
    assert not re.search(r"#(?:[01][0-9a-f]){3}\b", "".join(first.values())), "a colour that is not the page's"


def test_the_plays_shown_are_of_different_tasks_and_of_several_kinds(made):
    shown = page.side_by_side(made[1])
    assert len(shown) == 5 and len({trace["task"] for trace in shown}) == 5
    before = played(*([folder] for folder in made[1]["show_before"]))
    right = {g.trace.task: g.verdict.right for g in before.graded}
    for trace in shown:
        assert (
            trace["kind"] in page.KINDS
            and trace["plays"][0]["right"] == page.KINDS[trace["kind"]][0] == right[trace["task"]]
        )
    assert len({trace["kind"] for trace in shown}) >= 2


@pytest.mark.parametrize(("p", "said"), [(1e-6, "< .0001"), (0.0312, ".0312"), (1.0, "1.0000"), (None, "–")])
def test_p_values(p, said):
    assert page.p_value(p) == said


def test_numbers_for_people():
    assert page.percent(0.4567) == "45.7 %" and page.points(-0.0821) == "−8.2" and page.points(-1e-9) == "+0.0"
    assert page.interval({"low": -0.0123, "high": 0.2}) == "−1.2 to 20.0" and page.interval({"low": None}) == ""
    assert page.interval({"low": -1e-9, "high": 1.0}) == "0.0 to 100.0"
    assert (
        page.duration(3.21) == "3.2 s"
        and page.duration(65) == "1 min 05 s"
        and page.duration(3 * 3600 + 61) == "3 h 01 min"
    )
    assert conversation.signed(-0.314, 0.12) == "−0.31 ± 0.12" and conversation.signed(-1e-9) == "0.00"


@pytest.mark.skipif(
    BROWSER is None, reason="no chromium here: install it (apt-get install chromium) to open the report"
)
class TestInABrowser:
    def dump(self, made, tmp_path, *more: str) -> str:
        address = (made[0] / "report.html").resolve().as_uri()
        command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *more, address]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout

    def test_it_opens_and_says_what_the_summary_says(self, made, tmp_path):
        dom, accuracy = self.dump(made, tmp_path, "--dump-dom"), made[2]["accuracy"]["sampled"]
        for share in (accuracy["before"]["value"], accuracy["after"]["value"]):
            assert page.percent(share) in dom
        assert dom.count("<svg") == 8 and dom.count('class="trace"') == 5
        assert re.search(r'class="credit (plus|minus)">[+−]\d\.\d\d', dom)
        assert "refused" in dom and "python workflows/run.py" in dom

    def test_it_is_painted(self, made, tmp_path):
        from PIL import Image

        picture = tmp_path / "page.png"
        self.dump(made, tmp_path, f"--screenshot={picture}", "--window-size=1200,2000")
        colours = Image.open(picture).convert("RGB").getcolors(1 << 24)
        blue = sum(n for n, (r, g, b) in colours if (r, g, b) == (0, 114, 178))
        assert blue > 500, "no mark of the trained team was painted"
