"""``snn-deploy export``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from snn_deploy.cli.common import json_option, print_json, reading_options, show, talk

if TYPE_CHECKING:
    from snn_deploy.exporters import ReadOptions


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("--target", "to", required=True, help="Target: see `snn-deploy targets`.")
@click.option("-o", "--output", required=True, metavar="FOLDER", help="Folder to write.")
@click.option(
    "--format",
    "formats",
    metavar="NAME,...",
    help="Files to write beside model.nir; default: the target's.",
)
@click.option(
    "--dialect",
    type=click.Choice(["portable", "sinabs"]),
    default="portable",
    help="Whose reading model.nir is written for; default: snnTorch's, Norse's, SpikingJelly's.",
)
@click.option("--bits", type=int, metavar="N", help="Bits of a weight; default: 8.")
@click.option(
    "--granularity",
    type=click.Choice(["tensor", "channel"]),
    default="tensor",
    help="One scale per population, or one per output channel.",
)
@click.option(
    "--clipping",
    type=click.Choice(["max", "mse", "percentile"]),
    help="What a scale makes room for; default: mse up to 5 bits, else max.",
)
@click.option(
    "--rounding",
    type=click.Choice(["nearest", "learned"]),
    default="nearest",
    help="Round weights to nearest, or as a calibration shows to be best.",
)
@click.option("--calibration", metavar="FILE", help="Recording (.npz) to calibrate on.")
@click.option("--correct", "correction", is_flag=True, help="Correct mean errors in the biases.")
@click.option(
    "--finetune", metavar="RECIPE", help="Fine-tune the integers on this recipe's data (.toml)."
)
@click.option(
    "--model",
    "factory",
    metavar="MODULE:FUNCTION",
    help="Function that makes the module of bare weights, and says what it is fed.",
)
@partial(reading_options, flag="--from")
@json_option
def command(
    model: str,
    to: str,
    output: str,
    formats: str | None,
    dialect: str,
    bits: int | None,
    granularity: str,
    clipping: str | None,
    rounding: str,
    calibration: str | None,
    correction: bool,
    finetune: str | None,
    factory: str | None,
    reading: ReadOptions,
    as_json: bool,
) -> None:
    """Freeze, quantize and write a trained network for a target, and prove what was written.

    Example: snn-deploy export model.pt --target loihi2 -o build/

    A state_dict of a module of your own: snn-deploy export weights.pt --model mynet:network
    --target loihi2 -o build/, where network() returns the module and the options of freeze for it.

    A network of others: snn-deploy export their.nir --from norse --dt 1e-3 --target generic -o b/
    """
    from snn_deploy.artefacts import export
    from snn_deploy.exporters import ReadOptions

    result = export(
        model,
        to,
        output,
        formats=None if formats is None else [name.strip() for name in formats.split(",")],
        dialect=dialect,
        bits=bits,
        granularity=granularity,
        clipping=clipping,
        rounding=rounding,
        calibration=calibration,
        correction=correction,
        finetune=finetune,
        factory=factory,
        reading=None if reading == ReadOptions() else reading,
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
                _span(population.get("threshold", ["-"])),
                _span(population["scale"], ".3g"),
                str(population["membrane_bits_needed"]),
            )
        )
    freeze = manifest["proof"]["freeze"]
    frozen = ["read from a file, nothing frozen"]
    if freeze is not None:
        frozen = [
            f"freeze proof: {freeze['violations']} flips outside ties in {freeze['slots']:,} "
            f"neuron-timesteps ({freeze['ties']} ties)"
        ]
    quantized = manifest["proof"]["quantization"]
    clipped = sum(p["clipped"] for p in quantized["populations"].values())
    lost = [p["weight_sqnr"] for p in quantized["populations"].values()]
    noise = min((dB for dB in lost if dB is not None), default=None)
    lines = [_readers(manifest["formats"]["nir"])]
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
        *frozen,
        f"weights of {manifest['configuration']['bits']} bits, {clipped:,} of them clipped"
        + ("" if noise is None else f"; signal to quantization noise from {noise:.1f} dB"),
        "range proof: no current and no membrane can leave its register",
        f"re-read in a fresh process: {manifest['recorded']['samples']} recorded samples "
        "simulate to identical spikes",
        *lines,
        f"wrote {', '.join(str(result.folder / name) for name in result.files)}",
    )


def _readers(nir: Any) -> str:
    """Who runs model.nir exactly, after which steps, and who does not."""
    found: dict[str, list[str]] = {}
    for name, peer in nir["peers"].items():
        verdict = peer["verdict"]
        if peer["mended"] == "exact" != verdict:
            verdict = "exact after steps"
        found.setdefault(verdict, []).append(name)
    said = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in found.items())
    integers = "" if nir["integer_exact"] else ", the integers round more"
    return f"NIR, dialect {nir['dialect']}, dt {nir['dt']:g}{integers}. {said} (see the manifest)"


def _span(values: Any, form: str = "") -> str:
    """A value, a few, or the smallest and largest of many."""
    listed = values if isinstance(values, list) else [values]
    ends = listed if len(listed) <= 3 else [min(listed), max(listed)]
    return (", " if ends is listed else "..").join(format(value, form) for value in ends)
