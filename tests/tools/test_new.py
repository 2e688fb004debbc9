"""The command ``eda new``, and the project that it writes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from eda_core._version import __version__
from eda_tools import eda
from eda_tools import new as tool
from eda_tools.creating.names import LONGEST, Names
from eda_tools.creating.project import PASSWORD, USER, files, password_hash
from tests.support.rabbitmq import RabbitNode
from tests.support.services import environment

#: The shortest, the longest, and one with all that a name may have.
NAMES = ["a", "x" * LONGEST, "shop-orders_2"]


def run_in(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=directory, env=environment(), capture_output=True, text=True, timeout=600
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_tests_of_a_new_project_pass_and_its_types_are_right(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert eda.main(["new", "shop-orders"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"shop-orders is written. To go on, read {Path('shop-orders', 'README.rst')}:\n")
    assert told.err == ""
    project = here / "shop-orders"
    done = run_in(project, "pytest", "-q", "-p", "no:cacheprovider")
    assert re.search(r"^4 passed", done.stdout, re.MULTILINE), done.stdout
    done = run_in(project, "mypy", "--strict", "shop_orders", "tests", f"--cache-dir={here / 'cache'}")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_ruff_has_nothing_to_say(here: Path, name: str) -> None:
    assert tool.main([name, "made"]) == 0
    for command in (["check"], ["format", "--check"]):
        done = run_in(here / "made", "ruff", *command, "--no-cache", ".")
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_filled_in(name: str) -> None:
    names = Names.of(name)
    made = files(names)
    assert not [path for path, text in made.items() if "{{" in path + text]
    assert {f"{names.package}/service.py", "tests/test_service.py", "Dockerfile", ".gitignore"} <= made.keys()
    project = tomllib.loads(made["pyproject.toml"])["project"]
    assert project["name"] == name
    assert project["dependencies"] == [f"eda-core[aio,tools]>={__version__}"]
    target = f"{names.package}.service:{names.service}"
    assert f'CMD ["eda", "run", "{target}", ' in made["Dockerfile"]
    assert f"eda run --reload {target}\n" in made["README.rst"]
    compile(made["noxfile.py"], "noxfile.py", "exec")
    for path in re.findall(r"^COPY (.*) \S+$", made["Dockerfile"], re.MULTILINE):
        assert all(any(each == part or each.startswith(f"{part}/") for each in made) for part in path.split())
    for path in re.findall(r"- \./(.*?):", made["compose.yaml"]):
        assert path in made


def test_the_password_of_the_broker_is_kept_as_rabbitmq_does() -> None:
    assert password_hash("test12", bytes.fromhex("908DC60A")) == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    (user,) = json.loads(files(Names.of("shop"))["rabbitmq/definitions.json"])["users"]
    kept = base64.b64decode(user["password_hash"])
    assert kept[4:] == hashlib.sha256(kept[:4] + PASSWORD.encode()).digest()


def test_rabbitmq_takes_the_definitions(rabbitmq: RabbitNode, tmp_path: Path) -> None:
    vhost = "new-project"
    text = files(Names.of("shop"))["rabbitmq/definitions.json"].replace('"/"', f'"{vhost}"')
    (tmp_path / "definitions.json").write_text(text)
    try:
        rabbitmq.ctl("import_definitions", str(tmp_path / "definitions.json"))
        assert "Success" in rabbitmq.ctl("authenticate_user", USER, PASSWORD)
        assert "dead-letters" in rabbitmq.ctl("list_policies", "-p", vhost)
        assert "am-dlx\tdead-letters\t#" in rabbitmq.ctl(
            "list_bindings", "-p", vhost, "-q", "source_name", "destination_name", "routing_key"
        )
    finally:
        rabbitmq.ctl("delete_vhost", vhost)
        rabbitmq.ctl("delete_user", USER)


def test_all_names_follow_from_one() -> None:
    assert Names.of("shop-orders_2") == Names("shop-orders_2", "shop_orders_2", "ShopOrders2")
    assert Names.of("mail") == Names("mail", "mail", "Mail")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Shop", "'Shop' is no name; take up to 40 lower-case letters and digits, such as shop-orders"),
        ("shop orders", "'shop orders' is no name; "),
        ("2shops", "'2shops' is no name; "),
        ("shop-", "'shop-' is no name; "),
        ("../shop", "'../shop' is no name; "),
        ("größe", "'größe' is no name; "),
        ("x" * 41, f"'{'x' * 41}' is no name; "),
        ("", "'' is no name; "),
        ("class", "'class' is a word of Python; take another name"),
        ("match", "'match' is a word of Python; take another name"),
        ("logging", "a package logging exists already, and would be hidden; take another name"),
        ("eda-core", "a package eda_core exists already, and would be hidden; take another name"),
        ("tests", "a package tests exists already, and would be hidden; take another name"),
    ],
)
def test_a_bad_name_is_refused(here: Path, capsys: pytest.CaptureFixture[str], name: str, told: str) -> None:
    assert tool.main([name]) == 2
    assert capsys.readouterr().err.startswith(f"eda new: {told}")
    assert list(here.iterdir()) == []


def test_a_directory_that_is_not_empty_is_left_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "shop").mkdir()
    (here / "shop" / "mine").touch()
    (here / "file").touch()
    assert tool.main(["shop"]) == 2
    assert capsys.readouterr().err == "eda new: shop is not empty; name another directory: eda new shop DIR\n"
    assert tool.main(["shop", "file"]) == 2
    assert capsys.readouterr().err == "eda new: file is a file; name a directory\n"
    assert [path.name for path in (here / "shop").iterdir()] == ["mine"]
    assert tool.main(["shop", "file/deeper"]) == 1
    assert capsys.readouterr().err == "eda new: file/deeper: Not a directory\n"
    (here / "empty").mkdir()
    assert tool.main(["shop", "empty"]) == 0
    assert (here / "empty" / "shop" / "service.py").is_file()


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: eda new [-h] [--version] NAME [DIRECTORY]")
    assert tool.main([]) == 2
    assert capsys.readouterr().err.startswith("eda new: the following arguments are required: NAME")
