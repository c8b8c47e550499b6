"""The page of sixty runs in a real browser: what it shows and does, and that it asks nobody for anything."""

import browser_fixtures
import pytest
from report_fixtures import evaluation, rows, write_run, write_sweep

from distill_app.runs import evaluations
from distill_app.verbs import call

pytestmark = [pytest.mark.browser, pytest.mark.slow]
WIDTHS = (1440, 390)


@pytest.fixture(scope="module")
def browser():
    if reason := browser_fixtures.why_not():
        pytest.skip(reason)
    with browser_fixtures.browser() as started:
        yield started


@pytest.fixture(scope="module")
def sixty(tmp_path_factory):
    root = tmp_path_factory.mktemp("sixty")
    write_sweep(root, temperatures=(1, 2, 4, 8), rates=(0.01, 0.05, 0.1), seeds=5, epochs=60)
    assert call("report", [str(root)]) == 0
    return root / "report.html"


@pytest.fixture
def opened(browser):
    """Opens a file and says what it asked for and complained of."""
    pages = []

    def open_(file, *, width=1440, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(page)
        page.asked, page.complaints = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(file.as_uri())
        page.wait_for_selector("#curves svg path")
        return page

    yield open_
    for page in pages:
        page.close()


def cells(page, table: str, column: int) -> list[str]:
    """What stands in a column, of the rows that are shown."""
    return page.eval_on_selector_all(
        f"#{table} tbody tr:not([hidden]) td:nth-child({column})", "cells => cells.map(cell => cell.textContent)"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_opens_without_a_complaint_loads_nothing_and_fits(opened, sixty, width, scheme):
    page = opened(sixty, width=width, scheme=scheme)
    assert page.asked == [sixty.as_uri()] and page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") == width, "the page itself is no wider than the screen"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 22, 28)"
    )
    # Every chart has a size, and none hangs over.
    boxes = page.eval_on_selector_all(".chart svg", "all => all.map(each => each.getBoundingClientRect().toJSON())")
    assert len(boxes) >= 4 and all(box["width"] > 200 and box["right"] <= width for box in boxes)


def test_swept_keys_have_columns_choices_and_charts_of_their_own(opened, sixty):
    page = opened(sixty)
    heads = page.locator("#results-table th").all_text_contents()
    assert [head.strip() for head in heads[:4]] == ["result", "kd.loss.temperature", "stage.lr", "n"]
    titles = page.locator("#sweep h3").all_text_contents()
    assert titles[0].startswith("kd.loss.temperature") and titles[1].startswith("stage.lr")
    assert titles[2].startswith("kd.loss.temperature and stage.lr")
    assert page.locator("#sweep .heat td").count() == 12
    assert page.locator("#results-table select").first.locator("option").all_text_contents() == [
        "all",
        "1",
        "2",
        "4",
        "8",
    ]


def test_a_click_sorts_and_another_one_turns_it_round(opened, sixty):
    page = opened(sixty)
    head = page.locator("#results-table th", has_text="accuracy")
    column = [each.strip() for each in page.locator("#results-table th").all_text_contents()].index("accuracy") + 1
    before = cells(page, "results-table", column)
    head.locator("button").click()
    numbers = [float(text.split()[0]) for text in cells(page, "results-table", column)]
    assert numbers == sorted(numbers, reverse=True) and head.get_attribute("aria-sort") == "descending"
    head.locator("button").click()
    numbers = [float(text.split()[0]) for text in cells(page, "results-table", column)]
    assert numbers == sorted(numbers) and head.get_attribute("aria-sort") == "ascending"
    assert sorted(cells(page, "results-table", column)) == sorted(before) and len(before) > 10


def test_what_is_missing_stands_last_whichever_way(opened, sixty):
    page = opened(sixty)
    column = [each.strip() for each in page.locator("#results-table th").all_text_contents()].index(
        "vs student alone"
    ) + 1
    for _ in range(2):
        page.locator("#results-table th", has_text="vs student alone").locator("button").click()
        texts = cells(page, "results-table", column)
        assert texts[-1] == "-" and "-" not in texts[: len([text for text in texts if text != "-"])]


def test_words_and_choices_filter(opened, sixty):
    page = opened(sixty)
    assert page.locator("#runs-table .count").text_content() == "60 rows"
    page.locator("#runs-table input").fill("failed")
    assert page.locator("#runs-table .count").text_content() == "1 of 60 rows"
    assert cells(page, "runs-table", 1) == ["4"]
    page.locator("#runs-table input").fill("")
    page.locator("#runs-table select").first.select_option("8")
    assert page.locator("#runs-table .count").text_content() == "15 of 60 rows"
    assert set(cells(page, "runs-table", 2)) == {"8"}


def test_curves_of_every_run_are_drawn_and_chosen_from(opened, sixty):
    page = opened(sixty)
    assert page.locator("#curves svg path").count() == 60
    page.get_by_label("Filter the runs").fill("stage.lr=0.05")
    assert page.locator("#curves svg path").count() == 20
    page.locator("#curves select").first.select_option("teacher")
    assert "teacher: validation accuracy" in page.locator("#curves h3").text_content()
    page.get_by_label("Colour").select_option("stage.lr")
    page.get_by_label("Filter the runs").fill("")
    legend = page.locator("#curves .legend button")
    assert legend.all_text_contents() == ["0.01", "0.05", "0.1"]
    legend.first.click()
    assert page.locator("#curves svg path").count() == 40


def test_the_nearest_point_is_told(opened, sixty):
    page = opened(sixty)
    dot = page.locator("#sweep svg circle[r='4']").first
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    told = page.locator("#tip").text_content()
    assert "kd.loss.temperature=1, stage.lr=0.01" in told and "n = 4" in told, "one of five seeds failed"
    assert page.locator("#tip").is_visible()


def test_a_printed_page_is_light_and_has_all_columns(opened, sixty, tmp_path):
    page = opened(sixty, scheme="dark")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 720, "height": 1000})
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible() and not page.locator(".filters").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    assert page.pdf(format="A4")[:5] == b"%PDF-"


def test_a_page_of_one_run_and_one_of_none_that_finished_open_too(opened, tmp_path):

    write_run(tmp_path / "one/a", seed=0, results=rows(alone=0.7, student=0.8))
    assert call("report", [str(tmp_path / "one/a")]) == 0
    page = opened(tmp_path / "one/a/report.html", width=390)
    assert page.complaints == [] and page.locator("#sweep").count() == 0
    write_run(tmp_path / "none/a", seed=0, results=[], state="failed", reason="the disk is full")
    write_run(tmp_path / "none/b", seed=1, results=rows(alone=0.7, student=0.8), state="running")
    assert call("report", [str(tmp_path / "none")]) == 0
    page = opened(tmp_path / "none/report.html")
    assert page.complaints == [] and "No run is finished." in page.locator("#results").text_content()


def test_an_evaluation_in_depth_is_shown_and_chosen_from(opened, tmp_path):

    for seed, network in enumerate(("student", "assistant")):
        run = write_run(tmp_path / str(seed), seed=seed, results=rows(alone=0.7, student=0.8))
        evaluations.write(evaluations.place_of(run, network=network, split="test"), evaluation(network=network))
    assert call("report", [str(tmp_path)]) == 0
    page = opened(tmp_path / "report.html", width=390)
    assert page.complaints == [] and len(page.asked) == 1
    assert page.locator("#depth img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 2
    titles = page.locator("#depth h3").all_text_contents()
    wanted = ["student on digits", "Reliability", "By class", "Confusions", "Activations", "Where they disagree"]
    wanted.append("What networks cost")
    assert all(title.startswith(word) for title, word in zip(titles, wanted, strict=True))
    assert page.locator("#depth .legend").first.locator("button").all_text_contents()[0] == "student, ECE 15.00%"
    page.get_by_label("Evaluation").select_option("1")
    assert page.locator("#depth h3").first.text_content().startswith("assistant on digits")
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_what_others_named_runs_nothing(opened, tmp_path):

    hostile = "</script><img src=x onerror=document.title='owned'>"
    for seed in range(2):
        settings = {f"a.{hostile}": f"{seed}{hostile}"}
        results = rows(alone=0.7, student=0.8, method=hostile)
        write_run(tmp_path / str(seed), seed=0, results=results, settings=settings, method=hostile)
    assert call("report", [str(tmp_path)]) == 0
    page = opened(tmp_path / "report.html")
    assert page.complaints == [] and "owned" not in page.title() and page.locator("img").count() == 0
