"""``python -m vdsr_cli`` is ``vdsr``."""

from vdsr_cli.cli.app import main

main()
