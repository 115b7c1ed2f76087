"""Every page tells the truth: its commands run, its settings are valid, its names exist.

A fenced ``bash`` or ``python`` block is run as it stands; one that cannot be run here says why in
its title, ``title="not run by the tests: ..."``. All pages run in one copy of the checkout, in
which the tutorial was followed first. ``yaml`` blocks are read as configurations; the queries of
docs/tables.md are run by test_readme.py.
"""

import os
import re
import shutil
import subprocess
import sys
from argparse import ArgumentParser, _SubParsersAction
from importlib.util import module_from_spec, spec_from_file_location
from itertools import chain
from pathlib import Path

import pytest
import yaml

from helpers.workflow_run import PARTS
from qfitlatent.base import config
from qfitlatent.cli import build_parser
from qfitlatent.tables.reasons import Reason

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
}
FENCE = re.compile(r"^( *)```(\w*)([^\n]*)\n(.*?)^\1```$", re.M | re.S)
NOT_RUN = re.compile(r' title="not run by the tests: \w[^"]+"')
COMMANDS = ("qfitlatent", "snakemake", "python", "pip", "pytest", "mkdocs", "git", "torchrun")
FOLDERS = "benchmarks|experiments|profiles|src|tests|tools|workflow"
TUTORIAL = "docs/tutorial.md"


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Language, what follows it, and text of every block; the README's Quick start is CI's."""
    text = re.sub(r"^## Quick start\n.*?(?=^## )", "", PAGES[page], flags=re.M | re.S)
    return [(found[2], found[3], found[4]) for found in FENCE.finditer(text)]


def script(page: str) -> str:
    """The page's runnable blocks as one script."""
    parts = []
    for language, after, text in blocks(page):
        if language == "bash" and not after:
            parts.append(text)
        elif language == "python" and not after and page != "docs/tables.md":
            parts.append(f"python - <<'END_OF_BLOCK'\n{text}END_OF_BLOCK\n")
    return "\n".join(parts)


def run(page: str, folder: Path) -> None:
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script(page)],
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, f"{page}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout in which the tutorial has been followed."""
    folder = tmp_path_factory.mktemp("docs") / "checkout"
    folder.mkdir()
    for part in (*PARTS, "tools", "benchmarks", "docs", "mkdocs.yml", "README.md"):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    run(TUTORIAL, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if script(page)])
def test_commands_of_the_page_run(checkout, page):
    if page != TUTORIAL:
        run(page, checkout)
    assert (checkout / "results/runs/small/model.safetensors").exists()


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page):
    for language, after, text in blocks(page):
        assert not after or (language == "bash" and NOT_RUN.fullmatch(after)), (language, after)
        if language not in ("bash", "python"):
            first = [line.split()[0] for line in text.splitlines() if line.strip()]
            assert not set(first) & set(COMMANDS), f"a command in a block of {language or 'text'}"
        if language == "bash":
            subprocess.run(["bash", "-n", "-c", text], check=True)


@pytest.mark.parametrize("page", PAGES)
def test_yaml_blocks_are_configurations(page):
    for language, _, text in blocks(page):
        if language == "yaml":
            config.load(yaml.safe_load(text))


def spoken(page: str) -> list[str]:
    """Every command line of the page, in blocks and in running text."""
    lines = [text.replace("\\\n", " ") for language, _, text in blocks(page) if language == "bash"]
    prose = FENCE.sub("", PAGES[page])
    inline = re.findall(r"`([^`\n]+)`", prose)
    return [line.split(" #")[0] for text in [*lines, *inline] for line in text.splitlines()]


def subcommands() -> dict[str, ArgumentParser]:
    (found,) = (a for a in build_parser()._actions if isinstance(a, _SubParsersAction))
    return found.choices


@pytest.mark.parametrize("page", PAGES)
def test_what_is_named_exists(page):
    files = [ROOT / "Snakefile", *ROOT.glob("workflow/**/*.smk")]
    rules = "".join(path.read_text("utf-8") for path in files)
    targets = set(re.findall(r"^ *rule (\w+):", rules, re.M))
    for line in spoken(page):
        words = line.split()
        if words[:1] == ["qfitlatent"] and len(words) > 1 and words[1].isalpha():
            options = subcommands()[words[1]]._option_string_actions
            assert {word for word in words if word.startswith("-")} <= set(options), line
        if words[:1] == ["snakemake"] and len(words) > 1 and words[1].isalpha():
            assert words[1] in targets, line
        if "--forcerun" in words:
            rule = words[words.index("--forcerun") + 1]
            assert "/" in rule or rule in targets, line
        for path in re.findall(rf"\b(?:{FOLDERS})/[\w./]+\w", line):
            assert (ROOT / path).exists() or path.endswith("NAME.yaml"), line


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_outside_the_site_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", PAGES[page]):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.fixture(scope="module")
def hooks():
    """What makes the generated parts of the site."""
    spec = spec_from_file_location("docs_hooks", ROOT / "tools" / "docs_hooks.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_complete(hooks):
    whole = "\n".join(hooks.fill(text) for text in PAGES.values())
    assert "<!-- generated" not in whole
    parts = re.findall(r"<!-- generated: (\w+) -->", "".join(PAGES.values()))
    assert sorted(parts) == sorted(hooks.GENERATED), "each part stands on one page"
    for name in (*(option.key for option in config.options()), *Reason):
        assert f"| `{name}` |" in whole
    assert set(hooks.schemas()) == set(hooks.TITLES)
    for field in chain.from_iterable(hooks.schemas().values()):
        assert f"| `{field.name}` |" in whole
    for command in subcommands():
        assert f"usage: qfitlatent {command}" in whole


def test_every_section_of_the_contract_that_is_named_exists():
    sections = set(re.findall(r"\{ #spec-(\d+) \}", PAGES["docs/spec.md"]))
    named = set()
    for folder in ("src", "tests", "workflow", "experiments", "tools", "benchmarks", "docs"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".smk", ".yaml", ".md"):
                named |= set(re.findall(r"\bSPEC (\d+)", path.read_text("utf-8")))
    assert named <= sections
    assert sections == {str(number) for number in range(1, 13)}


def test_sections_of_the_contract_become_links_but_not_in_code(hooks):
    text = "<p>SPEC 7, <code>SPEC 7</code> and <a href='x'>SPEC 7</a></p>"
    linked = text.replace("SPEC 7", '<a href="s.html#spec-7">SPEC 7</a>', 1)
    assert hooks.link_sections(text, "s.html") == linked


def test_linters_of_pre_commit_are_those_of_ci():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [hook["entry"] for hook in hooks] == ci[-len(hooks) :]
