"""Chips whose core holds one whole population: a kernel memory and a neuron memory each.

As on SynSense's Speck (DYNAP-CNN): addresses are made of bit fields, so that every extent but the
source channels is rounded up to a power of two (sinabs, ``backend/dynapcnn``; its documentation
leaves the rounding of the map out, the code does not).
"""

from __future__ import annotations

from snn_deploy.hardware import Limit
from snn_deploy.mapping.chip_rules import Breach, exceeded
from snn_deploy.mapping.cores import Cores
from snn_deploy.mapping.wiring import Block
from snn_deploy.synapses import Conv2d, as_map, pooled_shape

MEMORIES = {"kernel_words_per_core": "kernel words", "neuron_words_per_core": "neuron words"}


def words(cores: Cores, population: str) -> dict[str, int]:
    """Words of each memory that a population takes."""
    channels, height, width = as_map(cores.graph.shape_of(population))
    kernel = 0
    for wiring in cores.incoming(population):
        synapses = wiring.projection.synapses
        shape = cores.graph.shape_of(wiring.projection.source)
        extent = as_map(pooled_shape(shape, wiring.projection.pool))[1:]
        if isinstance(synapses, Conv2d):
            extent = (synapses.weight.shape[2], synapses.weight.shape[3])
        places = extent[0] * extent[1]
        kernel += wiring.source[0] << (_address_bits(places) + _address_bits(channels))
    neurons = channels << (_address_bits(height) + _address_bits(width))
    return {"kernel_words_per_core": kernel, "neuron_words_per_core": neurons}


def _address_bits(extent: int) -> int:
    """Bits of an index below ``extent``: the logarithm, rounded up."""
    return (extent - 1).bit_length()


def memories(cores: Cores) -> dict[str, list[int]]:
    """What each core has of each memory that the profile limits."""
    limits = cores.target.limits
    return {name: _per_core(cores, limits[name]) for name in MEMORIES if name in limits}


def _per_core(cores: Cores, limit: Limit) -> list[int]:
    return list(limit.per_core) or [limit.value] * (cores.per_chip or len(cores.graph.populations))


def layer_rules(cores: Cores) -> tuple[Breach, ...]:
    """What no assignment of populations to cores can mend."""
    found: list[Breach] = []
    for population in cores.graph.populations:
        name = population.name
        for limit, needed in words(cores, name).items():
            found += exceeded(
                cores, "DR21", name, limit, needed,
                f"it needs {{needed}} {MEMORIES[limit]}, the largest core has {{most}}",
                "fewer channels, a smaller kernel or a smaller map",
            )  # fmt: skip
        kernels = len(cores.incoming(name))
        if kernels > 1:
            limit = "kernel_words_per_core"
            message = f"{kernels} projections end here, a core holds 1 kernel (wall)"
            fix = "join the ways before the synapses"
            source = cores.target.limits[limit].source
            found.append(Breach("DR23", name, message, fix, limit, "wall", kernels, 1, source))
    return tuple(found)


def assign(cores: Cores) -> list[list[Block]] | Breach:
    """One core for each population, or what is in the way.

    A matching of populations and cores (augmenting paths), so that one is found if there is one.
    """
    have = memories(cores)
    needs = {p.name: words(cores, p.name) for p in cores.graph.populations}
    count = min(len(values) for values in have.values())
    fitting = {
        name: [c for c in range(count) if all(need[m] <= have[m][c] for m in have)]
        for name, need in needs.items()
    }
    holder: dict[int, str] = {}

    def settle(name: str, seen: set[int]) -> bool:
        for core in fitting[name]:
            if core not in seen:
                seen.add(core)
                if core not in holder or settle(holder[core], seen):
                    holder[core] = name
                    return True
        return False

    for name in needs:
        if not settle(name, set()):
            return _left_over(cores, name, needs, have, holder)
    blocks: list[list[Block]] = [[] for _ in range(count)]
    for core, name in holder.items():
        channels, height, width = as_map(cores.graph.shape_of(name))
        blocks[core].append(Block(name, (0, channels), (0, height), (0, width)))
    return blocks


def _left_over(
    cores: Cores,
    name: str,
    needs: dict[str, dict[str, int]],
    have: dict[str, list[int]],
    holder: dict[int, str],
) -> Breach:
    """Why a population finds no core, by the memory that is scarcest among the cores left."""
    free = [c for c in range(min(map(len, have.values()))) if c not in holder]
    most = {m: max((have[m][c] for c in free), default=0) for m in have}
    limit = max(have, key=lambda m: needs[name][m] / max(most[m], 1))
    stated = cores.target.limits[limit]
    return Breach(
        "DR22",
        name,
        f"it needs {needs[name][limit]:,} {MEMORIES[limit]}; the largest of {len(free)} cores that "
        f"others leave has {most[limit]:,} ({stated.kind})",
        "fewer channels or smaller maps, here or in what takes the larger cores",
        limit,
        stated.kind,
        needs[name][limit],
        most[limit],
        stated.source,
    )
