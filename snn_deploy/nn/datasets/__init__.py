"""Data sets by name: raw samples in batches, split into training and test once and for all.

A data set NAME lies in ``[data] path``, or else in the folder NAME of the one that the environment
variable SNN_DEPLOY_DATA names. Nothing is downloaded, nothing is unpickled.
"""

from __future__ import annotations

from snn_deploy.nn.datasets.options import DataOptions
from snn_deploy.nn.datasets.registry import READERS, Reader, open_dataset, parse_data
from snn_deploy.nn.datasets.samples import ArraySamples, Dataset, Samples, Split, hold_out

__all__ = [
    "READERS",
    "ArraySamples",
    "DataOptions",
    "Dataset",
    "Reader",
    "Samples",
    "Split",
    "hold_out",
    "open_dataset",
    "parse_data",
]
