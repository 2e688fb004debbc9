"""What the build description promises, checked against the tree. (``nox -s packages`` builds and tries the wheel.)"""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.installed import smoke
from tests.support.services import environment

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
HATCH = PYPROJECT["tool"]["hatch"]
PACKAGES = [ROOT / name for name in HATCH["build"]["targets"]["wheel"]["packages"]]


def test_the_version_is_written_in_one_place() -> None:
    assert "version" not in PROJECT
    assert "version" in PROJECT["dynamic"]
    places = [
        path for package in PACKAGES for path in package.rglob("*.py") if "__version__ =" in path.read_text("utf-8")
    ]
    assert places == [ROOT / HATCH["version"]["path"]]
    assert re.search(r'^__version__ = "\d+\.\d+\.\d+[a-z0-9.]*"$', places[0].read_text("utf-8"), re.MULTILINE)


def test_the_core_needs_pamqp_and_cbor2_and_nothing_else() -> None:
    assert sorted(re.split(r"[<>=]", need)[0] for need in PROJECT["dependencies"]) == ["cbor2", "pamqp"]


EXTRAS = {name: list(map(Requirement, needs)) for name, needs in PROJECT["optional-dependencies"].items()}
#: What is imported of distributions that share a name.
SHARED = {"opentelemetry_api": "opentelemetry", "opentelemetry_sdk": "opentelemetry"}
#: By the package that needs it.
EXTRA_OF = {
    "adapters/eda_aio": "aio",
    "adapters/eda_pika": "pika",
    "adapters/eda_kombu": "kombu",
    "adapters/eda_otel": "otel",
    "adapters/eda_prometheus": "prometheus",
    "tools/eda_tools": "tools",
    "tools/eda_pytest": "testing",
    "eda_core/testing": "testing",
}


@pytest.mark.parametrize(
    "name", ["testing", "pika", "aio", "kombu", "tools", "msgspec", "pydantic", "otel", "prometheus"]
)
def test_the_extra_exists(name: str) -> None:
    assert EXTRAS[name]


def test_the_extra_all_is_all_of_them() -> None:
    (everything,) = EXTRAS["all"]
    assert everything.name == PROJECT["name"]
    assert everything.extras == EXTRAS.keys() - {"all"}


def imported(package: Path) -> set[str]:
    """The packages of others that it imports."""
    found: set[str] = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
    return {name for name in found - sys.stdlib_module_names if not name.startswith("eda_")}


def needs_of(extra: str) -> list[Requirement]:
    """What an extra asks for, with what it asks for by naming other extras."""
    needs = []
    for need in EXTRAS[extra]:
        needs += [each for other in need.extras for each in needs_of(other)] if need.name == PROJECT["name"] else [need]
    return needs


@pytest.mark.parametrize(("package", "extra"), EXTRA_OF.items())
def test_what_a_package_imports_is_in_its_extra(package: str, extra: str) -> None:
    """Not only by way of what another library needs."""
    of_the_core = {re.split(r"[<>=]", need)[0] for need in PROJECT["dependencies"]}
    named = {need.name.replace("-", "_") for need in needs_of(extra)}
    named |= {SHARED[name] for name in named & SHARED.keys()}
    assert imported(ROOT / package) - of_the_core <= named


def checked(file: Path) -> dict[str, str]:
    """The versions of libraries that a module checks when it is imported, by library."""
    calls = (node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call))
    (modules,) = (ast.literal_eval(call.args[2]) for call in calls if ast.unparse(call.func) == "require")
    return {module.partition(".")[0]: version for module, version in modules.items()}


@pytest.mark.parametrize(
    ("file", "extra"),
    [
        ("adapters/eda_aio/transport.py", "aio"),
        ("adapters/eda_pika/__init__.py", "pika"),
        ("adapters/eda_kombu/__init__.py", "kombu"),
        ("eda_core/testing/strategies/__init__.py", "testing"),
    ],
)
def test_what_is_checked_at_import_is_what_the_extra_asks_for(file: str, extra: str) -> None:
    needs = {need.name: need.specifier for need in EXTRAS[extra]}
    versions = checked(ROOT / file)
    assert versions.keys() == needs.keys() - {"pytest"}  # which loads the plugin, and so is there
    for name, version in versions.items():
        if version:
            major, minor, _ = version.split(".")
            assert needs[name] == SpecifierSet(f">={version},<{major}.{int(minor) + 1}")


#: Makes modules unavailable, and then imports one of ours.
WITHOUT = """
import sys
names, module = sys.argv[1].split(","), sys.argv[2]
sys.modules.update(dict.fromkeys(names))
try:
    __import__(module)
except ImportError as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("eda_aio.transport", "aiormq", "aio"),
        ("eda_pika", "pika", "pika"),
        ("eda_kombu", "kombu", "kombu"),
        ("eda_kombu", "amqp", "kombu"),
        ("eda_prometheus", "prometheus_client", "prometheus"),
        ("eda_core.testing.strategies", "hypothesis", "testing"),
        ("eda_models.structs", "msgspec", "msgspec"),
        ("eda_models.pydantic_models", "pydantic", "pydantic"),
    ],
)
def test_a_missing_extra_says_the_command_that_installs_it(module: str, missing: str, extra: str) -> None:
    command = [sys.executable, "-c", WITHOUT, missing, module]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment())
    package = "eda_models" if module.startswith("eda_models") else module.removesuffix(".transport")
    assert done.stdout == f"ModuleNotFoundError: {package} needs {missing}: pip install 'eda-core[{extra}]'\n"


@pytest.mark.parametrize(
    ("module", "library", "version"),
    [
        ("eda_aio.transport", "aiormq.connection", "7.3.0"),
        ("eda_pika", "pika", "1.5.0"),
        ("eda_kombu", "amqp", "5.5.0"),
    ],
)
def test_a_library_of_another_version_is_refused(module: str, library: str, version: str) -> None:
    code = f"""
import {library}
{library}.__version__ = "{version}"
try:
    import {module}
except ImportError as error:
    print(error)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment())
    name = library.partition(".")[0]
    package = "eda_models" if module.startswith("eda_models") else module.removesuffix(".transport")
    assert done.stdout.startswith(f"{package} needs {name} ")
    assert done.stdout.endswith(f" and {version} is installed: pip install 'eda-core[{package[4:]}]'\n")


@pytest.mark.parametrize(
    ("transport", "told"),
    [
        ("native", "over"),
        (
            "aio-pika",
            "eda_aio needs aiormq: pip install 'eda-core[aio]'; "
            'or set TRANSPORT = "native", which needs no client library',
        ),
    ],
)
def test_services_may_do_without_a_client_library(transport: str, told: str) -> None:
    code = """
import asyncio, sys
sys.modules.update(dict.fromkeys(("aiormq", "aio_pika", "pika", "kombu")))
from eda_aio import Service
service = Service("amqp://127.0.0.1:1/", [], [], "shop", transport=sys.argv[1])
async def main():
    running = asyncio.create_task(service.run())
    await asyncio.sleep(0)
    if not running.done():
        await service.stop(0)
    await running
try:
    asyncio.run(main())
    print("over")
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, transport],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=environment(),
    )
    assert done.stdout == f"{told}\n"


def test_files_of_others_have_their_licence_and_are_not_part_of_the_distribution() -> None:
    (theirs,) = HATCH["build"]["targets"]["sdist"]["exclude"]
    assert {path.name for path in (ROOT / theirs).iterdir()} >= {"LICENSE", "NOTICE", "README.rst"}
    assert not any((ROOT / theirs).is_relative_to(package) for package in PACKAGES)


def test_every_package_of_the_shelves_is_shipped_typed() -> None:
    """A new adapter is easily forgotten in ``packages``; py.typed is what makes its types count for users."""
    on_shelves = {path.parent for shelf in ("adapters", "tools") for path in (ROOT / shelf).glob("*/__init__.py")}
    assert on_shelves <= set(PACKAGES)
    assert all((package / "py.typed").is_file() for package in PACKAGES)


def test_no_package_takes_a_name_that_is_not_ours() -> None:
    assert all(package.name.startswith("eda_") for package in PACKAGES)


def test_each_extra_is_tried_when_it_is_installed() -> None:
    tried = {*smoke.PARTS, "all"}
    assert {"core", *EXTRAS} <= tried
    assert tried - {"core", *EXTRAS} == {"services"}, "what needs several extras is tried with all of them"


def sessions() -> set[str]:
    """The names of the sessions in noxfile.py, which is not imported: nox is not installed where the tests run."""
    found: set[str] = set()
    noxfile = (ROOT / "noxfile.py").read_text("utf-8")
    for options, function in re.findall(r"^@nox\.session(?:\((.*)\))?\ndef (\w+)", noxfile, re.MULTILINE):
        named = re.search(r'name="(.*?)"', options)
        name = named[1] if named else function
        pythons = PYTHONS if "python=PYTHONS" in options else ()
        found.update((name, *(f"{name}-{python}" for python in pythons)))
    return found


PYTHONS = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))


@pytest.mark.parametrize("file", [".github/workflows/checks.yml", "CONTRIBUTING.rst", "README.rst"])
def test_the_sessions_that_are_named_exist(file: str) -> None:
    text = (ROOT / file).read_text("utf-8")
    named = set(re.findall(r"nox -s ([\w.-]*\w)", text))
    for listed in re.findall(r"session: \[(.*)\]", text):
        named.update(listed.split(", "))
    named.update(re.findall(r"^``([\w.-]+)`` ", text, re.MULTILINE) if file == "CONTRIBUTING.rst" else ())
    assert named
    assert named - sessions() == set()


def test_commits_are_checked_with_the_ruff_of_the_checks() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    pins = re.findall(r'additional_dependencies: \["(ruff.*?)"\]', hooks)
    assert pins
    assert set(pins) == set(PYPROJECT["dependency-groups"]["lint"])
