"""The page of `spikeplug energy` in a real browser: every plot is drawn, nothing overflows, no error.

Skipped where there is no Chromium; `make chromium` installs one.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spikeplug import cli

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium here: `make chromium`")]

# Played by the page itself; what it finds is written where --dump-dom shows it.
LOOK = """
<script>
const found = { errors: 0 };
window.addEventListener("error", () => { found.errors += 1; });
window.addEventListener("load", async () => {
  const root = document.documentElement;
  while (!root.dataset.drawn) await new Promise((done) => setTimeout(done, 20));
  const plots = [...document.querySelectorAll(".plot")];
  found.plots = plots.length;
  found.empty = plots.filter((plot) => !plot.querySelector(".main-svg")).length;
  found.overflow = root.scrollWidth - root.clientWidth;
  root.dataset.found = JSON.stringify(found);
});
</script>
"""


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "costs.html"
    how = ("--recipe", "whole", "--calibration", "none", "--context", "1,4", "--html", str(path))
    result = CliRunner().invoke(cli.app, ["energy", str(folder), *how])
    assert result.exit_code == 0, result.output
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", f"{LOOK}</body>"), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [1200, 400])
def test_the_page_is_drawn(page: Path, width: int) -> None:
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    command += [f"--user-data-dir={page.parent / 'profile'}", f"--window-size={width},900", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, timeout=120, check=True).stdout.decode()
    found = json.loads(unescape(re.search(r'data-found="([^"]*)"', shown)[1]))
    assert found == {"errors": 0, "plots": 6, "empty": 0, "overflow": 0}
