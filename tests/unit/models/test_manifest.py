import json
from pathlib import Path

import pytest

from multiverse.models.manifest import Manifest, ManifestError
from multiverse.structure.tags import TAGS, Kind

MANIFEST = Manifest(
    source="builtin:smollm2-135m",
    tag_ids={tag: 100 + i for i, tag in enumerate(TAGS)},
    space_ids=(3, 7),
    tokens=112,
    vocab_size=128,
    layout_version=1,
    trained=False,
    fingerprint="f" * 64,
)


def test_a_saved_manifest_is_loaded_as_it_was(tmp_path: Path) -> None:
    MANIFEST.save(tmp_path)
    assert Manifest.load(tmp_path) == MANIFEST
    assert Manifest.load(str(tmp_path)) == MANIFEST


def test_the_vocabulary_knows_tags_white_space_and_padding() -> None:
    vocabulary = MANIFEST.vocabulary()
    first_tag = next(iter(TAGS.values()))
    assert vocabulary.kinds([3, 4, 100, 111, 127]).tolist() == [
        Kind.SPACE,
        Kind.TEXT,
        first_tag,
        [*TAGS.values()][-1],
        0,
    ]


def test_a_directory_without_manifest_says_how_to_prepare_it(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"is not a prepared checkpoint .* run: multiverse prepare"):
        Manifest.load(tmp_path)


def test_another_layout_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    MANIFEST.save(tmp_path)
    _edit(tmp_path, layout_version=7)
    with pytest.raises(
        ManifestError, match=r"for layout version 7, this is layout version 1; .* from builtin:smollm2-135m"
    ):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("changes", [{"space_ids": 3}, {"unknown": 1}, {"tag_ids": {"<Path>": 5}}])
def test_a_damaged_manifest_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    MANIFEST.save(tmp_path)
    _edit(tmp_path, **changes)
    with pytest.raises(ManifestError, match="is damaged"):
        Manifest.load(tmp_path)


def test_a_manifest_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "multiverse.json").write_text('{"source": ')
    with pytest.raises(ManifestError, match="is damaged"):
        Manifest.load(tmp_path)


def _edit(directory: Path, **changes: object) -> None:
    path = directory / "multiverse.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
