"""Names of a list, scored with all of their spellings in one pass with the sampled labels."""

from __future__ import annotations

import pytest
import torch

from model.ending import Ending
from model.listed_names import ListedNames, score_names
from model.nxtp.branches import NxtpBranches
from model.scoring import score_labels

# Two orders of the same float32 sums.
LOG_PROB_ABS = 3e-5
CPU = torch.device("cpu")
# A name with one spelling; one whose spellings share their beginning; one of which two spellings have the same tokens.
SPELLINGS = [[[11]], [[11, 12], [40, 9], [11, 12, 13]], [[5], [5]], [[62, 62], [7]]]


@pytest.fixture
def decoder(recognizer, make_pixels):
    with torch.inference_mode():
        yield NxtpBranches(recognizer.module, recognizer.module.prefill(make_pixels(3)))


@pytest.fixture
def ending(recognizer):
    return Ending([recognizer.config.delimiter_id])


@pytest.mark.parametrize("max_nodes", [1, 3, 100])
def test_the_probability_of_a_name_is_the_sum_of_those_of_its_spellings(decoder, ending, max_nodes):
    scores_BN = score_names(decoder, ListedNames.of(SPELLINGS, max_nodes, CPU), ending)
    for place, spellings in enumerate(SPELLINGS):
        distinct = [list(ids) for ids in dict.fromkeys(map(tuple, spellings))]
        alone_BL = score_labels(decoder, ListedNames.of([[ids] for ids in distinct], 100, CPU).labels, ending)
        expected = alone_BL.double().exp().sum(dim=1).log()
        assert scores_BN[:, place].tolist() == pytest.approx(expected.tolist(), abs=LOG_PROB_ABS)


def test_names_of_one_spelling_have_the_scores_of_their_labels(decoder, ending):
    names = ListedNames.of([[[11]], [[40, 9]], [[5]]], 100, CPU)
    assert torch.equal(score_names(decoder, names, ending), score_labels(decoder, names.labels, ending))


def test_a_name_that_cannot_be_written_is_impossible_and_leaves_the_others_alone(decoder, ending, monkeypatch):
    names = ListedNames.of(SPELLINGS, 100, CPU)
    expected_BN = score_names(decoder, names, ending)
    scores_BL = score_labels(decoder, names.labels, ending)
    scores_BL[:, names.names_L == 3] = -torch.inf
    monkeypatch.setattr("model.listed_names.score_labels", lambda *_: scores_BL)
    found_BN = score_names(decoder, names, ending)
    assert found_BN[:, 3].tolist() == [-torch.inf] * 3
    assert torch.equal(found_BN[:, :3], expected_BN[:, :3])


class TestOfTheRecognizer:
    """Lists that go through `sample` and `score_prepared`."""

    NAMES = (["w20", "w21"], ["w23"], ["w20"])

    def listed(self, recognizer, batch_size=3):
        return recognizer.list_names(self.NAMES, batch_size)

    def expected(self, recognizer, make_image, images):
        flat = [spelling for spellings in self.NAMES for spelling in spellings]
        scores = recognizer.score(images, flat).double().exp()
        return torch.stack([scores[:, 0] + scores[:, 1], scores[:, 2], scores[:, 3]], dim=1).log()

    def test_listed_scores_are_those_of_score(self, recognizer, make_image):
        images = [make_image(40, 30), make_image(30, 40), make_image(28, 28)]
        pixels = recognizer.prepare([recognizer.preprocessor.view(image) for image in images])
        expected = self.expected(recognizer, make_image, images)
        (with_labels,) = recognizer.sample(pixels, 5, names=[self.listed(recognizer)]).listed
        (alone,) = recognizer.score_prepared(pixels, [self.listed(recognizer)])
        assert with_labels.numpy() == pytest.approx(expected.numpy(), abs=LOG_PROB_ABS)
        # A shard that gets its scores later has the very ones that it would have had with its labels.
        assert torch.equal(with_labels, alone)

    @pytest.mark.parametrize("sampling", ["one_shot", "greedy"])
    def test_labels_are_the_same_with_a_list_and_without(self, recognizer, make_pixels, sampling):
        pixels = make_pixels(3)
        plain = recognizer.sample(pixels, 5, sampling=sampling)
        listed = recognizer.sample(pixels, 5, sampling=sampling, names=[self.listed(recognizer)] * 2)
        assert recognizer.rank(listed) == recognizer.rank(plain)
        assert [scores.shape for scores in listed.listed] == [(3, 3)] * 2
        assert plain.listed == ()

    def test_no_images_have_no_scores(self, recognizer, make_pixels):
        (scores,) = recognizer.sample(make_pixels(1)[:0], 5, names=[self.listed(recognizer)]).listed
        (alone,) = recognizer.score_prepared(make_pixels(1)[:0], [self.listed(recognizer)])
        assert scores.shape == alone.shape == (0, 3)

    def test_a_spelling_that_cannot_be_a_label_is_refused(self, recognizer):
        with pytest.raises(ValueError, match="the name 'no such words' is read as"):
            recognizer.list_names([["w20"], ["w21", "no such words"]])
