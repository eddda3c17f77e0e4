"""What of a text is compared."""

from textenv.data import words


def test_words():
    assert words("Don't write_2 poems!") == ["don", "t", "write", "2", "poems"]
    assert words("用Python写诗\uff0c好吗") == ["用", "python", "写", "诗", "好", "吗"]


def test_what_looks_alike_has_equal_words():
    assert words("\uff28\uff45llo STRASSE ofﬁce") == words("hello straße office")


def test_no_letter_is_lost():
    """Bopomofo stands between the ranges of Chinese and Japanese, and is written in runs."""
    assert words("ㄅㄆㄇ 読み方 안녕 ١٢") == ["ㄅㄆㄇ", "読", "み", "方", "안녕", "١٢"]
