"""The layout of SHD and SSC in HDF5: lists of times and of units, one of each for every sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from snn_deploy.events.files import Array, Indices, damaged
from snn_deploy.events.lists import event_list
from snn_deploy.events.streams import EventList

SHD_FIELDS = ("labels", "spikes/times", "spikes/units")


def shd_list(path: Path, found: Mapping[str, Array]) -> tuple[EventList, Indices]:
    """Events and labels of the datasets ``spikes/times`` (seconds), ``spikes/units``, ``labels``.

    Parameters
    ----------
    path : for messages.
    found : what :func:`snn_deploy.events.ragged.read_ragged` gave (Cramer et al. 2022).

    Raises
    ------
    SnnDeployError
        SD401.
    """
    for name in ("labels", "spikes/times.offsets", "spikes/units.offsets"):
        if name not in found:
            raise damaged(
                path, f"it has no {name.replace('.offsets', ', one list for each sample')}"
            )
    offsets = found["spikes/times.offsets"]
    if not np.array_equal(offsets, found["spikes/units.offsets"]):
        raise damaged(path, "spikes/times and spikes/units are not of one length each")
    held = {
        "t": found["spikes/times"],
        "x": found["spikes/units"],
        "offsets": offsets,
        "labels": found["labels"],
    }
    events, labels = event_list(path, held)
    if events.t.dtype.kind != "f":
        raise damaged(path, f"spikes/times of type {events.t.dtype}, not seconds")
    return events, labels
