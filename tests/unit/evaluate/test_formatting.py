import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluate.report import formatting
from components.evaluate.report.formatting import (
    describe_effect,
    describe_remedy,
    describe_share,
    describe_verdict,
    listed,
    markdown,
    plain,
    show,
    show_interval,
)
from components.shared.arms import title_of
from components.shared.records import Champion, Difference, Outcome
from tests.helpers.example_results import example_champion
from tests.helpers.rendering import build


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [
        (0.1234, "", "0.123"), (0.0421, "+", "+0.042"), (-0.0421, "+", "−0.042"), (0.00001, "+", "0.000"),
        (-0.00049, "", "0.000"), (None, "+", "n/a"), (math.nan, "", "n/a"), (math.inf, "", "n/a"), (1, "", "1.000"),
    ],
)  # fmt: skip
def test_show_formats_numbers(value: float | None, sign: str, text: str):
    assert show(value, sign) == text


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ([0.1, 0.2], "0.100 to 0.200"), (Difference(value=0, low=-0.1, high=0.2), "−0.100 to 0.200"),
        ([None, None], "n/a"), (None, "n/a"), ([math.nan, 1], "n/a"), (Difference(value=0, low=None, high=0.2), "n/a"),
        ([0.0003, 0.1], "0.0003 to 0.100"), ([-0.1, -0.00004], "−0.100 to −0.00004"),
        ([-0.0003, 0.1], "0.000 to 0.100"),
        ([0.0, 0.1], "0.000 to 0.100"), ([1e-30, 1e-30], "0.000000000000 to 0.000000000000"),
    ],
)  # fmt: skip
def test_show_interval_never_shows_zero_for_a_limit_that_excludes_it(limits: object, text: str):
    assert show_interval(limits) == text


@given(st.text(), st.integers(2, 50))
def test_plain_any_text_becomes_one_printable_line(text: str, width: int):
    shown = plain(text, width)
    assert len(shown) <= width
    assert all(c.isprintable() for c in shown)
    assert shown == shown.strip()


def test_plain_direction_marks_are_removed():
    assert plain("df\u202e\u2066\x1b[31m") == "df [31m"


@given(st.text(st.sampled_from("<>&\"'`*_[]()|~$\\#!:/w.h tps\n")))
def test_markdown_escapes_all_markup(text: str):
    shown = str(markdown(text))
    assert "<" not in shown
    assert "\n" not in shown
    assert "://" not in shown
    bare = shown.replace("\\\\", "").replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
    for mark in "`*_[]|~$":
        assert bare.count(mark) == bare.count("\\" + mark)


def test_markdown_keeps_the_text():
    assert markdown("follow_up & 'more'") == "follow\\_up &amp; 'more'"


def test_listed_formats_settings():
    assert listed({"epochs": 5, "fractions": [0.7, 0.3], "none": None}) == "epochs 5, fractions 0.7, 0.3, none none"


def outcome(verdict: str, effect: dict[str, Any]) -> Outcome:
    return build(Outcome, {"verdict": verdict, "effect": effect, "arms": {}})


METRIC = "mean recall of the rare classes"


MIXED = "Mean recall of the rare classes, augmented 100 % − oversampled"


@pytest.mark.parametrize(
    ("word", "value", "low", "high", "verdict", "detail"),
    [
        ("improved", 0.05, 0.01, 0.09, "Synthetic images help", f"{MIXED}: +0.050 (95 % interval +0.010 to +0.090)."),
        ("worse", -0.05, -0.09, -0.01, "Synthetic images make the classifier worse",
         f"{MIXED}: −0.050 (95 % interval −0.090 to −0.010)."),
        ("no evidence", -0.0001, -0.02, 0.02, "No evidence that synthetic images help",
         f"{MIXED}: 0.000 (95 % interval −0.020 to +0.020)."),
        ("no evidence", 0.05, 0.01, 0.09, "No evidence that synthetic images help",
         f"{MIXED}: +0.050 (95 % interval +0.010 to +0.090; the paired test does not confirm it)."),
        ("not established", 0.05, 0.01, 0.09, "Not established whether synthetic images help",
         f"{MIXED}: +0.050 (95 % interval +0.010 to +0.090; one seed cannot separate an effect from the luck of one "
         "training run)."),
        ("no evidence", None, None, None, "No evidence that synthetic images help",
         "Mean recall of the rare classes cannot be compared on these test images."),
    ],
)  # fmt: skip
def test_describe_verdict_has_one_form_for_all_verdicts(
    word: str, value: float | None, low: float | None, high: float | None, verdict: str, detail: str
):
    effect = {"metric": METRIC, "arm": "augmented@1", "reference": "oversampled"}
    found = outcome(word, {**effect, "value": value, "low": low, "high": high})
    assert describe_verdict(found) == verdict
    assert describe_effect(found).replace("\u00a0", " ") == detail


@pytest.mark.parametrize(
    ("arm", "verdict"),
    [
        ("augmented@1", "Synthetic images help"),
        ("synthetic@1", "Synthetic images help"),
        ("stylegan@1", "Synthetic images help (stylegan)"),
    ],
)
def test_describe_verdict_names_the_source_if_it_has_a_name(arm: str, verdict: str):
    """Regression: the name that the program gives to an unnamed source was shown."""
    effect = {"metric": METRIC, "arm": arm, "value": 0.05, "low": 0.01, "high": 0.09}
    assert describe_verdict(outcome("improved", effect)) == verdict


@pytest.mark.parametrize(
    ("word", "value", "low", "high", "shown"),
    [
        ("improved", 0.0004, 0.0001, 0.0007, "+0.0004"),
        ("worse", -0.00003, -0.0001, -0.00001, "−0.00003"),
        ("no evidence", 0.0004, -0.01, 0.01, "0.000"),
        ("no evidence", 0.0, 0.0, 0.0, "0.000"),
    ],
)
def test_describe_effect_is_zero_only_if_the_interval_includes_it(
    word: str, value: float, low: float, high: float, shown: str
):
    effect = {"metric": METRIC, "arm": "augmented@1", "reference": "oversampled"}
    sentence = describe_effect(outcome(word, {**effect, "value": value, "low": low, "high": high}))
    assert f"oversampled: {shown} (95" in sentence


def test_sentences_about_oversampling_use_the_noun():
    """Regression: "Use oversampled", "The remedy oversampled helped"."""
    effect = {"metric": METRIC, "arm": "oversampled", "reference": "baseline", "best_control": "oversampled"}
    found = outcome("improved", {**effect, "value": 0.0004, "low": 0.0001, "high": 0.0007, "remedies": []})
    assert describe_verdict(found) == "Oversampling helps"
    assert describe_remedy(found) == "Use oversampling. Oversampled − baseline: +0.0004 (interval +0.0001 to +0.001)."
    assert formatting.effect_name("oversampled") == "effect of oversampling"


@pytest.mark.parametrize(
    ("others", "name"),
    [
        ({"metadata": (0.5, 0.4, 0.6)}, "no other remedy is"),
        ({"class_weights": (0.0, 0.0, 0.0)}, "the best other remedy on validation, oversampling, is not"),
    ],
)
def test_describe_remedy_with_one_other_remedy_does_not_call_it_the_best(
    others: dict[str, tuple[float, float, float]], name: str
):
    """Regression: the arm `metadata` counted, which is never the best control."""
    effect: dict[str, Any] = {"arm": "augmented@0.5", "best_control": "oversampled"}
    effect["augmented_minus_best_control"] = gain(0.0)
    effect["remedies"] = remedies(oversampled=(0.01, -0.02, 0.04), augmented_50=(0.0, -0.1, 0.1), **others)
    assert describe_remedy(outcome("no evidence", effect)) == (
        f"Do not add synthetic images; {name} established either. Oversampled − baseline: +0.010 (interval −0.020 "
        "to +0.040, includes zero)."
    )


@pytest.mark.parametrize(
    ("arm", "short"),
    [
        ("baseline", "base."), ("augmented@0.25", "augm."), ("zoo@1", "zoo"), ("sd@0.25", "sd"), ("noise@1", "noise"),
        ("my_gan_2@0.5", "my g."), ("abc_images@1", "abc."), ("strong_augmentation", "stro."),
    ],
)  # fmt: skip
def test_short_title_has_no_part_of_the_share(arm: str, short: str):
    """Regression: `zoo@1` became "zoo@."."""
    assert formatting.short_title(arm) == short


def remedies(**gains: tuple[float, float, float]) -> list[dict[str, object]]:
    keys = ("value", "low", "high")
    return [{"arm": arm.replace("_50", "@0.5"), **dict(zip(keys, gain, strict=True))} for arm, gain in gains.items()]


@pytest.mark.parametrize(
    ("word", "gain", "sentence"),
    [
        ("no evidence", (0.09, 0.02, 0.16), "Do not add synthetic images; use balanced sampling instead. Balanced "
         "sampling − baseline: +0.090 (interval +0.020 to +0.160). The GANs took 41 of 43 minutes of training."),
        ("worse", (0.01, -0.02, 0.04), "Do not add synthetic images; the best other remedy on validation, balanced "
         "sampling, is not established either. Balanced sampling − baseline: +0.010 (interval −0.020 to +0.040, "
         "includes zero). The GANs took 41 of 43 minutes of training."),
        ("no evidence", (-0.09, -0.16, -0.02), "Do not add synthetic images; the best other remedy on validation, "
         "balanced sampling, is worse than the baseline. Balanced sampling − baseline: −0.090 (interval −0.160 to "
         "−0.020). The GANs took 41 of 43 minutes of training."),
        ("improved", (0.0, 0.0, 0.0), "Add synthetic images. Augmented 50 % − baseline: +0.200 (interval +0.100 to "
         "+0.300). The GANs took 41 of 43 minutes of training."),
        ("not established", (0.09, 0.02, 0.16), "No remedy can be recommended: that requires test images of the rare "
         "classes, and several seeds."),
    ],
)  # fmt: skip
def test_describe_remedy_names_the_best_remedy_and_its_cost(word: str, gain: tuple[float, float, float], sentence: str):
    effect: dict[str, Any] = {"arm": "augmented@0.5", "best_control": "balanced_sampling"}
    effect["augmented_minus_best_control"] = {"value": 0.2, "low": 0.1, "high": 0.3}
    effect["remedies"] = remedies(oversampled=(0.0, 0.0, 0.0), balanced_sampling=gain, augmented_50=(0.2, 0.1, 0.3))
    assert describe_remedy(outcome(word, effect), 41 * 60, 2 * 60) == sentence


@pytest.mark.parametrize(
    ("accuracy", "end"),
    [
        (0.61, ""),
        (0.6, " Balanced accuracy changes by 0.000."),
        (0.55, " Balanced accuracy changes by −0.050."),
    ],
)
def test_describe_remedy_states_if_balanced_accuracy_does_not_rise(accuracy: float, end: str):
    """A remedy of two classes may only move the threshold."""
    effect: dict[str, Any] = {"arm": "oversampled", "reference": "baseline", "best_control": "oversampled"}
    effect |= {"metric": METRIC, "value": 0.3, "low": 0.2, "high": 0.4, "remedies": []}
    arms = {"baseline": {"balanced_accuracy": 0.6}, "oversampled": {"balanced_accuracy": accuracy}}
    found = build(Outcome, {"verdict": "improved", "effect": effect, "arms": arms})
    assert describe_remedy(found) == (
        f"Use oversampling. Oversampled − baseline: +0.300 (interval +0.200 to +0.400).{end}"
    )


def test_describe_remedy_does_not_count_the_gans_as_the_cost_of_other_images():
    effect: dict[str, Any] = {"arm": "stylegan@0.5", "best_control": "oversampled"}
    effect["augmented_minus_best_control"] = {"value": 0.2, "low": 0.1, "high": 0.3}
    effect["remedies"] = [{"arm": "stylegan@0.5", "value": 0.2, "low": 0.1, "high": 0.3}]
    assert describe_remedy(outcome("improved", effect), 2460.0, 120.0) == (
        "Add synthetic images. Stylegan 50 % − baseline: +0.200 (interval +0.100 to +0.300). The GANs, which made "
        "none of these images, took 41 of 43 minutes of training."
    )


def test_describe_share_states_which_images_it_is_a_share_of():
    text = describe_share("augmented@0.25", "rare").replace("\u00a0", " ")
    assert text == "augmented 25 %: 25 % of the added images are synthetic"
    text = describe_share("zoo@1", "all").replace("\u00a0", " ")
    assert text == "zoo 100 %: 100 % of the images of each class are synthetic"
    assert describe_share("oversampled", "rare") == ""


@pytest.mark.parametrize(
    ("word", "value", "low", "high", "verdict", "note", "remedy"),
    [
        ("improved", 0.09, 0.02, 0.16, "Class weighting helps", "", "Use class weighting. "),
        ("no evidence", 0.02, -0.03, 0.07, "No evidence that class weighting helps", "",
         "No remedy is recommended; the best on validation, class weighting, is not established. "),
        ("no evidence", 0.09, 0.02, 0.16, "No evidence that class weighting helps",
         "; the paired test does not confirm it",
         "No remedy is recommended; the best on validation, class weighting, is not established. "),
        ("worse", -0.09, -0.16, -0.02, "Class weighting makes the classifier worse", "",
         "No remedy is recommended; the best on validation, class weighting, is worse than the baseline. "),
        ("not established", 0.09, 0.02, 0.16, "Not established whether class weighting helps",
         "; one seed cannot separate an effect from the luck of one training run",
         "No remedy can be recommended: that requires test images of the rare classes, and several seeds."),
    ],
)  # fmt: skip
def test_describe_without_synthetic_images_is_about_the_remedy(
    word: str, value: float, low: float, high: float, verdict: str, note: str, remedy: str
):
    limits = {"value": value, "low": low, "high": high}
    effect = {"metric": METRIC, "arm": "class_weights", "reference": "baseline", "best_control": "class_weights"}
    gains = remedies(oversampled=(0.3, 0.1, 0.5), class_weights=(0.0, 0.0, 0.0))
    absent = {"augmented_minus_best_control": None, "remedies": gains}
    found = outcome(word, {**effect, **limits, **absent})
    assert describe_verdict(found) == verdict
    interval = f"{show(value, '+')} (95 % interval {show_interval([low, high], '+')}{note})."
    shown = describe_effect(found).replace("\u00a0", " ")
    assert shown == f"Mean recall of the rare classes, class weights − baseline: {interval}"
    if word != "not established":
        end = ", includes zero" if low < 0 < high else note
        remedy += f"Class weights − baseline: {show(value, '+')} (interval {show_interval([low, high], '+')}{end})."
    assert describe_remedy(found, None, 120.0) == remedy


def test_describe_remedy_prefers_a_control_that_is_better_than_helpful_synthetic_images():
    """Regression: the verdict compares with repeated images only, and another control may be better still."""
    effect: dict[str, Any] = {"arm": "augmented@0.5", "best_control": "class_weights"}
    effect["remedies"] = remedies(class_weights=(0.25, 0.1, 0.4), augmented_50=(0.05, -0.1, 0.2))
    effect["augmented_minus_best_control"] = {"value": -0.2, "low": -0.3, "high": -0.1}
    sentence = describe_remedy(outcome("improved", effect))
    assert sentence == (
        "Do not add synthetic images; use class weighting instead. Class weights − baseline: +0.250 (interval +0.100 "
        "to +0.400)."
    )
    effect["remedies"] = remedies(class_weights=(0.05, -0.1, 0.2), augmented_50=(0.05, -0.1, 0.2))
    assert describe_remedy(outcome("improved", effect)) == (
        "Do not add synthetic images: class weighting is at least as good, and no remedy is established. Class weights "
        "− baseline: +0.050 (interval −0.100 to +0.200, includes zero)."
    )
    effect["augmented_minus_best_control"] = {"value": 0.1, "low": -0.1, "high": 0.3}
    sentence = describe_remedy(outcome("improved", effect))
    assert sentence == (
        "Add synthetic images. Augmented 50 % − baseline: +0.050 (interval −0.100 to +0.200, includes zero)."
    )


def gain(value: float | None, width: float = 0.1) -> dict[str, float | None]:
    low, high = (None, None) if value is None else (value - width, value + width)
    return {"value": value, "low": low, "high": high}


@pytest.mark.parametrize(
    ("word", "beyond", "added", "control", "advice"),
    [
        ("improved", 0.1, 0.3, 0.2, ("augmented@0.5", "improved")),
        ("improved", 0.1, 0.05, -0.05, ("augmented@0.5", "improved")),
        ("improved", 0.1, -0.2, -0.3, ("augmented@0.5", "worse")),
        ("improved", -0.1, 0.2, 0.3, ("class_weights", "improved")),
        ("improved", 0.0, 0.05, 0.05, ("class_weights", "no evidence")),
        ("no evidence", 0.1, 0.3, 0.2, ("class_weights", "improved")),
        ("no evidence", 0.1, 0.3, 0.0, ("class_weights", "no evidence")),
        ("worse", 0.1, -0.3, -0.2, ("class_weights", "worse")),
        ("not established", 0.1, 0.3, 0.2, ("augmented@0.5", "not established")),
        ("no evidence", None, None, None, ("augmented@0.5", "not established")),
    ],
)
def test_advice_is_about_the_arm_that_the_remedy_sentence_names(
    word: str, beyond: float | None, added: float | None, control: float | None, advice: tuple[str, str]
):
    effect: dict[str, Any] = {"arm": "augmented@0.5", "best_control": "class_weights"}
    effect["augmented_minus_best_control"] = gain(beyond)
    effect["remedies"] = [
        {"arm": "class_weights", **gain(control)}, {"arm": "augmented@0.5", **gain(added)},
    ]  # fmt: skip
    found = outcome(word, effect)
    assert (found.advice.arm, found.advice.verdict) == advice
    sentence = describe_remedy(found)
    assert (f"{formatting.capital(title_of(advice[0]))} − baseline" in sentence) == (advice[1] != "not established")
    assert sentence.startswith("Add ") == (advice == ("augmented@0.5", "improved"))


@pytest.mark.parametrize("word", ["improved", "no evidence", "worse", "not established"])
def test_advice_without_synthetic_images_is_the_verdict_on_the_remedy(word: str):
    effect = {"arm": "class_weights", "reference": "baseline", "best_control": "class_weights", "remedies": []}
    found = outcome(word, {**effect, **gain(0.2)})
    assert (found.advice.arm, found.advice.verdict) == ("class_weights", word)
    assert outcome(word, {**effect, **gain(None)}).advice.verdict == "not established"


@pytest.mark.parametrize(
    ("high", "sentence"),
    [
        (-0.001, "No remedy is recommended: synthetic images are better than repeats, but worse than the baseline. "
         "Augmented 50 % − baseline: −0.100 (interval −0.150 to −0.001). The GANs took 41 of 43 minutes of training."),
        (0.0, "Add synthetic images. Augmented 50 % − baseline: −0.100 (interval −0.150 to 0.000, includes zero). The "
         "GANs took 41 of 43 minutes of training."),
    ],
)  # fmt: skip
def test_describe_remedy_recommends_no_arm_that_is_established_as_worse_than_the_baseline(high: float, sentence: str):
    """Regression: better than repeats is not enough if repeats are worse than nothing."""
    effect: dict[str, Any] = {"arm": "augmented@0.5", "best_control": "oversampled"}
    effect["remedies"] = remedies(oversampled=(-0.2, -0.3, -0.1), augmented_50=(-0.1, -0.15, high))
    effect["augmented_minus_best_control"] = {"value": 0.1, "low": 0.05, "high": 0.15}
    assert describe_remedy(outcome("improved", effect), 41 * 60, 2 * 60) == sentence


def test_describe_champion_is_a_sentence_with_the_difference_and_what_was_excluded():
    found = Champion.model_validate(example_champion())
    assert formatting.describe_champion(found, "lesion") == (
        "The candidate is better than the champion (augmented 50 % of run run-41): mean recall of the rare classes "
        "+0.100 (95\u00a0% interval +0.020 to +0.180) on 1,117 test lesions that neither has seen; 3 test lesions are "
        "excluded, because the champion has seen them."
    )
    assert formatting.describe_champion(None, "lesion") == ""


@pytest.mark.parametrize(
    ("verdict", "start"),
    [
        ("no evidence", "No evidence that the candidate is better"),
        ("worse", "The candidate is worse"),
        ("not established", "Not established whether the candidate is better"),
    ],
)
def test_describe_champion_begins_with_the_verdict(verdict: str, start: str):
    values = example_champion()
    values["comparison"] |= {"verdict": verdict, "excluded_lesions": 0, "seeds": 1}
    text = formatting.describe_champion(Champion.model_validate(values), "image")
    assert text.startswith(start)
    assert text.endswith("one training run; the champion has seen none of the test images.")


def test_describe_champion_with_few_lesions_claims_nothing():
    text = formatting.describe_champion(Champion.model_validate(example_champion(few=True)), "lesion")
    assert text == (
        "Too few test lesions of the rare classes (4; required are six, and one of each class) to compare the "
        "candidate with the champion (augmented 50 % of run run-41); 3 test lesions are excluded, because the champion "
        "has seen them."
    )


def test_describe_champion_that_has_seen_one_lesion_is_in_the_singular():
    values = example_champion()
    values["comparison"] |= {"excluded_lesions": 1}
    text = formatting.describe_champion(Champion.model_validate(values), "lesion")
    assert text.endswith("; 1 test lesion is excluded, because the champion has seen it.")


def test_describe_champion_without_one_is_a_note():
    text = formatting.describe_champion(Champion(run=None, comparison=None, drift=None), "lesion")
    assert text.startswith("No champion: no earlier run in the output has a candidate")


def test_describe_drift_lists_what_changed_and_omits_what_is_unknown():
    drift = Champion.model_validate(example_champion()).drift
    assert formatting.describe_drift(drift, "lesion") == [
        "Training images: 7,010 → 8,200.",
        "Class frequencies differ by 1.2 % (total variation, chi-square test of the lesions p = 0.031); class df: 1.1 "
        "% → 2.3 %, class akiec: 14.0 % → 13.9 %, class bcc: 14.0 % → 13.9 %.",
        "Sexes differ by 2.0 % (total variation).",
        "Median age: 50 → 52 years.",
        "Appearance of new lesions: Kernel Inception Distance +0.0031 to the images of the champion's run, in its "
        "features, permutation test p = 0.410.",
    ]
    assert formatting.describe_drift(None, "lesion") == []


@pytest.mark.parametrize(("number", "expected"), [(0, "0 images"), (1, "1 image"), (1200, "1,200 images")])
def test_counted_uses_the_singular_for_one(number: int, expected: str):
    assert formatting.counted(number, "image") == expected
