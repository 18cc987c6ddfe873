"""Text from data: escaped, cut, and without characters that reverse it."""

from nextlat_viz.display import escape, shorten


def test_text_from_data_stays_text() -> None:
    assert escape("<b>$x$ & y") == "&lt;b&gt;&#36;x&#36; &amp; y"


def test_an_override_character_does_not_mirror_a_label() -> None:
    assert "\u202e" not in escape("a\u202eb")
    assert shorten("a\nb\u202ec") == "a b c"


def test_a_long_name_is_cut() -> None:
    assert shorten("a" * 24) == "a" * 24
    assert shorten("a" * 25) == "a" * 23 + "…"
    assert len(shorten("x" * 10_000)) == 24
