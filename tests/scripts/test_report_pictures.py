"""The pictures of the documentation: of a page, in the sizes that they are shown in."""

import browser_fixtures
import pytest
from PIL import Image
from report_fixtures import write_sweep

from distill_app.verbs import call
from scripts.make.report_pictures import PICTURES, photograph


@pytest.mark.browser
@pytest.mark.slow
def test_a_page_is_photographed_in_every_size(tmp_path):
    if reason := browser_fixtures.why_not():
        pytest.skip(reason)
    write_sweep(tmp_path, temperatures=(1, 4), rates=(0.05,), seeds=2, epochs=3)
    assert call("report", [str(tmp_path)]) == 0
    photograph(tmp_path / "report.html", program=browser_fixtures.program(), output=tmp_path)
    for name, (width, height, scheme) in PICTURES.items():
        with Image.open(tmp_path / name) as image:
            assert image.size == (width, height)
            assert (image.convert("L").getpixel((2, 2)) > 128) == (scheme == "light")
