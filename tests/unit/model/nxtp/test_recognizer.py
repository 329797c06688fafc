"""The recognizer as a user holds it: folders, images in, labels out."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model import (
    DTYPES,
    RANKINGS,
    SAMPLINGS,
    ImageDecodeError,
    ImagePreprocessor,
    Label,
    Recognizer,
    RecognizerConfig,
)
from model.fetching.refusal import ModelUnusableError
from model.sampling import SampledBatch

WEIGHT = "decoder.model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def folder(recognizer, tmp_path_factory):
    """The folder of a saved recognizer, not to be changed."""
    path = tmp_path_factory.mktemp("recognizer")
    recognizer.save_pretrained(path)
    return path


@pytest.fixture
def own_folder(recognizer, tmp_path):
    """The folder of a saved recognizer that the test may change."""
    recognizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def edit_weights(own_folder):
    """A function that applies a change to the saved weights and returns their folder."""

    def edit(change):
        weights = load_file(own_folder / "model.safetensors")
        change(weights)
        save_file(weights, own_folder / "model.safetensors", metadata={"format": "pt"})
        return own_folder

    return edit


def png(image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_saved_recognizer_loads_with_the_same_labels(recognizer, folder, make_pixels):
    pixels = make_pixels(3)
    assert Recognizer.from_pretrained(folder).label_pixels(pixels) == recognizer.label_pixels(pixels)


def test_a_saved_recognizer_loads_with_the_same_preprocessing(recognizer, folder):
    assert Recognizer.from_pretrained(folder).preprocessor == recognizer.preprocessor


def test_a_saved_recognizer_keeps_prompt_and_delimiter(recognizer, folder):
    loaded, config = Recognizer.from_pretrained(folder).config, recognizer.config
    assert (loaded.prompt_ids, loaded.delimiter_id) == (config.prompt_ids, config.delimiter_id)


def test_a_recognizers_folder_holds_safetensors_and_json_only(folder):
    suffixes = {path.suffix for path in folder.iterdir()}
    assert suffixes == {".json", ".safetensors"}


def test_who_may_read_a_recognizers_json_may_read_its_weights(folder):
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_weights_in_a_pickle_are_not_loaded(own_folder):
    weights = load_file(own_folder / "model.safetensors")
    (own_folder / "model.safetensors").unlink()
    torch.save(weights, own_folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        Recognizer.from_pretrained(own_folder)


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_a_folder_loads_in_the_dtype_asked_for(folder, make_pixels, name):
    loaded = Recognizer.from_pretrained(folder, dtype=name)
    assert {parameter.dtype for parameter in loaded.module.parameters()} == {getattr(torch, name)}


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_every_dtype_gives_labels(folder, make_pixels, name):
    assert all(Recognizer.from_pretrained(folder, dtype=name).label_pixels(make_pixels(2)))


def test_code_that_comes_with_a_model_is_neither_run_nor_asked_about(own_folder, tmp_path, monkeypatch):
    settings = json.loads((own_folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Theirs", "auto_map": {"AutoTokenizer": ["theirs.Theirs", "theirs.Theirs"]}}
    (own_folder / "tokenizer_config.json").write_text(json.dumps(settings))
    ran = tmp_path / "ran"
    (own_folder / "theirs.py").write_text(f"open({str(ran)!r}, 'w')\nclass Theirs: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ValueError, match="custom code"):
        Recognizer.from_pretrained(own_folder)
    assert not ran.exists()


def test_on_a_cpu_a_folder_loads_in_float32_unless_it_is_asked_for_the_dtype_it_was_saved_in(
    build_recognizer, tmp_path
):
    build_recognizer(dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert Recognizer.from_pretrained(tmp_path, "cpu").dtype == torch.float32
    assert Recognizer.from_pretrained(tmp_path, "cpu", "stored").dtype == torch.bfloat16


def test_an_unknown_dtype_is_refused(folder):
    with pytest.raises(ValueError, match="dtype is 'int8'; expected one of float32, bfloat16, float16"):
        Recognizer.from_pretrained(folder, dtype="int8")


def test_a_missing_weight_is_named(edit_weights):
    broken = edit_weights(lambda weights: weights.pop(WEIGHT))
    with pytest.raises(ValueError, match=WEIGHT):
        Recognizer.from_pretrained(broken)


def test_a_left_over_weight_is_named(edit_weights):
    broken = edit_weights(lambda weights: weights.update({"decoder.surplus.weight": torch.zeros(1)}))
    with pytest.raises(ValueError, match=r"decoder\.surplus\.weight"):
        Recognizer.from_pretrained(broken)


def test_a_weight_of_the_wrong_shape_is_refused(edit_weights):
    broken = edit_weights(lambda weights: weights.update({WEIGHT: torch.zeros(3, 3)}))
    with pytest.raises((ValueError, RuntimeError), match=r"size|shape|mismatch"):
        Recognizer.from_pretrained(broken)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_folder_without_its_json_is_refused(own_folder, name):
    (own_folder / name).unlink()
    with pytest.raises(ModelUnusableError, match=name):
        Recognizer.from_pretrained(own_folder)


def test_a_folder_without_weights_is_refused(own_folder):
    (own_folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        Recognizer.from_pretrained(own_folder)


@pytest.mark.parametrize("path", ["/no/such/folder", "./no-such-folder", "no-such-folder"])
def test_a_folder_that_does_not_exist_is_refused(path):
    with pytest.raises(ModelUnusableError, match=f"there is no model {path}: no such folder"):
        Recognizer.from_pretrained(path)


def test_a_preprocessor_of_another_size_is_refused(recognizer):
    with pytest.raises(ValueError, match="the preprocessor crops to 56 px, the encoder takes 28 px"):
        Recognizer(recognizer.module, ImagePreprocessor(image_size=56), recognizer.tokenizer)


def test_a_tokenizer_that_cannot_be_saved_is_refused(recognizer, tmp_path):
    unsaved = Recognizer(recognizer.module, recognizer.preprocessor, object())
    with pytest.raises(TypeError, match="object has no save_pretrained"):
        unsaved.save_pretrained(tmp_path)


def test_pixels_of_another_size_are_refused_with_both_shapes(recognizer, make_pixels):
    with pytest.raises(ValueError, match=r"shape \[2, 3, 56, 56\]; this model takes \[batch, 3, 28, 28\]"):
        recognizer.label_pixels(make_pixels(2, image_size=56))


def test_pixels_without_a_batch_dimension_are_refused(recognizer, make_pixels):
    with pytest.raises(ValueError, match=r"shape \[3, 28, 28\]"):
        recognizer.label_pixels(make_pixels(1)[0])


class TestViews:
    """Labels of whole pictures, from several squares each."""

    def test_they_are_the_best_of_what_each_square_gets_as_a_picture_of_its_own(self, recognizer, make_image):
        images = [make_image(56, 28, 1), make_image(28, 28, 2), make_image(28, 84, 3), make_image(56, 28, 4)]
        squares = [
            [image.crop((left, top, left + 28, top + 28)) for left in (0, 28)[: image.width // 28] for top in tops]
            for image, tops in zip(images, [[0], [0], [0, 28, 56], [0]], strict=True)
        ]
        n_branches = {1: 12, 2: 6, 3: 4}
        for labels, own_squares in zip(recognizer.label(images, 12, views="whole"), squares, strict=True):
            alone = [recognizer.label([square], n_branches[len(own_squares)])[0] for square in own_squares]
            scores: dict[str, float] = {}
            for each in (each for of_square in alone for each in of_square):
                scores[each.text] = max(each.score, scores.get(each.text, 0.0))
            # Whether views of several pictures come in one batch moves a float32 by some units in its last place.
            assert {each.text: each.score for each in labels} == pytest.approx(scores, rel=1e-5)
            for each in labels:
                assert each.text in [own.text for own in alone[each.view]]

    def test_fewer_tokens_of_views_are_those_of_images_with_several_alone(self, build_recognizer, make_image):
        recognizer = build_recognizer(image_size=56)
        square, wide = make_image(56, 56, 1), make_image(112, 56, 2)
        found = recognizer.label([square, wide], 12, views="whole", view_tokens=4)
        assert found[0] == recognizer.label([square], 12)[0]
        assert found[1] == recognizer.label([wide], 12, views="whole", image_tokens=4)[0]
        assert found[1] != recognizer.label([wide], 12, views="whole")[0]
        explained = recognizer.explain(wide, 12, views="whole", view_tokens=4)
        assert [of.label for of in explained.labels] == found[1]

    def test_a_name_scores_what_it_scores_in_the_square_that_scores_it_best(self, build_recognizer, make_image):
        recognizer, names = build_recognizer(image_size=56), ["w20", "w21", "w22", "w23", "w24"]
        square, tall = make_image(56, 56, 1), make_image(56, 168, 2)
        own_squares = [tall.crop((0, top, 56, top + 56)) for top in (0, 56, 112)]
        scores = recognizer.score([tall, square], names, views="whole", view_tokens=4)
        alone = recognizer.score(own_squares, names, image_tokens=4)
        assert len(set(alone.argmax(dim=0).tolist())) > 1
        # As above.
        torch.testing.assert_close(scores[0], alone.max(dim=0).values, atol=0, rtol=1e-5)
        torch.testing.assert_close(scores[1:], recognizer.score([square], names), atol=0, rtol=1e-5)
        assert torch.equal(recognizer.score([tall], names), recognizer.score([tall], names, views=1))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"views": "whole", "image_tokens": 2}, "view_tokens is 3 and image_tokens 2; expected one of them"),
            ({"views": "centre"}, "view_tokens is 3 and one square of each image is seen; expected views whole"),
        ],
    )
    def test_fewer_tokens_of_views_that_are_not_there_are_refused(self, recognizer, make_image, options, message):
        image = make_image(56, 28)
        for asked, given in (
            (recognizer.label, ([image],)),
            (recognizer.explain, (image,)),
            (recognizer.score, ([image], ["w20"])),
        ):
            with pytest.raises(ValueError, match=message):
                asked(*given, view_tokens=3, **options)

    def test_the_centre_is_one_of_three_squares(self, recognizer, make_image):
        image = make_image(84, 28)
        assert recognizer.label([image], views=1) == recognizer.label([image], views="centre")
        assert recognizer.label([image], views=1) == recognizer.label([image.crop((28, 0, 56, 28))])
        assert recognizer.label([image], views="whole") != recognizer.label([image])


def test_no_images_give_no_labels(recognizer):
    assert recognizer.label([]) == []


def test_no_pixels_give_no_labels(recognizer, make_pixels):
    assert recognizer.label_pixels(make_pixels(0)) == []


def test_an_image_and_its_bytes_get_the_same_labels(recognizer, make_image):
    images = [make_image(50, 40, seed) for seed in range(2)]
    assert recognizer.label([png(image) for image in images]) == recognizer.label(images)


def test_images_and_bytes_may_be_mixed(recognizer, make_image):
    first, second = make_image(50, 40, 0), make_image(40, 50, 1)
    assert recognizer.label([first, png(second)]) == recognizer.label([first, second])


def test_images_get_the_labels_of_their_normalised_crops(recognizer, make_image):
    images = [make_image(50, 40, seed) for seed in range(2)]
    crops_BHWC = torch.from_numpy(np.stack([recognizer.preprocessor.view(image) for image in images]))
    pixels = recognizer.preprocessor.normalise(crops_BHWC)
    assert recognizer.label(images) == recognizer.label_pixels(pixels)


def test_crops_get_the_labels_of_their_images(recognizer, make_image):
    images = [make_image(50, 40, seed) for seed in range(2)]
    crops = [recognizer.preprocessor.view(image) for image in images]
    assert recognizer.label_pixels(recognizer.prepare(crops)) == recognizer.label(images)


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_pixel_values_have_the_models_dtype(folder, make_image, dtype):
    recognizer = Recognizer.from_pretrained(folder, dtype=dtype)
    assert recognizer.prepare([recognizer.preprocessor.view(make_image(50, 40))]).dtype == getattr(torch, dtype)


def test_no_crops_give_no_pixel_values(recognizer):
    assert recognizer.prepare([]).shape == (0, 3, 28, 28)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("ranking", RANKINGS)
def test_sampling_and_ranking_apart_give_the_same_labels(recognizer, make_pixels, sampling, ranking):
    pixels = make_pixels(2)
    sampled = recognizer.sample(pixels, 5, sampling=sampling)
    assert recognizer.rank(sampled, ranking) == recognizer.label_pixels(pixels, 5, ranking, sampling=sampling)


def test_an_unreadable_image_is_an_image_decode_error(recognizer, make_image):
    with pytest.raises(ImageDecodeError, match="not a readable image"):
        recognizer.label([make_image(50, 40), b"no image"])


def test_different_images_get_different_labels(recognizer, make_pixels):
    first, second = recognizer.label_pixels(make_pixels(2))
    assert {label.text for label in first} != {label.text for label in second}


@pytest.mark.parametrize("image_size", [28, 56])
@pytest.mark.parametrize("n_blocks", [1, 2, 4])
def test_every_size_gives_labels(build_recognizer, make_pixels, image_size, n_blocks):
    recognizer = build_recognizer(image_size=image_size, n_blocks=n_blocks)
    assert all(recognizer.label_pixels(make_pixels(2, image_size=image_size)))


def test_labels_are_spelled_by_the_tokenizer(recognizer, make_pixels):
    for label in recognizer.label_pixels(make_pixels(1))[0]:
        assert label.text == recognizer.tokenizer.decode(list(label.token_ids[:-1]))


class WordTokenizer:
    """Spells token n as wn, with a space around everything."""

    def decode(self, token_ids):
        return f" {' '.join(f'w{token_id}' for token_id in token_ids)} "


@pytest.mark.parametrize(
    ("ids", "finished", "text"),
    [((3, 4, None), True, "w3 w4"), ((3,), False, "w3"), ((3, 4, 5), False, "w3 w4 w5"), ((None,), True, None)],
    ids=["without its delimiter", "one token", "unfinished, with its last token", "a lone delimiter is no label"],
)
def test_a_label_is_spelled(recognizer, ids, finished, text):
    spelling = Recognizer(recognizer.module, recognizer.preprocessor, WordTokenizer())
    ids = tuple(recognizer.config.delimiter_id if token_id is None else token_id for token_id in ids)
    sampled = SampledBatch([[(ids, (0.5,) * len(ids), finished)]], torch.empty(1, 0, 0))
    (labels,) = spelling.rank(sampled, keep_unfinished=True)
    assert [label.text for label in labels] == ([] if text is None else [text])


def test_a_label_has_one_probability_a_token(recognizer, make_pixels):
    labels = recognizer.label_pixels(make_pixels(1))[0]
    assert all(isinstance(label, Label) and len(label.token_ids) == len(label.token_probs) for label in labels)


def test_the_models_own_token_limit_is_the_default(build_recognizer, make_pixels):
    recognizer, pixels = build_recognizer(), make_pixels(2)
    recognizer.config.max_label_tokens = 2
    assert recognizer.label_pixels(pixels) == recognizer.label_pixels(pixels, max_label_tokens=2)


def test_a_recognizer_does_not_train(recognizer):
    assert not recognizer.module.training


def test_labelling_twice_gives_the_same_labels(recognizer, make_pixels):
    pixels = make_pixels(2)
    assert recognizer.label_pixels(pixels) == recognizer.label_pixels(pixels)


def test_first_logits_are_float32_over_the_vocabulary(build_recognizer, make_pixels):
    logits_BV = build_recognizer(dtype=torch.bfloat16).first_logits(make_pixels(2))
    assert (logits_BV.dtype, logits_BV.shape) == (torch.float32, (2, 64))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt_ids": []}, "prompt_ids is empty"),
        ({"prompt_ids": [1, 99]}, r"token ids \[99\] lie outside the decoder's vocabulary of 64"),
        ({"delimiter_id": -1}, r"token ids \[-1\] lie outside"),
        ({"max_label_tokens": 0}, "max_label_tokens is 0; expected 1 or more"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(recognizer, fields, message):
    sound = json.loads(recognizer.config.to_json_string(use_diff=False))
    with pytest.raises(ValueError, match=message):
        RecognizerConfig(**{**sound, **fields}).check()


def test_a_name_scores_as_the_label_that_was_sampled(recognizer, make_image):
    images = [make_image(40, 30), make_image(30, 50, seed=1)]
    sampled = [
        [label for label in labels if len(label.token_ids) == 2] for labels in recognizer.label(images, top_k=20)
    ]
    names = sorted({label.text for labels in sampled for label in labels})
    scores = recognizer.score(images, names)
    for image, labels in enumerate(sampled):
        assert len(labels) > 1
        got = [float(scores[image, names.index(label.text)].exp()) for label in labels]
        assert got == pytest.approx([label.score for label in labels], rel=1e-4)


@pytest.mark.parametrize("n_images", [0, 2])
def test_every_image_has_a_score_for_every_name(recognizer, make_image, n_images):
    scores = recognizer.score([make_image(40, 30)] * n_images, ["w20", "w21", "w20"])
    assert (scores.shape, scores.dtype) == ((n_images, 3), torch.float32)


@pytest.mark.parametrize("name", ["", "zebra", ",", " w20"])
def test_a_name_that_cannot_be_a_label_is_refused_by_name(recognizer, make_image, name):
    with pytest.raises(ValueError, match=f"the name '{name}' is read as .*; expected words of the model's vocabulary"):
        recognizer.score([make_image(40, 30)], [name])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("image_tokens", [0, 4])
def test_on_cuda_an_image_has_the_labels_that_it_has_on_the_cpu(
    build_recognizer, make_image, image_tokens, monkeypatch
):
    # Convolutions are rounded to ten bits otherwise.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    recognizer, images = build_recognizer(image_size=56), [make_image(70, 60, seed=seed) for seed in range(3)]
    expected = recognizer.label(images, top_k=20, image_tokens=image_tokens)
    recognizer.module.to("cuda")
    found = recognizer.label(images, top_k=20, image_tokens=image_tokens)
    assert [[label.text for label in labels] for labels in found] == [
        [label.text for label in labels] for labels in expected
    ]
    scores = [label.score for labels in expected for label in labels]
    assert [label.score for labels in found for label in labels] == pytest.approx(scores, rel=1e-3)
