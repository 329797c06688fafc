"""Names of labels, and files that say what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import TagstreamError
from pipeline.naming.sensitive import sensitive_topics
from pipeline.naming.vocabulary import Vocabulary, read_vocabulary
from tests.fixtures.checkout import ROOT
from tests.fixtures.pages import blocks

TOML = """
keep = ["Lens"]
compounds = ["hot dog"]
deny = ["photo"]
[aliases]
automobile = "car"
"T-Shirts" = "t shirt"
[wider]
dog = "animal"
"""


def vocabulary_of(tmp_path: Path, text: str, name: str = "mine.toml") -> Vocabulary:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_vocabulary(path)


@pytest.fixture(scope="module")
def default() -> Vocabulary:
    return read_vocabulary(None)


class TestDefault:
    """The vocabulary that comes along changes spelling, not meaning."""

    @pytest.mark.parametrize(
        ("label", "name"),
        [
            ("Dog", "dog"),
            ("  traffic \t light ", "traffic light"),
            ("Traffic-Lights", "traffic light"),
            ("teddybear", "teddy bear"),
            ("hot_dogs", "hot dog"),
            ("geese", "goose"),
            ("knives", "knife"),
            ("skis", "ski"),
            ("wine glasses", "wine glass"),
            ("Straße", "strasse"),
            ("犬", "犬"),
            ("🐙", "🐙"),
            ("it's", "it's"),
        ],
    )
    def test_variants_have_one_name(self, default: Vocabulary, label: str, name: str) -> None:
        assert default.name_of(label) == name

    @pytest.mark.parametrize(
        "label",
        "bus gas lens glass compass cactus octopus iris tennis chess scissors jeans sunglasses sheep news grass dress "
        "canvas tie hibiscus people clothes rhinoceros".split(),
    )
    def test_what_only_looks_like_a_plural_is_left_alone(self, default: Vocabulary, label: str) -> None:
        assert default.name_of(label) == label

    @pytest.mark.parametrize("label", ["", " ", "-", "_ \n"])
    def test_what_has_no_letters_has_no_name(self, default: Vocabulary, label: str) -> None:
        assert default.name_of(label) is None

    @settings(max_examples=300)
    @given(st.text(max_size=30))
    def test_a_name_is_its_own_name(self, default: Vocabulary, label: str) -> None:
        name = default.name_of(label)
        assert name is None or default.name_of(name) == name


class TestFiles:
    """Vocabularies of a user's own."""

    @pytest.mark.parametrize(
        ("label", "name"),
        [
            ("automobile", "car"),
            ("Automobiles", "car"),
            ("t-shirts", "t shirt"),
            ("hotdogs", "hot dog"),
            ("photos", None),
            ("lens", "lens"),
            ("dogs", "dog"),
        ],
    )
    def test_toml_rules_are_applied(self, tmp_path: Path, label: str, name: str | None) -> None:
        assert vocabulary_of(tmp_path, TOML).name_of(label) == name

    def test_plurals_may_be_kept_apart(self, tmp_path: Path) -> None:
        assert vocabulary_of(tmp_path, "fold_plurals = false").name_of("Dogs") == "dogs"

    def test_csv_has_a_name_a_label_and_none_denies(self, tmp_path: Path) -> None:
        vocabulary = vocabulary_of(tmp_path, 'label,name,wider\nauto,car,vehicle\n"photo, old",,\n', "mine.csv")
        assert [vocabulary.name_of(label) for label in ("Auto", "photo, old", "tree")] == ["car", None, "tree"]
        assert vocabulary.wider == {"car": "vehicle"}

    @pytest.mark.parametrize("denied", ["photo", "Photos", "snapshot", "Snap-Shots"])
    @pytest.mark.parametrize("name", ["mine.toml", "mine.csv"])
    def test_what_is_denied_may_be_written_in_the_plural_or_as_an_alias(
        self, tmp_path: Path, denied: str, name: str
    ) -> None:
        toml = f'deny = ["{denied}"]\n[aliases]\nsnapshot = "photo"\n"snap shot" = "photo"\n'
        table = f"label,name\nsnapshot,photo\nsnap shot,photo\n{denied if denied != 'snapshot' else 'snapshots'},\n"
        vocabulary = vocabulary_of(tmp_path, toml if name == "mine.toml" else table, name)
        assert [vocabulary.name_of(label) for label in ("photo", "photos", "snapshot", "tree")] == [None] * 3 + ["tree"]

    def test_what_csv_allows_marks_and_displays_is_what_toml_does(self, tmp_path: Path) -> None:
        table = vocabulary_of(
            tmp_path,
            "label,name,allow,sensitive,display.de,display.fr\n"
            "puppy,dog,yes,,Hund,chien\nhound,dog,Yes,no,Hund,\nrifle,gun,, YES ,,\ncar,car,yes,,,\nPhoto,,,yes,,\n",
            "mine.csv",
        )
        text = (
            'allow = ["puppy", "car"]\nsensitive = ["rifle", "Photo"]\ndeny = ["photo"]\n'
            '[aliases]\npuppy = "dog"\nhound = "dog"\nrifle = "gun"\ncar = "car"\n'
            '[display.de]\npuppy = "Hund"\n[display.fr]\npuppy = "chien"\n'
        )
        assert table == vocabulary_of(tmp_path, text)
        assert table.version == vocabulary_of(tmp_path, text).version
        assert [table.name_of(label) for label in ("hound", "rifle", "car")] == ["dog", None, "car"]

    def test_the_csv_that_the_page_for_users_shows_says_what_the_page_says(self, tmp_path: Path) -> None:
        (text,) = blocks(ROOT / "jobs" / "questions.md", "csv")
        shown = vocabulary_of(tmp_path, text, "mine.csv")
        assert [shown.name_of(label) for label in ("puppies", "rifle", "photo", "cat")] == ["dog", "gun", None, None]
        assert (shown.sensitive, shown.display) == ({"gun"}, {"de": {"dog": "Hund", "gun": "Waffe"}})

    def test_wider_terms_are_by_name(self, tmp_path: Path) -> None:
        assert vocabulary_of(tmp_path, TOML).wider == {"dog": "animal"}

    def test_the_version_names_the_file_and_follows_its_rules(self, tmp_path: Path) -> None:
        first, again = vocabulary_of(tmp_path, TOML).version, vocabulary_of(tmp_path, TOML + "\n# more\n").version
        other = vocabulary_of(tmp_path, TOML.replace("car", "auto")).version
        assert first == again != other
        assert first.startswith("mine-")

    @pytest.mark.parametrize(("label", "name"), [("puppies", "dog"), ("Dogs", "dog"), ("car", None), ("tree", None)])
    def test_what_is_not_allowed_has_no_name(self, tmp_path: Path, label: str, name: str | None) -> None:
        text = 'allow = ["Puppies"]\n[aliases]\npuppy = "dog"\nautomobile = "car"\n'
        vocabulary = vocabulary_of(tmp_path, text)
        assert vocabulary.name_of(label) == name
        assert vocabulary.without_limit().name_of("car") == "car"

    def test_what_is_sensitive_or_displayed_is_found_by_its_name_and_changes_none(self, tmp_path: Path) -> None:
        text = (
            TOML.replace("[aliases]", 'sensitive = ["Automobiles", "photo"]\n[aliases]')
            + '[display.de]\ndogs = "Hund"\n'
        )
        vocabulary = vocabulary_of(tmp_path, text)
        # One that is denied is no less sensitive: what shows denied labels, too, has to know it.
        assert vocabulary.sensitive == {"car", "photo"}
        assert [vocabulary.is_sensitive(label) for label in ("automobile", "Photos", "dog")] == [True, True, False]
        assert vocabulary.display == {"de": {"dog": "Hund"}}
        assert vocabulary.version == vocabulary_of(tmp_path, TOML).version
        assert vocabulary.version != vocabulary_of(tmp_path, 'allow = ["dog"]\n' + TOML).version

    def test_topics_of_the_list_that_comes_along_are_sensitive_where_they_are_asked_for(self, tmp_path: Path) -> None:
        assert not vocabulary_of(tmp_path, TOML).sensitive
        found = vocabulary_of(tmp_path, 'sensitive_topics = ["violence", "hate"]').sensitive
        assert {"rifle", "swastika"} <= found
        assert "wine" not in found

    def test_the_list_that_comes_along_is_sorted_and_has_every_name_once(self) -> None:
        for topic, names in sensitive_topics().items():
            assert list(names) == sorted(set(names)), topic

    @pytest.mark.parametrize(
        ("name", "is_mentioned"), [("car", True), ("animal", True), ("photo", True), ("tree", False)]
    )
    def test_a_vocabulary_knows_what_it_mentions(self, tmp_path: Path, name: str, is_mentioned: bool) -> None:
        assert vocabulary_of(tmp_path, TOML).mentions(name) is is_mentioned

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("v.toml", "keep = [", "the vocabulary v is no valid TOML"),
            ("v.toml", "plurals = true", "unknown setting 'plurals'"),
            ("v.toml", "deny = 'photo'", "deny is 'photo'; expected a list of strings"),
            ("v.toml", "aliases = ['a']", r"aliases is \['a'\]; expected a table of strings"),
            ("v.toml", "allow = []", "allow is empty, so that nothing would have a name; list names, or leave it out"),
            (
                "v.toml",
                "allow = ['Photos']\ndeny = ['photo']",
                "allow has 'Photos', which deny leaves out; take it out",
            ),
            ("v.toml", "allow = ['-']", "allow has '-', which is no name"),
            ("v.toml", "sensitive_topics = ['all']", "sensitive_topics has 'all'; expected some of nudity, violence"),
            ("v.toml", "display = 'de'", "display is 'de'; expected a table for each language"),
            ("v.toml", "[display]\ndog = 'Hund'", "expected a table for each language, as .display.de."),
            ("v.toml", "[display.de]\ndog = 1", "display.de calls 'dog' 1; expected a text"),
            ("v.toml", "[aliases]\na = 1", "aliases is {'a': 1}; expected a table of strings"),
            ("v.toml", "[display.de]\ndog = 'Hund'\ndogs = 'Tier'", "calls 'dog' 'Hund' and 'Tier'; expected one of"),
            (
                "v.csv",
                "a,b\n1,2\n",
                r"has the columns a, b; expected label and name, and perhaps wider, allow, sensitive and "
                r"display\.LANGUAGE \(other settings need a TOML file\)",
            ),
            ("v.csv", "", "has the columns nothing; expected label and name"),
            ("v.csv", "label,name,keep\n", r"has the columns label, name, keep; .* need a TOML file"),
            ("v.csv", "label,name,display.\n", r"has the columns label, name, display\.; expected"),
            ("v.csv", "label,name,allow\ndog,dog,1\n", "allow of 'dog' is '1'; expected yes, no or nothing"),
            ("v.csv", "label,name,allow\ndog,dog,\n", "allow is empty, so that nothing would have a name"),
            ("v.csv", "label,name,allow\nphoto,,yes\n", "allow has 'photo', which deny leaves out"),
            ("v.csv", "label,name,display.de\na,dog,Hund\nb,dog,Tier\n", "calls 'dog' 'Hund' and 'Tier'; expected one"),
        ],
    )
    def test_a_file_that_is_no_vocabulary_is_an_error_that_says_why(
        self, tmp_path: Path, name: str, text: str, message: str
    ) -> None:
        with pytest.raises(TagstreamError, match=message):
            vocabulary_of(tmp_path, text, name)

    def test_a_file_that_cannot_be_read_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
        for name in ("none.toml", "bad.toml"):
            with pytest.raises(TagstreamError, match="cannot read the vocabulary"):
                read_vocabulary(tmp_path / name)
