"""Texts that tokenizers trip over, and a small corpus to train vocabularies on."""

import base64
import random
import unicodedata

_SCRIPTS = {
    "thai": "ภาษาไทยเขียนติดกันโดยไม่เว้นวรรคระหว่างคำ",
    "lao": "ພາສາລາວຂຽນຕິດກັນໂດຍບໍ່ຫຍັບຫວ່າງ",
    "khmer": "ភាសាខ្មែរសរសេរជាប់គ្នាដោយគ្មានដកឃ្លា",
    "burmese": "မြန်မာဘာသာစကားသည်နေရာလွတ်မခြားဘဲရေးသည်",
    "chinese": "人工智能模型将文字转换为向量以便检索",
    "japanese": "日本語の文章は空白なしで書かれますカタカナ",
    "korean": "한국어 문장은 띄어쓰기를 합니다",
    "arabic": "اللغة العربية تُكتب من اليمين إلى اليسار",
    "hebrew": "עברית נכתבת מימין לשמאל עִם נִקּוּד",
    "hindi": "हिन्दी में लिखा हुआ एक छोटा वाक्य",
    "greek": "Ο Οδυσσεύς ΟΔΥΣΣΕΥΣ ταξίδεψε",
    "russian": "Русский текст с буквой ё и Й",
    "turkish": "İstanbul ve ılık ISI",
    "german": "Straße GROẞ Übung",
    "french": "Café naïve garçon œuvre",
    "vietnamese": "Tiếng Việt có nhiều dấu thanh",
}
CORPUS = [
    *_SCRIPTS.values(),
    "the quick brown fox jumps over the lazy dog and the cat sleeps all day long",
    "what is the capital of france and where do penguins live in winter",
    "central banks raise interest rates when prices rise too fast 1234567890",
    "def tokenize(text): return [word for word in text.split() if word]",
    "https://example.com/path?query=value&other=thing#fragment",
    "playing played player plays unaffable reading reader reads",
] * 4


def _characters(low: int, high: int) -> list[str]:
    return [chr(c) for c in range(low, high)]


def strange_texts() -> list[str]:
    """Returns a few hundred texts, the same every time."""
    draw = random.Random(5)
    texts = ["a", "the", "The Quick BROWN fox", "x" * 100, "x" * 101, "x" * 160, "the " + "y" * 5000 + " end"]
    texts += [" ".join("x" * 160 for _ in range(30)) + f" {tail}" for tail in ("penguins live", "banks raise rates")]
    texts += ["a" + " " * n + "b" for n in (1, 2, 3, 7, 50, 1000)] + ["a" + "\t" * n + "b" for n in (1, 2, 9)]
    texts += [
        "line\nline\n\nline\r\nline\r\n\r\n end",
        "  indented\n    more\n\tand tabs",
        "a\u00a0b\u2003c\u3000d\u2028e\u2029f",
    ]
    for text in _SCRIPTS.values():
        texts += [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
        texts += [text.upper(), text.lower(), text.replace(" ", ""), text * 8, f"the {text} fox", f"  {text}  "]
    texts += [
        "\ufb01ne \u2460\u2461 \uff26\uff35\uff2c\uff2c \u210c \u00bd \u1e9b\u0323",
        "e\u0301 \u00e9 a\u0300\u0301\u0302" * 9,
    ]
    texts += [
        "\U0001f600",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family",
        "\U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea",
    ]
    texts += ["\U0001f44d\U0001f3fd ok \u2764\ufe0f \u2764\ufe0e", "1\ufe0f\u20e3 2\ufe0f\u20e3", "x\U0001f600" * 60]
    texts += [
        f"a{c}b" for c in (*_characters(0, 33), *_characters(0x7F, 0xA1), "\ufffd", "\ufffe", "\ue000", "\U000e0041")
    ]
    texts += [
        f"a{c}b {c} c{c}" for c in ("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u180e", "\u034f")
    ]
    texts += ["\u202eabc\u202c \u2066x\u2069 \u200fy\u200e", "a\u0338\u0338\u0338 z" + "\u0301" * 120]
    texts += ["".join(draw.choice("ACGT") for _ in range(n)) for n in (50, 101, 3000)]
    texts += [base64.b64encode(draw.randbytes(n)).decode() for n in (20, 90, 2000)]
    texts += ["https://example.com/" + "/".join(f"part{i}" for i in range(60)) + "?q=" + "%20" * 40]
    names = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "<s>", "</s>", "<pad>", "<unk>", "<mask>", "<bos>", "<eos>")
    names += ("<|endoftext|>", "<0x41>", "##ing", "\u2581the", "[unused1]", "<start_of_turn>", "[extra]", "NEWWORD")
    for name in names:
        texts += [name, f"a {name} b", f"a{name}b", name.lower(), f"{name} {name}{name}"]
    texts += [
        "...",
        "!?!?!?",
        "--- --- ---",
        "a-b_c/d\\e|f",
        "'s 't 're don't I'LL",
        '"quoted" \u201ccurly\u201d \u2018x\u2019',
        "$5,000.00 & 3.14%",
    ]
    texts += [
        "".join(draw.choice("ab \t\n.,\u00e9\u0301\u4e2d\u0e01\u200d[]<>|") for _ in range(draw.randint(1, 80)))
        for _ in range(60)
    ]
    texts += [
        "".join(chr(draw.choice((draw.randrange(0x20, 0x3000), draw.randrange(0x3000, 0xD800)))) for _ in range(30))
        for _ in range(30)
    ]
    return list(dict.fromkeys(texts))
