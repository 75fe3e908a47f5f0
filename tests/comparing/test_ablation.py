"""Which part helped: figures worked by hand, sentences, what is missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from metakd.comparing.ablation import PARTS, Ablation, ablation, ablation_record, verdicts
from metakd.comparing.compare import compare
from metakd.runs.records_compare import EffectRecord

Made = Callable[..., Path]
CHOICES = {
    "plain": ("supervised", "none"),
    "meta only": ("protonet", "none"),
    "distillation only": ("supervised", "kd"),
    "fused": ("protonet", "kd"),
}
# What each ablation has above plain, by seed. Meta-learning: mean 0.03, s = 0.01, t = 0.03 √3 /
# 0.01 = 5.196; of two degrees of freedom p = 1 - t / √(t² + 2) = 0.03510, and the interval is
# 4.302653 · 0.01 / √3 = 0.024841.
ABOVE = {
    "plain": (0.0, 0.0, 0.0),
    "meta only": (0.02, 0.03, 0.04),
    "distillation only": (0.10, 0.11, 0.12),
    "fused": (0.15, 0.15, 0.18),
}
HALF = 4.302653 * 0.01 / math.sqrt(3)


@pytest.fixture
def found(made_up: Made, tmp_path: Path) -> Callable[..., Ablation]:
    """Return what runs tell that are so much better than plain."""

    def make(
        above: Mapping[str, Sequence[float | None]], info: Mapping[str, str] | None = None
    ) -> Ablation:
        parts = {}
        for part, by_seed in above.items():
            algorithm, distill = CHOICES[part]
            for seed, gain in enumerate(by_seed):
                if gain is None:
                    continue
                # Tasks of a seed differ; the sum of what is added is 4 · gain.
                tasks = [0.40 + gain + 0.02 * seed, 0.60 + gain, 0.50 + gain, 0.70 + gain]
                if part == "fused":
                    tasks = [tasks[0] + 0.03, tasks[1] - 0.03, tasks[2], tasks[3]]
                path = made_up(
                    tmp_path / f"{part} {seed}",
                    {"student": {1: tasks}},
                    seed=seed,
                    settings={
                        "algorithm.name": algorithm,
                        "distill.name": distill,
                        "distill.supports.uses_teacher": distill == "kd",
                    },
                    info=dict(info or {}) if distill == "kd" else None,
                )
                parts[path] = part
        plain = next((path for path, part in parts.items() if part == "plain"), None)
        return ablation(compare(list(parts), baseline=plain), parts, "protonet", "kd")

    return make


def p_of(t: float) -> float:
    """Student's two-sided p for two degrees of freedom."""
    return 1 - t / math.sqrt(t * t + 2)


def test_effects_worked_by_hand(found: Callable[..., Ablation]) -> None:
    it = found(ABOVE)
    expected = {
        "meta-learning": (0.03, HALF, p_of(3 * math.sqrt(3)), p_of(3 * math.sqrt(3))),
        "distillation": (0.11, HALF, p_of(11 * math.sqrt(3)), 3 * p_of(11 * math.sqrt(3))),
        # 0.15, 0.15, 0.18: s = 0.01 √3, so t = 16; corrected it is not below the one before it.
        "both": (0.16, HALF * math.sqrt(3), p_of(16.0), 3 * p_of(11 * math.sqrt(3))),
        # 0.15 - 0.02 - 0.10 = 0.03, 0.15 - 0.03 - 0.11 = 0.01, 0.18 - 0.04 - 0.12 = 0.02.
        "interaction": (0.02, HALF, p_of(2 * math.sqrt(3)), p_of(2 * math.sqrt(3))),
    }
    for name, (difference, half, p, adjusted) in expected.items():
        effect = it.find(name, 1)
        assert effect is not None
        assert (effect.seeds, effect.tasks) == ([0, 1, 2], 4)
        assert effect.difference == pytest.approx(difference)
        assert effect.ci95 == pytest.approx(half, rel=1e-6)
        assert effect.p == pytest.approx(p)
        assert effect.p_adjusted == pytest.approx(adjusted)
        # Its interval leaves 0 out exactly where the corrected p is below 0.05: t of a level of
        # 1 - 0.05 · p / p_adjusted, by hand from p = 1 - t / √(t² + 2).
        inside = 1 - 0.05 * p / adjusted
        t = inside * math.sqrt(2 / (1 - inside**2))
        assert effect.ci95_adjusted == pytest.approx(half * t / 4.302653, rel=1e-6)
        assert (difference > effect.ci95_adjusted) == (adjusted < 0.05)
    top = it.find("meta-learning on top of distillation", 1)
    assert top is not None
    assert (top.difference, top.ci95) == (pytest.approx(0.05), pytest.approx(HALF, rel=1e-6))
    top = it.find("distillation on top of meta-learning", 1)
    assert top is not None
    assert top.difference == pytest.approx(0.13)


def test_the_table_s_differences_are_the_same(found: Callable[..., Ablation]) -> None:
    it = found(ABOVE)
    paths = [run.path for row in it.rows.values() for run in row]
    pairs = compare(paths, baseline=it.rows["plain"][0].path).pairs
    for name, part in (
        ("meta-learning", "meta only"),
        ("distillation", "distillation only"),
        ("both", "fused"),
    ):
        runs = {run.path for run in it.rows[part]}
        (pair,) = (p for p in pairs if {run.path for run in p.row} == runs)
        effect = it.find(name, 1)
        assert effect is not None
        assert (effect.difference, effect.ci95, effect.p_adjusted) == (
            pytest.approx(pair.difference),
            pytest.approx(pair.half),
            pytest.approx(pair.p_adjusted),
        )


def test_sentences(found: Callable[..., Ablation]) -> None:
    assert list(verdicts(found(ABOVE))) == [
        "1-shot, against plain, over 3 seeds, each on the same 4 tasks: meta-learning (protonet) "
        # Of the smallest p the level is 1 - 0.05 / 3: t = 59/60 · √(2 / (1 - (59/60)²)) = 7.6489
        # in place of 4.3027, and 7.6489 · 0.01 / √3 = 0.0442.
        "helped by 3.00 ± 2.48 points (p = 0.035); distillation (kd) helped by 11.00 ± 4.42 "
        "points (p = 0.008); both together helped by 16.00 ± 6.39 points (p = 0.008); intervals "
        "and p corrected for 3 comparisons.",
        "1-shot, both together against the sum of the two parts: no interaction is resolved "
        "(+2.00 ± 2.48 points, p = 0.074).",
        "1-shot, what a part adds where the other one is there already: meta-learning on top of "
        "distillation +5.00 ± 2.48 points, distillation on top of meta-learning +13.00 ± 3.58 "
        "points; intervals corrected for 2 comparisons.",
    ]


def test_an_interval_that_leaves_0_out_is_a_resolved_effect(found: Callable[..., Ablation]) -> None:
    """By its 95 % interval alone meta-learning would have helped; of three effects it has not."""
    gains = {"meta only": (0.02, 0.03, 0.04), "fused": (0.01, 0.03, 0.02)}
    it = found({**ABOVE, "distillation only": (0.0, 0.04, 0.02), **gains})
    effect = it.find("meta-learning", 1)
    assert effect is not None
    assert effect.difference > effect.ci95
    assert effect.p_adjusted == pytest.approx(3 * p_of(3 * math.sqrt(3)))
    # 0.03 against 7.6489 · 0.01 / √3
    assert effect.ci95_adjusted == pytest.approx(0.0441610, abs=1e-6)
    first = next(verdicts(it))
    assert (
        "no effect of meta-learning (protonet) is resolved (+3.00 ± 4.42 points, p = 0.11" in first
    )
    assert ablation_record(it).effects[0].ci95 == pytest.approx(HALF)
    assert ablation_record(it).effects[0].ci95_adjusted == effect.ci95_adjusted


def test_what_harms_and_what_is_not_resolved(found: Callable[..., Ablation]) -> None:
    it = found({**ABOVE, "meta only": (0.02, -0.03, 0.01), "fused": (-0.10, -0.11, -0.12)})
    first, second, _ = verdicts(it)
    assert "distillation (kd) helped by 11.00" in first
    assert "both together harmed by 11.00 ± 4.42 points" in first
    # Mean 0, so p is 1.
    assert "no effect of meta-learning (protonet) is resolved (+0.00 ± 6.57" in first
    assert first.index("helped") < first.index("harmed") < first.index("no effect")
    # -0.22, -0.19, -0.25: mean -0.22, s = 0.03.
    assert "give less: they overlap (-22.00 ± 7.45 points, p = 0.006)" in second


def test_one_seed_is_over_tasks(found: Callable[..., Ablation]) -> None:
    it = found({part: gains[:1] for part, gains in ABOVE.items()})
    effect = it.find("both", 1)
    assert effect is not None
    # 0.18, 0.12, 0.15, 0.15 over the tasks: s = √(0.0018 / 3), t of three degrees is 3.182446.
    assert effect.difference == pytest.approx(0.15)
    assert effect.ci95 == pytest.approx(3.182446 * math.sqrt(0.0018 / 3) / 2, rel=1e-6)
    first = next(verdicts(it))
    assert "seed 0 on the same 4 tasks" in first
    assert first.endswith("only more seeds tell of the settings.")


def test_seeds_that_decide_nothing_count_as_one(made_up: Made, tmp_path: Path) -> None:
    def effect(seeds: int) -> EffectRecord:
        parts = {}
        for part, tasks in (("plain", [0.4, 0.5, 0.6]), ("meta only", [0.5, 0.55, 0.7])):
            algorithm, distill = CHOICES[part]
            for seed in range(seeds):
                names = {"algorithm.name": algorithm, "distill.name": distill}
                folder = tmp_path / f"{seeds} {part} {seed}"
                path = made_up(folder, {"student": {1: tasks}}, seed=seed, settings=names)
                parts[path] = part
        found = ablation(compare(list(parts)), parts, "protonet", "kd")
        return next(e for e in found.effects if e.effect == "meta-learning")

    one = effect(1)
    assert one.ci95 > 0
    assert effect(3) == one


def test_only_common_seeds_count(found: Callable[..., Ablation]) -> None:
    it = found({**ABOVE, "fused": (0.15, 0.15, None), "meta only": (None, None, None)})
    both = it.find("both", 1)
    assert both is not None
    assert (both.seeds, both.difference) == ([0, 1], pytest.approx(0.15))
    assert it.find("meta-learning", 1) is None
    assert it.find("interaction", 1) is None
    said = list(verdicts(it))
    assert not any("meta-learning (protonet)" in line for line in said)
    assert said[-1].endswith("meta-learning on top of distillation +4.50 ± 6.35 points.")


def test_another_teacher_is_said(found: Callable[..., Ablation]) -> None:
    assert found(ABOVE, {"teacher": "ab" * 32}).notes == ()


def test_two_teachers_are_said(made_up: Made, tmp_path: Path) -> None:
    parts = {}
    for part, (algorithm, distill) in CHOICES.items():
        settings = {"algorithm.name": algorithm, "distill.name": distill}
        info = {"teacher": part.encode().hex()} if distill == "kd" else None
        parts[made_up(tmp_path / part, settings=settings, info=info)] = part
    it = ablation(compare(list(parts)), parts, "protonet", "kd")
    assert it.notes == ("these runs had 2 different teachers, not one",)


def test_further_differences_are_said(made_up: Made, tmp_path: Path) -> None:
    """As of a multirun that was resumed with another setting (`resume_changed=true`)."""
    parts = {}
    for part, (algorithm, distill) in CHOICES.items():
        settings = {"algorithm.name": algorithm, "distill.name": distill}
        settings |= {"meta_train.iterations": 300 if part == "fused" else 200}
        parts[made_up(tmp_path / part, settings=settings)] = part
    it = ablation(compare(list(parts)), parts, "protonet", "kd")
    assert it.notes == (
        "these runs differ in meta_train.iterations, too, so that an effect is also one of that",
    )


def test_an_effect_that_is_the_same_by_chance(made_up: Made, tmp_path: Path) -> None:
    """Of two seeds with other tasks right: p is not 0."""
    parts = {}
    for part in ("plain", "meta only"):
        for seed in (0, 1):
            tasks = [0.4, 0.6] if part == "plain" else [0.5 + 0.2 * seed, 0.7 - 0.2 * seed]
            path = made_up(
                tmp_path / f"{part} {seed}",
                {"student": {1: tasks}},
                seed=seed,
                settings={"algorithm.name": CHOICES[part][0], "distill.name": "none"},
            )
            parts[path] = part
    (effect,) = ablation(compare(list(parts)), parts, "protonet", "kd").effects
    assert (effect.difference, effect.seeds) == (pytest.approx(0.1), [0, 1])
    # s is half of one answer in 150.
    assert effect.p == pytest.approx(1 - 2 / math.pi * math.atan(30 * math.sqrt(2)), rel=1e-5)


def test_other_tasks_are_left_out(made_up: Made, tmp_path: Path) -> None:
    parts = {}
    for part, (algorithm, distill) in CHOICES.items():
        settings = {"algorithm.name": algorithm, "distill.name": distill}
        settings |= {"evaluate.seed": 1} if part == "fused" else {}
        parts[made_up(tmp_path / part, settings=settings)] = part
    it = ablation(compare(list(parts)), parts, "protonet", "kd")
    assert "fused" not in it.rows
    assert it.notes == ("fused (fused) is left out: it is not comparable with the others",)


def test_damaged_episodes_are_said(found: Callable[..., Ablation]) -> None:
    path = found(ABOVE).rows["fused"][1].path
    (path / "episodes.csv").write_text("x\n")
    it = ablation(
        compare(list(path.parent.iterdir())),
        {run: run.name.rpartition(" ")[0] for run in path.parent.iterdir()},
        "protonet",
        "kd",
    )
    assert it.find("both", 1) is None
    assert it.find("distillation", 1) is not None
    assert any(f"both, 1-shot: '{path}': episodes.csv is damaged" in line for line in it.notes)


def test_for_programs(found: Callable[..., Ablation]) -> None:
    content = ablation_record(found(ABOVE), ["missing: one"])
    assert (content.algorithm, content.distill) == ("protonet", "kd")
    assert tuple(sorted(content.parts)) == tuple(sorted(PARTS))
    first = content.effects[0]
    assert (first.effect, first.seeds) == ("meta-learning", [0, 1, 2])
    assert first.difference == pytest.approx(0.03)
    assert len(content.effects) == 6
    assert len(content.verdict) == 3
    assert content.missing == ["missing: one"]
