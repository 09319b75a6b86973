"""`deltah library`: the verbs of a direction library. Each imports what it needs when called."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="Merge the directions of runs into a library, rank it, name and combine what is in it.",
)
_Library = Annotated[str, typer.Argument(help="A library's folder: a path or a URL.")]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a value of the config. Repeatable."),
]


@app.command()
def build(
    runs: Annotated[
        list[str],
        typer.Argument(help="Run folders, directions files, folders of them, other libraries."),
    ],
    output: Annotated[str, typer.Option(help="The library's folder.")],
    method: Annotated[
        Literal["cluster", "subspace", "frechet"],
        typer.Option(
            help="One direction a cluster, or what the images' spans share: eigenvectors of the"
            " mean projector, or the basis of the Fréchet mean."
        ),
    ] = "cluster",
    angle: Annotated[
        float, typer.Option(help="Largest angle in degrees to what a direction is merged into.")
    ] = 45.0,
    min_support: Annotated[int, typer.Option(help="Leave out directions of fewer images.")] = 1,
    replace: Annotated[
        bool, typer.Option("--replace", help="Lose the library that lies there.")
    ] = False,
) -> None:
    """Merge the directions of many images, region by region."""
    from cluster.views.library import show_built
    from pipelines.library_build import Merge, build_library

    library, groups = build_library(
        runs, output, Merge(method, angle, min_support), overwrite=replace
    )
    show_built(library.root, len(library.directions), groups)


@app.command()
def score(
    library: _Library,
    config: Annotated[
        str,
        typer.Argument(help="A run's config: its shards are the held-out images."),
    ],
    images: Annotated[int, typer.Option(help="Held-out images.")] = 16,
    change: Annotated[
        float, typer.Option(help="Mean change inside the region to compare at, of [-1, 1].")
    ] = 0.15,
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many directions of each region.")
    ] = None,
    changes: _Set = None,
) -> None:
    """Try every direction on held-out images; measure, rank, and make the pictures for `show`."""
    from cluster.views.library import scoring_line, show_scored
    from pipelines.config_file import load_config
    from pipelines.library_score import Scoring, score_library

    loaded = load_config(config, changes or ())
    with scoring_line() as report:
        scored = score_library(library, loaded, Scoring(images, change, limit), report=report)
    show_scored(scored)


@app.command("ls")
def list_directions(
    library: _Library,
    region: Annotated[str | None, typer.Option(help="Only of this region.")] = None,
    method: Annotated[
        str | None, typer.Option(help="Only found or trained by this method.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many of each region.")
    ] = None,
) -> None:
    """Print the learned editors and the ranked table of directions."""
    from cluster.views.library import show_rows
    from lib.directions.library_rows import read_rows
    from lib.editors.editor_table import read_editor_rows

    rows, editors = read_rows(library), read_editor_rows(library)
    show_rows(library, rows, editors, region=region, method=method, top=top)


@app.command()
def label(
    library: _Library,
    direction: Annotated[str, typer.Argument(help="Its id, or the first digits of it.")],
    name: Annotated[str, typer.Argument(help="The name; an empty one takes the old one away.")],
) -> None:
    """Give a direction a name."""
    from pipelines.library_changes import label_direction

    named = label_direction(library, direction, name)
    typer.echo(f"{named.id} of {named.region} is {named.label or 'without a name'}")


@app.command()
def compose(
    library: _Library,
    add: Annotated[list[str], typer.Option(help="ID=WEIGHT, such as 3f2a=0.7. Repeatable.")],
    name: Annotated[str, typer.Option(help="The name of the combination.")],
    project_out: Annotated[
        list[str] | None,
        typer.Option(help="ID of a direction whose part is taken out. Repeatable."),
    ] = None,
) -> None:
    """Add a weighted sum of directions, less its part along others, to the library."""
    from pipelines.library_changes import Recipe, compose_direction

    recipe = Recipe(tuple(map(_term, add)), tuple(project_out or ()), name)
    made = compose_direction(library, recipe)
    typer.echo(f"{made.id} of {made.region}: {made.label}")


@app.command()
def show(
    library: _Library,
    open_it: Annotated[
        bool, typer.Option("--open/--no-open", help="Open it in a browser, on a terminal.")
    ] = True,
) -> None:
    """Write the HTML page of a library and print where it is."""
    from pipelines.library_report import write_library_report

    path = write_library_report(library)
    typer.echo(path)
    if open_it and sys.stdout.isatty():
        typer.launch(path)


@app.command()
def export(
    library: _Library,
    output: Annotated[str, typer.Option(help="FILE.safetensors or FILE.pt.")],
    ids: Annotated[
        list[str] | None,
        typer.Option("--ids", help="Ids or their first digits, also with commas; default: all."),
    ] = None,
) -> None:
    """Write directions to one file for other programs, with all their metadata."""
    from lib.directions.direction_files import export_directions
    from lib.directions.library_store import read_library_folder

    read = read_library_folder(library)
    wanted = [part for given in ids or () for part in given.split(",") if part]
    chosen = [read.find(given) for given in wanted] if wanted else list(read.directions)
    export_directions(chosen, output)
    typer.echo(f"{len(chosen)} directions in {output}")


@app.command()
def add(
    library: _Library,
    sources: Annotated[
        list[str], typer.Argument(help="Folders of finished trainings, or other libraries.")
    ],
) -> None:
    """Put learned editors into a library, old or new, beside its directions."""
    from pipelines.library_editors import add_editors

    for record in add_editors(library, sources):
        typer.echo(f"{record.id} {record.type} {record.label} of {record.region}")


@app.command()
def bake(
    library: _Library,
    editor: Annotated[str, typer.Argument(help="A function's id, or the first digits of it.")],
    config: Annotated[
        str, typer.Argument(help="A run's config with images to average over; its window counts.")
    ],
    images: Annotated[int, typer.Option(min=1, help="Of that config.")] = 16,
    one_for_all_steps: Annotated[
        bool, typer.Option("--global", help="One shift for all timesteps, their mean.")
    ] = False,
    changes: _Set = None,
) -> None:
    """Average a learned function of h over images, and keep that as a direction."""
    from pipelines.config_file import load_config
    from pipelines.library_editors import bake_editor

    loaded = load_config(config, changes or ())
    made = bake_editor(
        library,
        editor,
        loaded,
        images,
        per_step=not one_for_all_steps,
        checkpoint=loaded.model.checkpoint,
    )
    typer.echo(f"{made.id} of {made.region}: the mean of {made.label} over {made.support} images")


@app.command("import")
def import_directions(
    file: Annotated[str, typer.Argument(help="A .safetensors, .pt or .pth file.")],
    library: Annotated[str, typer.Option(help="The library's folder, old or new.")],
    file_format: Annotated[
        Literal["deltah", "tensors", "asyrp"],
        typer.Option("--format", help="An export, bare tensors, or a file of Asyrp."),
    ] = "deltah",
    model: Annotated[str, typer.Option(help="The checkpoint that they belong to.")] = "",
    space: Annotated[Literal["h", "x"], typer.Option(help="Of bare tensors.")] = "h",
    h_layer: Annotated[
        Literal["before", "middle", "after"], typer.Option(help="Of bare tensors.")
    ] = "after",
    timesteps: Annotated[
        str, typer.Option(help="Of bare tensors, with commas: one, or one a step.")
    ] = "",
    tensor: Annotated[str, typer.Option(help="Which one, where a file holds several.")] = "",
    region: Annotated[str, typer.Option(help="The region that they change.")] = "image",
    label: Annotated[str, typer.Option(help="Their name.")] = "",
    one_for_all_steps: Annotated[
        bool, typer.Option("--global", help="Asyrp: the mean over timesteps.")
    ] = False,
    block: Annotated[str, typer.Option(help="Asyrp: which network of several.")] = "0",
    ignores_time: Annotated[
        bool, typer.Option("--ignores-time", help="Asyrp: trained with --ignore_timesteps.")
    ] = False,
    config: Annotated[
        str | None, typer.Option(help="Asyrp: a run's config with images to average over.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Of that config.")] = 16,
    as_function: Annotated[
        bool, typer.Option("--function", help="Asyrp: keep the network, as a learned editor.")
    ] = False,
    window: Annotated[
        str, typer.Option(help="With --function: highest and lowest timestep, as 999,513.")
    ] = "",
    trained_steps: Annotated[
        int, typer.Option(min=1, help="With --function: decoding steps of its training.")
    ] = 50,
) -> None:
    """Put the directions of another library or program into a library."""
    from pipelines.config_file import load_config
    from pipelines.library_import import Origin, import_file

    origin = Origin(
        kind=file_format,
        checkpoint=model,
        space=space,
        h_layer=h_layer,
        timesteps=_timesteps(timesteps),
        tensor=tensor,
        region=region,
        label=label,
        one_for_all_steps=one_for_all_steps,
        block=block,
        ignores_time=ignores_time,
        window=_window(window),
    )
    if as_function:
        from pipelines.library_editors import import_published_function

        record = import_published_function(library, file, origin, trained_steps)
        typer.echo(f"{record.id} {record.type} {record.label} in {library}")
        return
    loaded = None if config is None else load_config(config)
    _, new = import_file(library, file, origin, config=loaded, images=images)
    typer.echo(f"{new} new directions in {library}")


def _window(text: str) -> tuple[int, int] | None:
    found = _timesteps(text)
    if not found:
        return None
    if len(found) != 2 or found[0] < found[1]:
        raise typer.BadParameter(
            f"expected the highest and the lowest timestep, such as 999,513, got {text!r}",
            param_hint="--window",
        )
    return found[0], found[1]


def _timesteps(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise typer.BadParameter(
            f"expected whole numbers with commas, such as 500,400, got {text!r}",
            param_hint="--timesteps",
        ) from error


def _term(text: str) -> tuple[str, float]:
    given, sign, weight = text.partition("=")
    try:
        value = float(weight)
    except ValueError:
        value = float("nan")
    if not given or not sign or value != value or value in (0.0, float("inf"), -float("inf")):
        raise typer.BadParameter(
            f"expected ID=WEIGHT with a weight that is not 0, such as 3f2a=0.7, got {text!r}",
            param_hint="--add",
        )
    return given, value
