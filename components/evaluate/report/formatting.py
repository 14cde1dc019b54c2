"""Numbers and names as text, for HTML, Markdown and plain text.

Every name in the results (run, data, class, setting) is untrusted input: Jinja escapes it in HTML, `markdown` in
Markdown, and `plain` removes what cannot be printed.
"""

import html
import math
import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from components.shared.arms import (
    BASELINE,
    CONTROL,
    GAN,
    LATE_FUSION,
    Scope,
    parse_synthetic_key,
    remedies,
    share_of,
    source_of,
    title_of,
)
from components.shared.parameters import UNNAMED_SOURCE
from components.shared.records import (
    Champion,
    ChampionRun,
    Difference,
    Drift,
    Estimate,
    Outcome,
    Results,
    Subgroup,
    Subgroups,
    comparable_groups,
)

_VERDICTS = {
    "improved": "{what} help{s}",
    "no evidence": "no evidence that {what} help{s}",
    "worse": "{what} make{s} the classifier worse",
    "not established": "not established whether {what} help{s}",
}
_AGAINST_CHAMPION = {
    "improved": "The candidate is better than the champion",
    "no evidence": "No evidence that the candidate is better than the champion",
    "worse": "The candidate is worse than the champion",
    "not established": "Not established whether the candidate is better than the champion",
}
LISTED_CLASSES = 3
SHORT_LETTERS = 5
MIN_CHANGE = 0.001
"""Smallest change of a class's share of the training images that pages state."""


def capital(text: str) -> str:
    """Return a text with a capital first letter; the others are unchanged, unlike with `str.capitalize`.

    Example:
        >>> capital("effect of GANs")
        'Effect of GANs'
    """
    return text[:1].upper() + text[1:]


def number(value: float | None) -> float:
    """Return NaN for None, so arithmetic and figures need no special case for unknown values."""
    return math.nan if value is None else value


def show(value: float | None, sign: str = "", digits: int = 3) -> str:
    """Return a number with three decimals; with sign "+", a difference: `+0.042`, `−0.042`, `0.000`."""
    text = format(number(value), f"{sign}.{digits}f").replace("-", "−")
    zero = format(0, f".{digits}f")
    return "n/a" if "nan" in text or "inf" in text else zero if text.strip("+−") == zero else text


def show_interval(
    limits: Difference | Estimate | Sequence[float | None] | None, sign: str = "", digits: int = 3
) -> str:
    """Return `0.438 to 0.694` for a difference or for a pair.

    A limit that excludes zero is never shown as zero: it gets as many decimals as it takes.
    """
    low, high = (limits.low, limits.high) if isinstance(limits, Difference | Estimate) else limits or (None, None)
    if low is None or high is None or not known(low, high):
        return "n/a"
    if low * high <= 0:
        return f"{show(low, sign, digits)} to {show(high, sign, digits)}"
    return f"{_show_nonzero(low, sign, digits)} to {_show_nonzero(high, sign, digits)}"


def show_value(difference: Difference, sign: str = "") -> str:
    """Return the value of a difference; if the interval excludes zero, it is not shown as zero, either."""
    value, low, high = difference.value, difference.low, difference.high
    if not value or low is None or high is None or not known(value, low, high) or low * high <= 0:
        return show(value, sign)
    return _show_nonzero(value, sign)


def _show_nonzero(value: float, sign: str, digits: int = 3) -> str:
    """Return a number other than zero with at least some decimals, and as many as it takes, at most 12."""
    if float(show(abs(value), digits=digits)) == 0:
        digits = min(12, math.ceil(-math.log10(abs(value))))
    return show(value, sign, digits)


def known(*values: float | None) -> bool:
    """Return whether all values are finite numbers."""
    return all(value is not None and math.isfinite(value) for value in values)


def count(value: int | None) -> str:
    """Return a number with thousands separators: `1,006`."""
    return "n/a" if value is None else f"{value:,}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the singular or plural.

    Example:
        >>> counted(1, "image"), counted(1200, "lesion")
        ('1 image', '1,200 lesions')
    """
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def plain(value: Any, width: int = 1000) -> str:
    """Return one short line of printable characters.

    No escape sequence in a name reaches a terminal, and no mark that changes the direction of text a page.
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def markdown(value: Any) -> Markup:
    """Return literal text for a line or table cell: Markdown and HTML are escaped, addresses are not links."""
    text = re.sub(r"([\\`*_\[\]|~$]|(?<=:)/(?=/)|(?<=www)\.)", r"\\\1", plain(value))
    return Markup(html.escape(text, quote=False))


def listed(value: Any) -> str:
    """Return a setting as text: items separated by commas, a mapping as `name value`."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {listed(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(listed, value))
    return "none" if value is None else str(value)


def effect_name(arm: str) -> str:
    """Return the name of the effect of an arm's synthetic images, or of a remedy.

    Example:
        >>> effect_name("augmented@1"), effect_name("stylegan@0.5"), effect_name("class_weights")
        ('GAN effect', 'effect of stylegan', 'effect of class weighting')
    """
    source = source_of(arm)
    return "GAN effect" if source == GAN else f"effect of {source or remedy_name(arm)}"


def remedy_name(arm: str) -> str:
    """Return an arm as a noun, for sentences.

    Example:
        >>> remedy_name("oversampled"), remedy_name("class_weights")
        ('oversampling', 'class weighting')
    """
    return {CONTROL: "oversampling", "class_weights": "class weighting"}.get(arm, title_of(arm))


def short_title(arm: str) -> str:
    """Return the name of an arm without its share, for narrow columns; names of more than five letters are cut.

    Example:
        >>> short_title("augmented@0.5"), short_title("zoo@1"), short_title("class_weights")
        ('augm.', 'zoo', 'clas.')
    """
    name = arm.partition("@")[0].replace("_", " ")
    return name if len(name) <= SHORT_LETTERS else f"{name[:4].rstrip()}."


def describe_difference(arm: str, other: str) -> str:
    """Return a difference of two arms for tables and pages.

    Example:
        >>> describe_difference("augmented@0.5", "oversampled")
        'augmented 50 % − oversampled'
    """
    return f"{title_of(arm)} − {title_of(other)}"


def key_title(key: str) -> str:
    """Return a `synthetic_key` for tables and pages.

    Example:
        >>> key_title("df"), key_title("stylegan/df")
        ('df', 'df (stylegan)')
    """
    source, dx = parse_synthetic_key(key)
    return dx if source == GAN else f"{dx} ({source})"


_NETWORKS = {
    "cnn": "convolutional network",
    "resnet": "small residual network",
    "efficientnet": "EfficientNetV2-B0",
    "convnext": "ConvNeXt-Tiny",
}
_ATTRIBUTES = {"age": "Age", "sex": "Sex", "localization": "Site", "skin_tone": "Skin tone (estimated)"}


def network_title(name: str) -> str:
    """Return the name of a classifier's network for text; a network that this version lacks has its own name.

    Example:
        >>> network_title("efficientnet")
        'EfficientNetV2-B0'
    """
    return _NETWORKS.get(name, plain(name))


def group_title(group: Subgroup) -> str:
    """Return the name of a group of images: `Age: 40 to 59`."""
    return f"{_ATTRIBUTES[group.attribute]}: {group.group}"


def describe_worst_group(subgroups: Subgroups | None, unit: str) -> str:
    """Return which group is worst off with the chosen arm, as a sentence; empty without groups.

    Args:
        subgroups: the comparison by group.
        unit: what counts once, as in `DataSource`.
    """
    if subgroups is None:
        return ""
    arm = subgroups.arms[-1]
    compared = comparable_groups(subgroups.groups, arm)
    if not compared:
        return "The worst-off group cannot be named: no group has test images of the rare classes."
    groups, few = len(compared), compared[0].few
    of_these = f"groups with too few {unit}s" if few else f"groups with enough {unit}s"
    if subgroups.worst is None:
        same = f"have recall {show(compared[0].arms[arm].rare_recall.value)} with {title_of(arm)}"
        if few:
            return f"All {groups} groups with {unit}s of rare classes {same}; all have too few {unit}s to compare."
        return f"All {groups} {of_these} {same}."
    group = subgroups.groups[subgroups.worst]
    recall = group.arms[arm].rare_recall
    place = f"the lowest of {groups} {of_these}" if groups > 1 else f"the only one of the {of_these}"
    return (
        f"Worst-off group with {title_of(arm)}: {plain(group_title(group), 100)}, mean recall of the rare classes "
        f"{show(recall.value)} ({show_interval(recall)}) on {group.rare_lesions:,} {unit}s of them, {place}."
    )


def describe_small_groups(subgroups: Subgroups | None, unit: str) -> str:
    """Return that every group has too few lesions, as a sentence; empty if one has enough.

    Args:
        subgroups: the comparison by group.
        unit: what counts once, as in `DataSource`.
    """
    if subgroups is None or not all(group.few for group in subgroups.groups):
        return ""
    needed = [group.lesions_needed for group in subgroups.groups if group.lesions_needed is not None]
    least = f" A group needs at least {min(needed):,} {unit}s of rare classes." if needed else ""
    other, arm = map(title_of, subgroups.arms[-2:])
    missed = f"a difference of 0.10 between {arm} and {other} would most likely be missed"
    return f"Every group has too few {unit}s: {missed}.{least}"


def describe_metadata(results: Results) -> list[str]:
    """Return sentences on arms whose classifiers get metadata: what these bring, and a warning; none without any."""
    gains = results.effect.metadata
    if not gains and results.run.settings.get("metadata") != LATE_FUSION:
        return []
    shown = [
        ("rare_recall", results.effect.metric),
        ("balanced_accuracy", "balanced accuracy"),
        ("macro_auc", "macro AUC"),
    ]
    changes = [
        f"{title} {show(gains[name].value, '+')} ({show_interval(gains[name], '+')})"
        for name, title in shown
        if name in gains
    ]
    found = f"Age, sex and site of the patient as a second input, compared with oversampled: {', '.join(changes)}."
    who = "The classifiers of the arm metadata get" if gains else "The classifiers of all arms get"
    warning = (
        f"{who} age, sex and site of the patient. These can encode the clinic or camera of an image: compare the "
        "recall by subgroup, and do not expect the same result on data from elsewhere."
    )
    return [found, warning] if changes else [warning]


def describe_verdict(outcome: Outcome) -> str:
    """Return the result of a comparison as a headline, of the same form for good and bad results.

    Example:
        `No evidence that synthetic images help`
    """
    arm = outcome.effect.arm
    source, is_mixed = source_of(arm), share_of(arm) is not None
    what = "synthetic images" if is_mixed else remedy_name(arm)
    named = "" if source in (None, GAN, UNNAMED_SOURCE) else f" ({source})"
    return capital(_VERDICTS[outcome.verdict].format(what=what, s="" if is_mixed else "s")) + named


def describe_effect(outcome: Outcome) -> str:
    """Return the primary difference with its interval, and what weakens it, as a sentence."""
    effect, metric = outcome.effect, capital(outcome.effect.metric)
    if effect.low is None or effect.high is None or not known(effect.value, effect.low, effect.high):
        return f"{metric} cannot be compared on these test images."
    note = ""
    if outcome.verdict == "no evidence" and not effect.low <= 0 <= effect.high:
        note = "; the paired test does not confirm it"
    elif outcome.verdict == "not established":
        note = "; one seed cannot separate an effect from the luck of one training run"
    difference = f"{describe_difference(effect.arm, effect.reference)}: {show_value(effect, '+')}"
    return f"{metric}, {difference} (95\u00a0% interval {show_interval(effect, '+')}{note})."


def describe_share(arm: str, scope: Scope) -> str:
    """Return what the share in the name of an arm means; empty for an arm without synthetic images.

    Args:
        arm: its name.
        scope: which classes have synthetic images.
    """
    share = share_of(arm)
    if share is None:
        return ""
    whole = "images of each class" if scope == "all" else "added images"
    return f"{title_of(arm)}: {100 * share:g}\u00a0% of the {whole} are synthetic"


def _advise(outcome: Outcome) -> str:
    """Return what to do, without the figures and without a full stop."""
    effect, advice = outcome.effect, outcome.advice
    name, is_used = remedy_name(advice.arm), advice.verdict == "improved"
    is_one_of_several = len(remedies(it.arm for it in effect.remedies)) > 1
    is_worse = advice.verdict == "worse"
    if share_of(effect.arm) is None:
        if is_used:
            return f"Use {name}"
        fault = "is worse than the baseline" if is_worse else "is not established"
        return "No remedy is recommended" + f"; the best on validation, {name}, {fault}" * is_one_of_several
    if advice.arm == effect.arm:
        worse = "No remedy is recommended: synthetic images are better than repeats, but worse than the baseline"
        return "Add synthetic images" if is_used else worse
    if is_used:
        return f"Do not add synthetic images; use {name} instead"
    if outcome.verdict == "improved":
        return f"Do not add synthetic images: {name} is at least as good, and no remedy is established"
    best = f"the best other remedy on validation, {name}," if is_one_of_several else name
    if is_worse:
        return f"Do not add synthetic images; {best} is worse than the baseline"
    either = f"{best} is not established either" if is_one_of_several else "no other remedy is established either"
    return f"Do not add synthetic images; {either}"


def _describe_accuracy(outcome: Outcome, arm: str) -> str:
    """Return a sentence if an arm does not raise balanced accuracy: it may only predict the rare classes more often."""
    figures = [outcome.arms[name].balanced_accuracy for name in (arm, BASELINE) if name in outcome.arms]
    if len(figures) < 2 or not known(*figures):
        return ""
    change = number(figures[0]) - number(figures[1])
    return f" Balanced accuracy changes by {show(change, '+')}." if change <= 0 else ""


def _describe_cost(arm: str, gan_s: float | None, classifiers_s: float | None) -> str:
    """Return a sentence on the share of the GANs in the duration of training; empty if it is unknown."""
    if not known(gan_s, classifiers_s) or not gan_s:
        return ""
    total = gan_s + (classifiers_s or 0)
    unit, size = ("hours", 3600) if total >= 3 * 3600 else ("minutes", 60)
    digits = 0 if total >= 10 * size else 1
    unused = ", which made none of these images," if source_of(arm) not in (None, GAN) else ""
    return f" The GANs{unused} took {gan_s / size:.{digits}f} of {total / size:.{digits}f} {unit} of training."


def describe_remedy(outcome: Outcome, gan_s: float | None = None, classifiers_s: float | None = None) -> str:
    """Return which remedy to use according to the results, its gain, and what it costs, as sentences.

    Args:
        outcome: the comparison.
        gan_s: seconds that the training of all GANs took, shared pretraining included; None if unknown.
        classifiers_s: seconds that the training of all classifiers took; None if unknown.
    """
    advice = outcome.advice
    gain = outcome.effect.gain_of(advice.arm)
    if advice.verdict == "not established" or gain.low is None or gain.high is None:
        return "No remedy can be recommended: that requires test images of the rare classes, and several seeds."
    note = ", includes zero" if gain.low <= 0 <= gain.high else ""
    if gain.low > 0 and advice.verdict != "improved":
        note = "; the paired test does not confirm it"
    difference = capital(describe_difference(advice.arm, BASELINE))
    figures = f"{difference}: {show_value(gain, '+')} (interval {show_interval(gain, '+')}{note})."
    accuracy = _describe_accuracy(outcome, advice.arm) if gain.low > 0 else ""
    cost = _describe_cost(advice.arm, gan_s, classifiers_s)
    return f"{_advise(outcome)}. {figures}{accuracy}{cost}"


def champion_title(run: ChampionRun) -> str:
    """Return the name of a champion: `augmented 50 % of run a1b2`."""
    return f"{title_of(run.arm)} of run {plain(run.run, 60)}"


def describe_champion(champion: Champion | None, unit: str) -> str:
    """Return the comparison with the champion as a sentence; empty without the option.

    Args:
        champion: the comparison.
        unit: what counts once, as in `DataSource`.
    """
    if champion is None:
        return ""
    if champion.run is None or champion.comparison is None:
        return "No champion: no earlier run in the output has a candidate, so the candidate was compared with none."
    found, name = champion.comparison, champion_title(champion.run)
    number = found.excluded_lesions
    excluded = f"{number:,} test {unit}s are excluded, because the champion has seen them"
    if number == 1:
        excluded = f"1 test {unit} is excluded, because the champion has seen it"
    elif not number:
        excluded = f"the champion has seen none of the test {unit}s"
    if found.few:
        return (
            f"Too few test {unit}s of the rare classes ({found.rare_lesions:,}; required are six, and one of each "
            f"class) to compare the candidate with the champion ({name}); {excluded}."
        )
    difference = found.figures["rare_recall"].difference
    interval = f"95\u00a0% interval {show_interval(difference, '+')}"
    note = "; one model on each side cannot separate an effect from the luck of one training run" * (found.seeds == 1)
    return (
        f"{_AGAINST_CHAMPION[found.verdict]} ({name}): mean recall of the rare classes {show_value(difference, '+')} "
        f"({interval}) on {found.lesions:,} test {unit}s that neither has seen{note}; {excluded}."
    )


def describe_drift(drift: Drift | None, unit: str) -> list[str]:
    """Return how the training data differs from that of the champion's run, as sentences; none without a champion."""
    if drift is None:
        return []
    before, now = drift.images
    changes = sorted(drift.classes.items(), key=lambda it: -abs(it[1][1] - it[1][0]))
    shown = [
        f"class {plain(dx, 60)}: {100 * first:.1f} % → {100 * last:.1f} %"
        for dx, (first, last) in changes[:LISTED_CLASSES]
        if abs(last - first) >= MIN_CHANGE
    ]
    test = f", chi-square test of the {unit}s p = {show(drift.class_p)}" if known(drift.class_p) else ""
    texts = [
        f"Training images: {before:,} → {now:,}.",
        f"Class frequencies differ by {100 * drift.class_distance:.1f} % (total variation{test})"
        f"{'; ' + ', '.join(shown) if shown else ''}.",
    ]
    for what, apart in (("Sexes", drift.sex_distance), ("Sites", drift.site_distance)):
        texts += [] if apart is None else [f"{what} differ by {100 * apart:.1f} % (total variation)."]
    if drift.median_age is not None:
        texts.append(f"Median age: {' → '.join(show(age, digits=0) for age in drift.median_age)} years.")
    if known(drift.appearance):
        texts.append(
            f"Appearance of new {unit}s: Kernel Inception Distance {show(drift.appearance, '+', 4)} to the images of "
            f"the champion's run, in its features, permutation test p = {show(drift.appearance_p)}."
        )
    return texts
