"""One way to write an answer: what does not change its meaning is rewritten the same way on both sides."""

import re

UNICODE = {
    "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u2010": "-", "\u2011": "-", "\uff0d": "-", "\ufe63": "-",
    "\u00d7": r"\times ", "\u00f7": "/", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u2217": r"\cdot ",
    "\u2044": "/", "\u2215": "/", "\u00b0": r"^\circ ", "\u00ba": r"^\circ ", "\u2032": "'", "\u2019": "'",
    "\u221e": r"\infty ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u2a7d": r"\le ", "\u2a7e": r"\ge ",
    "\u2260": r"\ne ", "\u2248": r"\approx ", "\u00b1": r"\pm ", "\u222a": r"\cup ", "\u2229": r"\cap ",
    "\u2208": r"\in ", "\u2205": r"\emptyset ", "\u211d": r"\mathbb{R}", "\u2124": r"\mathbb{Z}",
    "\u2115": r"\mathbb{N}", "\u211a": r"\mathbb{Q}", "\u2223": "|", "\u2220": r"\angle ",
    "\u27e8": r"\langle ", "\u27e9": r"\rangle ", "\u230a": r"\lfloor ", "\u230b": r"\rfloor ",
    "\u2308": r"\lceil ", "\u2309": r"\rceil ", "\u00bd": r"\frac{1}{2}", "\u00bc": r"\frac{1}{4}",
    "\u00be": r"\frac{3}{4}", "\u2153": r"\frac{1}{3}", "\u2154": r"\frac{2}{3}", "\u215b": r"\frac{1}{8}",
    "\u20ac": r"\euro ", "\u00a3": r"\pounds ", "\u00a2": r"\text{ cents}", "\u3002": ".",
    "\u00a0": " ", "\u2009": r"\,", "\u202f": r"\,", "\u200a": " ", "\u2003": " ", "\u2002": " ", "\u200b": "",
    "\u2061": "", "\ufeff": "", "\u2026": r"\ldots ",
}  # fmt: skip
GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho . sigma tau upsilon"
GREEK_LETTERS = {chr(0x3B1 + place): f"\\{name} " for place, name in enumerate(GREEK.split())} | {
    "\u03c6": r"\phi ", "\u03c7": r"\chi ", "\u03c8": r"\psi ", "\u03c9": r"\omega ", "\u0394": r"\Delta ",
    "\u03a3": r"\Sigma ", "\u03a9": r"\Omega ", "\u03a6": r"\Phi ", "\u0398": r"\Theta ", "\u03d5": r"\phi ",
}  # fmt: skip
FULL_WIDTH = {chr(0xFF01 + place): chr(0x21 + place) for place in range(94)}
TRANSLATION = str.maketrans(FULL_WIDTH | UNICODE | GREEK_LETTERS)
SUPERSCRIPTS = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "0123456789-")
SUBSCRIPTS = str.maketrans("\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089", "0123456789")
RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+")
LOWERED = re.compile("[\u2080-\u2089]+")
ROOT = re.compile("\u221a\\s*(\\d+(?:\\.\\d+)?|[A-Za-z])?")

UNIT_LETTERS = "mshgLNJWVAT"  # in upright letters behind a number these are units, all others variables
MULTIPLES = {"hundred": "10^{2}", "thousand": "10^{3}", "million": "10^{6}", "billion": "10^{9}", "trillion": "10^{12}",
             "dozen": "12"}  # fmt: skip
MULTIPLE = rf"({'|'.join(MULTIPLES)})s?(?![A-Za-z])"
BASES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
FUNCTIONS = "(?:arc)?(?:sin|cos|tan)|ln|log"  # not sec, which is also a unit
SCRIPT = r"(?:\w|\{[^{}]*\})"
BOLD = r"\\(?:mathbf|boldsymbol|bm|mathit|vec|overrightarrow)"


def in_base(found: re.Match) -> str:
    if found[1]:
        return f"_{{{found[1]}}}"
    return f"_{{{BASES.index(found[2])}}}" if found[2] in BASES else found[0]


# in this order; every rule is linear in the text
REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=\d)(?:\{,\}|\\,|,?\\!)\s*(?=\d{3}(?!\d))", ""),  # thousands, as LaTeX sets them
        (r"(?<!\\)(?:\$|\\(?:[()\[\]]|(?=\d)))", ""),  # mathematics delimiters
        (r"\*\*(.*)\*\*", r"\1"),  # bold in Markdown
        (r"\*\*", "^"),
        (r"\\(?:left|right|middle|[bB]igg?[lr]?|(?:display|text)style|(?:no)?limits|q?quad|hfill)(?![A-Za-z])\.?", " "),
        (r"\\\\\s*\[[^\]]*\]", r"\\\\ "),  # space between rows
        (r"(?<!\\)\\[,;:!> ]|~", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:text|textrm|textnormal|textit|textbf|textsf|mbox|hbox|mathrm|operatorname|rm)\s*\{", r"\\text{"),
        (r"\\text\{\s*(\\\$)\s*\}", r"\1"),
        (rf"\\text\{{\s*({FUNCTIONS})\s*\}}", r"\\\1 "),
        (rf"(?<=[\d}}])\s*\\text\{{\s*{MULTIPLE}\s*", lambda found: rf"\cdot {MULTIPLES[found[1]]}\text{{"),
        (rf"(?<=[\d}}])\s*{MULTIPLE}", lambda found: rf"\cdot {MULTIPLES[found[1]]}"),
        (rf"\\text\{{\s*((?![{UNIT_LETTERS}])[A-Za-z])?\s*\}}", r"\1"),
        (rf"(?:{BOLD}|\\hat)\s*\{{\s*\\?([ijk])(?:math)?\s*\}}", r"\\hat{\1}"),
        (BOLD + r"\s*(?:\{([^{}]*)\}|([A-Za-z])(?![A-Za-z]))", r" \1\2 "),
        (BOLD + r"\s*(?=\{)", ""),
        (r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}", r"\\binom{\1}{\2}"),
        (r"\^\s*(?:\\prime(?![A-Za-z])|\{(?:\s*\\prime)+\s*\})", lambda found: "'" * found[0].count("p")),
        (r"\((\d+)\)(?=_)", r"\1"),  # a number in another base
        (r"_\{\s*(?:\((\d+)\)|\\text\{\s*(\w+)\s*\})\s*\}", in_base),
        (r"_\{\s*(\w)\s*\}(?!\s*\d)", r"_\1"),
        (r"(?<![A-Za-z\\])c_(?=\d(?!\^))", "C_"),  # constants of integration are written in both cases
        (r"\\(?:leqslant|leq|le)(?![A-Za-z])|<=", r"\\le "),
        (r"\\(?:geqslant|geq|ge)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\(?:neq|ne)(?![A-Za-z])|!=", r"\\ne "),
        (r"\\(?:lt)(?![A-Za-z])", "<"),
        (r"\\(?:gt)(?![A-Za-z])", ">"),
        (r"\\(?:mid|vert|lvert|rvert)(?![A-Za-z])", "|"),
        (r"\\colon(?![A-Za-z])", ":"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\bigcup(?![A-Za-z_])", r"\\cup "),
        (r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\(?:degree|degrees)(?![A-Za-z])|\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![A-Za-z])", r"^\\circ "),
        (r"\\imath(?![A-Za-z])", "i"),
        (rf"(?<![\\A-Za-z{{])(sqrt|pi|infty|theta|{FUNCTIONS})(?![A-Za-z])", r"\\\1 "),
        (r"(?<![\\A-Za-z{])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty "),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (rf"(?<![A-Za-z\\])([ABD-Za-z])\^({SCRIPT})_({SCRIPT})", r"\1_\3^\2"),  # of C both orders have a meaning
        (rf"(\^{SCRIPT})\s+(?=\d)", r"\1\\cdot "),
        (r"\s+", " "),
    )
)
THOUSANDS = re.compile(r"(?<![\w.,}])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
SPACED = re.compile(r"-?\d{1,3}(?: \d{3})+")
OPENING, CLOSING = re.compile(r"[(\[]|\\\{"), re.compile(r"[)\]]|\\\}")
ARGUMENTS = {r"\frac": 2, r"\sqrt": 1, r"\binom": 2, r"\bar": 1, r"\hat": 1, r"\overline": 1, r"\dot": 1}
NUMBER_IN_WORDS = re.compile(r"\\text\{\s*((?:[A-Za-z]\s*=)?\s*[+-]?(?:\\\$)?\s*\d[^{}]*)\}")
BETWEEN_EQUATIONS = re.compile(r"\n|\\\\|\\q?quad(?![A-Za-z])")
OUTSIDE = re.compile(r"^[\s$,;]+|(?<!\\)[\s$,;]+$")
EQUATION = re.compile(r"[^=+*/<>&][^=]*(?:=|\\equiv)\s*[^=\s]")
ONE_TOKEN = re.compile(r"\\[A-Za-z]+|\S")


def tidy(text: str) -> str:
    r"""The answer without what does not change its meaning: delimiters, spacing, look, outer punctuation.

    LaTeX stays LaTeX; \text{...} and its kin stay as \text{...}, because units and words are told by it.
    """
    if text.isascii() and text.isdecimal():
        return text
    text = RAISED.sub(lambda digits: "^{" + digits[0].translate(SUPERSCRIPTS) + "}", text)
    text = LOWERED.sub(lambda digits: "_{" + digits[0].translate(SUBSCRIPTS) + "}", text)
    text = ROOT.sub(lambda root: r"\sqrt{" + root[1] + "}" if root[1] else r"\sqrt", text.translate(TRANSLATION))
    for pattern, replacement in REWRITES:
        text = pattern.sub(replacement, text)
    text = trimmed(text)
    whole = NUMBER_IN_WORDS.fullmatch(text)
    return with_braces(whole[1].strip() if whole else text)


def equations_as_list(text: str) -> str:
    """Several equations below or beside each other, which LaTeX needs no comma for, with commas between them."""
    if "=" not in text or "\\begin" in text:
        return text
    pieces = [OUTSIDE.sub("", piece) for piece in BETWEEN_EQUATIONS.split(text)]
    pieces = [piece for piece in pieces if piece]
    return ", ".join(pieces) if len(pieces) > 1 and all(map(EQUATION.match, pieces)) else text


def trimmed(text: str) -> str:
    """Without outer space and trailing punctuation."""
    before = None
    while text != before:
        before = text
        text = text.strip().rstrip(".,;:").removesuffix("\\\\")
    return text


def with_braces(text: str) -> str:
    r"""\frac12 as \frac{1}{2}, \sqrt2 as \sqrt{2}: each argument in braces of its own."""
    for command, count in ARGUMENTS.items():
        parts = re.split(re.escape(command) + r"(?![A-Za-z])", text)
        text = parts.pop()
        while parts:  # from the right, so that what is inside is done before what is around it
            text = parts.pop() + command + braced(text, count)
    return text


def braced(text: str, count: int) -> str:
    """The first `count` arguments at the start of the text in braces, then the rest."""
    done = ""
    for _ in range(count):
        text = text.lstrip()
        if text.startswith("["):  # the degree of a root
            degree, _, text = text.partition("]")
            done, text = done + degree + "]", text.lstrip()
        if text.startswith("{"):
            end = closing(text, 0)
            done, text = done + text[:end], text[end:]
        elif token := ONE_TOKEN.match(text):
            done, text = done + "{" + token[0] + "}", text[token.end() :]
    return done + text


def closing(text: str, start: int) -> int:
    """Where the group that opens at `start` ends, behind its closing brace; the end of the text if it never does."""
    depth = 0
    for place in range(start, len(text)):
        if text[place] in "{}" and (place == 0 or text[place - 1] != "\\"):
            depth += 1 if text[place] == "{" else -1
            if depth == 0:
                return place + 1
    return len(text)


def join_thousands(text: str) -> str:
    """1,234,567 as 1234567, outside of brackets, where a comma separates."""
    if SPACED.fullmatch(text):
        return text.replace(" ", "")

    def joined(found: re.Match) -> str:
        before = text[: found.start()]
        inside = len(OPENING.findall(before)) > len(CLOSING.findall(before))
        return found[0] if inside else found[0].replace(",", "")

    return THOUSANDS.sub(joined, text)


SQUEEZES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\text\{([^{}]*)\}", r" \1 "),
        (r"\\(?:times|ast)(?![A-Za-z])|\*", r"\\cdot "),
        (r"\s+", " "),
        (r"\s+(?=[^\sA-Za-z0-9])|(?<=[^\sA-Za-z0-9])\s+", ""),  # a space matters between letters and digits only
        (r"(\\[A-Za-z]+) (?=\d)", r"\1"),
        (r"(?<=[A-Za-z0-9]) (?=\\)", ""),
        (r"(?<=\d) (?=[A-Za-z])|(?<![\\A-Za-z])(?<=[A-Za-z]) (?=\d)", ""),
        (r"([\^_])\{([^{}\\])\}", r"\1\2"),
        (r"(?<![\d.])\.(?=\d)", "0."),
        (r"^\+", ""),
    )
)


def squeeze(text: str) -> str:
    """A tidy text as a key: two answers with the same key are the same."""
    for pattern, replacement in SQUEEZES:
        text = pattern.sub(replacement, text)
    return text.strip()
