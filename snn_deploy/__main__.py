"""``python -m snn_deploy`` is the command line."""

from snn_deploy.cli import main

if __name__ == "__main__":
    main()
