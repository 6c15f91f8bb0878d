"""Run networks on Intel's Lava. A Python that has Lava executes ``run.py``; snn_deploy does not.

Nothing in here imports snn_deploy, and snn_deploy imports nothing from here: Lava 0.10 needs
Python 3.10 and NumPy below 2, which is not what the rest of the package must run on.
"""
