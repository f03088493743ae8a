"""The tokenizer against the official one: values fixed here, and the shared data where present."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardtune.tasks.captioning.ptb import tokenizer
from rewardtune.tasks.captioning.ptb.tokenizer import (
    _SOFT_HYPHEN,
    DROPPED,
    ptb_tokens,
    ptb_words,
)

SHARED = Path(__file__).parents[5].parent / "shared" / "data" / "captions"
needs_shared = pytest.mark.skipif(
    not SHARED.exists(), reason="the shared data are not beside this repository"
)

# Tokenised by Stanford CoreNLP 3.4.1 and cleaned up as pycocoevalcap 1.2 does it.
OFFICIAL = [
    ("\u65e5\u672c\u8a9e, \u041c\u0418\u0420", "\u65e5\u672c\u8a9e \u043c\u0438\u0440"),
    ("x Canad\u0130an", "x canadi\u0307an"),
    (
        "A boy's kite isn't flying, but he's happy.",
        "a boy 's kite is n't flying but he 's happy",
    ),
    (
        "They couldn't, shouldn't and won't; I'd say we'll've gone.",
        "they could n't should n't and wo n't i 'd say we 'll 've gone",
    ),
    (
        "It's gonna rain. Lemme see: you cannot wanna go, gimme that!",
        "it 's gon na rain lem me see you can not wan na go gim me that",
    ),
    (
        "'Tis the dogs' bowl and James' bat",
        "'t is the dogs bowl and james bat",
    ),
    (
        "rock'n'roll at five o'clock, y'all",
        "rock 'n' roll at five o'clock y' all",
    ),
    (
        "O'Neil's cat d'Artagnan l'ete c'est l'a",
        "o'neil 's cat d'artagnan l'ete c'est l' a",
    ),
    (
        "the '90s, the 1960's and the 70s; '05 was fine, '05.",
        "the '90s the 1960 's and the 70s '05 was fine 05",
    ),
    (
        "Mr. and Mrs. Jones of St. Louis, Mo. met Dr. Lee Jr. at 5 p.m.",
        "mr. and mrs. jones of st. louis mo. met dr. lee jr. at 5 p.m.",
    ),
    (
        "No. 7 of 10, nos. 3 and 4. There is no. ",
        "no. 7 of 10 nos. 3 and 4 there is no",
    ),
    (
        "U.S. flag in D.C. at the U.N. i.e. e.g. etc.",
        "u.s. flag in d.c. at the u.n. i.e. e.g. etc.",
    ),
    (
        "plan A. The man B. Smith",
        "plan a the man b. smith",
    ),
    (
        "he has a Ph.D. and a t.v.",
        "he has a ph.d. and a t.v.",
    ),
    (
        "Washington, Wash. or wash. the dog, Mass. mass.",
        "washington wash. or wash the dog mass. mass",
    ),
    (
        "a 3.5-inch disk, a 5-year-old, T-ball, x-ray",
        "a 3.5-inch disk a 5-year-old t-ball x-ray",
    ),
    (
        "1,000 people and 2.5 dogs at 10:30am or 7:15 a.m.",
        "1,000 people and 2.5 dogs at 10:30 am or 7:15 a.m.",
    ),
    (
        "1/2 a pie, 3 1/2 pies and \xbd a cake, 7/4/2011",
        "1/2 a pie 3\xa01/2 pies and 1/2 a cake 7/4/2011",
    ),
    (
        "call (555) 123-4567 or 555-1234 or 555 1234 5678",
        "call -lrb-555-rrb-\xa0123-4567 or 555-1234 or 555\xa01234\xa05678",
    ),
    (
        "$5.00, US$7, 50%, #3, #dogs @home \xa34 \u20ac5 3\xa2 20\xb0 5\xd76",
        "$ 5.00 us$ 7 50 % # 3 #dogs @home # 4 $ 5 3 cents 20 \xb0 5 \xd7 6",
    ),
    (
        "AT&T and H&M, R&B; B & B, salt&pepper &amp; &lt;3",
        "at&t and h&m r&b b & b salt & pepper & < 3",
    ),
    (
        "and/or w/ w/o black/white up/down/left/right",
        "and/or w / w/o black/white up/down/left / right",
    ),
    (
        'a (red) [blue] {tan} <b>x</b> <br/> <a b="c d">',
        'a -lrb- red -rrb- -lsb- blue -rsb- -lcb- tan -rcb- <b> x </b> <br/> <a\xa0b="c\xa0d">',
    ),
    (
        "\"double\" 'single' \u201ccurly\u201d \u2018one\u2019 \xabtwo\xbb ``tex''",
        "double single curly one two tex",
    ),
    (
        "don\u2019t it\u2019s they\u2019re I\u2019m \u201990s o\u2019clock can\u2019t",
        "do n't it 's they 're i 'm \u201990s o\u2019clock ca n't",
    ),
    (
        "wait... what?! no!! really??? yes. . . okay\u2026 hm",
        "wait what ?! no !! really ??? yes okay hm",
    ),
    (
        "dash - dash -- dash --- dash ---- long \u2013 longer \u2014 end",
        "dash dash dash dash long longer end",
    ),
    (
        ":) :-) ;-) :( :D :P =) :/ <3 ^_^ -_- (^_^) >_<",
        ":-rrb- :--rrb- ;--rrb- :-lrb- :d :p =-rrb- / < 3 ^_^ -_- -lrb-^_^-rrb- >_<",
    ),
    (
        "mail me@home.org or see http://x.org/a?b=c and www.site.com/page",
        "mail me@home.org or see http://x.org/a?b=c and www.site.com/page",
    ),
    (
        "foo.bar foo,bar foo;bar foo:bar foo_bar foo*bar foo+bar",
        "foo.bar foo bar foo bar foo bar foo_bar foo * bar foo + bar",
    ),
    (
        "C++ and C# code in main.c and 5.jpg",
        "c++ and c# code in main.c and 5.jpg",
    ),
    (
        "snake_case a__b __x__ **bold** ~ ^ \\ | = +",
        "snake_case a __ b __ x __ ** bold ** ~ ^ \\ | = +",
    ),
    (
        "-5 degrees, +3, 5-3, 15:30-16:30 1.2.3",
        "-5 degrees +3 5-3 15:30 -16:30 1.2.3",
    ),
    (
        "end of bus.: next., last.;",
        "end of bus. next. last.",
    ),
    (
        "em dashes\u2014like this\u2014and 'em all, 'til dawn, 'cause",
        "em dashes like this and 'em all 'til dawn 'cause",
    ),
    (
        "cr\xe8me br\xfbl\xe9e, na\xefve fa\xe7ade, \xc6r\xf8",
        "cr\xe8me br\xfbl\xe9e na\xefve fa\xe7ade \xe6r\xf8",
    ),
    (
        "emoji \U0001f600 and \u2605 \u2665 \u2122 \xa9 \xae stay or go",
        "emoji and \u2605 \u2665 \u2122 \xa9 \xae stay or go",
    ),
    (
        "tab\tand no-break space",
        "tab and no-break space",
    ),
    (
        "zero\u200bwidth and byte\ufefforder",
        "zero width and byte order",
    ),
    (
        "it&apos;s &quot;quoted&quot;&nbsp;here caf&eacute; &mdash; &#39;",
        "it 's quoted here caf&eacute; &#39;",
    ),
    (
        "5'10\" tall, 6' deep, 12\" pizza, 5'10 and",
        "5 10 tall 6 deep 12 pizza 5 '10 and",
    ),
    (
        "ma'am, s'mores, nor'easter, ne'er, e'er, li'l, ol' man",
        "ma'am s'mores nor'easter ne'er e'er li'l ol' man",
    ),
    (
        "x\xb2+y\xb2 H\u2082O 10\xb9\xb2 \xb5m 1\xba",
        "x \xb2 + y \xb2 h \u2082 o 10 \xb9\xb2 \xb5m 1\xba",
    ),
    (
        "Jan. 3, Sept. 11, Mon. morning, Fri. night, 5th Ave. near Elm Blvd.",
        "jan. 3 sept. 11 mon. morning fri. night 5th ave. near elm blvd.",
    ),
    (
        "Calif. Fig. 3 fig. leaf pp. 5 approx. 3 est. 1990",
        "calif. fig. 3 fig leaf pp. 5 approx 3 est. 1990",
    ),
    (
        ".5 ,5 :5 a.5 ab.5 5.a a.b. A.B.C.",
        ".5 ,5 :5 a. 5 ab .5 5 a a.b. a.b.c.",
    ),
    (
        "he said:\"hi\",she said;'bye'",
        "he said hi she said bye",
    ),
    (
        "A.J.'s truck, B.B. King's bus, 3's company",
        "a.j. 's truck b.b. king 's bus 3 's company",
    ),
    (
        "more'n that, an't, n't, 's, 'd, 'll",
        "more 'n that a n't n't 's 'd 'll",
    ),
    (
        "HE CAN'T GO TO THE U.S.A. NOW",
        "he ca n't go to the u.s.a. now",
    ),
    (
        "word.Word word.word fork.A man",
        "word.word word.word fork.a man",
    ),
    (
        "plate..cup table...chair a....b",
        "plate cup table chair a. b",
    ),
    (
        "1st 2nd 3rd 4th 21st 100th 5ft 6'2 10k",
        "1st 2nd 3rd 4th 21st 100th 5ft 6 2 10k",
    ),
    (
        "a's b's c'd d'm e'll f've g're h't",
        "a 's b 's c 'd d 'm e 'll f 've g 're h t",
    ),
    (
        "gotta-go wanna. gonna, cannot? Cannot! WANNA",
        "gotta-go wan na gon na can not can not wan na",
    ),
]


@pytest.mark.parametrize(("caption", "official"), OFFICIAL)
def test_captions_are_split_as_officially(caption: str, official: str) -> None:
    assert " ".join(ptb_tokens(caption)) == official


@needs_shared
def test_all_stored_cases_are_split_as_officially() -> None:
    cases = json.loads((SHARED / "ptb_cases.json").read_text())
    assert len(cases) == 600
    for case in cases:
        assert " ".join(ptb_tokens(case["raw"])) == case["ptb"], case["raw"]


@needs_shared
@pytest.mark.slow
def test_all_stored_captions_are_split_as_officially() -> None:
    images = json.loads((SHARED / "refs.json").read_text())
    systems = json.loads((SHARED / "candidates.json").read_text())
    pairs = [pair for image in images for pair in zip(image["raw"], image["ptb"], strict=True)]
    assert len(pairs) == 12506
    pairs += [(caption["raw"], caption["ptb"]) for s in systems.values() for caption in s]
    for raw, official in pairs:
        assert " ".join(ptb_tokens(raw)) == official, raw


@pytest.mark.parametrize("separator", ["\n", "\r", "\r\n", "\v", "\f", "\u2028", "\u2029"])
def test_a_line_break_inside_a_caption_is_a_blank(separator: str) -> None:
    assert ptb_tokens(f"A man.{separator}A dog's") == ["a", "man", "a", "dog", "'s"]


def test_what_stands_last_loses_nothing() -> None:
    assert ptb_tokens("who're") == ["who", "'re"]
    assert ptb_tokens("isn't") == ["is", "n't"]


def test_a_fraction_is_one_token_and_two_words() -> None:
    assert ptb_tokens("3 1/2 pies") == ["3\xa01/2", "pies"]
    assert ptb_words("3 1/2 pies") == ["3", "1/2", "pies"]


@given(st.text(alphabet="\xad\xada1_- .\u0301é", max_size=30))
def test_soft_hyphens_go_where_they_touch_a_word(caption: str) -> None:
    slow = re.sub(r"(?<=\w)\xad+|\xad+(?=\w)", "", caption)
    assert _SOFT_HYPHEN.sub("", caption) == slow
    assert ptb_tokens(caption) == ptb_tokens(slow)


@pytest.mark.parametrize("around", ["", " ", "-", "a"])
def test_soft_hyphens_take_time_in_proportion_to_their_number(around: str) -> None:
    """In processor time; 20,000 took ten seconds, and twice as many four times as long."""
    began = time.process_time()
    ptb_tokens(f"{around}{20_000 * chr(0xAD)}{around}")
    assert time.process_time() - began < 0.5 * 10


@given(st.lists(st.sampled_from(["a", "é", "\xad", ".", ".com", "net/x", " ", "A", "\U0001f600"])))
def test_addresses_are_those_found_by_looking_everywhere(parts: list[str]) -> None:
    caption = "".join(parts)
    found = ptb_tokens(caption)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "NO_ADDRESS", re.compile(""))
        assert ptb_tokens(caption) == found


@given(st.text(max_size=30))
def test_any_text_gives_words_in_lower_case_without_punctuation(caption: str) -> None:
    tokens = ptb_tokens(caption)
    assert not DROPPED & set(tokens)
    for token in tokens:
        assert token == token.lower()
        assert " " not in token and "\n" not in token


@given(st.text(alphabet="ab'nst.,-/5 $&;:()<>@", max_size=25), st.sampled_from(["", " ", "\n  "]))
def test_blanks_around_a_caption_change_nothing(caption: str, blanks: str) -> None:
    assert ptb_tokens(blanks + caption.strip() + blanks) == ptb_tokens(caption.strip())


@given(st.lists(st.sampled_from(["a", "two", "dogs", "T-shirt", "in"]), max_size=9))
def test_plain_words_stay_what_they_are(words: list[str]) -> None:
    assert ptb_tokens(" ".join(words) + ".") == [word.lower() for word in words] or (
        # A letter keeps its full stop.
        words[-1:] == ["a"] and ptb_tokens(" ".join(words) + ".")[-1] == "a."
    )
