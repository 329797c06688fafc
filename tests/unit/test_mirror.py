"""Unit tests lie where their module lies: `pipeline/store/lock.py` is tested by `unit/pipeline/store/test_lock.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

UNIT = Path(__file__).parent
ROOT = UNIT.parents[1]
# Files of tests that are not about one module, each with the reason.
OF_NO_MODULE = {
    "jobs/test_examples.py": "runs the page of examples",
    "model/test_demo_model.py": "labels with the model that comes along",
    "model/test_goldens.py": "compares with recorded outputs of the published model",
    "model/test_one_shot_cost.py": "counts operations of sampling through all of the model",
    "model/test_training_goldens.py": "compares with recorded losses and gradients of the published code",
    "pipeline/catalog/test_macros.py": "asks the SQL macros and runs their page",
    "pipeline/catalog/test_near_duplicates.py": "asks the SQL views of images that occur more than once",
    "pipeline/export/test_formats.py": "reads every format back with the library it is for",
    "pipeline/labelling/test_near_duplicates.py": "runs jobs that label one of the images that look alike",
    "pipeline/sources/test_bad_corpus.py": "reads every kind of bad input by every reader",
    "pipeline/storage/test_faults.py": "makes storages fail under all who read and write",
    "pipeline/store/test_killed_commits.py": "kills a process in front of each file operation of a commit",
    "schemas/test_schemas.py": "holds tables, records and their page together",
    "tagstream/test_examples.py": "runs the page of the package",
    "test_fuzz_targets.py": "replays what the fuzzer found",
    "test_mirror.py": "is this file",
}
FILES = sorted(str(path.relative_to(UNIT)) for path in UNIT.rglob("test_*.py"))


@pytest.mark.parametrize("file", [file for file in FILES if not file.startswith("infra/")])
def test_a_file_of_tests_lies_where_its_module_lies(file: str) -> None:
    module = Path(file).with_name(Path(file).name.removeprefix("test_"))
    assert file in OF_NO_MODULE or (ROOT / module).is_file(), f"there is no {module}, which {file} would test"


def test_the_files_that_are_about_no_module_are_there() -> None:
    assert OF_NO_MODULE.keys() <= set(FILES)


def test_a_file_that_is_about_no_module_does_not_have_the_name_of_one() -> None:
    named = [file for file in OF_NO_MODULE if (ROOT / file.replace("test_", "")).is_file()]
    assert named == []
