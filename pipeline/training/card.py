"""The model card that stands beside a trained model's weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.training.recall_sum import MEASURES, describe_limits, describe_qualities

_ORIGINS = ("source", "init", "teacher", "min_score")
_CARD = """---
library_name: transformers
pipeline_tag: image-classification
tags: [nxtp-recognizer, open-vocabulary-tagging, tagstream]
---

# {name}

An open-vocabulary image tagger: NXTP ([object recognition as next token prediction](https://arxiv.org/abs/2312.02142)),
a CLIP vision encoder, a projector and a truncated Llama decoder. It was trained by tagstream and knows what its
training data showed.

```
tagstream label SOURCE --store STORE --model {name}
```

## Training

| | |
|---|---|
{facts}

```
{command}
```

## Evaluation

{evaluation}

![curves](training.png)

Every logged step is in `metrics.parquet`.

## Settings

```json
{settings}
```
"""


def write_card(path: Path, metrics: pa.Table, settings: Mapping[str, Any], step: int, facts: Mapping[str, Any]) -> None:
    """Writes the card.

    Args:
        step: of the weights.
        facts: `name`, `command`, and whatever else its table shows.
    """
    shown = {name: value for name, value in facts.items() if name not in ("name", "command")}
    # What it was made from stands in the table as it was given; as resolved it would tell of this machine's folders.
    plain = {name: value for name, value in settings.items() if name not in _ORIGINS}
    shown |= {
        "weights": f"of step {step:,} of {settings['steps']:,}",
        "seconds": f"{metrics.column('seconds')[-1].as_py():,.0f}",
    }
    text = _CARD.format(
        name=facts["name"],
        command=facts["command"],
        facts="\n".join(f"| {name} | {value} |" for name, value in shown.items()),
        evaluation=_evaluation(metrics, step),
        settings=json.dumps(plain, indent=2),
    )
    path.write_text(text, "utf-8")


def _evaluation(metrics: pa.Table, step: int) -> str:
    rows = metrics.filter(pc.and_(pc.equal(metrics.column("step"), step), metrics.column("recall_10").is_valid()))
    if not rows.num_rows:
        return "None was made of these weights during training."
    means = {name: rows.column(name)[-1].as_py() for name in MEASURES}
    limits = describe_limits(means)
    return (
        f"On the validation source, labelled with one-shot sampling: {describe_qualities(means)}. hit@1 is the share "
        "of images whose first label is true, recall@k the mean share of an image's true labels among its first k; "
        f"matching is exact but for case.{f' In that source {limits}.' if limits else ''}"
    )
