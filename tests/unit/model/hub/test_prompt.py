"""What stands in front of a label, and the tokens of a label behind it."""

from __future__ import annotations

from types import SimpleNamespace

import jinja2
import pytest

from model.hub.options import HubOptions
from model.hub.prompt import Prompt, write_prompt
from tests.fixtures.recognizers.hub_folders import TEMPLATE, tokenizer

THINKING = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}<think>\n</think>{% endif %}"
    "{% for p in m['content'] %}{{ p['text'] if p['type'] == 'text' else '<image>' }}{% endfor %}{% endfor %}"
)


class TemplateProcessor:
    """Writes conversations by a template, as processors of transformers do."""

    def __init__(self, template: str | None, bos_token: str | None = "<s>") -> None:
        self.chat_template = template
        self.tokenizer = SimpleNamespace(bos_token=bos_token)

    def apply_chat_template(self, conversation, *, tokenize, continue_final_message, add_generation_prompt):
        assert (tokenize, continue_final_message, add_generation_prompt) == (False, True, False)
        assert all(isinstance(message["content"], list) for message in conversation)
        template = jinja2.Template(self.chat_template)
        return template.render(messages=conversation, bos_token=self.tokenizer.bos_token).rstrip()


@pytest.mark.parametrize("template", [TEMPLATE, THINKING])
def test_the_prompt_ends_with_the_beginning_of_the_answer(template):
    prompt = write_prompt(TemplateProcessor(template), "llava", HubOptions())
    assert prompt.text.endswith("Objects:")
    assert (prompt.lead, prompt.separator) == ("Objects:", " ")


def test_an_answer_that_ends_with_a_space_is_refused():
    with pytest.raises(ValueError, match="no space or line break at its end"):
        write_prompt(TemplateProcessor(TEMPLATE), "llava", HubOptions(answer="Objects: "))


def test_a_template_that_writes_something_behind_the_answer_is_refused():
    with pytest.raises(ValueError, match="does not end with the answer"):
        write_prompt(TemplateProcessor(THINKING + "<|end|>"), "llava", HubOptions())


@pytest.mark.parametrize(("template", "adds"), [(TEMPLATE, False), (THINKING, True)])
def test_the_token_that_begins_a_text_is_written_once(template, adds):
    assert write_prompt(TemplateProcessor(template), "llava", HubOptions()).adds_special_tokens is adds


def test_a_model_without_a_template_is_asked_as_its_kind_was_trained():
    prompt = write_prompt(TemplateProcessor(None), "paligemma", HubOptions())
    assert prompt.text == "<image>answer en what objects are in the picture?"
    assert (prompt.lead, prompt.separator) == ("\n", "")


def test_of_a_kind_that_is_not_known_without_a_template_a_prompt_has_to_be_given():
    with pytest.raises(ValueError, match=r"no chat template.*set raw_prompt"):
        write_prompt(TemplateProcessor(None), "unheard_of", HubOptions())
    prompt = write_prompt(TemplateProcessor(None), "unheard_of", HubOptions(raw_prompt="tags:"))
    assert (prompt.text, prompt.lead) == ("tags:", "tags:")


@pytest.mark.parametrize("label", ["dog", "hot air balloon", "a dog"])
def test_the_tokens_of_a_label_are_those_behind_the_prompt(label):
    prompt = Prompt("Objects:", "Objects:", True)
    ids = prompt.label_ids(tokenizer(), label)
    whole = tokenizer().encode(f"Objects: {label}", add_special_tokens=False)
    assert whole[-len(ids) :] == ids
    assert tokenizer().decode(ids) == f" {label}"


@pytest.mark.parametrize(("label", "reason"), [("größe", "is read as"), ("", "is read as")])
def test_a_label_that_the_model_cannot_write_is_refused(label, reason):
    with pytest.raises(ValueError, match=reason):
        Prompt("Objects:", "Objects:", True).label_ids(tokenizer(), label)


class JoiningTokenizer:
    """Joins the end of a prompt with what follows it, as byte-level tokenizers do with some."""

    bos_token = None

    def encode(self, text, *, add_special_tokens):
        return [1, 9] if text == "Objects: :)" else [1, 2]

    def decode(self, token_ids):
        return ":)"


def test_a_label_that_changes_the_tokens_of_the_prompt_is_refused():
    with pytest.raises(ValueError, match=r"':\)' changes the tokens of 'Objects:'"):
        Prompt("Objects:", "Objects:", True).label_ids(JoiningTokenizer(), ":)")
