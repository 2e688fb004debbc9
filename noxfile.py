"""The checks of the project. ``python3 -m nox`` runs lint, types and tests; ``python3 -m nox -l`` lists everything.

The environments are made with the interpreter that runs nox and kept from run to run; ``python3 -m nox -R`` uses them
as they are, without the network.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nox

if sys.version_info < (3, 11):  # noqa: UP036 - what runs nox need not be what the package asks for
    sys.exit(f"eda-core needs Python 3.11 or later; nox is running on {sys.version.split()[0]} ({sys.executable})")

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "docs", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True

HERE = Path(__file__).parent
PROJECT = nox.project.load_toml(HERE / "pyproject.toml")
CLASSIFIER = "Programming Language :: Python :: "
PYTHONS = [each[len(CLASSIFIER) :] for each in PROJECT["project"]["classifiers"] if each.startswith(f"{CLASSIFIER}3.")]
PYTEST = next(each for each in PROJECT["project"]["optional-dependencies"]["testing"] if each.startswith("pytest"))
TYPED = ("eda_core", "adapters", "tools", "tests", "examples", "benchmarks")


def install(session: nox.Session, group: str = "dev", *options: str) -> None:
    """Install the checkout (editable), all its extras and the tools of a dependency group. The options are pip's."""
    extras = ",".join(PROJECT["project"]["optional-dependencies"])
    session.install(*options, "-e", f".[{extras}]", *nox.project.dependency_groups(PROJECT, group))


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: the rules, and the format."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def docs(session: nox.Session) -> None:
    """The documents as HTML, in ``docs/_build``. Every warning is an error: a broken table, link, name or docstring."""
    install(session, "docs")  # the reference is read off the packages
    session.run("sphinx-build", "--fail-on-warning", "--keep-going", "--quiet", "docs", "docs/_build")
    session.run("python", "-m", "docutils", "--report=2", "--halt=2", "--writer=null", "README.rst")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict of everything that is typed; and that other type checkers see the public types alike."""
    install(session)
    session.run("mypy", "--strict", *(name for name in TYPED if any((HERE / name).rglob("*.py"))))
    adapters = (
        "eda_aio",
        "eda_kombu",
        "eda_logging",
        "eda_models",
        "eda_otel",
        "eda_pika",
        "eda_probe",
        "eda_prometheus",
    )
    for package in ("eda_core", *adapters, "eda_pytest", "eda_tools"):
        session.run("pyright", "--verifytypes", package, "--ignoreexternal")


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite, three files at a time. Arguments after -- go to pytest: ``nox -s tests -- -k codec``."""
    install(session)
    # Three on two cores: a third of the time a worker waits, for RabbitMQ to start or for a heartbeat to be missed. By
    # files: some tests look at what the others of their file have done. Each worker starts a RabbitMQ of its own. The
    # order of the files is that of tests/conftest.py.
    session.run("pytest", "-n", "3", "--dist", "loadfile", "--no-loadscope-reorder", "--durations=40", *session.posargs)


@nox.session
def deep(session: nox.Session) -> None:
    """What takes too long for each run: larger searches, more examples of everything random."""
    install(session)
    session.run("pytest", "-m", "deep", *session.posargs, env={"HYPOTHESIS_PROFILE": "deep"})


@nox.session
def interop(session: nox.Session) -> None:
    """With eventail 2.3.6, from PyPI, in an environment of its own."""
    install(session)
    theirs = Path(session.virtualenv.location) / "eventail"
    session.run("python", "-m", "venv", str(theirs))
    python = str(theirs / "bin" / "python")
    session.run(python, "-m", "pip", "install", "-q", "eventail[synchronous]==2.3.6", external=True)
    session.run("pytest", "-m", "interop", *session.posargs, env={"EDA_EVENTAIL_PYTHON": python})


@nox.session
def clients(session: nox.Session) -> None:
    """Clients that are not ours, each at its everyday work on the embedded broker. The last two need node and npm.

    pika, aio-pika, kombu, Celery, FastStream, and amqplib and rabbitmq-client of Node, all from their registries.
    """
    install(session)
    session.install("celery>=5.6,<6", "faststream[rabbit]>=0.7,<0.8")
    node = Path(session.create_tmp()).resolve()
    packages = ("amqplib@>=0.10", "rabbitmq-client@5")
    session.run("npm", "install", "--silent", "--prefix", str(node), *packages, external=True)
    env = {"EDA_NODE_MODULES": str(node / "node_modules")}
    session.run("pytest", "-m", "clients", "tests/clients", *session.posargs, env=env)


@nox.session(name="rabbitmq-versions")
def rabbitmq_versions(session: nox.Session) -> None:
    """Everything that needs RabbitMQ, on 4.3, 4.0 and 3.10 in turn, with one line for each at the end.

    4.3 and 4.0 are prepared first (as root, once, a minute each). Arguments after -- go to pytest.
    """
    install(session)
    session.run("python", "-m", "tests.support.rabbitmq_releases", "4.3", "4.0")
    results = {}
    for version in ("4.3", "4.0", "3.10"):
        command = [str(Path(session.bin) / "pytest"), "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
        command += ["-m", "rabbitmq and not deep and not interop and not clients", *session.posargs]
        session.log(f"EDA_RABBITMQ={version} pytest {' '.join(command[1:])}")
        # Not by session.run, which would end the session at the first version that fails.
        status = subprocess.call(command, cwd=HERE, env={**os.environ, "EDA_RABBITMQ": version})
        results[version] = "passed" if status == 0 else f"failed (pytest ended with status {status})"
    for version, result in results.items():
        print(f"RabbitMQ {version}: {result}")
    if set(results.values()) != {"passed"}:
        session.error("not all versions passed")


@nox.session
def faults(session: nox.Session) -> None:
    """Services of every kind, and eventail's, put through faults of broker and network: an hour, on RabbitMQ 4.3.

    ``-- --quick`` is a part of it, in 5 minutes; ``-- --scenario cuts --kind pika`` is one of it. At the end there are
    numbers, and the session fails if a service of ours has lost a message or stands still. After a run of all,
    ``python -m tests.faults.report faults.json`` writes them into docs/reliability.rst.
    """
    install(session)
    theirs = Path(session.virtualenv.location) / "eventail"
    session.run("python", "-m", "venv", str(theirs))
    python = str(theirs / "bin" / "python")
    session.run(python, "-m", "pip", "install", "-q", "eventail[synchronous]==2.3.6", external=True)
    session.run("python", "-m", "tests.support.rabbitmq_releases", "4.3")
    env = {"EDA_EVENTAIL_PYTHON": python}
    session.run("python", "-m", "tests.faults", "--rabbitmq", "4.3", *session.posargs, env=env)


@nox.session(python=PYTHONS[1:], name="tests-on")
def tests_on(session: nox.Session) -> None:
    """The test suite on the other versions of Python: ``nox -s tests-on-3.13``. Arguments after -- go to pytest."""
    tests(session)


@nox.session
def lowest(session: nox.Session) -> None:
    """The test suite with the oldest versions of its dependencies that the package allows."""
    install(session, "dev", "--constraint", constraints(session))
    session.run("pytest", "-n", "3", "--dist", "loadfile", "--no-loadscope-reorder", *session.posargs)


@nox.session(python=PYTHONS)
def packages(session: nox.Session) -> None:
    """Wheel and sdist: built, and tried with each extra in a fresh environment, with new and with old dependencies."""
    install(session)  # for the broker
    session.install("build>=1.2", "twine>=6")
    built = Path(session.create_tmp()) / "dist"
    shutil.rmtree(built, ignore_errors=True)
    # The wheel is built from the sdist: so the sdist has all that the wheel needs.
    session.run("python", "-m", "build", "--outdir", str(built), str(HERE), silent=True)
    session.run("twine", "check", "--strict", *map(str, built.iterdir()))
    wheel = next(built.glob("*.whl"))
    old = ["--constraint", constraints(session)]
    with subprocess.Popen(
        [str(Path(session.bin) / "python"), "-m", "eda_tools.broker", "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as broker:
        try:
            assert broker.stdout is not None
            port = broker.stdout.readline().rstrip("/\n").rpartition(":")[2]
            url = f"amqp://guest:guest@127.0.0.1:{port}/"
            asked = {extra: [f"{wheel}[{extra}]"] for extra in PROJECT["project"]["optional-dependencies"]}
            asked |= {"core": [str(wheel)], "pytest": [f"{wheel}[aio]", PYTEST]}
            for part, requirements in asked.items():
                for versions in ([], old):
                    try_installed(session, part, [*versions, *requirements], url)
        finally:
            broker.terminate()


def try_installed(session: nox.Session, part: str, requirements: list[str], url: str) -> None:
    """Install the wheel in a fresh environment, and let ``tests/installed/smoke.py`` try a part of it there."""
    with tempfile.TemporaryDirectory() as directory:
        session.run("python", "-m", "venv", f"{directory}/venv")
        python = f"{directory}/venv/bin/python"
        session.run(python, "-m", "pip", "install", "-q", *requirements, external=True)
        session.run(python, "-m", "pip", "check", external=True, silent=True)
        tests = HERE / "tests" / "installed"
        shutil.copy(tests / "smoke.py", directory)  # away from the checkout
        shutil.copytree(tests / "project", f"{directory}/project", ignore=shutil.ignore_patterns("__pycache__"))
        with session.chdir(directory):
            session.run(python, "smoke.py", part, url, external=True)


def constraints(session: nox.Session) -> str:
    """Write the oldest version of each dependency that the package allows into a file for pip, and return its name."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    needed = {*PROJECT["project"]["dependencies"], *(each for extra in extras for each in extra)}
    oldest = [match.expand(r"\1==\2") for each in sorted(needed) if (match := re.match(r"([\w-]+)>=([\d.]+)", each))]
    file = Path(session.create_tmp()) / "oldest.txt"
    file.write_text("\n".join(oldest) + "\n", encoding="utf-8")
    return str(file)


@nox.session
def coverage(session: nox.Session) -> None:
    """Is each module of the core, or of those named after --, covered in every branch by its own tests?

    A name is that of a module or a room: ``nox -s coverage -- urls machine/link drivers``.
    What the whole suite leaves out of everything: ``coverage run -m pytest`` there, and ``coverage report``.
    """
    install(session)
    session.run("python", "-m", "tests.support.core_coverage", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """What things cost, as ratios measured side by side; writes docs/performance.rst.

    Arguments after -- go to the core's benchmark. The comparison with other clients takes about five minutes, on a
    machine that does nothing else. Parts of it can be run by themselves: ``python -m benchmarks.peers --help``.
    """
    session.install("-e", ".[aio,kombu,pika,tools]")
    session.run("python", "benchmarks/core.py", *session.posargs)
    session.run("python", "-m", "benchmarks.endpoint", *(each for each in session.posargs if each == "--check"))
    session.run("python", "-m", "benchmarks.waiting", *(each for each in session.posargs if each == "--check"))
    session.run("python", "-m", "benchmarks.broker", *(each for each in session.posargs if each == "--check"))
    session.run("python", "-m", "benchmarks.simulation", *(each for each in session.posargs if each == "--check"))
    session.run("python", "-m", "benchmarks.peers", "--page")


@nox.session
def demo(session: nox.Session) -> None:
    """The conversations demo, on EDA_AMQP_URL if set. Its environment has what a user would have, and aio-pika."""
    session.install("-e", ".[aio,kombu,tools]", "aio-pika>=10.2,<11")  # for the operator's part
    command = [str(Path(session.bin) / "python"), "-m", "examples.conversations.demo", *session.posargs]
    session.log(" ".join(["python", *command[1:]]))
    # Not by session.run, which has but one status for all failures: the demo's own says what went wrong.
    status = subprocess.call(command, cwd=HERE)
    if status:
        sys.exit(status)
