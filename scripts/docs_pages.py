"""MkDocs hook: pages that are made, not written. The command line's from its help, others from files outside docs/."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import typer.cli
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.core import TyperGroup
from typer.main import get_command

from hirelc.cli import app

ROOT = Path(__file__).parent.parent
# page -> the file that it shows
SHOWN = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md", "results.md": "benchmarks/RESULTS.md"}
EXAMPLE = re.compile("\b\n(.*?)(?:\n\n|\\Z)", re.DOTALL)  # what help shows line by line

OUTSIDE = re.compile(
    r"<(?:script|img|iframe|source)[^>]*?src=[\"']?(?:https?:)?//[^\s\"'>]*|<link[^>]*?href=[\"']?(?:https?:)?//[^\s\"'>]*"
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists the decisions in the navigation: a new one needs no entry of its own."""
    records = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("0*.md"))
    _replace(config.nav, "decisions/index.md", ["decisions/index.md", *(f"decisions/{name}" for name in records)])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made."""
    pages = {page: (ROOT / source).read_text().replace("](../docs/", "](") for page, source in SHOWN.items()}
    pages["cli.md"] = command_line()
    pages["decisions/index.md"] = decisions()
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuses pages that would ask the network for something: links are for people, everything else must be here."""
    found = OUTSIDE.findall(output)
    if found:
        raise PluginError(f"{page.file.src_uri} asks the network for {found[0]}: bring the file along")
    return output


def command_line() -> str:
    """Every command with its options, as Markdown."""
    command = get_command(app)
    assert isinstance(command, TyperGroup)
    for each in (command, *command.commands.values()):
        each.help = EXAMPLE.sub(lambda found: f"```sh\n{found[1]}\n```\n\n", each.help or "")
    context = typer.Context(command, info_name="hirelc")
    context.obj = {typer.cli.MARKUP_MODE_KEY: "rich"}
    made = typer.cli.get_docs_for_click(obj=command, ctx=context, name="hirelc", title="Command line")
    for name, each in command.commands.items():  # typer cuts these at 45 characters
        first = (each.help or "").split("\n\n")[0].replace("\\[", "[")
        made = re.sub(rf"^\* `{name}`: .*$", lambda _, n=name, f=first: f"* `{n}`: {f}", made, count=1, flags=re.MULTILINE)
    return html.unescape(made).replace("```console\n$ ", "```sh\n")  # what stands in code must not be escaped


def decisions() -> str:
    """A page that lists the decisions by title."""
    lines = ["# Decisions", "", "What was chosen, why, and what was measured before.", ""]
    for path in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        title = path.read_text().splitlines()[0].removeprefix("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines) + "\n"


def _replace(nav: Any, page: str, pages: list[str]) -> None:
    """Puts a list of pages where the navigation names one."""
    for entry in nav:
        for title, below in entry.items() if isinstance(entry, dict) else ():
            if below == page:
                entry[title] = pages
            elif isinstance(below, list):
                _replace(below, page, pages)
