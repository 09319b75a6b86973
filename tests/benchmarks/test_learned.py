"""The shipped editors do what they are called, on faces that nobody has trained on: the benchmark's
own measurement on fewer faces.
"""

from __future__ import annotations

import torch

from benchmarks.embedded import load_bench
from benchmarks.learned import AIMS
from benchmarks.learned_effects import editors_at, effects, faces_of, inverted
from lib.demo.faces import FACTORS, sample_factors

FACES, SEED = 4, 8182


def test_the_shipped_editors_smile_and_open_eyes() -> None:
    torch.set_num_threads(1)
    bench = load_bench(12)
    editors = editors_at("embedded", bench)
    assert sorted(editor.label or "" for editor in editors) == ["eyes-open", "smile"]
    faces = faces_of(sample_factors(FACES, SEED), "held-out")
    (top,) = {editor.window[0] for editor in editors if editor.window is not None}
    latents = inverted(bench, faces, top)
    for editor in editors:
        seen = effects(bench, editor, faces, latents, (-1.0, 1.0))
        least, most, roir = AIMS[FACTORS[seen.factor]]
        assert float(seen.own(1).mean()) >= least, editor.label
        assert float(seen.own(0).mean()) < 0, editor.label
        assert bool((seen.own(1) > 0).all()), editor.label
        assert seen.others(1) <= 1.5 * most, editor.label
        assert seen.roir(1) <= 1.5 * roir, editor.label


def test_an_editor_of_no_known_factor_is_not_measured() -> None:
    from benchmarks.learned_effects import own_of

    assert own_of("smile-fn") == ("smile", "mouth")
    assert own_of("faithful") is None
