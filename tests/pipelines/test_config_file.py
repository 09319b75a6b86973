"""Config files as users write them: what is taken, and every mistake by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.config_file import load_config
from pipelines.discovery_config import LibraryDiscovery
from pipelines.fingerprint_fields import fingerprint_fields
from pipelines.inputs import expand_inputs
from pipelines.presets import PRESETS
from pipelines.segment_config import MaskFile
from pipelines.study_config import ClassLabel, SupervisedDiscovery

WHOLE = """
input: {shards: ["in/{0..3}.tar"]}
segment: {regions: {eyes: {file: eyes.png}}}
output: {folder: out}
"""


def mistakes(text: str, tmp_path: Path, *overrides: str) -> list[str]:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigProblem) as caught:
        load_config(str(path), overrides)
    return [line.strip() for line in str(caught.value).splitlines()]


def test_a_whole_file_is_read_and_the_rest_has_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(WHOLE)
    config = load_config(str(path))
    assert config.input.shards == ("in/{0..3}.tar",)
    assert config.grid.num_steps == 50


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_its_own_config(name: str) -> None:
    assert load_config(name) == PRESETS[name]()


def test_a_file_over_a_preset_merges_sections_and_replaces_values(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "preset: demo\nedit: {strengths: [0.5]}\nsegment: {regions: {nose: {file: nose.png}}}\n"
    )
    config, demo = load_config(str(path)), PRESETS["demo"]()
    assert config.edit.strengths == (0.5,)
    assert config.edit.window == demo.edit.window
    assert config.segment.regions == {"nose": MaskFile(file="nose.png")}
    assert config.model == demo.model


def test_another_discovery_method_replaces_that_section(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("preset: demo\ndiscover: {method: library, path: lib.parquet}\n")
    assert load_config(str(path)).discover == LibraryDiscovery(method="library", path="lib.parquet")
    by_flags = load_config("demo", ["discover.method=library", "discover.path=lib.parquet"])
    assert by_flags.discover == LibraryDiscovery(method="library", path="lib.parquet")


def test_methods_that_learn_from_all_images_need_no_regions_and_survive_the_way_to_a_worker(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "pipeline: direction_library\ninput: {shards: [a.tar]}\noutput: {folder: out}\n"
        "discover: {method: supervised, classifier: embedded, balance: dark,\n"
        "  labels: {smile: {field: smile}, dark: {class: 3}, old: {class: age}}}\n"
    )
    config = load_config(str(path))
    assert config.segment.regions == {}
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    assert isinstance(config.discover, SupervisedDiscovery)
    assert config.discover.labels["dark"] == ClassLabel.model_validate({"class": 3})


def test_overrides_are_yaml_values_by_dotted_path() -> None:
    config = load_config("demo", ["edit.strengths=[-0.1, 0.1]", "input.salvage=true"])
    assert config.edit.strengths == (-0.1, 0.1)
    assert config.input.salvage is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "edit: {strenghts: [1]}",
            "edit.strenghts: unknown key; did you mean `strengths`?"
            " valid keys here: method, injection, window, strengths, batch_size",
        ),
        ("grid: {num_steps: many}", 'grid.num_steps: got "many", expected a whole number'),
        ("grid: {num_steps: 1}", "grid.num_steps: got 1, expected greater than or equal to 2"),
        ("grid: 7", "grid: got 7, expected a section of keys and values"),
        ("output: {format: gif}", "output.format: got \"gif\", expected 'png', 'jpeg' or 'webp'"),
        (
            "discover: {tolerence: 0.1}",
            "discover.tolerence: unknown key; did you mean `tolerance`? valid keys here:"
            " timesteps, directions, tolerance, max_rounds, chunk, products, method, space",
        ),
        (
            "discover: {method: guess}",
            "discover: got method \"guess\", expected 'jacobian', 'localised'",
        ),
        (
            "discover: {method: jive, joint_rank: many}",
            'discover.joint_rank: got "many", expected a whole number from 1 or permutation or'
            " angle",
        ),
        ("discover: {method: localised, trade_off: 0}", "discover.trade_off: got 0, expected"),
        (
            "discover: {method: pullback, timesteps: [1, 2]}",
            "discover.timesteps: got [1, 2], expected at most 1 in the list",
        ),
        (
            "invert: {method: edict, refinements: 2}",
            'invert: got {"method": "edict", "refinements": 2}, expected no refinements with'
            " method edict; that is for method ddim",
        ),
        (
            "invert: {method: ddpm, eta: 1.5}",
            "invert.eta: got 1.5, expected a number from 0 to 1 or a list of lists",
        ),
        (
            "invert: {method: ddpm, eta: [[400, 1.0], [300, 0.0]]}",
            "expected eta by ascending timestep, got the timesteps [400, 300]",
        ),
        (
            "pipeline: direction_library\ninvert: {latents: else}\n"
            "discover: {method: pca, capture: inversion}",
            "discover.capture: inversion takes h from inverting, and with invert.latents nothing is"
            " inverted; expected exact",
        ),
        (
            "invert: {report: true}",
            "invert.report: a run that edits reports every reconstruction in any case; expected it",
        ),
        ("invert: {method: ddpm, eta: 0}", "expected an eta above 0 somewhere"),
        ("discover: {method: supervised}", "discover.labels: is missing, and is required"),
        (
            "discover: {method: supervised, labels: {smile: {clas: 3}}}",
            "discover.labels.smile.clas: unknown key; did you mean `class`? valid keys here: class",
        ),
        (
            "discover: {method: supervised, labels: {smile: {class: 3}}}",
            "expected a classifier, which the labels ['smile'] ask for",
        ),
        (
            "discover: {method: supervised, labels: {smile: {field: s}}, balance: age}",
            "expected balance to be one of the labels ['smile'], got 'age'",
        ),
        ("discover: {method: pca}", "discover.method: pca learns from all images of a run;"),
        (
            "pipeline: direction_library\ndiscover: {method: library, path: p}",
            "discover.method: library applies directions and finds none;",
        ),
        (
            "segment: {regions: {image: {file: x}}}",
            "segment.regions: 'image' is the name of the whole image; expected another name",
        ),
        ("segment: {regions: {}}", "segment.regions: expected at least one region"),
        (
            "segment: {regions: {eyes: {fil: x}}}",
            "segment.regions.eyes.fil: unknown key; did you mean `file`? valid keys here: file",
        ),
        ("segment: {regions: {eyes: {box: [0, 0, 1]}}}", "segment.regions.eyes.box.3: is missing"),
        (
            "segment: {regions: {eyes: eyes.png}}",
            'segment.regions.eyes: got "eyes.png", expected {file: ...} or {box: ...}',
        ),
        (
            "segment: {regions: {bad name: {file: x}}}",
            'segment.regions.bad name: got the name "bad name", expected a letter',
        ),
        ("edit: {window: [300, 900]}", "expected window as [highest, lowest] timestep"),
        ("edit: {strengths: [0.1, 0]}", "expected distinct strengths, none of them 0"),
        ("execution: {workers: yes}", "execution.workers: got true, expected a number"),
        (
            "execution: {max_error_rate: .nan}",
            "execution.max_error_rate: got NaN, expected a finite",
        ),
    ],
)
def test_a_mistake_is_told_by_path_value_and_what_was_expected(
    text: str, expected: str, tmp_path: Path
) -> None:
    lines = mistakes(f"preset: demo\n{text}\n", tmp_path)
    assert any(line.startswith(expected) or expected in line for line in lines), lines


def test_all_mistakes_come_at_once_and_what_is_missing_is_among_them(tmp_path: Path) -> None:
    lines = mistakes("input: {shard: [a]}\nmodl: {}\noutput: {}\n", tmp_path)
    assert lines[0].endswith("5 mistakes")
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "input.shard",
        "input.shards",
        "modl",
        "output.folder",
        "segment",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("edit:\n  strengths: [1\n  x: 3\n", "line 3, column 4: not valid YAML"),
        ("grid: {}\ngrid: {}\n", "line 2, column 1: not valid YAML: the key 'grid' is given twice"),
        ("segment:\n  on: 1\n", "line 2, column 3: not valid YAML: expected a text key"),
        ("!!python/object:os.system {}", "line 1, column 1: not valid YAML"),
        ("a: \x07", "not valid YAML: a character it does not allow"),
        ("[" * 5000, "not valid YAML"),
        ("a: 2024-13-45", "not valid YAML"),
        ("", "expected sections such as `input:` and `output:`, got nothing"),
        ("- 1", "expected sections such as `input:` and `output:`, got list"),
        ("preset: dmo", "did you mean `demo`? presets are"),
    ],
)
def test_what_is_no_config_at_all_is_refused_with_its_place(
    text: str, expected: str, tmp_path: Path
) -> None:
    assert expected in " ".join(mistakes(text, tmp_path))


def test_a_missing_file_names_the_presets() -> None:
    with pytest.raises(ConfigProblem, match=r"no such file; did you mean `demo`\? presets are"):
        load_config("deemo")


def test_an_override_without_a_value_or_into_a_value_is_refused() -> None:
    for override in ("edit.strengths", "=3", "edit..x=1"):
        with pytest.raises(ConfigProblem, match=r"expected SECTION\.KEY=VALUE"):
            load_config("demo", [override])
    with pytest.raises(ConfigProblem, match="which has no keys"):
        load_config("demo", ["edit.strengths.first=1"])


def test_two_inputs_of_one_name_are_refused_with_both_urls(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.tar").touch()
    with pytest.raises(ConfigProblem, match=r"one/a\.tar and .*two/a\.tar are both named 'a'"):
        expand_inputs([f"{tmp_path}/*/a.tar"])


def test_inputs_are_named_by_file_sorted_and_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = expand_inputs(["in/{1..0}.tar", "s3://bucket/x.tar.gz"])
    assert [(shard.name, shard.url) for shard in found] == [
        ("0", f"{tmp_path}/in/0.tar"),
        ("1", f"{tmp_path}/in/1.tar"),
        ("x", "s3://bucket/x.tar.gz"),
    ]


@pytest.mark.parametrize("url", ["in/.hidden.tar", "in/a b.tar", "in/ü.tar", "in/.tar"])
def test_an_input_whose_name_cannot_name_outputs_is_refused(url: str) -> None:
    with pytest.raises(ConfigProblem, match="expected a file name"):
        expand_inputs([url])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"_class_name": "UNet2DModel", "sample_size": 64}')
    (folder / "scheduler_config.json").write_text("{}")
    save_file({}, folder / "diffusion_pytorch_model.safetensors")
    return folder


def test_the_fingerprint_covers_what_changes_pixels_and_nothing_else(
    model: Path, tmp_path: Path
) -> None:
    def fields(*overrides: str) -> dict[str, object]:
        return fingerprint_fields(load_config("demo", [f"model.checkpoint={model}", *overrides]))

    before = fields()
    for override in (
        "output.folder=elsewhere",
        "input.shards=[other.tar]",
        "input.max_shard_bytes=5",
        "execution.workers=9",
        "execution.engine=local",
        "execution.max_attempts=7",
    ):
        assert fields(override) == before, override
    for override in (
        "edit.strengths=[0.3]",
        "invert.batch_size=3",
        "output.format=webp",
        "input.min_side=20",
        "input.salvage=true",
        "model.h_layer=middle",
    ):
        assert fields(override) != before, override
    moved = tmp_path / "moved"
    model.rename(moved)
    model = moved
    assert fields() == before, "where the model lies does not matter"
    other = {"a": np.zeros(1, np.float32)}
    save_file(other, model / "diffusion_pytorch_model.safetensors")
    assert fields() != before, "what it is does"
