"""Every form of SOURCE, labelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.corpus import jpeg, shard_bytes, write_parquet, write_tars
from tests.fixtures.labelling import LabelFunction
from tests.fixtures.stored.queries import rows


@pytest.mark.long
def test_a_directory_a_glob_and_a_pattern_of_one_source_share_a_run(
    label_instantly: LabelFunction, tmp_path: Path
) -> None:
    write_tars(tmp_path / "source", 3, 2)
    first = label_instantly(f"{tmp_path}/source/0000{{0..0}}.tar", tmp_path / "store")
    second = label_instantly(f"{tmp_path}/source/0000[01].tar", tmp_path / "store")
    third = label_instantly(tmp_path / "source", tmp_path / "store")

    assert [job.record.n_shards_committed for job in (first, second, third)] == [1, 1, 1]
    assert len({job.record.run for job in (first, second, third)}) == 1


def test_a_list_of_urls_is_labelled(label_instantly: LabelFunction, tmp_path: Path) -> None:
    write_tars(tmp_path / "source", 2, 3)
    urls = [f"{tmp_path}/source/{shard:05d}.tar" for shard in range(2)]
    (tmp_path / "list.txt").write_text("# two shards\n" + "\n".join(urls) + "\n\n")
    outcome = label_instantly(f"@{tmp_path}/list.txt", tmp_path / "store")

    assert (outcome.record.n_shards_committed, outcome.record.n_images) == (2, 6)


def test_tars_of_the_same_name_in_different_directories_stay_apart(
    label_instantly: LabelFunction, tmp_path: Path
) -> None:
    for number, folder in enumerate(("a", "b")):
        (tmp_path / "source" / folder).mkdir(parents=True)
        (tmp_path / "source" / folder / "0.tar").write_bytes(shard_bytes(number, 3))
    label_instantly(tmp_path / "source", tmp_path / "store")

    assert rows(tmp_path / "store", "SELECT shard, count(*) FROM images GROUP BY shard ORDER BY shard") == [
        ("a/0", 3),
        ("b/0", 3),
    ]


def test_parquet_with_image_bytes_is_labelled_in_both_forms(label_instantly: LabelFunction, tmp_path: Path) -> None:
    write_parquet(tmp_path / "source" / "plain.parquet", 20, as_struct=False)
    write_parquet(tmp_path / "source" / "struct.parquet", 20, as_struct=True)
    label_instantly(tmp_path / "source", tmp_path / "store")

    stored = rows(tmp_path / "store", 'SELECT shard, key, caption, status FROM images ORDER BY shard, "index"')
    assert len(stored) == 40
    assert stored[0] == ("plain", "k0", "caption 0", "labelled")
    assert stored[20] == ("struct", "0.jpg", "caption 0", "labelled")


def test_images_added_to_a_folder_are_labelled_and_the_others_left_alone(
    label_instantly: LabelFunction, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    (folder / "2024").mkdir(parents=True)
    for number in range(6):
        (folder / "2024" / f"{number}.jpg").write_bytes(jpeg(number))
    (folder / "2024" / "0.txt").write_text("the first one")
    first = label_instantly(folder, tmp_path / "store")
    (folder / "a-new-one.JPEG").write_bytes(jpeg(99))
    second = label_instantly(folder, tmp_path / "store")
    third = label_instantly(folder, tmp_path / "store")

    assert [job.record.n_images for job in (first, second, third)] == [6, 1, 0]
    keys = rows(tmp_path / "store", "SELECT key, caption FROM images ORDER BY key")
    assert keys[0] == ("2024/0.jpg", "the first one")
    assert keys[-1] == ("a-new-one.JPEG", None)
    assert len(keys) == 7
