"""Twenty answers that keep a parser or computer algebra busy for ever, or nearly."""

HOSTILE = [
    "9^{9^{9^{9}}}", "9^{9^{9^{9^{9}}}}", "2^{3^{4^{5^{6}}}}", "99999999!", "(10^{10})!", "((1000!)!)!",
    r"\binom{10^{12}}{10^{6}}", r"\binom{99999999}{44444444}", r"\prod_{k=1}^{10^{9}} k", r"\sum_{k=1}^{10^{9}} k!",
    r"\sum_{n=1}^{10^{10}} \frac{1}{n^{n}}", r"\int_0^{1} x^{x^{x^{x}}} dx", r"\int e^{x^2} \sin(x^3) \ln(x) dx",
    r"\lim_{n \to \infty} \frac{n!^{n!}}{n^{n^n}}", r"(a+b+c+d+e+f)^{999999}", r"\sqrt{" * 200 + "2" + "}" * 200,
    r"\frac{1}{" * 300 + "x" + "}" * 300, "9" * 200_000, r"\boxed{" * 5000 + "1", "(" * 900 + "1" + ")" * 900,
]  # fmt: skip
