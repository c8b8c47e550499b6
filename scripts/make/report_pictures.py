"""Makes docs/report.png and docs/report_phone.png: the page of a real sweep, in a browser without a window.

python -m scripts.make.report_pictures                      # trains 24 small runs first, two minutes on one core
python -m scripts.make.report_pictures --sweep outputs/...  # of a sweep that is there
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.output import require_folder

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
KD = "method.stages.distill.losses.kd"
SWEEP = ("experiment=digits/kd", f"{KD}.loss.temperature=1,2,4,8", f"{KD}.weight=0.5,0.9", "seed=0,1,2")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Name: width and height in pixels, colour scheme.
PICTURES = {"report.png": (1440, 1640, "light"), "report_phone.png": (390, 1640, "dark")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sweep", type=Path, default=ROOT / "outputs/temperature_and_weight", help="the folder of the sweep"
    )
    parser.add_argument("--output", type=Path, default=DOCS, help="where the pictures go")
    arguments = parser.parse_args()
    require_folder(parser, arguments.output)
    if not (program := next(filter(None, map(shutil.which, BROWSERS)), None)):
        parser.error(f"there is no {' or '.join(BROWSERS)}; on Debian: apt-get install chromium")
    if not arguments.sweep.is_dir():
        distill("-m", *SWEEP, "runtime.threads=1", f"hydra.sweep.dir={arguments.sweep}")
    distill("report", str(arguments.sweep))
    photograph(arguments.sweep / "report.html", program=program, output=arguments.output)


def distill(*arguments: str) -> None:
    """Runs the command line.

    Raises:
        CalledProcessError: It failed.
    """
    subprocess.run([sys.executable, "-m", "distill_app", *arguments], check=True)


def photograph(page: Path, *, program: str, output: Path) -> None:
    """Writes the pictures of a page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name, (width, height, scheme) in PICTURES.items():
            opened = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            opened.goto(page.resolve().as_uri())
            opened.wait_for_selector("#curves svg path")
            opened.screenshot(path=output / name)
            opened.close()
        browser.close()


if __name__ == "__main__":
    main()
