"""Names of files, classes and runs are text in every page and table, and nothing reads what it should not."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from PIL import Image

from cxr import evaluate
from cxr.data.decode import BadImage, decode
from cxr.files.writing import read_table, write_table
from cxr.reporting.leaderboard import write_leaderboard
from cxr.reporting.model_card import write_model_card
from cxr.reporting.report import write_report

# As a name of a class, an image, a source, an option and an error.
NAME = """<script>alert(1)</script>' " onerror="alert(1)'> [x](javascript:alert(1)) a|b {{ 7 * 7 }}<img src=x>"""


class Page(HTMLParser):
    """All tags of a page with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def renamed(value):
    """A JSON file with that name in the place of every other: of classes, files, options, errors, notes."""
    if isinstance(value, dict):
        return {NAME if key == "NORMAL" else key: renamed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [renamed(inner) for inner in value]
    if not isinstance(value, str) or value in ("done", "off", "on") or re.fullmatch(r"[a-z_]+", value):
        return value
    return NAME if value == "NORMAL" else f"{value}{NAME}"


def test_no_name_becomes_a_part_of_a_page_or_a_table(sweep, tmp_path):
    copy = shutil.copytree(sweep, tmp_path / "sweep", ignore=shutil.ignore_patterns("checkpoints"))
    for path in [*copy.glob("*/*.json"), copy / "comparisons.json"]:
        told = renamed(json.loads(path.read_text()))
        if path.name == "status.json":
            told |= {"choices": told["choices"] | {"cache_dir": NAME}, "error": NAME}
        path.write_text(json.dumps(told))
    for path in copy.glob("*/split.csv"):
        rows = [{**row, "label": row["label"].replace("NORMAL", NAME)} for row in read_table(path)]
        write_table(path, list(rows[0]), [list(row.values()) for row in rows])
    write_leaderboard(copy)
    page = Page(write_report(copy, "en").read_text())
    assert NAME in page.text
    tags = (
        "html head meta title style body nav a ol h1 h2 h3 h4 p section div table thead tbody tr th td ul li img pre br"
    )
    assert {tag for tag, _ in page.tags} <= {*tags.split(), "code", "b"}
    for tag, attributes in page.tags:
        assert attributes.keys() <= {
            "lang",
            "charset",
            "name",
            "content",
            "class",
            "alt",
            "src",
            "id",
            "href",
            "aria-label",
        }, tag
        assert attributes.get("src", "data:image/png;base64,").startswith(
            ("data:image/png;base64,", "data:image/jpeg;base64,")
        )
    run = next(copy.glob("*/metrics.json")).parent
    metrics, audit = (json.loads((run / name).read_text()) for name in ("metrics.json", "audit.json"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    write_model_card(run, metrics | {"note": NAME}, config, audit)
    for path in (copy / "leaderboard.md", run / "MODEL_CARD.md"):
        text = path.read_text()
        assert "<" not in text and "](" not in text, path
        tables = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
        assert len(tables) > 4 and len(set(tables)) <= 4, "columns stay columns"


@pytest.mark.filterwarnings("ignore:No (positive|negative) samples")  # as cxr.jobs.external_evaluation has it
def test_nor_a_part_of_what_is_said_of_images_from_elsewhere(run, folder, drawn, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, manifest = NAME.replace("/", ""), ["file,patient,source"]
    for number, image in enumerate(sorted((drawn / "test" / "NORMAL").iterdir())[:6]):
        place = tmp_path / "images" / ("NORMAL" if number < 4 else name) / f"{number}{name}{image.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, place)
        quoted = str(place.relative_to(tmp_path / "images")).replace('"', '""')
        manifest.append(f'"{quoted}",p{number},"{name.replace(chr(34), "") * (number > 0)}"')
    (tmp_path / "images" / "manifest.csv").write_text("\n".join(manifest))
    words = [f"ckpt={folder / 'checkpoints' / 'best.ckpt'}", "data=folder", f"data.root={tmp_path / 'images'}"]
    code, _, err = run(evaluate.main, *words, "data.on_leak=keep", f"cache_dir={cache}", "name=e")
    assert code == 0, err
    text = (tmp_path / "runs" / "e" / "evaluation.md").read_text()
    assert "&lt;SCRIPT>" in text and "&lt;script>" in text and "<" not in text and "](" not in text


def test_tensorboard_is_started_for_this_machine_alone():
    root = Path(__file__).parents[2]
    for name in ("Makefile", "README.md"):
        text = (root / name).read_text(encoding="utf-8")
        started = [line for line in text.splitlines() if re.search(r"tensorboard(\.main)? .*--logdir", line)]
        assert all("--host 127.0.0.1" in line for line in started) and "bind_all" not in text
        assert started or name == "README.md"


def test_decoders_of_other_kinds_of_image_are_not_reached(tmp_path):
    for kind in ("gif", "bmp", "tiff", "webp", "ppm"):
        Image.new("L", (40, 40)).save(tmp_path / f"a.{kind}")
        (tmp_path / f"a.{kind}").rename(tmp_path / f"{kind}.png")
        with pytest.raises(BadImage, match="not a JPEG, PNG or DICOM|image: convert it to PNG"):
            decode(tmp_path / f"{kind}.png", 16)
