"""What logs in to a server stays out of records and messages."""

from __future__ import annotations

import pytest

from pipeline.text import conceal


@pytest.mark.parametrize(
    ("text", "concealed"),
    [
        ("https://ann:secret@host/x.tar", "https://***@host/x.tar"),
        ("s3://KEY:SECRET@bucket/x", "s3://***@bucket/x"),
        (
            "tagstream label 'https://h/x.tar?X-Amz-Signature=ab&y=1' --store s",
            "tagstream label 'https://h/x.tar?***' --store s",
        ),
        (
            "shard a (https://h/a.tar?sig=1&x=2): 403 (https://h/b?c.)",
            "shard a (https://h/a.tar?***): 403 (https://h/b?***.)",
        ),
        ("cannot read https://h/{0..9}.tar?sig=1: denied", "cannot read https://h/{0..9}.tar?***: denied"),
        ("ray://u:p@head:10001", "ray://***@head:10001"),
        ("label s --notify https://hooks/T0/B0 --lock", "label s --notify *** --lock"),
        ("label s --notify 'curl -H \"Token: x\" h' --lock", "label s --notify *** --lock"),
        ("label s --notify=https://hooks/T0/B0", "label s --notify=***"),
        ("label s '--notify=curl -u me:x h' --lock", "label s '--notify=***' --lock"),
    ],
)
def test_logins_and_signatures_are_concealed(text: str, concealed: str) -> None:
    assert conceal(text) == concealed


@pytest.mark.parametrize("text", ["s3://bucket/a@b/x.tar", "/data/what?.tar", "s3://bucket/x?.tar", "mail me@host", ""])
def test_what_holds_no_login_stays_as_it_is(text: str) -> None:
    assert conceal(text) == text
