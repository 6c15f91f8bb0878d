"""``snn-deploy export``."""

from __future__ import annotations

import click

from snn_deploy.cli.common import json_option, print_json, show, talk


@click.command()
@click.argument("model", metavar="MODEL.pt")
@click.option("--target", "to", required=True, help="Target: see `snn-deploy targets`.")
@click.option("-o", "--output", required=True, metavar="FOLDER", help="Folder to write.")
@click.option(
    "--format",
    "formats",
    metavar="NAME,...",
    help="Files to write beside model.nir; default: the target's.",
)
@json_option
def command(model: str, to: str, output: str, formats: str | None, as_json: bool) -> None:
    """Freeze, quantize and write a trained network for a target, and prove what was written.

    Example: snn-deploy export model.pt --target loihi2 -o build/
    """
    from snn_deploy.artefacts import export

    result = export(
        model,
        to,
        output,
        formats=None if formats is None else [name.strip() for name in formats.split(",")],
        progress=lambda name: talk(f"{name} ..."),
    )
    manifest = result.manifest
    if as_json:
        print_json(manifest)
        return
    from snn_deploy.reporting.tables import table

    rows = []
    for population in manifest["populations"]:
        name = population["name"]
        weights = [p for p in manifest["projections"] if p["name"].endswith(f"->{name}")]
        rows.append(
            (
                name,
                "x".join(str(n) for n in population["shape"]),
                f"{sum(w['weights'] for w in weights):,}",
                ", ".join(f"{w['smallest']}..{w['largest']}" for w in weights),
                ", ".join(str(t) for t in population.get("threshold", ["-"])),
                f"{population['scale']:.3g}",
                str(population["membrane_bits_needed"]),
            )
        )
    freeze = manifest["proof"]["freeze"]
    lines = []
    lava = manifest["formats"].get("lava")
    if lava is not None:
        fed = ", ".join(f"{kind} {name}" for name, kind in lava["driven_by"].items())
        lines.append(
            f"Lava: {lava['files'][0]}, driven by {fed}; output comes {lava['latency']} timesteps "
            f"later; reset offset {lava['reset_offset']}"
        )
        if "why" in lava:
            lines.append(f"a program instead of a .net file: {lava['why']}")
        if lava.get("relays"):
            lines.append(f"{len(lava['relays'])} relays wait for longer paths")
    lines += [f"design rule {f['code']}, {f['where']}: {f['message']}"
              for f in manifest["design_rules"]]  # fmt: skip
    show(
        table(
            f"Integer network for {manifest['target']}",
            ("population", "shape", "weights", "range", "threshold", "unit", "membrane bits"),
            rows,
        ),
        f"freeze proof: {freeze['violations']} flips outside ties in {freeze['slots']:,} "
        f"neuron-timesteps ({freeze['ties']} ties)",
        "range proof: no current and no membrane can leave its register",
        f"re-read in a fresh process: {manifest['recorded']['samples']} recorded samples "
        "simulate to identical spikes",
        *lines,
        f"wrote {', '.join(str(result.folder / name) for name in result.files)}",
    )
