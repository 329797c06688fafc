"""`tagstream plan` as it is read."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from jobs.verbs.plan import estimate_rows, print_forecast, show_forecast
from pipeline.estimate import Estimate
from pipeline.forecast.forecast import Forecast, OutputSizes
from pipeline.forecast.pace import StageForecast, Workers
from pipeline.labelling.time_limit import TimeLimit

MADE = Forecast(
    run="r",
    source="/s",
    fingerprint="f",
    n_shards=100,
    source_bytes=10_000_000,
    n_images=Estimate(1_000_000, 900_000, 1_100_000),
    start_up_s=20.0,
    images_per_s=Estimate(100, 80, 120),
    seconds=Estimate(10_020, 8_000, 12_600),
    usd=None,
    output_bytes=Estimate(340e6, 300e6, 380e6),
    compacted_bytes=Estimate(200e6, 180e6, 220e6),
    output=OutputSizes(
        bytes_a_shard=100, label_bytes_an_image=250, image_bytes_an_image=90, compacted_label_bytes_an_image=120
    ),
    stages=[StageForecast(stage="infer", seconds_an_image=0.0098, share=0.98, workers=1, images_per_s=102.0)],
    bottleneck="infer",
    workers=Workers(n_actors=1, gpus_per_actor=1.0, device="cuda", batch_size=64, n_readers=7, n_writers=8),
    n_sampled=2000,
    n_shards_sampled=40,
    n_rejected=3,
    notes=["a note"],
)


def printed(made: Forecast, capsys: pytest.CaptureFixture[str]) -> str:
    print_forecast(made)
    return capsys.readouterr().out


def test_each_prediction_stands_with_its_range(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(MADE, capsys)
    assert "From 2,000 images of 40 of 100 shards, 3 of them rejected; 1 actors on cuda" in text
    assert "images      1,000,000 (900,000 to 1,100,000)\n" in text
    assert "wall time   2:47:00 (2:13:20 to 3:30:00); 0:20 of it to start\n" in text
    assert "store       340 MB (300 MB to 380 MB)\n" in text
    assert re.search(r"^infer +9.8 +98 +1 +102$", text, re.MULTILINE)
    assert text.endswith("Note: a note.\n")


def test_images_whose_labels_are_reused_are_told_where_there_are_any(capsys: pytest.CaptureFixture[str]) -> None:
    assert "reused" not in printed(MADE, capsys)
    assert "reused      30% of the sample have labels already\n" in printed(replace(MADE, n_reused=600), capsys)


def test_a_price_gives_a_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert "cost        give --price to see it\n" in printed(MADE, capsys)
    priced = replace(MADE, usd=Estimate(7.0, 5.6, 8.8))
    assert "cost        7.00 (5.60 to 8.80) USD\n" in printed(priced, capsys)


def test_what_is_known_has_no_range(capsys: pytest.CaptureFixture[str]) -> None:
    assert "images      500\n" in printed(replace(MADE, n_images=Estimate(500, 500, 500)), capsys)


def test_how_many_tokens_a_photograph_costs_is_told_where_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert "tokens" not in printed(MADE, capsys)
    assert "image       1,326 tokens a view\n" in printed(replace(MADE, n_image_tokens=1326), capsys)


def test_a_limit_of_time_tells_how_many_images_it_covers(capsys: pytest.CaptureFixture[str]) -> None:
    print_forecast(MADE, TimeLimit(5 + 20 + 1000, "deadline"))
    assert "covered     100,000 images (10%) within 17:05; the same command goes on later\n" in capsys.readouterr().out
    print_forecast(MADE, TimeLimit(36_000, "deadline"))
    assert "covered     all images, within 10:00:00\n" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["json", "csv"])
def test_for_programs_it_is_a_note_beside_the_numbers(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_forecast(MADE, output, TimeLimit(36_000, "deadline"))
    assert capsys.readouterr().err == "Note: covered are all images, within 10:00:00.\n"
    show_forecast(MADE, output, None)
    assert capsys.readouterr().err == ""


def test_csv_has_one_row_an_estimate() -> None:
    rows = {name: (value, low, high) for name, value, low, high in estimate_rows(MADE)}
    assert rows["images"] == (1_000_000, 900_000, 1_100_000)
    assert "usd" not in rows
    assert {str(row[0]) for row in estimate_rows(replace(MADE, usd=Estimate(7.0, 5.6, 8.8)))} >= {"usd", "images_per_s"}
