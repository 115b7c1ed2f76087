"""Templates: whatever a name holds is text, and what a template lacks is an error."""

import html
import json
import math
import re
from base64 import b64decode
from pathlib import Path

import jinja2
import jinja2.meta
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.browser import check_self_contained, tags
from qfitlatent.pages import render as module
from qfitlatent.pages.readmes import write_readme
from qfitlatent.pages.render import Cell, embedded, render

DATA = Path(module.__file__).parents[1] / "data"
HOSTILE = [
    "@DATA@",
    "{{ data }}{% raw %}",
    "a<b>&'\"",
    "</script><script>alert(1)</script><!--",
    "$1\\g<0>\\n\\",
    "\u2028\u2029\x7f",
]


def prediction(name: str) -> str:
    """The page with the script, with this name wherever a name can be."""
    return render(
        "pages/prediction.html.j2",
        entry=name,
        model=name,
        min_weight=0.1,
        num_residues=1,
        num_chains=1,
        num_heterogeneous=0,
        seen=name,
        nearest=name,
        data={"columns": {"chain": [name]}},
        viewer="",
        atoms="",
    )


@given(st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=["Cs", "Cc"]))))
def test_a_name_is_a_text_in_the_title_and_in_the_data(name):
    page = prediction(name)
    title = re.search(r"<title>(.*?) – predicted side chains</title>", page, re.S).group(1)
    assert html.unescape(title) == name
    text = re.search(r'id="data">(.*?)</script>', page, re.S).group(1)
    assert json.loads(text)["columns"]["chain"] == [name]
    assert [tag for tag, _ in tags(page)] == [tag for tag, _ in tags(prediction("x"))]
    check_self_contained(prediction("x"))


@given(st.text(), st.text(), st.text())
def test_a_cell_is_a_text(label, text, small):
    rows = [["first", Cell(text, small, True), 1234567]]
    page = render_table(["", label, "number"], rows)
    plain = render_table(["", "x", "number"], [["first", Cell("x", "x" if small else "", True), 1]])
    assert [tag for tag, _ in tags(page)] == [tag for tag, _ in tags(plain)]
    assert "1,234,567" in page


TABLE = module._environment().from_string(
    '{% from "pages/parts.html.j2" import table %}{{ table("caption", head, rows) }}'
)


def render_table(head, rows):
    return TABLE.render(head=head, rows=rows)


def test_every_template_can_be_read_and_what_it_includes_is_there():
    environment = module._environment()
    names = [path.relative_to(DATA).as_posix() for path in DATA.rglob("*.j2")]
    assert len(names) >= 9
    for name in names:
        source = environment.loader.get_source(environment, name)[0]
        for included in jinja2.meta.find_referenced_templates(environment.parse(source)):
            assert (DATA / included).is_file(), (name, included)
        environment.get_template(name)


def test_every_file_of_words_is_part_of_what_some_stage_runs():
    """By its name, which is how a changed word reruns the stage that shows it."""
    root = DATA.parents[2]
    code = [*DATA.parent.rglob("*.py"), *(root / "workflow" / "scripts").glob("*.py")]
    text = "".join(path.read_text() for path in [*code, *DATA.rglob("*.j2")])
    words = [*DATA.glob("*.yaml"), *(DATA / "pages").iterdir(), *(DATA / "readmes").iterdir()]
    assert len(words) > 20
    for path in words:
        assert f'"{path.relative_to(DATA).as_posix()}"' in text, path


def test_what_is_not_given_or_not_a_number_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="entry"):
        render("pages/prediction.html.j2", data={})
    with pytest.raises(ValueError, match="JSON"):
        module._environment().from_string("{{ x | tojson }}").render(x=math.nan)


def test_every_readme_is_made_of_what_it_is_given(tmp_path):
    facts = {
        "dataset": "d_1",
        "run": "r_1",
        "source": "simulated",
        "has_model": True,
        "has_predicted": True,
    }
    about = dict.fromkeys(("title", "version", "published", "licence"), "x") | {"authors": ["A"]}
    facts |= {"split": "test", "about": about, "description": "x", "url": "x", "rows": {"split": 1}}
    for path in sorted((DATA / "readmes").iterdir()):
        write_readme(f"readmes/{path.name}", tmp_path / path.stem, **facts)
        text = (tmp_path / path.stem / "README.md").read_text()
        assert text.startswith("# ")
        assert "{" not in re.sub(r"`[^`]*`", "", text)


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_a_picture_inside_a_page_is_the_file(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(bytes(range(256)))
    kind, data = embedded(path).split(",")
    assert kind.startswith("data:image/")
    assert b64decode(data) == bytes(range(256))
    assert embedded(None) == ""
