"""What the documents name is there."""

import json
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import pytest

DOCUMENTS = [
    "docs/playground.md",
    "README.md",
    "CONTRIBUTING.md",
    "docs/structures.md",
    "docs/engine.md",
    "docs/tasks.md",
    "docs/evaluation.md",
    "docs/benchmark.md",
]
PAGES = [*DOCUMENTS, *(f"docs/{name}.md" for name in ("architecture", "configuration", "operations", "tutorial"))]
_FILE = re.compile(r"`([\w.-]+(?:/[\w.-]+)*\.(?:py|yaml|lock|txt))`")
_FOLDER = re.compile(r"`((?:[\w.-]+/)+)`")
_LINK = re.compile(r"\]\(([^):#]+)(?:#[\w-]+)?\)")
_STEP = re.compile(r"^(\d+)\. (.+?)(?=^\d+\. |^$)", re.MULTILINE | re.DOTALL)


def missing(root: Path, names: list[str]) -> list[str]:
    """Those that are neither in the checkout nor in the package."""
    places = (root, root / "platform/multiverse")
    return [name for name in names if not any((place / name).exists() for place in places)]


def section(root: Path, title: str) -> str:
    _, _, rest = (root / "docs/structures.md").read_text().partition(f"\n## {title}\n")
    return rest.partition("\n## ")[0]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_and_folders_exist(root: Path, document: str) -> None:
    text = (root / document).read_text()
    names = _FILE.findall(text) + _FOLDER.findall(text)
    assert names
    assert missing(root, names) == []


@pytest.mark.parametrize("document", PAGES)
def test_links_inside_the_checkout_lead_somewhere(root: Path, document: str) -> None:
    links = _LINK.findall((root / document).read_text())
    assert [link for link in links if not (root / document).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize(
    "life", ["The life of a request", "The life of a structured text", "The life of an evaluated item"]
)
def test_life_has_eight_steps_each_with_its_file(root: Path, life: str) -> None:
    steps = _STEP.findall(section(root, life))
    assert [number for number, _ in steps] == ["1", "2", "3", "4", "5", "6", "7", "8"]
    assert [number for number, text in steps if not _FILE.search(text)] == []


def test_every_folder_of_the_package_has_its_line(root: Path) -> None:
    named = re.findall(r"^\| `(\w+)/` \|", section(root, "Folders"), re.MULTILINE)
    folders = {path.parent.name for path in (root / "platform/multiverse").glob("*/__init__.py")}
    assert set(named) == folders | {"deployments", "dashboards", "jobs", "k8s", "tests"}


def test_document_of_tasks_is_as_it_is_generated(root: Path) -> None:
    from multiverse.commands.tasks import document

    assert (root / "docs/tasks.md").read_text() == document()


def test_reference_of_the_configuration_is_as_it_is_generated(root: Path) -> None:
    from multiverse.commands.reference import document

    assert (root / "docs/configuration.md").read_text() == document()


def test_every_field_of_the_configuration_says_what_it_means(root: Path) -> None:
    rows = re.findall(r"^\| `([\w.]+)` \|.*\| (.*) \|$", (root / "docs/configuration.md").read_text(), re.MULTILINE)
    assert len(rows) > 100
    assert [name for name, meaning in rows if not meaning.strip()] == []


def test_pictures_are_as_they_are_drawn(root: Path) -> None:
    from docs.drawing.pictures import pictures

    assert {path.name: path.read_text() for path in (root / "docs").glob("*.svg")} == pictures()


def test_pictures_are_well_formed_and_say_what_they_show(root: Path) -> None:
    for path in (root / "docs").glob("*.svg"):
        label = ElementTree.parse(path).getroot().get("aria-label")
        assert f"![{label}]({path.name})" in (root / "docs/architecture.md").read_text()


def test_operations_lead_to_every_runbook(root: Path) -> None:
    linked = set(re.findall(r"\(runbooks/([\w-]+)\.md\)", (root / "docs/operations.md").read_text()))
    assert linked == {path.stem for path in (root / "docs/runbooks").glob("*.md")}


def test_fields_and_commands_that_runbooks_name_are_there(root: Path) -> None:
    """Of a key they are written as `limits.max_width`, of a request as `max_tokens` or `parallel.max_positions`."""
    from multiverse.cli import app
    from multiverse.serving.access.keys import KeyLimits
    from multiverse.serving.api.schema import ChatBody, Parallel

    known = set(re.findall(r"^\| `([\w.]+)` \|", (root / "docs/configuration.md").read_text(), re.MULTILINE))
    known |= {f"limits.{field.name}" for field in fields(KeyLimits)} | set(ChatBody.model_fields)
    known |= {f"parallel.{name}" for name in Parallel.model_fields}
    known |= {"no_plan", "no_room", "queue_full"}  # reasons
    texts = [(path.stem, path.read_text()) for path in (root / "docs/runbooks").glob("*.md")]
    named = [(book, name) for book, text in texts for name in re.findall(r"`([a-z]+(?:[._][a-z]+)+)`", text)]
    assert len(named) > 20
    assert [item for item in named if item[1] not in known] == []
    modes = [part for _, text in texts for part in re.findall(r'`"parallel": (\{.*?\})`', text)]
    assert {Parallel.model_validate_json(part).mode for part in modes} == {"off"}
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    commands |= {str(group.name) for group in app.registered_groups}
    assert {name for _, text in texts for name in re.findall(r"`multiverse (\w+)", text)} <= commands


def test_prometheus_takes_the_scrape_configuration_of_the_operations_guide(root: Path, tmp_path: Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    _, _, rest = (root / "docs/operations.md").read_text().partition("```yaml\nscrape_configs:")
    (tmp_path / "prometheus.yaml").write_text("scrape_configs:" + rest.partition("```")[0])
    command = [program, "check", "config", "--syntax-only", tmp_path / "prometheus.yaml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_has_its_line_in_the_readme(root: Path) -> None:
    from multiverse.cli import app

    commands = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    groups = [group.name for group in app.registered_groups]
    named = re.findall(r"^\| `multiverse (\w+)", (root / "README.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted([*commands, *groups])


def test_body_of_the_readmes_curl_command_is_accepted(root: Path) -> None:
    from multiverse.serving.api.schema import ChatBody

    _, _, rest = (root / "README.md").read_text().partition("-d '")
    body = ChatBody.model_validate(json.loads(rest.partition("'\n```")[0]))
    assert (body.parallel.mode, body.parallel.width) == ("force", 3)


def test_every_option_of_parallel_has_its_line_in_the_readme(root: Path) -> None:
    from multiverse.serving.api.schema import Parallel

    table = (root / "README.md").read_text().partition("### The request's `parallel`")[2].partition("###")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(Parallel.model_fields)
