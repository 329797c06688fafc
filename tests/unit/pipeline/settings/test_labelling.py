"""Settings of a labelling job, and the fingerprint they give a run."""

from __future__ import annotations

import re
import tomllib
from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from model.images.reduced_decoding import DECODINGS
from pipeline.errors import TagstreamError
from pipeline.settings.labelling import LabelSettings, full_labelling, resolve_dtype, run_fingerprint
from pipeline.settings.toml_file import read_settings

DEFAULTS = LabelSettings()
# Another value for each setting, of those that decide the labels and of those that do not.
DECIDING = {
    "top_k": 5,
    "ranking": "ppl",
    "sampling": "beam",
    "max_label_tokens": 3,
    "honour_exif": False,
    "pixel_rule": 1,
    "decoding": "faster",
    "views": 2,
    "dtype": "float16",
}
OTHERS = {
    "decode_in": "read",
    "batch_size": 7,
    "actors": 2,
    "gpus_per_actor": 0.5,
    "actor_resources": {"gpu_node": 0.5},
    "label_selector": {"ray.io/accelerator-type": "in(H100, H200)"},
    "nodes_to_come": {"count": 3, "cpus": 16, "gpus": 1},
    "limit": 9,
    "changed": "fail",
    "max_sample_bytes": 1000,
    "max_image_pixels": 10_000,
    "max_sample_s": 0.5,
    "no_progress_timeout_s": 60,
    "perceptual_hash": True,
    "reuse": True,
    "reuse_stores": ("s3://bucket/tags",),
}
# They decide the labels, too, but exclude `beam`.
FEWER_TOKENS = {"image_tokens": 64}
NEAR_DUPLICATES = {"skip_near_duplicates": True, "near_distance": 3}
FEWER_TOKENS_OF_SQUARES = {"views": 4, "view_tokens": 64}
# Decides labels where the model is one of the hub.
OF_THE_HUB = {
    "instruction": "Name what you see.",
    "answer": "Things:",
    "raw_prompt": "",
    "closes": ",",
    "opens": "any",
    "image_options": {"do_image_splitting": False},
    "image_backend": "torchvision",
    "max_view_pixels": 1000,
}
# In the place of `actors`.
BOUNDS = {"min_actors": 2, "max_actors": 8}


def fingerprint(settings: LabelSettings, model: str = "model", auto_dtype: str = "float32") -> str:
    dtype = auto_dtype if settings.dtype == "auto" else settings.dtype
    return run_fingerprint(model, settings.labelling(dtype))


@pytest.mark.parametrize(
    ("dtype", "device", "expected"),
    [
        ("auto", "cuda", "bfloat16"),
        ("auto", "cuda:1", "bfloat16"),
        ("auto", "cpu", "float32"),
        ("float16", "cpu", "float16"),
        ("float32", "cuda", "float32"),
    ],
)
def test_auto_is_the_dtype_that_the_device_is_fast_with(dtype: str, device: str, expected: str) -> None:
    assert resolve_dtype(dtype, device) == expected


class TestFromAFile:
    """Settings as a TOML file gives them."""

    def test_every_setting_can_stand_in_a_file(self) -> None:
        text = """
            top_k = 5
            ranking = "ppl"
            sampling = "beam"
            max_label_tokens = 3
            honour_exif = false
            pixel_rule = 1
            decoding = "faster"
            views = 2
            dtype = "float16"
            batch_size = 7
            min_actors = 2
            max_actors = 8
            gpus_per_actor = 0.5
            limit = 9
            changed = "fail"
            decode_in = "read"
            max_sample_bytes = 1000
            max_image_pixels = 10_000
            max_sample_s = 0.5
            no_progress_timeout_s = 60
            perceptual_hash = true
            skip_near_duplicates = true
            near_distance = 3
            reuse = true
            reuse_stores = ["s3://bucket/tags"]
            actor_resources = {gpu_node = 0.5}
            label_selector = {"ray.io/accelerator-type" = "in(H100, H200)"}
            [nodes_to_come]
            count = 3
            cpus = 16
            gpus = 1
            [hub]
            instruction = "Name what you see."
            answer = "Things:"
            closes = ","
            opens = "any"
            image_options = {do_image_splitting = false}
            image_backend = "torchvision"
            max_view_pixels = 1000
        """
        settings = read_settings(LabelSettings, tomllib.loads(text), "label.toml")
        rest = {"actors": 0, "image_tokens": 0, "view_tokens": 0, **BOUNDS, "hub": OF_THE_HUB}
        assert asdict(settings) == {**DECIDING, **OTHERS, **NEAR_DUPLICATES, **rest}
        assert read_settings(LabelSettings, FEWER_TOKENS, "label.toml").image_tokens == 64

    @pytest.mark.parametrize("views", ["whole", 3])
    def test_views_are_a_word_or_a_number(self, views: str | int) -> None:
        assert read_settings(LabelSettings, {"views": views}, "label.toml").views == views

    @pytest.mark.parametrize("views", [True, 2.0, ["whole"]])
    def test_views_of_another_type_are_refused(self, views: Any) -> None:
        with pytest.raises(TagstreamError, match=r"label\.toml: views is .*; expected a value of type str or int$"):
            read_settings(LabelSettings, {"views": views}, "label.toml")

    def test_what_a_file_leaves_out_has_its_default(self) -> None:
        assert read_settings(LabelSettings, {}, "label.toml") == DEFAULTS

    def test_an_unknown_setting_is_refused_and_the_known_ones_are_named(self) -> None:
        with pytest.raises(
            TagstreamError,
            match=r"label\.toml has an unknown setting 'topk'; known are actor_resources, actors, .*top_k",
        ):
            read_settings(LabelSettings, {"topk": 5}, "label.toml")


class TestRanges:
    """What a setting may be."""

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("top_k", 0),
            ("top_k", 201),
            ("max_label_tokens", 0),
            ("max_label_tokens", 257),
            ("image_tokens", -1),
            ("batch_size", -1),
            ("batch_size", 4097),
            ("actors", -1),
            ("min_actors", -1),
            ("max_actors", -1),
            ("limit", -1),
            ("max_sample_bytes", 0),
            ("max_image_pixels", 0),
            ("max_sample_s", 0.0),
            ("max_sample_s", float("nan")),
            ("max_sample_s", float("inf")),
            ("no_progress_timeout_s", 0),
            ("ranking", "best"),
            ("sampling", "nucleus"),
            ("dtype", "int8"),
            ("views", "center"),
            ("views", 0),
            ("views", 17),
            ("changed", "maybe"),
            ("decoding", "quick"),
            ("gpus_per_actor", 0),
            ("gpus_per_actor", -1.0),
            ("gpus_per_actor", 1.5),
            ("gpus_per_actor", float("nan")),
            ("gpus_per_actor", float("inf")),
        ],
    )
    def test_a_value_out_of_range_is_refused_with_what_was_expected(self, name: str, value: Any) -> None:
        with pytest.raises(TagstreamError, match=rf"^{name} is .*; expected "):
            LabelSettings(**{name: value})

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"actors": 2, "max_actors": 4}, "leave it out beside min_actors and max_actors"),
            ({"min_actors": 5, "max_actors": 4}, "min_actors is 5; expected at most max_actors, 4"),
            ({"actor_resources": {"gpu_node": 0}}, "actor_resources.gpu_node is 0; expected a number above 0"),
            ({"actor_resources": {"gpu_node": "1"}}, "actor_resources.gpu_node is '1'; expected a number above 0"),
            ({"label_selector": {"zone": 1}}, "label_selector.zone is 1; expected a string"),
            ({"label_selector": "a100"}, "label_selector is 'a100'; expected a table"),
            ({"image_tokens": 9, "sampling": "greedy"}, "image_tokens is 9 and sampling greedy, which reads all image"),
            ({"views": 2, "view_tokens": 9, "sampling": "beam"}, "view_tokens is 9 and sampling beam, which reads all"),
            ({"views": 2, "view_tokens": 9, "image_tokens": 8}, "view_tokens is 9 and image_tokens 8; expected one of"),
            ({"view_tokens": 9}, "view_tokens is 9 and one square of each image is seen; expected views whole"),
            ({"views": 2, "view_tokens": -1}, "view_tokens is -1; expected 0 or more"),
            ({"nodes_to_come": {"count": 1}}, "nodes_to_come.cpus is 0; expected the number of CPUs"),
            ({"nodes_to_come": {"count": -1}}, "nodes_to_come.count is -1; expected"),
        ],
    )
    def test_settings_that_do_not_go_together_are_refused(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(TagstreamError, match=re.escape(message)):
            read_settings(LabelSettings, given, "label.toml")

    @pytest.mark.parametrize(
        ("name", "value"),
        [("top_k", 1), ("top_k", 200), ("max_label_tokens", 256), ("batch_size", 4096), ("limit", 10**12)]
        + [("gpus_per_actor", share) for share in (0.01, 0.5, 1, 1.0, 2, 8.0)],
    )
    def test_the_ends_of_a_range_belong_to_it(self, name: str, value: Any) -> None:
        assert getattr(LabelSettings(**{name: value}), name) == value


class TestFingerprint:
    """What makes a run another run."""

    def test_it_is_twelve_hexadecimal_digits_that_do_not_change_between_versions(self) -> None:
        assert fingerprint(replace(DEFAULTS, pixel_rule=1)) == "56aa796c3e0f"
        assert fingerprint(replace(DEFAULTS, pixel_rule=2)) == "8d599d9c7e14"

    @pytest.mark.parametrize("rule", [1, 2])
    def test_former_rules_of_pixels_know_one_decoding(self, rule: int) -> None:
        made = [fingerprint(LabelSettings(pixel_rule=rule, decoding=decoding)) for decoding in DECODINGS]
        assert len(set(made)) == 1

    def test_what_a_record_leaves_out_is_what_there_was_before_there_was_a_choice(self) -> None:
        former = LabelSettings(pixel_rule=1, decoding="exact")
        assert full_labelling(former.labelling("float32")) == {
            **former.labelling("float32"),
            "pixel_rule": 1,
            "decoding": "exact",
            "views": 1,
            "image_tokens": 0,
            "view_tokens": 0,
        }

    @pytest.mark.parametrize(("name", "value"), [*DECIDING.items(), *FEWER_TOKENS.items()])
    def test_a_setting_that_decides_the_labels_changes_it(self, name: str, value: Any) -> None:
        assert fingerprint(replace(DEFAULTS, **{name: value})) != fingerprint(DEFAULTS)

    def test_all_image_tokens_leave_it_as_it_was_before_there_was_a_choice(self) -> None:
        assert "image_tokens" not in DEFAULTS.labelling("float32")
        assert fingerprint(replace(DEFAULTS, image_tokens=0, pixel_rule=2)) == "8d599d9c7e14"

    def test_fewer_image_tokens_are_recorded_with_the_method_and_read_back(self) -> None:
        settings = LabelSettings(image_tokens=64)
        recorded = settings.labelling("float32")
        assert (recorded["image_tokens"], recorded["token_merging"]) == (64, "kcentre-merge-1")
        assert read_settings(LabelSettings, full_labelling(recorded), "record") == replace(
            settings, dtype="float32", views=1
        )

    def test_fewer_tokens_of_several_squares_are_another_run_that_is_read_back(self) -> None:
        settings = read_settings(LabelSettings, FEWER_TOKENS_OF_SQUARES, "label.toml")
        recorded = settings.labelling("float32")
        assert (recorded["view_tokens"], recorded["token_merging"]) == (64, "kcentre-merge-1")
        assert read_settings(LabelSettings, full_labelling(recorded), "record") == replace(settings, dtype="float32")
        assert "view_tokens" not in LabelSettings(views=4).labelling("float32")
        assert fingerprint(settings) not in {
            fingerprint(LabelSettings(views=4)),
            fingerprint(LabelSettings(views=4, image_tokens=64)),
        }

    def test_images_that_look_alike_labelled_once_are_another_run_that_is_read_back(self) -> None:
        settings = replace(DEFAULTS, dtype="float32", views=1, **NEAR_DUPLICATES)
        recorded = settings.labelling("float32")
        assert read_settings(LabelSettings, full_labelling(recorded), "record") == settings
        others = (replace(settings, near_distance=2), replace(DEFAULTS, dtype="float32"))
        assert fingerprint(settings) not in {*map(fingerprint, others)}
        assert (settings.place_of_decoding, DEFAULTS.place_of_decoding) == ("read", "auto")

    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            ({"near_distance": 3}, "near_distance is set and skip_near_duplicates is false"),
            ({"near_distance": 25, "skip_near_duplicates": True}, "near_distance is 25; expected"),
            ({"decode_in": "actor", "skip_near_duplicates": True}, "leave decode_in out"),
        ],
    )
    def test_images_cannot_be_skipped_where_nobody_looks_for_them(self, given: dict[str, Any], sentence: str) -> None:
        with pytest.raises(TagstreamError, match=sentence):
            read_settings(LabelSettings, given, "label.toml")

    def test_a_run_whose_tokens_were_merged_by_another_method_is_not_gone_on_with(self) -> None:
        recorded = {**LabelSettings(image_tokens=64).labelling("float32"), "token_merging": "kcentre-merge-2"}
        with pytest.raises(TagstreamError, match="merged by kcentre-merge-2, and this program merges by"):
            full_labelling(recorded)

    @pytest.mark.parametrize("views", ["centre", 1])
    def test_the_centre_alone_leaves_a_run_its_former_fingerprint(self, views: str | int) -> None:
        assert "views" not in replace(DEFAULTS, views=views).labelling("float32")

    def test_whole_is_the_run_of_four_squares(self) -> None:
        whole, four, two = (fingerprint(replace(DEFAULTS, views=views)) for views in ("whole", 4, 2))
        assert whole == four != two

    @pytest.mark.parametrize(("name", "value"), {**OTHERS, **BOUNDS}.items())
    def test_any_other_setting_leaves_it_alone(self, name: str, value: Any) -> None:
        # Other stores are named where labels are reused at all.
        given = {"reuse": True, name: value} if name == "reuse_stores" else {name: value}
        assert fingerprint(read_settings(LabelSettings, given, "label.toml")) == fingerprint(DEFAULTS)

    def test_every_setting_is_known_to_decide_the_labels_or_not(self) -> None:
        known = {*DECIDING, *NEAR_DUPLICATES, *FEWER_TOKENS, *FEWER_TOKENS_OF_SQUARES, *OTHERS, *BOUNDS, "hub"}
        assert {field.name for field in fields(LabelSettings)} == known

    @pytest.mark.parametrize("name", [name for name in OF_THE_HUB if name != "raw_prompt"])
    def test_how_a_model_of_the_hub_is_asked_changes_its_runs_alone(self, name: str) -> None:
        asked = read_settings(LabelSettings, {"hub": {name: OF_THE_HUB[name]}}, "label.toml")
        assert fingerprint(asked) == fingerprint(DEFAULTS)
        of_hub = [settings.labelling("float32", is_hub_model=True) for settings in (asked, DEFAULTS)]
        assert run_fingerprint("model", of_hub[0]) != run_fingerprint("model", of_hub[1])

    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            ({"ranking": "sim"}, "ranking is 'sim'; a model of the hub has prob, ppl, none"),
            ({"sampling": "beam"}, "sampling is 'beam'; a model of the hub has one_shot"),
            ({"image_tokens": 9}, "image_tokens is 9; a model of the hub reads all of its image tokens: expected 0"),
            ({"views": 2, "view_tokens": 9}, "view_tokens is 9; a model of the hub reads all of its image tokens"),
        ],
    )
    def test_what_a_model_of_the_hub_has_not_is_refused(self, given: dict[str, Any], sentence: str) -> None:
        with pytest.raises(TagstreamError, match=sentence):
            read_settings(LabelSettings, given, "label.toml").labelling("float32", is_hub_model=True)

    def test_another_model_changes_it(self) -> None:
        assert fingerprint(DEFAULTS, model="other") != fingerprint(DEFAULTS)

    def test_the_dtype_counts_as_it_was_resolved(self) -> None:
        assert fingerprint(DEFAULTS, auto_dtype="bfloat16") == fingerprint(replace(DEFAULTS, dtype="bfloat16"))
        assert fingerprint(DEFAULTS, auto_dtype="bfloat16") != fingerprint(DEFAULTS)
