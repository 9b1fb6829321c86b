"""The page in a real browser: one start of Chromium shows a run and a sweep, wide and narrow."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from typing import Any

import pytest
from client.loadtest.example_result import example_run, example_sweep

from santacoder_client.loadtest.page.document import page_of
from santacoder_client.loadtest.schema import to_json

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--blink-settings=preferredColorScheme=0",  # dark
    "--window-size=1400,1000",
    "--virtual-time-budget=10000",
)
WAIT_SECONDS = 120
DONE = "measured all frames"
WIDTHS = {"desktop": 1280, "phone": 375}

MEASURE = """
const overlap = (a, b) =>
  a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
const crowded = (words) => {
  const boxes = [...words].filter((word) => word.getClientRects().length)
    .map((word) => word.getBoundingClientRect());
  return boxes.some((box, place) => boxes.slice(place + 1).some((other) => overlap(box, other)));
};
const drawn = (area) => {
  const shape = area.querySelector("svg .line, svg .bar").getBoundingClientRect();
  return area.querySelector("svg").getBoundingClientRect().height >= 100 && shape.width > 0;
};
const read = (area, view) => {
  area.focus();
  area.dispatchEvent(new view.KeyboardEvent("keydown", {key: "End"}));
  area.dispatchEvent(new view.KeyboardEvent("keydown", {key: "ArrowLeft"}));
  const tip = area.querySelector(".tip");
  return !tip.hidden && tip.querySelector("em").textContent !== "";
};
const measure = (frame) => {
  const view = frame.contentWindow, page = view.document;
  const areas = [...page.querySelectorAll(".area")];
  const names = (all) => all.map((area) => area.closest("figure").id);
  return {
    name: frame.id,
    width: view.innerWidth,
    pageWidth: page.documentElement.scrollWidth,
    scriptSaw: Number(page.documentElement.dataset.charts),
    charts: page.querySelectorAll("figure").length,
    undrawn: names(areas.filter((area) => !drawn(area))),
    unread: names(areas.filter((area) => !read(area, view))),
    crowded: names(areas.filter((area) => [".x-labels span", ".y-labels span", ".label b"]
      .some((words) => crowded(area.closest("figure").querySelectorAll(words))))),
    background: view.getComputedStyle(page.body).backgroundColor,
  };
};
addEventListener("load", () => {
  const frames = [...document.querySelectorAll("iframe")];
  document.querySelector("pre").textContent = JSON.stringify(frames.map(measure));
  console.log("measured all frames");
});
"""

Shown = tuple[list[dict[str, Any]], list[str]]
"""What every frame measured, and the lines of the browser's console."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on PATH")
    folder = tmp_path_factory.mktemp("browser")
    pages = {
        "run": page_of(to_json(example_run())),
        "sweep": page_of(to_json(example_sweep())),
        "bare": page_of({}),
    }
    frames = "".join(
        f'<iframe id="{name}-{screen}" style="width:{width}px;height:900px;border:0"'
        f' srcdoc="{html.escape(page)}"></iframe>'
        for name, page in pages.items()
        for screen, width in WIDTHS.items()
    )
    wrapper = folder / "frames.html"
    wrapper.write_text(
        f"<!doctype html><meta charset=utf-8><pre></pre><script>{MEASURE}</script>{frames}",
        encoding="utf-8",
    )
    ended = subprocess.run(
        [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", wrapper.as_uri()],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=WAIT_SECONDS,
    )
    console = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    found = re.search(r"<pre>(.*?)</pre>", ended.stdout, re.S)
    assert found and found[1], ended.stderr
    return json.loads(html.unescape(found[1])), console


def test_the_browser_complains_of_nothing(
    shown: Shown,
) -> None:
    _, console = shown
    # The one line of ours shows that complaints would be seen.
    assert [line for line in console if DONE not in line] == []
    assert len(console) == 1


def test_every_chart_is_drawn_and_read_out_by_the_arrow_keys(
    shown: Shown,
) -> None:
    counts = {frame["name"]: frame["charts"] for frame in shown[0]}
    assert counts == {
        f"{name}-{screen}": charts
        for name, charts in (("run", 9), ("sweep", 13), ("bare", 0))
        for screen in WIDTHS
    }
    for frame in shown[0]:
        assert frame["scriptSaw"] == frame["charts"]
        assert frame["undrawn"] == frame["unread"] == [], frame["name"]


def test_nothing_is_wider_than_the_screen_and_no_labels_overlap(
    shown: Shown,
) -> None:
    for frame in shown[0]:
        assert frame["width"] == WIDTHS[frame["name"].split("-")[1]]
        assert frame["pageWidth"] <= frame["width"], frame["name"]
        assert frame["crowded"] == [], frame["name"]


def test_a_dark_system_gets_a_dark_page(
    shown: Shown,
) -> None:
    assert {frame["background"] for frame in shown[0]} == {"rgb(20, 23, 27)"}
