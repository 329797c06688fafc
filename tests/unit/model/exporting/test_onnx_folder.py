"""A recognizer's folder of ONNX graphs, run by onnxruntime."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from model.exporting.agreement import compare_with_torch
from model.exporting.graph_branches import Graphs
from model.exporting.onnx_folder import export_recognizer
from model.exporting.quantization import quantize_graphs
from model.nxtp.branches import NxtpBranches, sample_one_shot
from tests.fixtures.checkout import ROOT
from tests.fixtures.recognizers.onnx_runner import OnnxRunner

TOP_K = 12
# Of float32: sums of 32 products, in another order.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def exact(build_recognizer):
    """What is exported: two queries share a key. A block more would cost the exporter seconds."""
    return build_recognizer(n_kv_heads=2, n_blocks=1)


@pytest.fixture(scope="module")
def pictures(make_image):
    def encode(image):
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()

    return [encode(make_image(40 + place, 30, place)) for place in range(5)]


@pytest.fixture(scope="module")
def exported(exact, pictures, tmp_path_factory):
    """The folder in float32, and how it agrees with torch."""
    folder = tmp_path_factory.mktemp("exported")
    return folder, export_recognizer(exact, folder, pictures, "tiny", "f" * 64)


@pytest.fixture(scope="module")
def folder(exported):
    return exported[0]


def labels_of(recognizer, pixels, top_k):
    """Each image's labels, as the runner gives them: finished branches that are not empty."""
    with torch.inference_mode():
        prefix = recognizer.module.prefill(pixels)
        branches = sample_one_shot(recognizer.module, prefix, top_k, recognizer.config.max_label_tokens)
    found = [
        [(ids[:-1], float(np.prod(probs))) for ids, probs, finished in image if finished and len(ids) > 1]
        for image in branches.to_lists()
    ]
    return [sorted(labels, key=lambda label: -label[1]) for labels in found]


@pytest.mark.parametrize(("n_images", "top_k"), [(1, 1), (1, TOP_K), (5, 1), (7, TOP_K)])
def test_onnxruntime_alone_gives_the_labels_of_torch_whatever_the_batch(folder, exact, make_pixels, n_images, top_k):
    pixels = make_pixels(n_images)
    found = OnnxRunner(folder).sample(pixels.numpy(), top_k)
    expected = labels_of(exact, pixels, top_k)
    assert [[ids for ids, _ in labels] for labels in found] == [[ids for ids, _ in labels] for labels in expected]
    for labels, others in zip(found, expected, strict=True):
        assert [score for _, score in labels] == pytest.approx([score for _, score in others], abs=1e-5)


def test_the_labels_that_are_compared_have_several_lengths(exact, make_pixels):
    lengths = {len(ids) for labels in labels_of(exact, make_pixels(7), TOP_K) for ids, _ in labels}
    assert len(lengths) > 2


def test_the_runner_needs_no_torch(folder, exact, make_image, tmp_path):
    crops = np.stack([exact.preprocessor.view(make_image(40, 30, seed)) for seed in range(3)])
    np.save(tmp_path / "crops.npy", crops)
    program = (
        "import json, sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from tests.fixtures.recognizers.onnx_runner import OnnxRunner\n"
        "runner = OnnxRunner(Path(sys.argv[1]))\n"
        "labels = runner.sample(runner.prepare(np.load(sys.argv[2])), 12)\n"
        "assert not {'torch', 'transformers', 'model'} & set(sys.modules)\n"
        "print(json.dumps(labels))"
    )
    command = [sys.executable, "-c", program, folder, tmp_path / "crops.npy"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [[tuple(ids) for ids, _ in labels] for labels in json.loads(done.stdout)]
    expected = labels_of(exact, exact.prepare(list(crops)), TOP_K)
    assert found == [[ids for ids, _ in labels] for labels in expected]


def test_branches_that_go_on_twice_and_in_another_number_have_the_logits_of_torch(folder, exact, make_pixels):
    pixels = make_pixels(3)
    with torch.inference_mode():
        decoders = NxtpBranches(exact.module, exact.module.prefill(pixels)), Graphs(folder, 1).open_images(pixels)
        for _ in range(2):
            for decoder in decoders:
                decoder.open(torch.tensor([0, 0, 2]))
            for places in ([0, 0, 1, 2], [2, 3], [0]):
                tokens = torch.arange(9, 9 + (3 if places == [0, 0, 1, 2] else 4 if places == [2, 3] else 2))
                first, second = (decoder.step(tokens) for decoder in decoders)
                assert torch.allclose(first, second, atol=TOLERANCE)
                for decoder in decoders:
                    decoder.keep(torch.tensor(places))


def test_the_check_finds_the_same_labels_and_logits(exported):
    agreement = exported[1].float32
    assert agreement.is_exact
    assert agreement.difference < TOLERANCE
    assert (agreement.n_images, agreement.n_same, agreement.n_same_first) == (5, 5, 5)
    assert agreement.n_common == agreement.n_compared > 0


@pytest.mark.parametrize("weights", ["projector.weight", "decoder.model.layers.0.mlp.up_proj.weight"])
def test_the_check_finds_a_model_that_has_other_weights(folder, build_recognizer, pictures, weights):
    other = build_recognizer(n_kv_heads=2, n_blocks=1)
    with torch.no_grad():
        other.module.get_parameter(weights)[0].mul_(1.5)
    assert not compare_with_torch(other, folder, pictures).is_exact


def test_graphs_are_valid_and_named_as_the_manifest_says(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["graphs"]) == ["encoder", "prefill", "step"]
    for described in manifest["graphs"].values():
        onnx.checker.check_model(folder / described["file"])
        graph = onnx.load(folder / described["file"], load_external_data=False).graph
        for values, expected in ((graph.input, described["inputs"]), (graph.output, described["outputs"])):
            assert [value_of(value) for value in values] == expected


def value_of(value):
    """An input or output as the manifest has it."""
    dtypes = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT64: "int64"}
    shape = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return {"name": value.name, "dtype": dtypes[value.type.tensor_type.elem_type], "shape": shape}


def test_weights_stand_once_in_a_file_of_their_own(folder, exact):
    graphs = [onnx.load(folder / f"{name}.onnx", load_external_data=False).graph for name in ("prefill", "step")]
    places = [
        [
            frozenset((entry.key, entry.value) for entry in tensor.external_data if entry.key != "length")
            for tensor in graph.initializer
            if tensor.external_data
        ]
        for graph in graphs
    ]
    assert all(("location", "weights.data") in place for of_graph in places for place in of_graph)
    of_prefill, of_step = ({*of_graph} for of_graph in places)
    # The layers of all blocks and that of the logits. Of the embeddings, the prefill may have the prompt's alone.
    assert len(of_prefill & of_step) >= 7 * exact.config.text_config.num_hidden_layers + 1
    assert len(of_step - of_prefill) <= 1


def test_the_folder_can_be_moved(folder, exact, make_pixels, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in folder.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    pixels = make_pixels(1)
    assert OnnxRunner(moved).sample(pixels.numpy(), 3) == OnnxRunner(folder).sample(pixels.numpy(), 3)


@pytest.mark.long
def test_an_export_is_the_same_bytes_again(folder, exact, pictures, tmp_path):
    export_recognizer(exact, tmp_path, pictures[:1], "tiny", "f" * 64)
    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in of.iterdir()} for of in (folder, tmp_path)
    ]
    assert digests[0] == digests[1]


def test_the_page_and_the_manifest_say_what_was_exported(folder, exact):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["model"] == "tiny"
    assert manifest["fingerprint"] == "f" * 64
    assert manifest["precision"] == "float32"
    assert manifest["delimiter_id"] == exact.config.delimiter_id
    assert (folder / "README.md").read_text().startswith("# tiny as ONNX graphs\n")
    assert {"tokenizer.json", "preprocessor_config.json"} <= {path.name for path in folder.iterdir()}
    assert not (folder / "config.json").exists()


def test_linear_layers_in_int8_are_near_torch_and_all_else_is_float32(folder, exact, pictures, tmp_path):
    quantize_graphs(folder, tmp_path)
    agreement = compare_with_torch(exact, tmp_path, pictures)
    assert not agreement.is_exact
    assert agreement.n_common > 0.7 * agreement.n_compared
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "encoder.onnx",
        "prefill.onnx",
        "step.onnx",
        "weights.data",
    ]
    for name in ("encoder", "prefill", "step"):
        before, after = (onnx.load(of / f"{name}.onnx", load_external_data=False).graph for of in (folder, tmp_path))
        operations = Counter(node.op_type for node in after.node)
        n_linear = sum(is_linear(node, before) for node in before.node)
        assert operations["MatMulInteger"] == n_linear > 0
        assert operations["Gemm"] == 0


def test_two_products_of_int8_weights_fit_into_16_bits_as_cpus_without_vnni_need_it(folder, tmp_path):
    quantize_graphs(folder, tmp_path)
    rounded = [
        onnx.numpy_helper.to_array(tensor)
        for name in ("encoder", "prefill", "step")
        for tensor in onnx.load(tmp_path / f"{name}.onnx").graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2
    ]
    largest = max(int(np.abs(weights.astype(np.int32)).max()) for weights in rounded)
    assert largest > 60
    assert 2 * 255 * largest < 2**15


def is_linear(node, graph):
    """Whether a product is one with weights."""
    return node.op_type == "MatMul" and node.input[1] in {tensor.name for tensor in graph.initializer}


@pytest.mark.long
def test_a_folder_in_int8_has_its_graphs_alone_and_says_so(build_recognizer, pictures, make_pixels, tmp_path):
    exported = export_recognizer(build_recognizer(n_blocks=3), tmp_path, pictures, "tiny", "f" * 64, int8=True)
    assert exported.float32.is_exact
    assert exported.float32.n_same == len(pictures)
    assert exported.int8 is not None
    assert json.loads((tmp_path / "manifest.json").read_text())["precision"] == "int8"
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert OnnxRunner(tmp_path).sample(make_pixels(2).numpy(), TOP_K)
