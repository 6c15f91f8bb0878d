"""Lava processes of the runner: Lava's compiler executes every module that lies beside them."""
