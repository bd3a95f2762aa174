"""The page in a real browser: drawn without errors, light and dark, on a desktop and on a phone; tables that sort.

Skipped where there is no Chromium; `make chromium` installs one.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zlib

import pytest

from spikeplug.report import render

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: `make chromium` installs one")

# Played by the page itself once it is drawn; what it finds is written where --dump-dom shows it.
ACTIONS = """
<script>
window.addEventListener("load", async () => {
  while (!document.documentElement.dataset.drawn) await new Promise((done) => setTimeout(done, 20));
  const found = {};
  const root = document.documentElement;
  found.empty = [...document.querySelectorAll(".plot")].filter((plot) => !plot.querySelector(".main-svg")).length;
  found.overflow = root.scrollWidth - root.clientWidth;
  const first = root.dataset.theme, ground = getComputedStyle(document.body).backgroundColor;
  document.getElementById("theme").click();
  found.toggled = root.dataset.theme !== first && getComputedStyle(document.body).backgroundColor !== ground;
  const table = document.querySelector("[data-table=ablation] table");
  const column = [...table.querySelectorAll("th")].findIndex((head) => head.textContent === "mean KL");
  const values = () => [...table.tBodies[0].rows].map((row) => Number(row.children[column].dataset.value));
  const button = table.querySelectorAll("th button")[column];
  button.click();
  const up = values();
  button.click();
  const down = values();
  found.sorted = up.every((x, i) => !i || up[i - 1] <= x) && down.every((x, i) => !i || down[i - 1] >= x);
  const select = document.querySelector("select[data-plot]");
  select.selectedIndex = 1;
  select.dispatchEvent(new Event("change"));
  await new Promise((done) => setTimeout(done, 50));
  const plot = document.getElementById("plot-" + select.dataset.plot);
  await Plotly.relayout(plot, { "xaxis.range": [0.6, 1.4] });
  found.zoomed = plot.layout.xaxis.range[0] === 0.6;
  root.dataset.found = JSON.stringify(found);
});
</script>
"""


@pytest.fixture(scope="module", params=["finished", "finished_whole"])
def page(request, tmp_path_factory):
    finished = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("page")
    html = render(finished.header, finished.rows)
    (folder / "report.html").write_text(html, encoding="utf-8")
    (folder / "played.html").write_text(html.replace("</body>", f"{ACTIONS}</body>"), encoding="utf-8")
    return folder


def browse(page, name, *arguments, size=(1200, 900), dark=False):
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--virtual-time-budget=20000",
    ]
    command += [f"--user-data-dir={page / 'profile'}", f"--window-size={size[0]},{size[1]}"]
    command += ["--blink-settings=preferredColorScheme=0"] if dark else []
    result = subprocess.run(
        [*command, *arguments, (page / name).as_uri()], capture_output=True, timeout=120, cwd=page, check=True
    )
    return result.stdout.decode()


@pytest.mark.parametrize("size", [(1200, 900), (500, 900)])
def test_the_page_draws_and_answers(page, size):
    # 500 is the least width this browser gives a window.
    dom = browse(page, "played.html", "--dump-dom", size=size)
    root = re.search(r"<html[^>]*>", dom)[0]
    assert "data-error" not in root, root
    found = dict(re.findall(r"&quot;(\w+)&quot;:(\w+)", root))
    assert found == {"empty": "0", "overflow": "0", "toggled": "true", "sorted": "true", "zoomed": "true"}


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_follows_the_colour_scheme(page, dark):
    picture = page / f"{dark}.png"
    browse(page, "report.html", f"--screenshot={picture}", size=(500, 500), dark=dark)
    rows = pixels(picture)
    corner = rows[5][:3]
    assert (max(corner) < 60) if dark else (min(corner) > 230)
    colours = {row[i : i + 3] for row in rows for i in range(0, len(row), 3)}
    assert len(colours) > 20  # there is something on it


def pixels(path):
    """RGB bytes of each line of a PNG of 8 bits a channel."""
    content = path.read_bytes()
    width, height, _, kind = struct.unpack(">IIBB", content[16:26])
    channels = {2: 3, 6: 4}[kind]
    data, place = b"", 8
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        if content[place + 4 : place + 8] == b"IDAT":
            data += content[place + 8 : place + 8 + length]
        place += 12 + length
    raw, stride = zlib.decompress(data), width * channels
    lines, before = [], bytearray(stride)
    for y in range(height):
        how, line = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        for i in range(stride):
            left = line[i - channels] if i >= channels else 0
            corner = before[i - channels] if i >= channels else 0
            line[i] = (line[i] + predicted(how, left, before[i], corner)) & 255
        lines.append(bytes(b for i, b in enumerate(line) if i % channels < 3))
        before = line
    return lines


def predicted(how, left, up, corner):
    if how == 4:
        guess = left + up - corner
        return min((left, up, corner), key=lambda value: abs(guess - value))
    return (0, left, up, (left + up) // 2)[how]
