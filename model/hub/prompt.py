"""What a vision-language model reads in front of a label: chat template, instruction, the beginning of an answer.

Facts behind it, with real tokenizers: a prompt that ends with a space is followed by no word that training ever showed
there; a label's tokens depend on what stands before it; some templates write the token that begins a text, and a
processor would write it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from model.hub.options import HubOptions

# Models that were trained on prompts without a template. Their processors put a line break behind the text.
_RAW_PROMPTS: Mapping[str, str] = {"paligemma": "<image>answer en what objects are in the picture?"}


class PromptTokenizer(Protocol):
    """What a prompt needs of a tokenizer."""

    bos_token: str | None

    def encode(self, text: str, /, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: list[int], /) -> str: ...


class PromptProcessor(Protocol):
    """What a prompt needs of a processor."""

    tokenizer: Any
    chat_template: Any

    def apply_chat_template(self, conversation: Any, /, **options: Any) -> str: ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text in front of every label.

    text: all of it, with the placeholder of the picture where the model's template has one.
    lead: its end, which decides the tokens of a label.
    adds_special_tokens: whether the processor is to write the token that begins a text.
    closes: characters that end a label.
    """

    text: str
    lead: str
    adds_special_tokens: bool
    closes: str = ""

    @property
    def separator(self) -> str:
        """What stands between the lead and a label: nothing behind a line break, else a space, which is the label's."""
        return "" if self.lead[-1:].isspace() else " "

    def label_ids(self, tokenizer: PromptTokenizer, label: str) -> list[int]:
        """A label's token ids behind this prompt.

        Raises ValueError where the label changes the tokens of the prompt, does not come back from its tokens, or holds
        what ends a label.
        """
        marks = [mark for mark in self.closes if mark in label]
        if marks:
            raise ValueError(f"the name {label!r} holds {marks[0]!r}, which ends a label; expected a name without it")
        before = tokenizer.encode(self.lead, add_special_tokens=False)
        whole = tokenizer.encode(f"{self.lead}{self.separator}{label}", add_special_tokens=False)
        ids = whole[len(before) :]
        if whole[: len(before)] != before or not ids:
            raise ValueError(f"the name {label!r} changes the tokens of {self.lead!r} before it; expected another name")
        spelled = tokenizer.decode(ids).strip()
        if spelled != label or not label:
            raise ValueError(f"the name {label!r} is read as {spelled!r}; expected words of the model's vocabulary")
        return ids


def write_prompt(processor: PromptProcessor, model_type: str, options: HubOptions) -> Prompt:
    """The prompt for a model.

    Args:
        processor: the model's.
        model_type: the kind of model, as its config.json says.

    Raises ValueError where the model has no chat template and no prompt is known for its kind.
    """
    if processor.chat_template and not options.raw_prompt:
        return _from_template(processor, options)
    raw = options.raw_prompt or _RAW_PROMPTS.get(model_type)
    if raw is None:
        raise ValueError(
            f"the model ({model_type}) has no chat template, and no prompt is known for its kind;"
            " set raw_prompt in [hub] to the text that it was trained to answer"
        )
    # PaliGemma's processor ends every prompt with a line break.
    lead = "\n" if model_type == "paligemma" else raw
    return Prompt(raw, lead, adds_special_tokens=True, closes=options.closes)


def _from_template(processor: PromptProcessor, options: HubOptions) -> Prompt:
    if options.answer != options.answer.rstrip():
        raise ValueError(f"answer is {options.answer!r}; expected no space or line break at its end")
    # Lists of parts: templates that expect them fail on plain text. Where the model thinks, its template closes the
    # block of thoughts itself.
    conversation = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": options.instruction}]},
        {"role": "assistant", "content": [{"type": "text", "text": options.answer}]},
    ]
    text = processor.apply_chat_template(
        conversation, tokenize=False, continue_final_message=True, add_generation_prompt=False
    )
    if not text.endswith(options.answer):
        raise ValueError(f"the model's chat template does not end with the answer {options.answer!r}: {text[-80:]!r}")
    bos = processor.tokenizer.bos_token
    adds_special_tokens = not (bos and text.startswith(bos))
    return Prompt(text, options.answer, adds_special_tokens, options.closes)
