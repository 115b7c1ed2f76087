"""How the package is handed out: environments that agree, images, what wheel and sdist hold."""

import re
import subprocess
import tarfile
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def lines(name):
    text = (ROOT / name).read_text("utf-8").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip()]


def dependencies():
    """Names of what the package itself needs, as pyproject.toml has them."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    listed = re.search(r"^dependencies = \[(.*?)^\]", project, re.S | re.M).group(1)
    return re.findall(r'"([A-Za-z0-9_-]+)>=', listed)


def test_conda_environment_is_that_of_pyproject_in_the_versions_of_the_constraints():
    pins = dict(line.split("==") for line in lines("constraints.txt") if "==" in line)
    python, pip, packages = yaml.safe_load((ROOT / "envs/qfitlatent.yaml").read_text())[
        "dependencies"
    ]
    assert packages["pip"] == [f"{name}=={pins[name]}" for name in dependencies()]
    assert pip == "pip"
    wanted = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert python == f"python ={wanted.group(1)}"


def copied(dockerfile):
    """What the image copies from the checkout."""
    found = []
    for line in dockerfile:
        if line.startswith("COPY ") and "--from" not in line:
            found += line.split()[1:-1]
    return found


def test_the_image_runs_as_nobody_and_is_given_what_it_copies():
    dockerfile = lines("Dockerfile")
    last_stage = dockerfile[max(i for i, x in enumerate(dockerfile) if x.startswith("FROM")) :]
    users = [line.split()[1] for line in last_stage if line.startswith("USER ")]
    assert users
    assert users[-1].split(":")[0] not in ("root", "0")
    installs = [line for line in dockerfile if "pip install" in line]
    assert installs
    assert all("-c constraints.txt" in line and "--no-cache-dir" in line for line in installs)
    assert "download.pytorch.org/whl/cpu" in installs[0], "the CPU build of torch, before the rest"
    given = {line[1:] for line in lines(".dockerignore") if line.startswith("!")}
    assert set(copied(dockerfile)) == given
    assert all((ROOT / name).exists() for name in given)


def test_the_apptainer_image_is_made_as_the_docker_image():
    text = (ROOT / "apptainer.def").read_text("utf-8").replace("\\\n", " ")
    head, *parts = re.split(r"^%(\w+)\n", text, flags=re.M)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    assert set(sections) == {"files", "post", "environment", "test", "runscript", "labels"}
    dockerfile = lines("Dockerfile")
    assert "Bootstrap: docker\n" in head
    assert f"From: {dockerfile_base(dockerfile)}\n" in head
    files = [line.split() for line in sections["files"].splitlines() if line.strip()]
    assert [source for source, _ in files] == copied(dockerfile)
    assert all(target == f"/source/{source}" for source, target in files)
    for name in ("post", "environment", "test", "runscript"):
        subprocess.run(["bash", "-n", "-c", sections[name]], check=True)

    def installs(script):
        found = re.findall(r"pip install ([^\n]+)", script)
        return [" ".join(arguments.split()) for arguments in found]

    assert installs(sections["post"]) == installs("\n".join(dockerfile))


def dockerfile_base(dockerfile):
    (base,) = {line.split()[1] for line in dockerfile if line.startswith("FROM ")}
    return base


@pytest.fixture(scope="module")
def tool():
    spec = spec_from_file_location("check_dist", ROOT / "tools" / "check_dist.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_an_archive_lacks_or_holds_too_much_is_said(tool, tmp_path, monkeypatch, capsys):
    files = ["Snakefile", "tests/test_a.py", "src/qfitlatent/a.py", "src/qfitlatent/data/b.csv"]
    monkeypatch.setattr(tool, "tracked", lambda: set(files))
    for name in files:
        path = tmp_path / "qfitlatent-0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)

    def archives(sdist, wheel):
        with tarfile.open(tmp_path / "qfitlatent-0.tar.gz", "w:gz") as archive:
            for name in sdist:
                archive.add(tmp_path / "qfitlatent-0" / name, f"qfitlatent-0/{name}")
        with zipfile.ZipFile(tmp_path / "qfitlatent-0-py3-none-any.whl", "w") as archive:
            archive.writestr("qfitlatent-0.dist-info/RECORD", "")
            for name in wheel:
                archive.writestr(name, name)

    package = ["qfitlatent/a.py", "qfitlatent/data/b.csv", "share/qfitlatent/Snakefile"]
    archives(files, package)
    assert tool.check(tmp_path) == []
    assert "1 files         15 bytes  tests" in capsys.readouterr().out
    archives(files[:1] + files[2:], [package[0], package[2], "qfitlatent/stray.py"])
    assert tool.check(tmp_path) == [
        "qfitlatent-0-py3-none-any.whl lacks qfitlatent/data/b.csv.",
        "qfitlatent-0-py3-none-any.whl holds qfitlatent/stray.py.",
        "qfitlatent-0.tar.gz lacks tests/test_a.py.",
    ]


def test_the_version_stands_in_one_place_and_in_the_citation():
    from qfitlatent import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == __version__
    assert f"## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")
