"""Texts and windows."""

from __future__ import annotations

import pytest

from spikeplug.english import english_text
from spikeplug.errors import SpikeplugError
from spikeplug.measurement.text import check_tokens, cut_windows, encode, read_text


def test_english_text_is_the_topics_in_key_order():
    from pydoc_data.topics import topics

    text = english_text()
    names = sorted(topics)
    assert text.startswith(topics[names[0]] + "\n\n" + topics[names[1]])
    assert text.endswith(topics[names[-1]])


@pytest.mark.parametrize(("tokens", "windows"), [(10, 1), (19, 1), (20, 2), (35, 3), (1000, 3)], ids=str)
def test_windows_are_consecutive_from_the_start(tokens, windows):
    cut = cut_windows(list(range(39)), 10, tokens)
    assert cut.tolist() == [list(range(10 * i, 10 * i + 10)) for i in range(windows)]


def test_a_text_just_long_enough():
    assert cut_windows([1, 2, 3], 3, 3).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("length", [0, 1, 9])
def test_a_text_shorter_than_the_context_is_refused(length):
    with pytest.raises(
        SpikeplugError, match=rf"has {length} tokens, fewer than the context of 10: give a longer --text"
    ):
        cut_windows(list(range(length)), 10, 100)


def test_text_files(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("\ufeffnaïve ✓\r\n".encode())
    assert read_text(path) == "naïve ✓\n"


def test_text_that_is_not_utf8_says_where(tmp_path):
    path = tmp_path / "latin"
    path.write_bytes("abc é".encode("latin-1"))
    with pytest.raises(SpikeplugError, match=r"not UTF-8 text \(byte 4\)"):
        read_text(path)


def test_text_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "absent", tmp_path, "a\0b"):
        with pytest.raises(SpikeplugError, match="cannot read"):
            read_text(path)


def test_encoding_is_a_token_per_byte(tokenizer):
    assert len(encode(tokenizer, "a b\nç")) == 6


def test_fewer_tokens_than_a_window_are_refused():
    check_tokens(512, 512)
    with pytest.raises(SpikeplugError, match="tokens is 10, fewer than one window of 512: give 512 tokens or more"):
        check_tokens(10, 512)
    with pytest.raises(SpikeplugError, match="tokens is 0"):
        check_tokens(0, 512)


def test_a_tokenizer_without_a_vocabulary():
    with pytest.raises(SpikeplugError, match="the tokenizer makes no tokens of the text"):
        encode(lambda text, **options: {"input_ids": []}, "words")
    assert encode(lambda text, **options: {"input_ids": []}, "") == []
