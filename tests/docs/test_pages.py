"""Every code block of the documents is run, or says why not. See tests/docs/blocks.py for how."""

from __future__ import annotations

import asyncio
import json
import shutil
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, Page, blocks_of, read_page
from tests.docs.playing import play, play_on_rabbitmq
from tests.support.rabbitmq import RabbitNode

PAGES = [
    page
    for path in (ROOT / "README.rst", *sorted((ROOT / "docs").rglob("*.rst")))
    if "_build" not in path.parts and (page := read_page(path)).blocks
]
RUN = [page for page in PAGES if not page.tested_by]


@pytest.mark.parametrize("page", [page for page in RUN if not page.on_rabbitmq], ids=lambda page: page.path)
def test_the_blocks_of_a_page_run_as_it_says(page: Page, tmp_path: Path) -> None:
    if "$ curl " in page.text and shutil.which("curl") is None:
        pytest.skip("curl is not installed: apt-get install -y curl")
    asyncio.run(play(page, tmp_path))


def test_the_operator_prepares_rabbitmq_as_the_page_says(rabbitmq: RabbitNode, tmp_path: Path) -> None:
    (page,) = [page for page in RUN if page.on_rabbitmq]
    try:
        asyncio.run(play_on_rabbitmq(page, tmp_path, rabbitmq))
    finally:
        rabbitmq.ctl("delete_vhost", "shop")
        for user in ("mailer", "operator"):
            rabbitmq.ctl("delete_user", user)


@pytest.mark.parametrize("page", [page for page in PAGES if page.tested_by], ids=lambda page: page.path)
def test_a_page_that_another_test_looks_after_is_read_by_it(page: Page) -> None:
    text = (ROOT / page.tested_by).read_text("utf-8")
    assert Path(page.path).name in text or Path(page.path).stem in text or "*.rst" in text


def test_few_blocks_are_not_run() -> None:
    """If this fails, run the block, or say why it cannot be run and count it here."""
    left_out = [block for page in RUN for block in page.blocks if block.not_run]
    assert all(len(block.not_run) > 10 for block in left_out)
    assert len(left_out) == NOT_RUN, "\n".join(f"{block}: {block.not_run}" for block in left_out)


#: How many blocks have a comment '.. not run: REASON'.
NOT_RUN = 33


@pytest.mark.parametrize(
    "block",
    [block for page in PAGES for block in page.blocks if block.language in ("json", "python")],
    ids=str,
)
def test_json_and_python_can_be_read(block: Block) -> None:
    if block.language == "json":
        json.loads(block.text)
    else:
        flags = 0 if block.file else PyCF_ALLOW_TOP_LEVEL_AWAIT  # what is no file may be a part of a coroutine
        compile(block.text, str(block), "exec", flags=flags)


def test_blocks_are_found_with_their_comments() -> None:
    text = """\
Title
=====

Literal::

    $ one

.. test: background

.. code-block:: console
   :caption: a.py

   two

       three

.. not run: it needs a cluster

.. code-block:: yaml

    four: 4

The end.
"""
    first, second, third = blocks_of("a page", text)
    assert (first.language, first.text, first.line) == ("", "$ one", 4)
    assert (second.text, second.caption, second.orders) == ("two\n\n    three", "a.py", ("background",))
    assert (third.text, third.not_run, third.caption) == ("four: 4", "it needs a cluster", "")
