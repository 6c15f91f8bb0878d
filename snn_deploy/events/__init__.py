"""Recordings of events that people have, read and binned into packets.

One module reads each format (``nmnist``, ``lists``, ``shd``, ``cameras``), ``reading`` picks it by
the ending of a name, ``binning`` puts events into timesteps and neurons, ``recording`` packs them.
"""

from __future__ import annotations

from snn_deploy.events.recording import Recorded, record

__all__ = ["Recorded", "record"]
