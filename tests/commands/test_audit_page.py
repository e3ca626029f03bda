"""The page of `mlcv audit`: one file, whatever names are in it; in a real browser, from decisions to labels."""

import base64
import csv
import io
import json
import re
import time
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from mlcv.commands.audit_page import ClassExamples, Entry, Example, in_words, thumbnail, write_page
from mlcv.data import CSVDataModule
from mlcv.errors import UserError
from mlcv.tables import printable
from tests.audit_pages import browser, data_of, digits_page, resize
from tests.tiny_sets import write_image, write_rows

HOSTILE = (
    "</script><script>document.title='bad'</script>", '"><img src=x onerror="document.title=\'bad\'">', "{{ 7 * 7 }}",
    "<!--", "__proto__", "a, \"b\"; 'c'", "жук 🐞",
)  # fmt: skip


def picture(seed=0, size=(240, 320)):
    return thumbnail(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def data_in(path):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)[1])


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_a_thumbnail_is_a_jpeg_of_at_most_320_pixels_in_the_same_colours():
    pixels = np.zeros((300, 900, 3), np.uint8)
    pixels[..., 0] = 200  # red
    found = cv2.imdecode(np.frombuffer(thumbnail(pixels), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert found.shape == (107, 320, 3)
    assert np.abs(found.reshape(-1, 3).mean(axis=0) - [200, 0, 0]).max() < 4
    grey = cv2.imdecode(np.frombuffer(thumbnail(np.full((40, 30, 1), 77, np.uint8)), np.uint8), cv2.IMREAD_UNCHANGED)
    assert grey.shape == (40, 30)


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (1.0, "almost certainly wrong (100.0 %)"), (0.999, "almost certainly wrong (99.9 %)"),
        (0.9, "very likely wrong (90 %)"), (0.7, "likely wrong (70 %)"), (0.5, "more likely than not wrong (50 %)"),
        (0.3, "perhaps wrong (30 %)"), (0.004, "hardly wrong (0.4 %)"),
    ],
)  # fmt: skip
def test_a_probability_in_words(probability, text):
    assert in_words(probability, "wrong") == text


def test_the_page_needs_nothing_else_and_holds_each_picture_once(tmp_path):
    one, other = picture(1), picture(2)
    entries = [Entry("a.jpg", name, 0, 1, 0.9, thumbnail=one, heat_map=other) for name in ("cat", "dog")]
    examples = {"cat": ClassExamples([Example("b.jpg", other)], [Example("c.jpg", one)])}
    write_page(tmp_path / "p.html", entries, examples)
    text = (tmp_path / "p.html").read_text()
    for picture_ in (one, other):
        assert text.count(base64.b64encode(picture_).decode()) == 1
    assert not re.search(r'(src|href)\s*=\s*"?(https?:|//)|url\(|@import|fetch\(|XMLHttpRequest', text)
    policy = next(attrs["content"] for tag, attrs in Tags(text).found if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;")
    data = data_in(tmp_path / "p.html")
    assert [entry["picture"] for entry in data["entries"]] == [0, 0]
    assert data["examples"]["cat"]["typical"][0]["picture"] == 1


def test_two_hundred_entries_stay_below_15_mb(tmp_path, numpy_rng):
    pixels = [cv2.GaussianBlur(numpy_rng.integers(0, 256, (240, 320, 3), dtype=np.uint8), (0, 0), 1) for _ in range(40)]
    pictures = [thumbnail(cv2.add(image, n)) for image in pixels for n in range(5)]
    assert len(set(pictures)) == 200
    write_page(tmp_path / "p.html", [Entry(f"{n}.jpg", "cat", 0, 1, 0.9, "", one) for n, one in enumerate(pictures)])
    assert 3e6 < (tmp_path / "p.html").stat().st_size < 15e6


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_can_be_markup(tmp_path, name):
    one = Example(name, picture(), (name,))
    entry = Entry(name, name, 0, 1, 0.9, name, picture(), None, (name,), [one], name)
    write_page(tmp_path / "p.html", [entry], {name: ClassExamples([one])}, title=name)
    write_page(tmp_path / "plain.html", [Entry("a", "b", 0, 1, 0.9)])
    page, plain = (Tags((tmp_path / f"{file}.html").read_text()).found for file in ("p", "plain"))
    assert page == plain
    assert data_in(tmp_path / "p.html")["entries"][0]["class"] == name


def test_the_key_of_a_page_changes_with_its_entries_alone(tmp_path):
    entries = [Entry("a.jpg", "cat", 0, 1, 0.9), Entry("b.jpg", "cat", 0, 1, 0.9)]
    keys = []
    for number, (given, title) in enumerate([(entries, "x"), (entries, "y"), (entries[::-1], "x"), (entries[:1], "x")]):
        write_page(tmp_path / f"{number}.html", given, title=title)
        keys.append(data_in(tmp_path / f"{number}.html")["key"])
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("wrong", [{"thumbnail": b"GIF89a"}, {"suggested": -1}, {"probability": float("nan")}])
def test_what_cannot_be_shown_is_refused(tmp_path, wrong):
    given = {"image": "a", "class_name": "b", "given": 0, "suggested": 1, "probability": 0.5, **wrong}
    with pytest.raises(ValueError, match=r"JPEG|suggested"):
        write_page(tmp_path / "p.html", [Entry(**given)])
    assert not (tmp_path / "p.html").exists()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    found = browser(folder)
    if isinstance(found, str):
        pytest.skip(found)
    found.saved = folder
    yield found
    found.quit()


class Page:
    """What a person does and sees."""

    def __init__(self, driver, path, who="Ada"):
        self.driver = driver
        driver.get(path.as_uri())
        driver.execute_script("localStorage.clear()")
        driver.get("about:blank")
        driver.get(path.as_uri())
        if who is not None and self("return at('ask').open"):
            driver.find_element("id", "asked").send_keys(f"{who}\n")
            assert not self("return at('ask').open")

    def __call__(self, script):
        return self.driver.execute_script(script)

    def text(self, name):
        return self.driver.find_element("id", name).text

    def keys(self, keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def click(self, selector):
        shown = [one for one in self.driver.find_elements("css selector", selector) if one.is_displayed()]
        shown[0].click()

    def choose(self, name):
        self(f"at('filter').value = {json.dumps(name)}; at('filter').dispatchEvent(new Event('change'))")

    def save(self):
        path = self.driver.saved / "corrections.csv"
        path.unlink(missing_ok=True)
        self.click("#save")
        for _ in range(200):
            if path.exists() and path.stat().st_size:
                break
            time.sleep(0.02)
        return path, list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))

    def errors(self):
        return [one["message"] for one in self.driver.get_log("browser") if one["level"] == "SEVERE"]


def test_ten_decisions_by_keys_and_clicks_one_undone_and_a_reload_between_end_in_corrected_labels(chromium, tmp_path):
    entries = digits_page(tmp_path / "audit.html", 10, report_after=4)
    page = Page(chromium, tmp_path / "audit.html")
    assert page.text("place") == "1 of 10"
    page.keys("w")
    page.click("[data-does=right]")
    page.keys("u")
    page.click("[data-does=wrong]")
    page.keys("w")
    assert page("return at('progress').value") == 5
    page.keys("z")
    assert "Undone" in page.text("told")
    assert page.text("place") == "5 of 10"
    assert page.text("count") == "4 of 10 decided: 2 wrong, 1 right, 1 unsure, 0 added"
    page.keys("r")
    chromium.refresh()
    assert page.text("count") == "5 of 10 decided: 2 wrong, 2 right, 1 unsure, 0 added"
    assert not page("return at('ask').open")
    assert page.text("place") == "6 of 10"
    assert page.text("given") == "unknown"
    page.keys("w")
    assert "present (P) or absent (A)" in page.text("told")
    page.keys("a")
    assert page.text("count") == "6 of 10 decided: 2 wrong, 2 right, 1 unsure, 1 added"
    chances = [entries[row].probability for row in (0, 1, 3, 4)]
    expected, spread = sum(chances), 2 * sum(p * (1 - p) for p in chances) ** 0.5
    said = f"Of 4 given labels decided, 2 were wrong (50 %); expected were {expected:.1f} ± {spread:.1f}"
    assert said in page.text("health")
    assert "lower bound" in page.text("health")
    table = page(
        "return [...document.querySelectorAll('#by-class tr')].map((row) => [...row.cells].map((c) => c.textContent))"
    )
    assert table[0] == ["class", "decided", "of", "wrong", "right", "unsure", "added"]
    assert [sum(int(row[column]) for row in table[1:]) for column in range(1, 7)] == [6, 10, 2, 2, 1, 1]
    page.choose(entries[6].class_name)
    places = [row for row, one in enumerate(entries) if one.class_name == entries[6].class_name]
    assert f"of {len(places)} of this class" in page.text("place")
    page.keys("bbbb")
    assert page.text("told") == "This is the first one."
    assert page.text("place").startswith("1 of ")
    page.choose("")
    page.keys("wrwr")
    assert page.text("told") == "All are decided: save corrections.csv."
    path, rows = page.save()
    decisions = ["wrong", "right", "unsure", "wrong", "right", "wrong", "wrong", "right", "wrong", "right"]
    assert [row["decision"] for row in rows] == decisions
    assert {row["who"] for row in rows} == {"Ada"}
    assert {row["split"] for row in rows} == {"train"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["when"]) for row in rows)
    for row, entry, decision in zip(rows, entries, decisions, strict=True):
        cells = {1: "1", 0: "0", -1: ""}
        now = 0 if entry.given == -1 else 1 - entry.given if decision == "wrong" else entry.given
        shown = [row[name] for name in ("image", "class", "given", "label")]
        assert shown == [entry.image, entry.class_name, cells[entry.given], cells[now]]
    with pytest.raises(
        UserError, match=r"corrections.csv:7: 'image 5'.* was blank when somebody looked, and is [01] now"
    ):
        data_of(str(path)).setup("fit")
    del rows[5]  # the page was told that nobody knows it
    path = write_rows(tmp_path / "corrections.csv", list(rows[0]), [list(row.values()) for row in rows])
    data = data_of(str(path))
    data.setup("fit")
    given, states = data_of().read_split("train").states, data.datasets["train"].labeled.states
    for row, entry, decision in zip(range(10), entries, decisions, strict=True):
        c = int(entry.class_name)
        assert (states[row, c] != given[row, c]) == (decision == "wrong" and row != 5)
    assert page.errors() == []


def test_decisions_of_a_second_round_are_saved_with_those_of_the_first(chromium, tmp_path):
    """What was put right stays so, is put right again, or goes back; the file is of the labels as they still are."""
    labeled = data_of().read_split("train")
    cells = {1: "1", 0: "0"}

    def of(row, label, decision):
        given = int(labeled.states[row, 0])
        about = {"image": labeled.name(row), "class": "0", "given": cells[given], "label": cells[label]}
        return about | {"decision": decision, "who": "=Eve", "when": "before", "split": "train"}

    turned = [1 - int(state) for state in labeled.states[:, 0]]
    earlier = [*(of(row, turned[row], "wrong") for row in range(4)), of(4, 1 - turned[4], "right"),
               of(5, 1 - turned[5], "unsure"), of(9, turned[9], "wrong")]  # fmt: skip
    now = [turned[row] if row < 4 else 1 - turned[row] for row in range(8)]
    jpeg = picture()
    entries = [
        Entry(labeled.name(row), "0", now[row], 1 - now[row], 0.9, "why", jpeg, None, (), [], "train")
        for row in range(8)
    ]
    write_page(tmp_path / "audit.html", entries, earlier=earlier)
    page = Page(chromium, tmp_path / "audit.html")
    page.keys("wru")  # back to what it was; it stays; it stays
    page.keys("n")  # not decided again
    page.keys("wwwr")
    path, rows = page.save()
    assert "Saved 7 decisions and 7 of before" in page.text("told")
    assert page.errors() == []
    found = {row["image"]: (row["given"], row["label"], row["decision"]) for row in rows}
    given = {row: cells[1 - turned[row]] for row in range(10)}
    expected = {
        0: (given[0], given[0], "right"),
        **{row: (given[row], cells[turned[row]], "wrong") for row in (1, 2, 3, 4, 5, 6, 9)},
        7: (given[7], given[7], "right"),
    }
    assert found == {labeled.name(row): one for row, one in expected.items()}
    assert len(rows) == len(found)
    data = data_of(str(path))
    data.setup("fit")
    states = data.datasets["train"].labeled.states[:10, 0].tolist()
    assert states == [turned[row] if row in (1, 2, 3, 4, 5, 6, 9) else 1 - turned[row] for row in range(10)]


def test_names_of_any_characters_come_through_the_browser_into_the_data(chromium, tmp_path):
    names = [
        'a, "b".jpg',
        "=1+1.jpg",
        "'x.jpg",
        "'=x.jpg",
        "жук 🐞;|.jpg",
        "two\nlines.jpg",
        "a  b .jpg",
        "</script>.jpg",
    ]
    classes = ["=cat, 'grey'", "</script><b>"]
    for number, name in enumerate(names):
        write_image(tmp_path / name.replace("/", "_"), seed=number)
    names = [name.replace("/", "_") for name in names]
    table = write_rows(tmp_path / "t.csv", ["image", *classes], [[name, 0, 1] for name in names])
    given = {"path": str(table), "val_path": str(table), "image_size": 32, "batch_size": 2, "num_workers": 0}
    for spelled in (printable, str):
        entries = [Entry(spelled(name), cls, k, 1 - k, 0.9) for name in names for k, cls in enumerate(classes)]
        write_page(tmp_path / "p.html", entries)
        page = Page(chromium, tmp_path / "p.html", '=O\'Neil, "x"')
        page.keys("w" * len(entries))
        path, rows = page.save()
        assert path.read_bytes().startswith(b"\xef\xbb\xbfimage,class,given,label,decision,who,when\r\n")
        assert len(rows) == len(entries)
        assert rows[0]["who"] == "'=O'Neil, \"x\""
        data = CSVDataModule(**given, corrections=str(path))
        assert (data._read("train").states == [1, 0]).all()
        (tmp_path / "p.html").unlink()


def test_no_name_is_run(chromium, tmp_path):
    entries, examples = [], {}
    for name in HOSTILE:
        one = Example(name, picture(), (name,))
        entries.append(Entry(name, name, 0, 1, 0.9, name, picture(), picture(1), (name,), [one], name))
        examples[name] = ClassExamples([one], [one], [one])
    write_page(tmp_path / "p.html", entries, examples, title="fine")
    page = Page(chromium, tmp_path / "p.html", HOSTILE[0])
    for number, name in enumerate(HOSTILE):
        assert page.text("class") == " ".join(name.split())
        page.keys("h")
        assert page("return isHot && document.images.length") > 1
        page.choose(name)
        page.keys("w")
        assert page.text("count").startswith(f"{number + 1} of {len(HOSTILE)}")
        page.choose("")
    assert chromium.title == "fine"
    assert page.errors() == []


def test_one_entry_none_and_all_decided(chromium, tmp_path):
    write_page(tmp_path / "none.html", [])
    page = Page(chromium, tmp_path / "none.html")
    assert page.text("nothing") == "There is no label to look at."
    assert not page("return at('ask').open")
    page.keys("wnbz")
    assert page.save()[1] == []
    write_page(tmp_path / "one.html", [Entry("a.jpg", "cat", 1, 0, 0.9)])
    page = Page(chromium, tmp_path / "one.html")
    assert "no picture" in page.text("no-picture")
    page.keys("z")
    assert page.text("told") == "There is nothing to undo."
    page.keys("r")
    assert page.text("told") == "All are decided: save corrections.csv."
    chromium.refresh()
    assert page.text("told") == "All are decided: save corrections.csv."
    assert page.text("decided") == "Decided: right by Ada"
    page.keys("w")
    assert page.text("decided") == "Decided: wrong, it is absent by Ada"
    assert [row["label"] for row in page.save()[1]] == ["0"]
    page.keys("z")
    assert page.text("decided") == "Decided: right by Ada"


def test_keys_in_the_field_of_the_name_decide_nothing(chromium, tmp_path):
    write_page(tmp_path / "p.html", [Entry(f"{n}.jpg", "cat", 1, 0, 0.9) for n in range(3)])
    page = Page(chromium, tmp_path / "p.html", None)
    page.keys("wrwr")
    assert page.text("asked") == ""
    assert page("return at('asked').value") == "wrwr"
    page.keys("\n")
    chromium.find_element("id", "who").send_keys("uuu")
    assert page.text("count").startswith("0 of 3")
    page.click("#class")
    page.keys("r")
    assert page.save()[1][0]["who"] == "wrwruuu"


def test_where_the_browser_keeps_nothing_the_page_says_so_and_works(chromium, tmp_path):
    write_page(tmp_path / "p.html", [Entry(f"{n}.jpg", "cat", 1, 0, 0.9) for n in range(3)])
    blocked = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError') }})"
    script = chromium.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": blocked})
    try:
        chromium.get((tmp_path / "p.html").as_uri())
        page = object.__new__(Page)
        page.driver = chromium
        page.keys("Ada\n")
        assert "keeps nothing" in page.text("storage")
        page.keys("wr")
        assert [row["decision"] for row in page.save()[1]] == ["wrong", "right"]
    finally:
        chromium.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": script["identifier"]})
    assert not Page(chromium, tmp_path / "p.html").driver.find_element("id", "storage").is_displayed()


def test_what_only_a_page_holds_survives_what_is_decided_in_another_tab(chromium, tmp_path):
    write_page(tmp_path / "p.html", [Entry(f"{n}.jpg", "cat", 1, 0, 0.9) for n in range(3)])
    page = Page(chromium, tmp_path / "p.html")
    page("Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }")
    page.keys("wr")
    assert "keeps nothing" in page.text("storage")
    other = '[[2, "unsure", 1, "Bob", "2026-01-01T00:00:00.000Z"]]'
    page(f"""
        Object.getPrototypeOf(localStorage).getItem = (key) => key === KEPT ? {json.dumps(other)} : null;
        for (let turn = 0; turn < 2; turn++) dispatchEvent(new StorageEvent("storage", {{key: KEPT}}));
    """)
    rows = page.save()[1]
    assert [(row["image"], row["decision"], row["who"]) for row in rows] == [
        ("0.jpg", "wrong", "Ada"), ("1.jpg", "right", "Ada"), ("2.jpg", "unsure", "Bob"),
    ]  # fmt: skip


def test_what_another_page_or_program_kept_is_not_taken_for_decisions(chromium, tmp_path):
    write_page(tmp_path / "p.html", [Entry("a.jpg", "cat", 1, 0, 0.9)])
    page = Page(chromium, tmp_path / "p.html")
    entry = [[0, "wrong", 0, "x"], ["length", "wrong", 0, "x", "y"], [7, "wrong", 0, "x", "y"]]
    label = [[0, "killed", 0, "x", "y"], [0, "wrong", 5, "x", "y"], [0, "wrong", "toString", "x", "y"]]
    kept = ["nonsense", "{}", "null", *map(json.dumps, (entry, label, [*label, [0, "right", 1, "x", "y"]]))]
    for text in kept:
        for _ in range(3):  # a busy browser may load the page anew before it has stored what was written
            page(f"localStorage.setItem(KEPT, {json.dumps(text)})")
            chromium.refresh()
            if page("return localStorage.getItem(KEPT)") == text:
                chromium.refresh()  # now it is there as the page begins
                break
        assert page.text("count").startswith("1 of 1" if "right" in text else "0 of 1")
    assert page.errors() == []


def test_a_picture_is_enlarged_its_heat_map_shown_and_the_page_fits_a_phone(chromium, tmp_path):
    digits_page(tmp_path / "audit.html", 4)
    page = Page(chromium, tmp_path / "audit.html")
    before = page("return at('image').src")
    page.keys("h")
    assert page("return at('image').src") != before
    page.keys("h")
    assert page("return at('image').src") == before
    page.click("#picture")
    assert page("return at('zoom').open && at('zoomed').src === at('image').src")
    page.keys("w")
    assert page.text("count").startswith("0 of")
    page("at('zoom').click()")
    assert not page("return at('zoom').open")
    page.click("figure button")
    assert page("return at('zoom').open")
    page("at('zoom').close()")
    assert page("return document.querySelectorAll('.strip').length") == 4
    try:
        for width in (390, 320):
            resize(chromium, width, 700)
            assert page("return document.documentElement.scrollWidth") <= width
            for does in ("right", "wrong", "unsure", "next", "back", "undo"):
                found = [one for one in chromium.find_elements("css selector", f"[data-does={does}]")
                         if one.is_displayed()]  # fmt: skip
                assert page("const r = at('buttons').getBoundingClientRect(); return r.bottom <= innerHeight + 1")
                assert found[0].rect["height"] >= 34
    finally:
        resize(chromium, 1280, 900)
