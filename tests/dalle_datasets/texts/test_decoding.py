"""Bytes become text as in browsers: labels, marks, bad bytes; what is a guess says so."""

import pytest

from dalle_datasets.texts.decoding import decode_text

TEXT = "a café, 12 o'clock"


@pytest.mark.parametrize(
    ("data", "declared", "text", "encoding", "is_guess"),
    [
        # A byte order mark is stronger than what anybody declares.
        (b"\xef\xbb\xbf" + TEXT.encode(), "iso-8859-1", TEXT, "utf-8", False),
        (b"\xff\xfe" + TEXT.encode("utf-16-le"), "utf-8", TEXT, "utf-16-le", False),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), None, TEXT, "utf-16-be", False),
        (b"\xff\xfe\0\0" + TEXT.encode("utf-32-le"), None, TEXT, "utf-32-le", False),
        (b"\0\0\xfe\xff" + TEXT.encode("utf-32-be"), None, TEXT, "utf-32-be", False),
        # Labels mean what browsers take them for.
        ("“été” €".encode("cp1252"), "ISO-8859-1", "“été” €", "windows-1252", False),
        ("鎔基".encode("gb18030"), "gb2312", "鎔基", "gb18030", False),
        ("①髙﨑".encode("cp932"), "x-sjis", "①髙﨑", "cp932", False),
        ("①".encode("euc_jis_2004"), "EUC-JP", "①", "euc_jis_2004", False),
        ("똠양꿍".encode("cp949"), "ks_c_5601-1987", "똠양꿍", "cp949", False),
        ("一邨".encode("big5hkscs"), "big5", "一邨", "big5hkscs", False),
        ("红色的船".encode("hz"), "HZ-GB-2312", "红色的船", "hz", False),
        ("빨간 배".encode("iso2022_kr"), "iso-2022-kr", "빨간 배", "iso2022_kr", False),
        # One bad byte is one sign, and the rest stays what it is.
        ("рыба ".encode() + b"\xff" + " рыба".encode(), "utf-8", "рыба \ufffd рыба", "utf-8", False),
        ("рыба ".encode() + b"\xff" + " рыба".encode(), None, "рыба \ufffd рыба", "utf-8", True),
        # Nothing declared.
        (TEXT.encode(), None, TEXT, "utf-8", False),
        (TEXT.encode("cp1252"), None, TEXT, "windows-1252", True),
        (TEXT.encode("utf-16-le"), None, TEXT, "utf-16-le", True),
        (TEXT.encode("utf-16-be"), None, TEXT, "utf-16-be", True),
        (TEXT.encode("utf-32-le"), None, TEXT, "utf-32-le", True),
        ("日本の城".encode("iso2022_jp"), None, "日本の城", "iso2022_jp", True),
        ("кошка \0 и собака".encode() * 9, None, "кошка \0 и собака" * 9, "utf-8", False),
        ("猫の写真\r\n".encode("utf-16-le") * 9, None, "猫の写真\r\n" * 9, "utf-16-le", True),
        ("красная лодка".encode("utf-16-be") * 9, None, "красная лодка" * 9, "utf-16-be", True),
        (b"caf\xe9\0 of a red house and a car", None, "caf\xe9\0 of a red house and a car", "windows-1252", True),
        (b"a cat\0and a dog" * 9, None, "a cat\0and a dog" * 9, "utf-8", False),
        # Labels that nobody knows count as none.
        (TEXT.encode(), "utf-7", TEXT, "utf-8", False),
        (TEXT.encode(), "no\0such", TEXT, "utf-8", False),
        (b"", None, "", "utf-8", False),
    ],
)
def test_decoding(data, declared, text, encoding, is_guess):
    assert decode_text(data, declared) == (text, encoding, is_guess)


def test_the_first_known_label_counts():
    assert decode_text("é".encode("cp1252"), None, "nonsense", "latin1", "utf-8").text == "é"


def test_a_caption_that_was_read_in_a_wrong_encoding_is_none():
    guess = decode_text("猫の写真".encode("cp932"))
    assert guess.problem(guess.text) == "no encoding is declared, and it makes no sense as windows-1252"
    wrong = decode_text("猫の写真".encode("cp932"), "utf-8")
    assert wrong.problem(wrong.text) == "most of it is not utf-8"
    one_bad_byte = decode_text("a red ca\ufffd on a mat".encode(), "utf-8")
    assert one_bad_byte.problem(one_bad_byte.text) is None


def test_a_guess_is_noted_where_it_matters():
    guess = decode_text("café".encode("cp1252"))
    assert guess.note("txt", "café") == "txt, read as windows-1252"
    assert guess.note("txt", "cat") == "txt"
    assert decode_text("café".encode()).note("txt", "café") == "txt"
