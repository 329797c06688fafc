"""Whether a model can label at all, decided from its configuration alone, before any weights are fetched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from model.fetching.refusal import TABLE_HINT, ModelUnusableError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NXTP_MODEL_TYPE = "nxtp-recognizer"
# The classes that code of the hub is asked for by, those that generate first.
_AUTO_CLASSES = ("AutoModelForImageTextToText", "AutoModelForVision2Seq", "AutoModelForCausalLM", "AutoModel")


def check_architecture(model: str, config: Mapping[str, Any]) -> None:
    """Raises ModelUnusableError where a model is of a kind that cannot do one-shot sampling of labels.

    Args:
        model: its name, for messages.
        config: its config.json.
    """
    kind = config.get("model_type")
    if kind == NXTP_MODEL_TYPE:
        return
    # Brings in torch, which takes seconds.
    import transformers

    named = ", ".join(config.get("architectures") or [str(kind)])
    configurations = transformers.CONFIG_MAPPING
    classes = transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if kind not in configurations or configurations[kind] not in classes:
        raise ModelUnusableError(_why_not_loaded(model, config, named))
    try:
        is_encoder_decoder = configurations[kind].from_dict(dict(config)).is_encoder_decoder
    except Exception as error:
        # What a configuration class raises for values that it does not like differs by class.
        raise ModelUnusableError(
            f"transformers {transformers.__version__} does not read config.json of {model} as a {kind} "
            f"({type(error).__name__}: {error}); download it again, or try another version of transformers"
        ) from error
    obstacle = find_obstacle(classes[configurations[kind]], is_encoder_decoder=is_encoder_decoder)
    if obstacle:
        raise ModelUnusableError(f"{model} cannot do one-shot sampling: {obstacle}; {TABLE_HINT}")


def find_obstacle(model_class: type[PreTrainedModel], *, is_encoder_decoder: bool) -> str | None:
    """Why the prefill of a class is not one causal pass through the whole model, as a clause; None where it is one."""
    from transformers import GenerationMixin

    kind = model_class.__name__
    if is_encoder_decoder:
        return f"{kind} is an encoder with a decoder, expected a decoder alone"
    if getattr(model_class, "generate", None) is not GenerationMixin.generate:
        return f"{kind} generates in a way of its own, expected transformers' generate()"
    return None


def _why_not_loaded(model: str, config: Mapping[str, Any], named: str) -> str:
    """Why transformers has no vision-language model for a configuration."""
    import transformers

    kind, of_hub = config.get("model_type"), config.get("auto_map")
    if isinstance(of_hub, dict) and of_hub:
        reference = next((of_hub[name] for name in _AUTO_CLASSES if name in of_hub), next(iter(of_hub.values())))
        wanted = str(reference[0] if isinstance(reference, list) else reference).rpartition(".")[2]
        return (
            f"{model} needs code from the hub (class {wanted}), which tagstream never runs; expected a model whose "
            f"class transformers has; {TABLE_HINT}"
        )
    if kind not in transformers.CONFIG_MAPPING:
        return (
            f"transformers {transformers.__version__} does not know models of type {kind} ({model}); a later "
            f"transformers may; {TABLE_HINT}"
        )
    if transformers.CONFIG_MAPPING[kind] in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        return (
            f"{model} is a model of text ({named}) that sees no images; expected a vision-language model; {TABLE_HINT}"
        )
    return (
        f"{model} ({named}) does not write text about images; expected a model that transformers loads by "
        f"AutoModelForImageTextToText; {TABLE_HINT}"
    )
