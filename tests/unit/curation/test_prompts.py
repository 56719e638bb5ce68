"""The prompts' files: a version stays as it is, and what code fills in is documented."""

import re
from pathlib import Path

import pytest

from multiverse.curation.chain.replies import OpeningReply
from multiverse.curation.stages import anchored, rewrite
from multiverse.curation.stages.prompts import load_prompts

DIGESTS = {
    "anchored-1": "d0c8aa07ffcf9a82ff02ee6ce82cf6dca957898aa7999f90f750a005ad0327d3",
    "rewrite-1": "bf8afc09e5867287b44f513f2193c3faf0e311fef0bcf5ea392deb9884c5c2ae",
}


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    return root / "platform" / "multiverse" / "curation" / "stages" / "prompts"


def test_all_versions_are_in_the_table(folder: Path) -> None:
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(DIGESTS)
    assert {anchored.VERSION, rewrite.VERSION} <= set(DIGESTS)


@pytest.mark.parametrize(("version", "digest"), DIGESTS.items())
def test_a_version_stays_as_it_is(version: str, digest: str) -> None:
    assert load_prompts(version).digest == digest


@pytest.mark.parametrize("version", DIGESTS)
def test_what_is_filled_in_is_documented(folder: Path, version: str) -> None:
    readme = (folder / "README.md").read_text(encoding="utf-8")
    table = readme.partition(f"| file of `{version}` |")[2].partition("| file of ")[0]
    rows = re.findall(r"^\| `(\w+)\.md` \|[^|]*\|([^|]*)\|$", table, re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", filled)) for name, filled in rows}
    prompts = load_prompts(version).templates
    assert documented == {name: set(template.get_identifiers()) for name, template in prompts.items()}


@pytest.mark.parametrize("version", DIGESTS)
def test_a_dollar_is_a_name_or_two_dollars(version: str) -> None:
    assert all(template.is_valid() for template in load_prompts(version).templates.values())


def test_openings_are_asked_for_by_the_names_that_are_read() -> None:
    asked = load_prompts(anchored.VERSION).fill("openings")
    assert all(f'"{name}"' in asked for name in OpeningReply.model_fields)


def test_an_unknown_version() -> None:
    with pytest.raises(ValueError, match=r"^there are no prompts 'anchored-0'$"):
        load_prompts("anchored-0")
